"""``resume=auto``: what there is, or a fresh start."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from r3cnn.cli.earlier_run import is_finished
from r3cnn.cli.initial import check_optimizer, check_options
from r3cnn.cli.train import resume_path
from r3cnn.training.optim import OptimizerSettings


def write_checkpoint(folder: Path, name: str, *, part: float = 1.0) -> Path:
    path = folder / "checkpoints" / name
    path.parent.mkdir(exist_ok=True)
    torch.save({"global_step": 3, "weights": torch.zeros(1000)}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    return path


def test_an_empty_folder_means_a_fresh_start(tmp_path: Path) -> None:
    assert resume_path("auto", tmp_path) is None


def test_the_newest_checkpoint_is_resumed_from(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "best.ckpt")
    assert resume_path("auto", tmp_path) == tmp_path / "checkpoints" / "best.ckpt"
    last = write_checkpoint(tmp_path, "last.ckpt")
    assert resume_path("auto", tmp_path) == last


@pytest.mark.parametrize("part", [0.0, 0.1, 0.99])
def test_a_part_of_a_checkpoint_is_said_and_passed_over(
    tmp_path: Path, part: float, caplog: pytest.LogCaptureFixture
) -> None:
    last = write_checkpoint(tmp_path, "last.ckpt", part=part)
    assert resume_path("auto", tmp_path) is None
    assert f"skipping unreadable checkpoint {last}: it is damaged or no checkpoint" in caplog.text
    best = write_checkpoint(tmp_path, "best.ckpt")
    assert resume_path("auto", tmp_path) == best


@pytest.mark.parametrize("content", [b"", b'{"format": 1, "con', b"[]", b"\xff\xfe"])
def test_a_broken_result_is_named_with_what_can_be_done(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"result\.json is no record of a run: remove it, or name another output_dir"):
        is_finished(OmegaConf.create(), tmp_path)


def test_weights_to_start_from_are_for_the_fresh_start_alone() -> None:
    values = {"init": "elsewhere/best.ckpt", "init_classes": "same", "resume": "auto", "overwrite": False}
    config = OmegaConf.create(values)
    check_options(config)
    config.resume = "last"
    with pytest.raises(ValueError, match="give only one"):
        check_options(config)


def test_a_run_either_goes_on_or_replaces_what_is_there() -> None:
    values = {"init": None, "init_classes": "same", "resume": "auto", "overwrite": True}
    with pytest.raises(ValueError, match="overwrite=true starts over, resume=auto continues: give only one"):
        check_options(OmegaConf.create(values))


@pytest.mark.parametrize(
    ("amsgrad", "frozen", "message"),
    [
        (True, False, "its AdamW kept no 'max_exp_avg_sq', which this run's settings of optimizer.factory need"),
        (False, True, "trained 2 tensors, this run trains 1"),
    ],
)
def test_an_optimizer_that_needs_what_the_checkpoint_lacks_is_refused(
    amsgrad: bool, frozen: bool, message: str
) -> None:
    layer = torch.nn.Linear(2, 1)
    before = torch.optim.AdamW(layer.parameters(), lr=0.1)
    layer(torch.ones(2)).sum().backward()
    before.step()
    layer.bias.requires_grad_(not frozen)
    settings = OptimizerSettings(partial(torch.optim.AdamW, amsgrad=amsgrad), lr=0.1, base_images=1)
    content = {"optimizer_states": [before.state_dict()]}
    with pytest.raises(ValueError, match=message):
        check_optimizer(Path("last.ckpt"), content, settings, layer.parameters(), "AdamW")
