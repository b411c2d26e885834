"""Both back-ends against each other, and against pycocotools on the written detections alone."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torch.nn import functional

from r3cnn.batch import Batch, Example
from r3cnn.evaluation import coco_ap, protocol
from r3cnn.evaluation.coco_ap import CocoAP
from r3cnn.evaluation.ground_truth import load_ground_truth
from r3cnn.evaluation.metrics import EvaluationResult
from r3cnn.evaluation.protocol import BackendMismatchError, Curves, Precision, Protocol
from r3cnn.run_files import write_json, write_json_list
from r3cnn.structures import Detections, InstanceMasks, Target

SCALE = 1.3
KEYS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")


def noisy_copies(coco: COCO, image_id: int, generator: torch.Generator) -> Detections:
    """Detections near the ground truth of an image, some doubled, some of a wrong class, some with a poor mask."""
    info, labels = coco.imgs[image_id], sorted(coco.getCatIds())
    rows = [one for one in coco.imgToAnns[image_id] for _ in range(2)]
    boxes = torch.tensor([one["bbox"] for one in rows]).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    boxes = boxes + torch.randn(boxes.shape, generator=generator) * sides * 0.06
    extent = torch.tensor([info["width"], info["height"]]).repeat(2)
    boxes = torch.minimum(boxes.clamp(min=0), extent)
    masks = [crop(torch.from_numpy(coco.annToMask(one)).float(), box) for one, box in zip(rows, boxes, strict=True)]
    classes = torch.tensor([labels.index(one["category_id"]) for one in rows], dtype=torch.int64)
    wrong = torch.rand(len(rows), generator=generator) < 0.2
    scores = (torch.rand(len(rows), generator=generator) * 20).round() / 20  # ties on purpose
    return Detections(
        boxes=boxes * SCALE,
        scores=scores,
        labels=torch.where(wrong, (classes + 1) % len(labels), classes),
        masks=torch.stack(masks) if masks else torch.zeros(0, 28, 28),
        mask_scores=scores * torch.rand(len(rows), generator=generator),
        has_mask_scores=True,
    )


def crop(mask: Tensor, box: Tensor) -> Tensor:
    """(28, 28) bilinear samples of a mask on a grid over a box."""
    centres = (torch.arange(28) + 0.5) / 28
    across = (box[0] + centres * (box[2] - box[0])) / mask.shape[1] * 2 - 1
    down = (box[1] + centres * (box[3] - box[1])) / mask.shape[0] * 2 - 1
    grid = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=2)
    return functional.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0]


def evaluate(
    path: Path, backend: str, area_from: str = "mask", every: int = 1, *, verify: bool = False
) -> EvaluationResult:
    coco = COCO(str(path))
    metric = CocoAP(path, sorted(coco.getCatIds()), backend=backend, area_from=area_from, verify_backend=verify)
    generator, own_ids = torch.Generator().manual_seed(0), load_ground_truth(path).own_ids
    for image_id in sorted(coco.imgs)[::every]:
        size = (coco.imgs[image_id]["height"], coco.imgs[image_id]["width"])
        resized = (round(size[0] * SCALE), round(size[1] * SCALE))
        empty = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), InstanceMasks.empty(resized))
        batch = Batch.of([Example(torch.zeros(3, *resized, dtype=torch.uint8), empty, own_ids[image_id], size)])
        metric.update(batch, [[noisy_copies(coco, image_id, generator)] for _ in range(2)])
    return metric.compute()


def figures(node: object) -> list[float]:
    if isinstance(node, dict):
        return [value for child in node.values() for value in figures(child)]
    return [-1.0 if node is None else float(str(node))]


def by_pycocotools(path: Path, detections: Path, kind: str) -> list[float | None]:
    """What a user would run on the two files; masks with their own area, ranked by ``mask_score``."""
    entries = json.loads(detections.read_text())
    if kind == "segm":
        for entry in entries:
            del entry["bbox"]
            entry["score"] = entry["mask_score"]
    truth = COCO(str(path))
    evaluation = COCOeval(truth, truth.loadRes(entries), kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return [None if value == -1 else float(value) for value in evaluation.stats[:6]]


@pytest.fixture(scope="module")
def annotations(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Polygons, an image without objects and a crowd region."""
    path = next((shapes_root / "annotations").glob("*val*.json"))
    content = json.loads(path.read_text())
    content["annotations"][0]["iscrowd"] = 1
    changed = tmp_path_factory.mktemp("truth") / "instances.json"
    changed.write_text(json.dumps(content))
    return changed


