"""Differences between runs, from the files that they leave."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from record_samples import config

from r3cnn.evaluation.ground_truth import load_ground_truth
from r3cnn.evaluation.metrics_format import Metrics, Stats
from r3cnn.evaluation.protocol import IouType, Protocol
from r3cnn.evaluation.results import read_results
from r3cnn.reporting.records import DataFacts, Parameters, Record, Speed, Splits
from r3cnn.reporting.rows import Scored
from r3cnn.reporting.significance import Draws, _Kept, _kept, compare, describe
from r3cnn.run_files import BOOTSTRAPS, write_json

DRAWS = Draws(resamples=200, confidence=0.95, seed=0)
IMAGES = 16


def square(x: float, side: float) -> dict[str, object]:
    return {
        "bbox": [x, 10.0, side, 30.0],
        "segmentation": [[x, 10.0, x + side, 10.0, x + side, 40.0, x, 40.0]],
        "category_id": 4,
    }


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    objects = [
        {**square(10.0 + image, 30.0), "id": image, "image_id": image, "area": 900.0, "iscrowd": 0}
        for image in range(1, IMAGES + 1)
    ]
    images = [{"id": image, "file_name": f"{image}.png", "height": 60, "width": 90} for image in range(1, IMAGES + 1)]
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"images": images, "categories": [{"id": 4, "name": "door"}], "annotations": objects}))
    return path


def run(annotations: Path, name: str, shifts: list[int], seed: int = 0) -> Scored:
    """A run whose boxes are off by up to so many pixels after each loop."""
    folder = annotations.parent / f"{name}-{seed}"
    folder.mkdir()
    random = np.random.default_rng([seed, *name.encode()])
    loops: dict[str, dict[str, Stats]] = {}
    for loop, shift in enumerate(shifts, start=1):
        found = [
            {
                **square(10.0 + image + float(random.uniform(-shift, shift)), 30.0),
                "image_id": image,
                "score": float(random.random()),
            }
            for image in range(1, IMAGES + 1)
        ]
        file = folder / ("detections.json" if loop == len(shifts) else f"detections_loop{loop}.json")
        file.write_text(json.dumps(found))
        loops[str(loop)] = {"box": scores(annotations, file, "bbox"), "mask": scores(annotations, file, "segm")}
    facts = DataFacts(str(annotations), "digest", IMAGES, IMAGES)
    record = Record(
        format=1,
        name=name,
        scale="demo",
        sweep=None,
        hash="0" * 12,
        overrides=(),
        config=config(),
        git=None,
        versions={},
        device="cpu",
        ranks=1,
        seed=seed,
        data=Splits(facts, facts),
        parameters=Parameters(1, 1),
        train_memory_bytes=None,
        memory_kind="resident",
        images_per_second=Speed(None, None),
        checkpoint_mib=1.0,
        metrics=metrics_of(loops),
        roi_balance={},
        seconds={},
    )
    return Scored(folder, record, len(shifts))


def metrics_of(loops: dict[str, dict[str, Stats]]) -> Metrics:
    last = loops[str(len(loops))]
    return {"box": last["box"], "mask": last["mask"], "per_class": {}, "loops": loops, "images": {"seen": IMAGES}}


def scores(annotations: Path, detections: Path, kind: IouType) -> Stats:
    truth = load_ground_truth(annotations)
    found = read_results(detections, truth, kind)
    protocol = Protocol([list(truth.images)], [4])
    return protocol.precision(truth, lambda _: found, kind).summary()


def test_a_better_system_is_told_from_a_worse_one_for_boxes_and_masks(annotations: Path) -> None:
    better, worse = run(annotations, "better", [1]), run(annotations, "worse", [9])
    found = compare([better], [worse], DRAWS)
    assert found.reason is None
    for kind, difference in (("box", found.box), ("mask", found.mask)):
        assert difference is not None
        assert difference.is_significant
        noted = [one.record.metrics["loops"]["1"][kind]["ap"] or 0.0 for one in (better, worse)]
        assert difference.value == pytest.approx(noted[0] - noted[1])


def test_loops_of_one_run_are_compared_with_each_other(annotations: Path) -> None:
    last = run(annotations, "loops", [12, 1])
    first = Scored(last.folder, last.record, 1)
    found = compare([last], [first], DRAWS)
    assert found.box is not None
    assert found.box.low > 0


def test_runs_are_paired_by_their_seeds(annotations: Path) -> None:
    ours = [run(annotations, "ours", [2], seed) for seed in (0, 1, 2)]
    theirs = [run(annotations, "theirs", [8], seed) for seed in (2, 1, 7)]
    found = compare(ours, theirs, DRAWS)
    assert found.box is not None
    assert found.box.pairs == 2
    assert found.box.spread is not None
    assert compare(ours[:1], theirs, DRAWS).reason == "no seed in common: [0] and [1, 2, 7]"


def test_detections_that_are_not_those_of_the_noted_ap_are_not_compared(annotations: Path) -> None:
    ours, theirs = run(annotations, "ours", [2]), run(annotations, "theirs", [8])
    (theirs.folder / "detections.json").write_text("[]")
    reason = compare([ours], [theirs], DRAWS).reason
    assert reason is not None
    assert "gives a box AP of 0.0, the run noted" in reason


def test_files_that_are_gone_are_named(annotations: Path) -> None:
    ours, theirs = run(annotations, "ours", [2]), run(annotations, "theirs", [8])
    (ours.folder / "detections.json").unlink()
    reason = compare([ours], [theirs], DRAWS).reason
    assert reason == f"{ours.folder / 'detections.json'} is gone"


def test_a_difference_says_whether_it_may_be_chance(annotations: Path) -> None:
    ours, better, same = (run(annotations, name, [shift]) for name, shift in (("a", 9), ("b", 1), ("c", 9)))
    clear, chance = (compare([one], [ours], DRAWS).box for one in (better, same))
    assert clear is not None
    assert chance is not None
    assert describe(clear).startswith(f"{100 * clear.value:+.1f} [+")
    assert not describe(clear).endswith("not significant")
    assert describe(chance).endswith("], not significant")


def test_a_note_of_an_earlier_bootstrap_that_was_damaged_is_made_again(tmp_path: Path) -> None:
    note = _Kept("digest of images", 0.5, [0.25, 0.5, 0.75])
    note.digest = note.digest_under("box")
    write_json(msgspec.to_builtins({"box": note}), tmp_path / BOOTSTRAPS)
    assert _kept(tmp_path, 3) == {"box": note}
    text = (tmp_path / BOOTSTRAPS).read_text()
    for damaged in (text.replace("0.25", "0.26"), text.replace("box", "mask"), text.replace("0.5,", "0.4,", 1)):
        (tmp_path / BOOTSTRAPS).write_text(damaged)
        assert _kept(tmp_path, 3) == {}
