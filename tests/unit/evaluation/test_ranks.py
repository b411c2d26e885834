"""Several processes against one, over gloo on the CPU."""

import copy
import json
import pickle
import time
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import torch
from evaluation_samples import annotation, batch_of, detections, write_coco
from torch import distributed
from torch import multiprocessing as mp

from r3cnn.evaluation import coco_ap
from r3cnn.evaluation.coco_ap import CocoAP
from r3cnn.evaluation.ranks import Ranks

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
    coco_ap.IMAGES_AT_A_TIME = 2  # so that results travel in two parts
    coco_ap.MASKS_IN_MEMORY = 30  # some bytes more than one mask has
    distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=len(shares))
    report = {"result": result_of(folder / "instances.json", shares[rank]), "error": ""}
    try:
        Ranks(timedelta(seconds=60)).from_first(fail)
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
    ranks = Ranks(timedelta(seconds=1))
    assert [*ranks.gather(iter([{3: "c"}, 4]))] == [{3: "c"}, 4]
    assert ranks.from_first(lambda: 5) == 5


def test_copies_keep_the_time_out_and_no_connection() -> None:
    ranks = Ranks(timedelta(seconds=7))
    for twin in (copy.deepcopy(ranks), pickle.loads(pickle.dumps(ranks))):
        assert twin.timeout == timedelta(seconds=7)
        assert [*twin.gather(iter([1]))] == [1]


def test_a_time_out_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="timeout must be positive"):
        Ranks(timedelta(0))


def scores_after(seconds: float) -> str:
    time.sleep(seconds)
    return "scores"


def wait_for_first(rank: int, folder: Path) -> None:
    """The process group allows ten seconds, the ranks' own connection a minute; then half a second."""
    torch.set_num_threads(1)
    init, limit = f"file://{folder}/group", timedelta(seconds=10)
    distributed.init_process_group("gloo", init_method=init, rank=rank, world_size=2, timeout=limit)
    answers = []
    for seconds, score in ((60.0, partial(scores_after, 12.0)), (0.5, partial(scores_after, 2.0))):
        try:
            answers.append(Ranks(timedelta(seconds=seconds)).from_first(score))
        except TimeoutError as error:
            answers.append(str(error))
    (folder / f"rank{rank}.json").write_text(json.dumps(answers))
    time.sleep(3 * rank)  # the other one is still scoring


@pytest.mark.slow
def test_the_other_ranks_wait_for_scores_as_long_as_their_own_time_out_says(tmp_path: Path) -> None:
    mp.spawn(wait_for_first, (tmp_path,), nprocs=2)
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert (first[0], second[0]) == ("scores", "scores")
    assert "rank 0 did not hand out the result within 0.00833333 minutes (evaluation.timeout_minutes)" in second[1]


def come_late(rank: int, folder: Path) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=3)
    ranks = Ranks(timedelta(seconds=1))
    ranks.open()
    if rank == 2:
        time.sleep(4)
        return
    try:
        list(ranks.gather(iter([rank])))
        answer = "all came"
    except TimeoutError as error:
        answer = str(error)
    (folder / f"rank{rank}.json").write_text(json.dumps(answer))
    time.sleep(4)


def test_a_rank_that_does_not_come_is_named(tmp_path: Path) -> None:
    mp.spawn(come_late, (tmp_path,), nprocs=3)
    answer = json.loads((tmp_path / "rank0.json").read_text())
    assert "not all ranks came to bring their results together within 0.0166667 minutes" in answer
    assert "2" in answer.split("minutes")[-1]
