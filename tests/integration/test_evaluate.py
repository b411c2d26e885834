"""A checkpoint evaluated with other loops, other data, and in other hands."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from tiny_runs import Cli, Train
from torch import Tensor

from r3cnn.structures import Detections, Target


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


def test_one_evaluation_tells_other_fusion_rules_and_recall_and_both_backends_agree(
    trained: Path, cli: Cli, tmp_path: Path
) -> None:
    options = ("evaluation.score_fusions=[max,last]", "evaluation.recall_at=[5,10]", "evaluation.verify_backend=true")
    cli("evaluate", f"checkpoint={trained}/checkpoints/last.ckpt", *options, "pictures=0", f"output_dir={tmp_path}")
    found = metrics(tmp_path)
    assert list(found["score_fusions"]) == ["last", "max"]
    for loops in found["score_fusions"].values():
        assert list(loops) == ["1", "2", "3"]
        assert loops["1"] == found["loops"]["1"]
    assert list(found["proposal_recall"]) == ["rpn", "1", "2", "3"]
    for stage in found["proposal_recall"].values():
        assert 0 <= stage["ar5"] <= stage["ar10"] <= 1
    log = (tmp_path / "evaluate.log").read_text()
    assert "score_fusion=last (%)" in log
    assert "AR@10" in log


VIEWS = ("evaluation.tta.flip=true", "evaluation.tta.scales=[1.0,1.25]")


def found_in(folder: Path) -> list[dict[str, object]]:
    return json.loads((folder / "detections.json").read_text())


@pytest.fixture(scope="module")
def viewed(trained: Path, cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Detections]]:
    """Folder of an evaluation of four views of each image, one at a time, and what its pictures show by file name."""
    from r3cnn.cli import outcome

    folder, draw = tmp_path_factory.mktemp("viewed"), outcome.draw_predictions
    drawn: dict[str, Detections] = {}

    def note(image: Tensor, found: Detections, target: Target, names: Sequence[str], path: Path) -> None:
        drawn[path.name] = found
        draw(image, found, target, names, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outcome, "draw_predictions", note)
        checkpoint = f"checkpoint={trained}/checkpoints/last.ckpt"
        cli("evaluate", checkpoint, *VIEWS, "eval_batch_size=1", "pictures=3", f"output_dir={folder}")
    return folder, drawn


def test_views_of_an_image_are_averaged_after_every_loop(
    trained: Path, viewed: tuple[Path, dict[str, Detections]]
) -> None:
    found = found_in(viewed[0])
    assert len(found) > 0
    assert found != found_in(trained)
    assert list(metrics(viewed[0])["loops"]) == ["1", "2", "3"]


def test_pictures_of_an_evaluation_show_what_all_views_found(viewed: tuple[Path, dict[str, Detections]]) -> None:
    folder, drawn = viewed
    assert len(drawn) == 3
    for name, shown in drawn.items():
        assert (folder / "pictures" / name).is_file()
        entries = [entry for entry in found_in(folder) if name == f"{entry['image_id']}_predictions.png"]
        assert shown.scores.tolist() == [entry["score"] for entry in entries]


def test_predict_finds_in_several_views_what_evaluation_finds_in_them(
    trained: Path, viewed: tuple[Path, dict[str, Detections]], cli: Cli, tmp_path: Path
) -> None:
    data = OmegaConf.load(trained / "config.yaml").data
    content = json.loads((Path(data.root) / data.val.annotations).read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    call = (f"source={Path(data.root) / data.val.images}", "device=cpu", f"output_dir={tmp_path}")
    cli("predict", f"checkpoint={trained}/checkpoints/last.ckpt", *VIEWS, *call)
    expected, found = found_in(viewed[0]), found_in(tmp_path)
    assert len(found) == len(expected) > 0
    for name in names.values():
        here = [entry for entry in found if entry["file_name"] == name]
        there = [entry for entry in expected if names[entry["image_id"]] == name]
        for key in ("category_id", "score", "bbox", "segmentation"):
            assert [entry[key] for entry in here] == [entry[key] for entry in there]


def test_predict_looks_at_images_of_another_size_if_asked_to(trained: Path, cli: Cli, tmp_path: Path) -> None:
    data = OmegaConf.load(trained / "config.yaml").data
    source = next((Path(data.root) / data.val.images).iterdir())
    call = ("predict", f"checkpoint={trained}/checkpoints/last.ckpt", f"source={source}", "device=cpu")
    sizes = {"as_trained": "null", "same": "[64,96]", "other": "[96,128]"}
    for name, size in sizes.items():
        cli(*call, f"image_size={size}", f"output_dir={tmp_path}/{name}")
    as_trained, same, other = (found_in(tmp_path / name) for name in sizes)
    assert as_trained == same != other
    with pytest.raises(ValueError, match=r"image_size is \[128, 96\]: \[short, long\] is needed"):
        cli(*call, "image_size=[128,96]", f"output_dir={tmp_path}/turned")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("evaluation.score_fusions=[median]", r"score_fusions is \['median'\]: .* one of mean_logits"),
        ("evaluation.tta.scales=[]", r"evaluation\.tta\.scales is \[\]: a list of at least 1 "),
        ("evaluation.recall_at=[100,10]", "recall_at must ascend"),
        ("evaluation.timeout_minutes=0", "timeout_minutes is 0: a number in"),
        ("trainer.limit_val_batches=0", "trainer.limit_val_batches is 0, with which nothing is evaluated"),
        ("trainer.limit_val_batches=0.01", r"limit_val_batches is 0.01 of \d+ batches, which is none"),
        ("trainer.precision=fp16", "trainer.precision is 'fp16': .*32-true"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    trained: Path, cli: Cli, tmp_path: Path, option: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        cli("evaluate", f"checkpoint={trained}/checkpoints/last.ckpt", option, f"output_dir={tmp_path}")
    assert not [path.name for path in tmp_path.iterdir() if path.suffix in (".yaml", ".json")]


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


def test_predict_leaves_out_what_it_cannot_read_and_tells_images_of_the_same_name_apart(
    trained: Path, cli: Cli, tmp_path: Path
) -> None:
    data = OmegaConf.load(trained / "config.yaml").data
    photos, out = tmp_path / "photos", tmp_path / "out"
    shutil.copytree(Path(data.root) / data.val.images, photos)
    images = sorted(photos.iterdir())
    (photos / "deep").mkdir()
    shutil.copy(images[0], photos / "deep")
    Image.open(images[0]).save(photos / "deep" / f"{images[0].stem}.jpg")
    (photos / "00000.png").write_text("broken")
    (photos / "00000.mpeg").write_text("no image")
    call = ("predict", f"checkpoint={trained}/checkpoints/last.ckpt", "device=cpu", "score_threshold=0.0")
    cli(*call, f"source=[{photos},{photos}/deep,{images[1]}]", "pictures=2", f"output_dir={out}")
    entries = json.loads((out / "detections.json").read_text())
    names = ["00000.png", *(path.name for path in images), f"deep/{images[0].stem}.jpg", f"deep/{images[0].name}"]
    assert {(entry["image_id"], entry["file_name"]) for entry in entries} == set(enumerate(names[1:], start=2))
    by_name = {name: [entry["score"] for entry in entries if entry["file_name"] == name] for name in names}
    assert by_name[f"deep/{images[0].name}"] == by_name[images[0].name]
    drawn = {path.relative_to(out / "pictures").as_posix() for path in (out / "pictures").rglob("*.png")}
    assert drawn == {f"{path.name}.png" for path in images[:2]}
    text = (out / "predict.log").read_text()
    assert "00000.png: cannot be read as an image: unknown image format" in text
    assert "left out 1 of 6 files, which cannot be read: ['00000.png']" in text
    assert "files: no images: 00000.mpeg" in text
    cli(*call, f"source={photos}", "recursive=true", "pictures=0", f"output_dir={tmp_path}/all")
    assert json.loads((tmp_path / "all/detections.json").read_text()) == entries
    assert not (tmp_path / "all/pictures").exists()
    with pytest.raises(ValueError, match=r"none of 1 files can be read as an image: .*00000\.png: cannot be"):
        cli(*call, f"source={photos}/00000.png", f"output_dir={tmp_path}/none")
    with pytest.raises(ValueError, match="pictures is -1: a whole number >= 0 or null is needed"):
        cli(*call, f"source={photos}", "pictures=-1", f"output_dir={tmp_path}/none")


def test_predict_reads_grey_values_as_it_is_told_or_as_in_training(trained: Path, cli: Cli, tmp_path: Path) -> None:
    from r3cnn import Predictor

    data = OmegaConf.load(trained / "config.yaml").data
    photo = next((Path(data.root) / data.val.images).iterdir())
    grey = np.asarray(Image.open(photo).convert("L"))
    Image.fromarray(grey).save(tmp_path / "8.png")
    Image.fromarray(grey.astype(np.uint16) * 16 + 5).save(tmp_path / "12.png")
    call = ("predict", f"checkpoint={trained}/checkpoints/last.ckpt", "device=cpu", f"source={tmp_path}")
    for name, option in (("as_trained", "null"), ("twelve", "[5,4085]")):
        cli(*call, f"image_range={option}", "pictures=0", f"output_dir={tmp_path}/{name}")

    def scores(folder: str, name: str) -> list[float]:
        return [float(str(entry["score"])) for entry in found_in(tmp_path / folder) if entry["file_name"] == name]

    assert scores("twelve", "12.png") == scores("twelve", "8.png") == scores("as_trained", "8.png") != []
    assert scores("as_trained", "12.png") != scores("twelve", "12.png")
    checkpoint = torch.load(trained / "checkpoints/last.ckpt", weights_only=True)
    checkpoint["r3cnn"]["preprocessing"]["image_range"] = [5, 4085]
    torch.save(checkpoint, tmp_path / "twelve.ckpt")
    predictor = Predictor.from_checkpoint(tmp_path / "twelve.ckpt", device="cpu")
    assert [entry["score"] for entry in predictor(tmp_path / "12.png")] == scores("twelve", "12.png")
    Image.fromarray(grey).resize((200, 100)).save(tmp_path / "large.png")
    with pytest.raises(ValueError, match=r"large\.png: .*max_megapixels=0\.01"):
        Predictor.from_checkpoint(tmp_path / "twelve.ckpt", device="cpu", max_megapixels=0.01)(tmp_path / "large.png")
    with pytest.raises(ValueError, match=r"image_size=\[64, 96\], 0\.006144 megapixels, and 0\.001 are the most"):
        Predictor.from_checkpoint(tmp_path / "twelve.ckpt", device="cpu", max_megapixels=0.001)


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


def test_a_predictor_without_a_view_is_refused(trained: Path) -> None:
    from r3cnn import Predictor

    with pytest.raises(ValueError, match="views is empty: at least one is needed"):
        Predictor.from_checkpoint(trained / "checkpoints/last.ckpt", device="cpu", views=())


def test_predict_says_when_there_is_nothing_to_look_at(trained: Path, cli: Cli, tmp_path: Path) -> None:
    checkpoint = f"checkpoint={trained}/checkpoints/last.ckpt"
    with pytest.raises(FileNotFoundError, match="no such image or folder"):
        cli("predict", checkpoint, f"source={tmp_path}/absent", f"output_dir={tmp_path}")


LEAVE_AT_ONCE = ("early_exit=settled", "early_exit.background_above=0")


@pytest.fixture(scope="module")
def left_at_once(trained: Path, cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an evaluation that all RoIs leave after the first loop."""
    folder = tmp_path_factory.mktemp("left")
    checkpoint = f"checkpoint={trained}/checkpoints/last.ckpt"
    cli("evaluate", checkpoint, *LEAVE_AT_ONCE, "eval_batch_size=1", "pictures=0", f"output_dir={folder}")
    return folder


