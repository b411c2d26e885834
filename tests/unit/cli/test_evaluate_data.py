from __future__ import annotations

import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from r3cnn.cli.evaluate import data_for, on_this_machine
from r3cnn.training.checkpoint import CheckpointInfo, Preprocessing


def test_classes_are_the_same_however_their_letters_are_composed() -> None:
    info = CheckpointInfo({}, {}, ("\u00e9",), (1,), Preprocessing([1, 2, 3], [4, 5, 6], (800, 1333)))
    config = OmegaConf.create({"image_size": None, "eval_batch_size": None, "workers": None})
    assert data_for(info, {"classes": ["e\u0301"]}, config)["classes"] == ["\u00e9"]


def drawn_in(folder: Path, **recipe: object) -> dict[str, object]:
    shapes = {"_target_": "r3cnn.data.shapes.write_shapes", "_partial_": True, "train": 3, "val": 3, "seed": 0}
    prepare = {**shapes, "folder": str(folder), **recipe}
    return {"root": str(folder), "prepare": prepare, "workers": 10**6, "index_cache": str(folder / "index")}


def test_a_checkpoint_draws_its_data_into_the_cache_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R3CNN_CACHE", str(tmp_path / "cache"))
    here = tmp_path / "here"
    here.mkdir()
    found = on_this_machine(drawn_in(here))
    assert (found["root"], found["prepare"], [*here.iterdir()]) == (str(here), None, [])
    assert found["index_cache"] == str(tmp_path / "cache" / "indices")
    assert 0 < int(str(found["workers"])) <= len(os.sched_getaffinity(0))
    elsewhere = tmp_path / "elsewhere"
    assert on_this_machine(drawn_in(elsewhere))["root"] == str(tmp_path / "cache" / "shapes-3-3-0")
    assert (tmp_path / "cache" / "shapes-3-3-0" / "recipe.json").is_file()
    for other in ({"_target_": "os.mkdir"}, {"train": 10**6}, {"seed": "../x"}, {"val": True}, {"train": 3.0}):
        with pytest.raises(ValueError, match=r"not in .*elsewhere.*data=…"):
            on_this_machine(drawn_in(elsewhere, **other))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "here"]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["shapes-3-3-0"]


@pytest.mark.parametrize(("own", "used"), [(None, [0.0, 4095.0]), ([0, 255], [0, 255])])
def test_images_are_read_with_the_grey_values_of_training_unless_the_data_set_has_its_own(
    own: list[int] | None, used: list[float]
) -> None:
    preprocessing = Preprocessing([1, 2, 3], [4, 5, 6], (800, 1333), [0, 4095])
    info = CheckpointInfo({}, {}, ("a",), (1,), preprocessing)
    config = OmegaConf.create({"image_size": None, "eval_batch_size": None, "workers": None})
    assert data_for(info, {"classes": ["a"], "image_range": own}, config)["image_range"] == used