@pytest.mark.parametrize("backend", ["faster_coco_eval", "pycocotools"])
def test_scoring_a_category_and_an_image_at_a_time_gives_the_same_to_the_bit(
    annotations: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = evaluate(annotations, backend).metrics
    groups, sizes = [], Counter[int]()
    precision = Protocol.precision

    def counted(self: Protocol, *found: object) -> Precision:
        groups.append(self.category_ids)
        sizes.update(map(len, self.image_ids))
        return precision(self, *found)

    monkeypatch.setattr(Protocol, "precision", counted)
    monkeypatch.setattr(coco_ap, "DETECTIONS_AT_A_TIME", 1)
    assert evaluate(annotations, backend).metrics == at_once
    categories = sorted(COCO(str(annotations)).getCatIds())
    assert groups == [[one] for one in categories] * 4  # boxes and masks of two loops
    assert sizes[1] > 4 * len(categories)


def test_a_file_of_detections_is_written_one_by_one_as_json_writes_them_all(annotations: Path, tmp_path: Path) -> None:
    result = evaluate(annotations, "faster_coco_eval")
    for entries in ([*result.entries(1)], []):
        write_json_list(iter(entries), tmp_path / "detections.json")
        assert (tmp_path / "detections.json").read_text() == json.dumps(entries) + "\n"


def test_a_detection_is_kept_in_32_bytes_and_the_code_of_its_mask(annotations: Path) -> None:
    result = evaluate(annotations, "faster_coco_eval")
    loops = [loop for record in result.records.values() for loop in record.loops]
    parts = [part for one in loops for part in (one.corners, one.scores, one.labels, one.masks.stops, one.masks.areas)]
    assert sum(part.nbytes for part in parts) == 32 * sum(map(len, loops)) > 0


@pytest.mark.parametrize("area_from", ["mask", "box"])
@pytest.mark.parametrize("every", [1, 3])
def test_both_backends_give_the_same_figures(annotations: Path, area_from: str, every: int) -> None:
    fast = figures(evaluate(annotations, "faster_coco_eval", area_from, every).metrics)
    reference = figures(evaluate(annotations, "pycocotools", area_from, every).metrics)
    assert np.allclose(fast, reference, rtol=0, atol=1e-12)
    assert len({round(value, 6) for value in fast}) > 8


@pytest.mark.parametrize("backend", ["faster_coco_eval", "pycocotools"])
def test_the_metrics_are_what_pycocotools_computes_from_the_written_detections_alone(
    annotations: Path, tmp_path: Path, backend: str
) -> None:
    result = evaluate(annotations, backend)
    write_json(result.metrics, tmp_path / "metrics.json")
    write_json(result.detections, tmp_path / "detections.json")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    for kind, iou_type in (("box", "bbox"), ("mask", "segm")):
        expected = by_pycocotools(annotations, tmp_path / "detections.json", iou_type)
        assert [metrics[kind][key] for key in KEYS] == pytest.approx(expected, abs=1e-9)
        assert 0.1 < metrics[kind]["ap"] < 0.95


IDS: dict[str, Callable[[int], object]] = {
    "hashes that no double holds": lambda number: 2**60 + number,
    "more than 64 bits": lambda number: 2**100 + number,
    "negative": lambda number: number - 10_000,
    "text": lambda number: f"{number:05d}",
    "whole floats": float,
    "around 0": lambda number: number - 2,
}


@pytest.mark.parametrize("backend", ["faster_coco_eval", "pycocotools"])
@pytest.mark.parametrize("kind", IDS)
def test_ids_of_any_kind_change_no_figure_and_come_back_in_the_detections(
    annotations: Path, tmp_path: Path, kind: str, backend: str
) -> None:
    content, renamed = json.loads(annotations.read_text()), IDS[kind]
    for record in (*content["images"], *content["annotations"], *content["categories"]):
        record |= {key: renamed(record[key]) for key in ("id", "image_id", "category_id") if key in record}
    path = tmp_path / "renamed.json"
    path.write_text(json.dumps(content))
    result = evaluate(path, backend, verify=True)
    assert figures(result.metrics) == figures(evaluate(annotations, backend).metrics)
    write_json(result.detections, tmp_path / "detections.json")
    entries = json.loads((tmp_path / "detections.json").read_text())
    assert {entry["image_id"] for entry in entries} <= {record["id"] for record in content["images"]}
    expected = by_pycocotools(path, tmp_path / "detections.json", "bbox")
    if kind == "around 0":  # pycocotools never finds annotation 0
        assert expected[0] != pytest.approx(result.metrics["box"]["ap"], abs=1e-9)
    else:
        assert [result.metrics["box"][key] for key in KEYS] == pytest.approx(expected, abs=1e-9)


def test_verification_runs_both_backends_and_changes_no_figure(
    annotations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted(name: str, run: Callable[..., Curves]) -> Callable[..., Curves]:
        def call(*arguments: object) -> Curves:
            calls.append(name)
            return run(*arguments)

        return call

    for name, run in list(protocol._RUNS.items()):
        monkeypatch.setitem(protocol._RUNS, name, counted(name, run))
    plain = evaluate(annotations, "faster_coco_eval").metrics
    assert set(calls) == {"faster_coco_eval"}
    for backend in ("faster_coco_eval", "pycocotools"):
        calls.clear()
        assert figures(evaluate(annotations, backend, verify=True).metrics) == pytest.approx(figures(plain), abs=1e-12)
        assert calls == [backend, *({"faster_coco_eval", "pycocotools"} - {backend})] * 4  # two loops, boxes and masks


@pytest.mark.parametrize(("field", "by"), [("precision", 1e-11), ("recall", 1e-11), ("recall", float("nan"))])
def test_a_difference_in_any_entry_stops_verification_and_is_named(
    annotations: Path, monkeypatch: pytest.MonkeyPatch, field: str, by: float
) -> None:
    honest = protocol._RUNS["pycocotools"]

    def off(*arguments: object) -> Curves:
        curves = honest(*arguments)
        entry = getattr(curves, field)
        entry[3, ..., 1, -1] += by
        return curves

    monkeypatch.setitem(protocol._RUNS, "pycocotools", off)
    with pytest.raises(
        BackendMismatchError, match=rf"disagree about bbox {field} in \d+ of \d+ entries, most at \[3, "
    ):
        evaluate(annotations, "faster_coco_eval", verify=True)


def test_a_difference_below_the_tolerance_is_none() -> None:
    curves = Curves(np.full((10, 101, 2, 4, 1), 0.5), np.full((10, 2, 4, 1), 0.5))
    close = Curves(curves.precision + 1e-13, curves.recall)
    protocol._compare(curves, close, "bbox", ("faster_coco_eval", "pycocotools"))
    with pytest.raises(BackendMismatchError, match="shape"):
        protocol._compare(curves, Curves(curves.precision[:5], curves.recall), "bbox", protocol.BACKENDS)