def test_an_evaluation_that_all_rois_leave_after_loop_one_finds_what_loop_one_finds(
    trained: Path, left_at_once: Path
) -> None:
    assert list(metrics(left_at_once)["loops"]) == ["1", "2", "3"]
    plain, last, left = (
        [entry["score"] for entry in json.loads(file.read_text())]
        for file in (trained / "detections_loop1.json", trained / "detections.json", left_at_once / "detections.json")
    )
    assert left == pytest.approx(plain, rel=1e-4)
    assert left != pytest.approx(last, rel=1e-4)


def test_predict_and_the_predictor_run_in_the_modes_of_the_evaluation(
    trained: Path, left_at_once: Path, cli: Cli, tmp_path: Path
) -> None:
    from r3cnn import Predictor
    from r3cnn.inference_modes import InferenceModes
    from r3cnn.roi.early_exit import EarlyExit

    checkpoint, data = trained / "checkpoints/last.ckpt", OmegaConf.load(trained / "config.yaml").data
    source = Path(data.root) / data.val.images
    cli(
        "predict",
        f"checkpoint={checkpoint}",
        *LEAVE_AT_ONCE,
        f"source={source}",
        "device=cpu",
        f"output_dir={tmp_path}",
    )
    found, expected = found_in(tmp_path), found_in(left_at_once)
    assert [entry["score"] for entry in found] == [entry["score"] for entry in expected] != []
    rule = EarlyExit(background_above=0.0, score_change=0.02, box_iou=0.95)
    leaving = Predictor.from_checkpoint(checkpoint, device="cpu", modes=InferenceModes(rule))
    one_loop = Predictor.from_checkpoint(checkpoint, device="cpu", eval_loops=1)
    path = source / str(found[0]["file_name"])
    assert [len(predictor.detect(path)[0]) for predictor in (leaving, one_loop)] == [3, 1]
    scores = [[entry["score"] for entry in predictor(path)] for predictor in (leaving, one_loop)]
    assert scores[0] == [entry["score"] for entry in found if entry["file_name"] == path.name]
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)


