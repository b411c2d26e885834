"""A checkpoint evaluated with other loops, other data, and in other hands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from tiny_runs import Cli, Train


def metrics(folder: Path) -> dict[str, dict[str, object]]:
    return json.loads((folder / "metrics.json").read_text())


def test_more_loops_than_trained_are_reported_and_the_first_ones_agree_with_training(
    trained: Path, cli: Cli, tmp_path: Path
) -> None:
    cli("evaluate", f"checkpoint={trained}/checkpoints/last.ckpt", "eval_loops=5", f"output_dir={tmp_path}")
    found = metrics(tmp_path)["loops"]
    assert list(found) == ["1", "2", "3", "4", "5"]
    assert {loop: found[loop] for loop in "123"} == metrics(trained)["loops"]
    assert (tmp_path / "detections.json").is_file()
    assert OmegaConf.load(tmp_path / "config.yaml").data.classes == ["circle", "square", "triangle"]


def test_without_further_arguments_it_reproduces_the_metrics_of_training(
    trained: Path, cli: Cli, tmp_path: Path
) -> None:
    cli("evaluate", f"checkpoint={trained}/checkpoints/last.ckpt", f"output_dir={tmp_path}")
    assert metrics(tmp_path) == metrics(trained)


def test_another_data_set_is_read_with_the_preprocessing_of_training(trained: Path, cli: Cli, tmp_path: Path) -> None:
    other = ("data=shapes", "data.prepare.train=3", "data.prepare.val=4", "data.prepare.seed=5", "data.workers=0")
    checkpoint = f"checkpoint={trained}/checkpoints/last.ckpt"
    cli("evaluate", checkpoint, *other, "trainer.limit_val_batches=1", "pictures=0", f"output_dir={tmp_path}")
    config = OmegaConf.load(tmp_path / "config.yaml")
    assert config.data.image_size == [64, 96]
    assert metrics(tmp_path)["images"]["total"] == 4


def test_a_data_set_with_other_classes_is_refused_by_name(trained: Path, cli: Cli, tmp_path: Path) -> None:
    checkpoint = f"checkpoint={trained}/checkpoints/last.ckpt"
    with pytest.raises(ValueError, match=r"other classes.*'nucleus'.*'circle', 'square', 'triangle'"):
        cli("evaluate", checkpoint, "data=nuclei", f"output_dir={tmp_path}")


@pytest.mark.slow
def test_a_cascade_is_not_asked_for_more_loops_without_saying_which_head(
    train_tiny: Train, cli: Cli, tmp_path: Path
) -> None:
    folder = train_tiny("recursion=htc", "trainer.max_steps=1", "pictures=0")
    call = ("evaluate", f"checkpoint={folder}/checkpoints/last.ckpt", "pictures=0", f"output_dir={tmp_path}")
    with pytest.raises(ValueError, match=r"eval_loops=4.*3 loops with 3 heads.*eval_heads=\[0, 1, 2, 2\]"):
        cli(*call, "eval_loops=4")
    cli(*call, "eval_heads=[0,1,2,2]")
    assert list(metrics(tmp_path)["loops"]) == ["1", "2", "3", "4"]


def test_predict_writes_overlays_and_results_that_name_their_file(trained: Path, cli: Cli, tmp_path: Path) -> None:
    data = OmegaConf.load(trained / "config.yaml").data
    photos = tmp_path / "photos"
    shutil.copytree(Path(data.root) / data.val.images, photos)
    (photos / "notes.txt").write_text("not an image")
    checkpoint, out = f"checkpoint={trained}/checkpoints/last.ckpt", tmp_path / "out"
    cli("predict", checkpoint, f"source={photos}", "device=cpu", "score_threshold=0.0", f"output_dir={out}")
    entries = json.loads((out / "detections.json").read_text())
    images = sorted(path.name for path in photos.iterdir() if path.suffix != ".txt")
    assert {entry["image_id"] for entry in entries} <= set(range(1, len(images) + 1))
    assert all(entry["file_name"] == images[entry["image_id"] - 1] for entry in entries)
    assert sorted(path.name for path in (out / "pictures").iterdir()) == [f"{name}.png" for name in images]


def test_predict_does_the_other_images_before_it_fails_for_a_file_that_it_cannot_read(
    trained: Path, cli: Cli, tmp_path: Path
) -> None:
    data = OmegaConf.load(trained / "config.yaml").data
    photos, out = tmp_path / "photos", tmp_path / "out"
    shutil.copytree(Path(data.root) / data.val.images, photos)
    images = sorted(path.name for path in photos.iterdir())
    (photos / "00000.png").write_text("broken")
    checkpoint = f"checkpoint={trained}/checkpoints/last.ckpt"
    with pytest.raises(ValueError, match=r"1 of 4 files could not be read as images: 00000\.png"):
        cli("predict", checkpoint, f"source={photos}", "device=cpu", "score_threshold=0.0", f"output_dir={out}")
    entries = json.loads((out / "detections.json").read_text())
    assert {entry["image_id"] for entry in entries} <= {2, 3, 4}
    assert entries
    assert sorted(path.name for path in (out / "pictures").iterdir()) == [f"{name}.png" for name in images]
    assert "00000.png: cannot be read as an image" in (out / "predict.log").read_text()


def test_three_lines_of_python_find_the_objects_that_evaluation_found(trained: Path) -> None:
    from r3cnn import Predictor

    predictor = Predictor.from_checkpoint(trained / "checkpoints/last.ckpt", device="cpu")
    expected = json.loads((trained / "detections.json").read_text())
    data = OmegaConf.load(trained / "config.yaml").data
    content = json.loads((Path(data.root) / data.val.annotations).read_text())
    image = next(image for image in content["images"] if image["id"] == expected[0]["image_id"])
    found = predictor(Path(data.root) / data.val.images / image["file_name"], image["id"])
    entries = [entry for entry in expected if entry["image_id"] == image["id"]]
    assert [entry["category_id"] for entry in found] == [entry["category_id"] for entry in entries]
    scores = torch.tensor([[entry["score"] for entry in entries], [entry["score"] for entry in found]])
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-4, atol=1e-5)
    assert {entry["category_name"] for entry in found} <= {"circle", "square", "triangle"}


def test_predict_says_when_there_is_nothing_to_look_at(trained: Path, cli: Cli, tmp_path: Path) -> None:
    checkpoint = f"checkpoint={trained}/checkpoints/last.ckpt"
    with pytest.raises(FileNotFoundError, match="no such image or folder"):
        cli("predict", checkpoint, f"source={tmp_path}/absent", f"output_dir={tmp_path}")
