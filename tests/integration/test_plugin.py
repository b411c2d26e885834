"""A head that lives in somebody else's package."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_runs import Cli, Train

ROOT = Path(__file__).parents[2]
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


def test_the_head_of_the_readme_works_with_the_console_script_in_a_folder_of_its_own(tmp_path: Path) -> None:
    section = (ROOT / "README.md").read_text().split("## Add a head")[1].split("\n## ")[0]
    code, yaml = (re.search(rf"```{kind}\n(.*?)```", section, re.DOTALL) for kind in ("python", "yaml"))
    for name, block in (("my_heads/wide.py", code), ("my_conf/box_head/wide.yaml", yaml)):
        assert name in section
        assert block is not None
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(block[1])
    arguments = ["experiment=r3cnn_naive", "box_head=wide", "hydra.searchpath=[file://my_conf]"]
    assert " ".join(arguments[:2]) in section
    script = Path(sys.executable).parent / "r3cnn"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [script, "params", *arguments, "format=json"], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    hidden, inputs, classes = 4096, 256 * 7 * 7, 80
    expected = (inputs + 1) * hidden + (hidden + 1) * (classes + 1 + 4)
    assert json.loads(done.stdout)["submodules"]["roi_head.bbox_head"] == expected
