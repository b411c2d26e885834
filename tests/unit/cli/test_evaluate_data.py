from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from r3cnn.cli.evaluate import check_drawing_folder, data_for
from r3cnn.training.checkpoint import CheckpointInfo, Preprocessing


def test_classes_are_the_same_however_their_letters_are_composed() -> None:
    info = CheckpointInfo({}, {}, ("\u00e9",), (1,), Preprocessing([1, 2, 3], [4, 5, 6], (800, 1333)))
    config = OmegaConf.create({"image_size": None, "eval_batch_size": None, "workers": None})
    assert data_for(info, {"classes": ["e\u0301"]}, config)["classes"] == ["\u00e9"]


def drawn_in(folder: Path) -> dict[str, object]:
    return {"prepare": {"_target_": "r3cnn.data.shapes.write_shapes", "folder": str(folder)}}


def test_a_checkpoint_draws_its_data_into_the_cache_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R3CNN_CACHE", str(tmp_path / "cache"))
    check_drawing_folder(drawn_in(tmp_path / "cache" / "shapes"))
    check_drawing_folder(drawn_in(tmp_path))
    check_drawing_folder({"prepare": None})
    for folder in (tmp_path / "elsewhere", tmp_path / "cache" / ".." / "elsewhere", tmp_path / "cachet" / "shapes"):
        with pytest.raises(ValueError, match="outside the cache"):
            check_drawing_folder(drawn_in(folder))


@pytest.mark.parametrize(("own", "used"), [(None, [0.0, 4095.0]), ([0, 255], [0, 255])])
def test_images_are_read_with_the_grey_values_of_training_unless_the_data_set_has_its_own(
    own: list[int] | None, used: list[float]
) -> None:
    preprocessing = Preprocessing([1, 2, 3], [4, 5, 6], (800, 1333), [0, 4095])
    info = CheckpointInfo({}, {}, ("a",), (1,), preprocessing)
    config = OmegaConf.create({"image_size": None, "eval_batch_size": None, "workers": None})
    assert data_for(info, {"classes": ["a"], "image_range": own}, config)["image_range"] == used