def test_an_evaluation_in_bf16_is_near_the_plain_one_and_says_where_it_cannot_be_compiled(
    trained: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no working C++ compiler")

    monkeypatch.setattr(torch, "compile", refuse)
    checkpoint = f"checkpoint={trained}/checkpoints/last.ckpt"
    cli("evaluate", checkpoint, "precision=bf16", "compile=true", "pictures=0", f"output_dir={tmp_path}")
    found, plain = found_in(tmp_path), found_in(trained)
    assert found != plain
    assert max(entry["score"] for entry in found) == pytest.approx(max(entry["score"] for entry in plain), rel=0.05)
    assert "the network runs as it is: no working C++ compiler" in (tmp_path / "evaluate.log").read_text()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("precision=fp8", "precision must be one of"),
        ("compile=yes", "compile is 'yes': true or false is needed"),
        ("early_exit=settled early_exit.box_iou=2", r"early_exit\.box_iou must be in \[0, 1\], got 2"),
    ],
)
def test_a_mode_that_makes_no_sense_is_refused_before_anything_is_evaluated(
    trained: Path, cli: Cli, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        cli("evaluate", f"checkpoint={trained}/checkpoints/last.ckpt", *override.split(), f"output_dir={tmp_path}")
    assert not (tmp_path / "metrics.json").exists()
