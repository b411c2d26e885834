"""A head that lives in somebody else's package."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from tiny_runs import Cli, Train

HEAD = '''
from r3cnn.roi.box_heads import SharedFCBoxHead


class NarrowHead(SharedFCBoxHead):
    """One of the library's heads under another name."""
'''
YAML = """
_target_: strangers.heads.NarrowHead
_partial_: true
in_channels: ${channels}
roi_size: ${roi_size}
num_classes: ${num_classes}
class_agnostic: true
hidden: 8
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `strangers` with a head and its configuration, importable for this test."""
    folder = tmp_path / "strangers"
    (folder / "conf" / "box_head").mkdir(parents=True)
    for init in (folder, folder / "conf", folder / "conf" / "box_head"):
        (init / "__init__.py").touch()
    (folder / "heads.py").write_text(HEAD)
    (folder / "conf" / "box_head" / "narrow.yaml").write_text(YAML)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return folder


@pytest.mark.slow
def test_a_head_of_a_users_package_trains_and_its_checkpoint_needs_that_package_trusted(
    package: Path, train_tiny: Train, cli: Cli, tmp_path: Path
) -> None:
    search = "hydra.searchpath=[pkg://strangers.conf]"
    run = train_tiny(search, "box_head=narrow", "box_head.hidden=8", "trainer.max_steps=2", "pictures=0")
    checkpoint = run / "checkpoints" / "last.ckpt"
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert {tensor.shape[0] for name, tensor in weights.items() if "box_heads" in name} >= {8}
    call = ("evaluate", f"checkpoint={checkpoint}", "pictures=0", f"output_dir={tmp_path}/out")
    with pytest.raises(ValueError, match=r"strangers\.heads\.NarrowHead.*trusted_packages=\[strangers\]"):
        cli(*call)
    for trusted in ("[strangers]", "strangers"):
        cli(*call, f"trusted_packages={trusted}")
        assert json.loads((tmp_path / "out" / "metrics.json").read_text())["images"]["seen"] == 3
        (tmp_path / "out" / "metrics.json").unlink()
