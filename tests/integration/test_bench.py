"""`r3cnn bench` at its smallest size: the form of what it prints and that both sides do the same work, never times."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from pycocotools import mask as coco_mask
from tiny_runs import Cli

from r3cnn.benchmarks.masks import draw_masks, torchvision_rles
from r3cnn.benchmarks.memory import FLAT
from r3cnn.benchmarks.torchvision import torchvision_inputs
from r3cnn.cli.bench import bench_of
from r3cnn.cli.configs import config_folder, register_resolvers
from r3cnn.cli.main import start
from r3cnn.evaluation.paste import paste_and_encode

KEYS = {"name", "ours", "baseline", "ratio", "spread", "unit", "target"}
TINY = "sizes.tiny"
# Of every sweep and list the least, so that all of the command runs in seconds; `make bench` runs the rest.
LEAST = (
    "systems=[htc]",
    "loops.counts=[1,2]",
    "step_parts.systems=[r3cnn_naive]",
    "batch_sizes=[1]",
    f"{TINY}.scale.sweeps={{image_size:[],batch_size:[1,2],rois:[],loops:[],classes:[],objects:[]}}",
)


@pytest.fixture(scope="module")
def everything(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """What `r3cnn bench` prints with little work, and the folder it ran in."""
    folder = tmp_path_factory.mktemp("bench")
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.chdir(folder)
        patch.setenv("R3CNN_DATA", str(folder))
        cli("bench", "size=tiny", "format=json", *LEAST)
    assert list(folder.iterdir()) == []
    return json.loads(out.getvalue())


def named(printed: dict[str, object], *words: str) -> list[dict[str, object]]:
    """Rows whose names hold all of the words."""
    return [row for row in printed["rows"] if all(word in row["name"] for word in words)]


@pytest.mark.slow
def test_bench_prints_one_json_object_of_all_parts_and_writes_nothing(everything: dict[str, object]) -> None:
    assert everything.keys() == {"rows", "machine"}
    assert everything["machine"]["measured"].keys() == {"train", "infer", "loops", "parts", "scale"}
    for row in everything["rows"]:
        assert row.keys() == KEYS
        if row["spread"] is None:
            assert row["ratio"] == (row["ours"] / row["baseline"] if row["baseline"] else None)
    names = [row["name"] for row in everything["rows"]]
    assert len(set(names)) == len(names)


@pytest.mark.slow
def test_rows_have_the_targets_of_the_project(everything: dict[str, object]) -> None:
    targets = [(row["name"].split(",")[0], row["unit"], row["target"]) for row in everything["rows"] if row["target"]]
    assert targets == [
        ("training step", "s", 1.0),
        ("training step", "x", 1.1),
        ("peak training memory", "MB", 1.35),
        ("peak training memory", "MB", 1.15),
        ("inference", "s", 0.85),
        ("inference", "x", 1.1),
    ]


@pytest.mark.slow
def test_time_ratio_stands_beside_the_ratio_of_counted_operations(everything: dict[str, object]) -> None:
    for part, task in (("train", "training step"), ("infer", "inference")):
        (ratios,) = named(everything, task, "htc / mask_rcnn, time ratio beside FLOP ratio")
        (time,) = (row for row in named(everything, task, "htc / mask_rcnn") if row["name"].endswith(", time"))
        found = everything["machine"]["measured"][part]
        figures = {each["name"]: each for each in found if "torchvision" not in each["comparison"]}
        assert ratios["baseline"] == figures["htc"]["flops"] / figures["mask_rcnn"]["flops"] > 1
        assert (ratios["ours"], ratios["spread"]) == (time["ratio"], time["spread"])
        assert time["ours"] == figures["htc"]["seconds"] == pytest.approx(1 / figures["htc"]["images_per_second"])


@pytest.mark.slow
def test_both_sides_find_as_many_objects_as_they_may(everything: dict[str, object]) -> None:
    infer = everything["machine"]["measured"]["infer"]
    assert [each["name"] for each in infer] == ["mask_rcnn", "torchvision", "htc", "mask_rcnn"]
    assert {each["outcome"] for each in infer} == {5}


@pytest.mark.slow
def test_two_loops_take_more_operations_than_one(everything: dict[str, object]) -> None:
    rows = named(everything, "r3cnn_naive, loops: 2 / 1, time ratio beside FLOP ratio")
    assert len(rows) == 2
    assert all(row["baseline"] > 1 for row in rows)


@pytest.mark.slow
def test_shares_of_a_step_add_up_and_torchvision_has_the_same_parts(everything: dict[str, object]) -> None:
    for task in ("training step", "inference"):
        shares = named(everything, task, "/ all")
        inside = named(everything, task, "of all loops / all")  # the RoI heads
        assert len(inside) == 2
        assert sum(row["ratio"] for row in shares) - sum(row["ratio"] for row in inside) == pytest.approx(1)
        parts = {row["name"].split(", ")[-1] for row in named(everything, task, "/ torchvision")}
        assert {"normalisation", "backbone", "pyramid", "RPN", "RoI heads"} <= parts


@pytest.mark.slow
def test_a_batch_twice_as_large_takes_twice_the_operations(everything: dict[str, object]) -> None:
    rows = named(everything, "batch_size: 2 / 1, time ratio beside FLOP ratio")
    assert [row["baseline"] for row in rows] == pytest.approx([2, 2], rel=0.02)


@pytest.mark.slow
def test_the_reference_alone_is_compared_with_torchvision_in_bf16_too(
    cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    cli("bench", "infer", "size=tiny", "format=json", "precision=[bf16]", "systems=[mask_rcnn]")
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["name"] == "inference, image to RLE, bf16, 2 x 96x64: mask_rcnn / torchvision"


@pytest.mark.slow
def test_torchvision_gets_our_weights_and_our_frozen_layers() -> None:
    register_resolvers()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("bench", ["size=tiny"])
        bench = bench_of(config)
        side, theirs = bench.beside_torchvision(bench.cases[0]).values()
    network, model = theirs.eval().network, side.network
    images, targets = torchvision_inputs(side.workload)
    with torch.no_grad():
        ours = model.rpn.head(model.features(side.workload.normalized()))
        batch, _ = network.transform(images)
        theirs = network.rpn.head(list(network.backbone(batch.tensors).values()))
    for our_maps, their_maps in zip(ours, theirs, strict=True):
        for our_map, their_map in zip(our_maps, their_maps, strict=True):
            torch.testing.assert_close(our_map, their_map, rtol=1e-3, atol=1e-4)
    frozen = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    assert {name.split(".")[2] for name in frozen} == {"conv1", "bn1", "layer1"}
    assert targets[0]["masks"].shape == (3, 64, 96)
    assert int(targets[0]["labels"].min()) >= 1


def printed_rows(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert all(row.keys() == KEYS and row["ratio"] >= 0 for row in rows)
    return rows


def test_bench_masks_compares_times_and_tells_memory(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    few = ("masks=5", "image_size=[60,80]", "large_image_size=[200,300]", "repetitions=1", "warmups=0")
    cli("bench", "masks", "format=json", *[f"parts.masks.{setting}" for setting in few])
    rows = printed_rows(capsys)
    assert [(row["unit"], row["target"]) for row in rows] == [("s", 0.25), ("MB", 400 / rows[1]["baseline"])]
    assert rows[1]["baseline"] == 5 * 200 * 300 / 1e6


def test_both_sides_of_bench_masks_find_nearly_the_same_masks() -> None:
    masks, boxes = draw_masks(20, (480, 640), seed=3)
    ours, theirs = paste_and_encode(masks, boxes, (480, 640)).counts, torchvision_rles(masks, boxes, (480, 640))
    rows = [[{"size": [480, 640], "counts": counts} for counts in codes] for codes in (ours, theirs)]
    overlaps = [float(coco_mask.iou([one], [other], [0])[0, 0]) for one, other in zip(*rows, strict=True)]
    assert sum(overlaps) / len(overlaps) > 0.85  # torchvision rounds boxes to whole pixels


def test_bench_coco_eval_scores_the_same_on_both_sides(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    few = ("images=3", "image_size=[60,80]", "classes=2", "objects=4", "detections=9", "repetitions=1", "warmups=0")
    cli("bench", "coco_eval", "format=json", *[f"parts.coco_eval.{setting}" for setting in few])
    assert [(row["unit"], row["target"]) for row in printed_rows(capsys)] == [("s", None)]


LITTLE_WORK = {
    "index": ("images=30", "annotations=200", "repetitions=1"),
    "data": ("limit=3", "image_size=[60,80]", "repetitions=1", "warmups=0"),
    "memory": ("images=12", "annotations=60", "epochs=2", "workers=1", "batch_size=4"),
}
UNITS_AND_TARGETS = {
    "index": [("s", 0.5), ("MB", 1 / 3), ("s", None)],
    "data": [("s", 1 / 3)],
    "memory": [("MB", FLAT), ("MB", None), ("MB", None)],
}


@pytest.fixture
def noise_images(tmp_path: Path) -> Path:
    """A data set of four images with a square each, in the layout that ``bench data`` reads."""
    square = {"category_id": 1, "iscrowd": 0, "area": 400, "bbox": [10, 20, 20, 20]}
    square["segmentation"] = [[10, 20, 30, 20, 30, 40, 10, 40]]
    images = [{"id": number, "file_name": f"{number}.png", "height": 60, "width": 80} for number in range(4)]
    annotations = [{"id": number, "image_id": number, **square} for number in range(4)]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "square"}]}
    (tmp_path / "coco.json").write_text(json.dumps(content))
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("part", LITTLE_WORK)
def test_a_part_about_data_prints_one_json_object_of_the_same_form(
    part: str, cli: Cli, capsys: pytest.CaptureFixture[str], noise_images: Path
) -> None:
    settings = [f"parts.{part}.{setting}" for setting in LITTLE_WORK[part]]
    if part == "data":
        settings += [f"parts.data.{name}" for name in (f"root={noise_images}", "images=''", "annotations=coco.json")]
    cli("bench", f"part={part}", "format=json", "size=tiny", *settings)
    printed = json.loads(capsys.readouterr().out)
    assert printed.keys() == {"rows", "machine"}
    assert all(row.keys() == KEYS for row in printed["rows"])
    assert all(row["ratio"] > 0 for row in printed["rows"])
    assert [(row["unit"], row["target"]) for row in printed["rows"]] == UNITS_AND_TARGETS[part]
    name, value = LITTLE_WORK[part][0].split("=")
    assert printed["machine"]["workload"][name] == int(value)


@pytest.mark.parametrize(
    ("arguments", "overrides"),
    [
        (["train", "size=tiny"], ["part=train", "size=tiny"]),
        (["infer"], ["part=infer"]),
        ([], []),
        (["size=tiny"], ["size=tiny"]),
    ],
)
def test_a_part_may_be_named_without_its_key(
    arguments: list[str], overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(
        sys.modules["r3cnn.cli.main"], "run_command", lambda command, given: calls.append((command.name, given))
    )
    start(["bench", *arguments])
    assert calls == [("bench", overrides)]


def test_a_misspelt_part_ends_with_a_suggestion(cli: Cli) -> None:
    with pytest.raises(ValueError, match="no bench part 'trian'; did you mean 'train'"):
        cli("bench", "trian")


@pytest.mark.parametrize(
    "override",
    [
        "part=predict",
        "size=huge",
        "format=xml",
        "systems=every",
        "precision=[fp8]",
        f"{TINY}.repetitions=0",
        f"{TINY}.scale.sweeps.batch_size=3",
        f"{TINY}.scale.sweeps.loops=[1,0]",
        f"{TINY}.scale.sweeps.image_size=[64,96]",
        "parts.masks.large_image_size=[64]",
        "parts.memory.epochs=1",
        "parts.index.images=0",
    ],
)
def test_a_choice_that_does_not_exist_is_refused_with_those_that_do(override: str, cli: Cli) -> None:
    name, _ = override.split("=")
    with pytest.raises(ValueError, match=rf"^{re.escape(name)} (must be .*, got|is .*: .* needed)"):
        cli("bench", override)
