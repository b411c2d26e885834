"""How the GPUs of a machine are dealt out to the jobs of a sweep."""

from __future__ import annotations

import pytest
from hydra.errors import CompactHydraException

from r3cnn.cli.local_jobs import devices_for, places_for, visible_gpus

EIGHT = [str(index) for index in range(8)]


def test_one_job_at_a_time_has_all_gpus() -> None:
    assert places_for(1, 2, EIGHT) == [{}]


@pytest.mark.parametrize(
    ("accelerator", "parallel", "gpus", "devices"),
    [("auto", 1, EIGHT, 8), ("gpu", 2, EIGHT, 4), ("auto", 1, [], 1), ("cpu", 1, EIGHT, 1), ("tpu", 1, EIGHT, "auto")],
)
def test_automatic_devices_are_an_equal_part_of_the_gpus(
    accelerator: str, parallel: int, gpus: list[str], devices: int | str
) -> None:
    assert devices_for(accelerator, parallel, gpus) == devices


def test_jobs_at_a_time_share_no_gpu() -> None:
    found = [place["CUDA_VISIBLE_DEVICES"] for place in places_for(3, 2, EIGHT)]
    assert found == ["0,1", "2,3", "4,5"]


def test_gpus_keep_the_names_that_they_were_chosen_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-7a")
    assert visible_gpus() == ["5", "GPU-7a"]
    found = [place["CUDA_VISIBLE_DEVICES"] for place in places_for(2, 1, visible_gpus())]
    assert found == ["5", "GPU-7a"]


def test_without_gpus_jobs_run_side_by_side_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert places_for(3, 2, visible_gpus()) == [{}, {}, {}]


def test_more_ranks_than_gpus_are_refused() -> None:
    with pytest.raises(CompactHydraException, match="at most 2 jobs at a time are possible"):
        places_for(3, 4, EIGHT)
