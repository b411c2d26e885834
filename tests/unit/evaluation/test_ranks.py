"""Two processes against one, over gloo on the CPU."""

import json
from pathlib import Path

import pytest
import torch
from evaluation_samples import annotation, batch_of, detections, write_coco
from torch import distributed
from torch import multiprocessing as mp

from r3cnn.evaluation.coco_ap import CocoAP
from r3cnn.evaluation.ranks import broadcast_from_first, gather_by_key

LEFT, RIGHT = (10.0, 10.0, 20.0, 20.0), (60.0, 50.0, 20.0, 20.0)
FOUND = {
    1: detections([(LEFT, 0.9, 0), (RIGHT, 0.8, 1)]),
    2: detections([(RIGHT, 0.7, 0)]),
    3: detections([(LEFT, 0.6, 0), (RIGHT, 0.3, 0)]),
}


def result_of(path: Path, image_ids: list[int]) -> dict[str, object]:
    metric = CocoAP(path, (3, 7))
    for image_id in image_ids:
        metric.update(batch_of([image_id]), [[FOUND[image_id]], [FOUND[image_id]]])
    result = metric.compute()
    return {"metrics": result.metrics, "detections": result.detections}


def work(rank: int, folder: Path, shares: list[list[int]]) -> None:
    """One of several processes: evaluates its share, then takes part in a computation that fails on rank 0."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=len(shares))
    report = {"result": result_of(folder / "instances.json", shares[rank]), "error": ""}
    try:
        broadcast_from_first(fail)
    except (ValueError, RuntimeError) as error:
        report["error"] = f"{type(error).__name__}: {error}"
    (folder / f"rank{rank}.json").write_text(json.dumps(report))
    distributed.destroy_process_group()


def fail() -> str:
    raise ValueError("no such file")


Reports = tuple[list[dict[str, dict[str, object]]], dict[str, object]]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Reports:
    """What rank 0 (no image) and rank 1 (all images, in another order) report, and the result of one process."""
    folder = tmp_path_factory.mktemp("ranks")
    rows = [(1, 1, 3, LEFT), (2, 2, 3, LEFT), (3, 3, 3, RIGHT), (4, 1, 7, RIGHT)]
    path = write_coco(folder, [annotation(*row) for row in rows], image_ids=(1, 2, 3))
    mp.spawn(work, (folder, [[], [3, 1, 2]]), nprocs=2)
    alone = json.loads(json.dumps(result_of(path, [1, 2, 3])))
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)], alone


def test_two_ranks_of_which_one_has_no_image_give_what_one_gives(reports: Reports) -> None:
    (first, second), alone = reports
    assert 0 < alone["metrics"]["mask"]["ap"] < 1
    assert first["result"] == alone
    assert second["result"] == {"metrics": alone["metrics"], "detections": []}


def test_an_error_on_the_first_rank_reaches_the_others_instead_of_hanging(reports: Reports) -> None:
    (first, second), _ = reports
    assert first["error"] == "ValueError: no such file"
    assert second["error"] == "RuntimeError: the evaluation failed on rank 0: ValueError: no such file"


def test_one_process_needs_no_group() -> None:
    assert list(gather_by_key({3: "c", 1: "a"}) or {}) == [1, 3]
    assert broadcast_from_first(lambda: 5) == 5
