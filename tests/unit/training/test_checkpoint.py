from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

from r3cnn.cli.configs import config_folder, plain, register_resolvers
from r3cnn.training.checkpoint import (
    CheckpointInfo,
    Preprocessing,
    build_model,
    load_checkpoint,
    restore_model,
    save_weights,
)

INFO = CheckpointInfo(
    model={"_target_": "r3cnn.detector.RCNN"},
    data={"_target_": "r3cnn.data.datamodule.CocoDataModule", "classes": ["a", "b"]},
    classes=("a", "b"),
    category_ids=(1, 7),
    preprocessing=Preprocessing([1, 2, 3], [4, 5, 6], (800, 1333), [0, 4095]),
)
MATCHER = {"foreground": 0.7, "background": 0.3, "low_quality": 0.3}


class Harmful:
    """Pickles into a call that leaves a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


def save(path: Path, **changes: object) -> Path:
    content = {"r3cnn": INFO.to_dict(), "state_dict": {"model.w": torch.ones(2), "metric.x": torch.zeros(1)}}
    torch.save(content | changes, path)
    return path


def test_what_is_written_reads_back_and_only_the_networks_weights_are_given(tmp_path: Path) -> None:
    info, weights = load_checkpoint(save(tmp_path / "a.ckpt"))
    assert info == INFO
    assert list(weights) == ["w"]
    assert INFO.to_dict()["preprocessing"] == {
        "mean": [1.0, 2.0, 3.0],
        "std": [4.0, 5.0, 6.0],
        "image_size": [800, 1333],
        "image_range": [0.0, 4095.0],
    }


def test_a_checkpoint_from_before_image_ranges_has_none(tmp_path: Path) -> None:
    before = INFO.to_dict()
    before["preprocessing"] = {"mean": [1, 2, 3], "std": [4, 5, 6], "image_size": [800, 1333]}
    info, _ = load_checkpoint(save(tmp_path / "a.ckpt", r3cnn=before))
    assert info.preprocessing == Preprocessing([1, 2, 3], [4, 5, 6], (800, 1333), None)


def test_a_checkpoint_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    path = save(tmp_path / "a.ckpt", extra=Harmful(tmp_path / "trace"))
    with pytest.raises(ValueError, match="could run code"):
        load_checkpoint(path)
    assert not (tmp_path / "trace").exists()


def test_a_network_from_a_strange_package_is_refused(tmp_path: Path) -> None:
    harmful = {**INFO.to_dict(), "model": {"_target_": "os.mkdir", "path": str(tmp_path / "trace")}}
    with pytest.raises(ValueError, match=r"'os\.mkdir' is not trusted"):
        restore_model(save(tmp_path / "a.ckpt", r3cnn=harmful))
    assert not (tmp_path / "trace").exists()


def test_a_trusted_target_that_is_no_detector_is_refused(tmp_path: Path) -> None:
    strange = {**INFO.to_dict(), "model": {"_target_": "r3cnn.ops.matching.Matcher"} | MATCHER}
    with pytest.raises(ValueError, match=r"a\.ckpt: .* builds a Matcher, a RCNN is needed"):
        restore_model(save(tmp_path / "a.ckpt", r3cnn=strange))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"r3cnn": {"format": 99}}, "format 99"),
        ({"r3cnn": {"format": 1}}, "format 1, this version reads 2.*other names"),
        ({"r3cnn": {"format": 2}}, "missing required field `model`"),
        ({"r3cnn": None}, "not written by `r3cnn train`"),
        ({"r3cnn": {**INFO.to_dict(), "classes": "ab"}}, r"Expected `array`, got `str` - at `\$\.classes`"),
        ({"r3cnn": {**INFO.to_dict(), "category_ids": [3]}}, "category_ids is"),
        ({"r3cnn": {**INFO.to_dict(), "category_ids": [True, 3]}}, r"at `\$\.category_ids\[0\]`"),
        ({"r3cnn": {**INFO.to_dict(), "preprocessing": {"mean": [1, 2, 3]}}}, "missing required field `std`"),
        ({"r3cnn": {**INFO.to_dict(), "preprocessing": [1, 2, 3]}}, "Expected `object`, got `array`"),
    ],
)
def test_an_incomplete_checkpoint_says_what_it_lacks(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_checkpoint(save(tmp_path / "a.ckpt", **changes))


def test_files_that_are_no_checkpoints_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.ckpt"):
        load_checkpoint(tmp_path / "text.ckpt")
    with pytest.raises(FileNotFoundError, match=r"absent\.ckpt"):
        load_checkpoint(tmp_path / "absent.ckpt")


@pytest.mark.parametrize(
    "values",
    [
        ([1, 2], [1, 1, 1], (8, 8)),
        ([1, 2, 3], [1, 0, 1], (8, 8)),
        ([1, 2, 3], [1, 1, 1], (8,)),
        ([1, 2, 3], [1, 1, 1], (9, 8)),
        ([1, 2, 3], [1, 1, 1], (8, 2**30)),
        ([1, 2, 3], [1, 1, 1], (8, 8), 5),
    ],
)
def test_preprocessing_out_of_range_is_refused(values: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"need|must be"):
        Preprocessing(*values)


def test_images_are_not_brought_to_the_size_of_a_strange_checkpoint_where_that_takes_all_memory() -> None:
    Preprocessing([1, 2, 3], [1, 2, 3], (6000, 10000)).check_image_size()
    large = Preprocessing([1, 2, 3], [1, 2, 3], (20_000, 30_000))
    large.check_image_size(max_megapixels=None)
    with pytest.raises(ValueError, match=r"image_size=\[20000, 30000\], 600 megapixels, and 65 are the most"):
        large.check_image_size()


def test_a_network_whose_weights_fit_and_whose_parts_do_not_is_refused_by_part(tmp_path: Path) -> None:
    register_resolvers()
    words = ["experiment=demo", "channels=16", "fc_channels=32", "num_mask_convs=1", "mask_iou_head=non_local"]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        network = plain(compose("train", [*words, "output_dir=out"]).model)
    info = CheckpointInfo(network, {}, ("a", "b", "c"), (1, 2, 3), INFO.preprocessing)
    path, weights = tmp_path / "a.ckpt", build_model(network, trusted=None).state_dict()
    save_weights(path, info, weights)
    assert restore_model(path)[0].num_classes == 3
    network["roi_heads"]["mask_branch"]["extractor"]["output_size"] = 7  # type: ignore[index]
    save_weights(path, info, weights)
    with pytest.raises(ValueError, match=r"a\.ckpt: its network cannot be built: model\.roi_heads\.mask_branch: "):
        restore_model(path)
