"""What the environment says about ranks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from r3cnn.cli.ranks import check_tasks, for_jobs, is_one_of_several, overrides_of_rank, rank_in

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "1",
    "GROUP_WORLD_SIZE": "2",
    "ROLE_RANK": "3",
    "ROLE_NAME": "default",
    "NODE_RANK": "1",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "none",
}
ELSEWHERE = {
    "OMPI_COMM_WORLD_RANK": "1",
    "LSB_JOBID": "9",
    "JSM_NAMESPACE_RANK": "1",
    "WANDB_RUN_ID": "3k2j",
    "WANDB_NAME": "mine",
    "WANDB_SERVICE": "3-unix-1-/tmp/wandb-1/socket",
}
SLURM = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_JOB_NAME": "r3cnn", "SLURM_LOCALID": "1"}


def test_no_rank_variable_reaches_a_job_and_nothing_else_is_lost() -> None:
    others = {"ROLE_ARN": "mine", "GROUP_ID": "7", "WANDB_PROJECT": "r3cnn"}
    others |= {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "1", "WANDB_API_KEY": "key", "OMP_NUM_THREADS": "2"}
    assert for_jobs({**TORCHRUN, **SLURM, **ELSEWHERE, **others}) == others


@pytest.mark.parametrize(
    ("environment", "rank"),
    [({}, 0), (TORCHRUN, 3), (SLURM, 5), ({"LOCAL_RANK": "1"}, 1), ({"RANK": "0", "LOCAL_RANK": "1"}, 0)],
)
def test_the_rank_is_the_one_among_all_processes(environment: dict[str, str], rank: int) -> None:
    assert rank_in(environment) == rank


def test_further_ranks_write_no_log() -> None:
    assert overrides_of_rank(TORCHRUN, ["seed=1", "output_dir=x"]) == [
        "hydra/job_logging=stdout",
        "hydra.job_logging.root.level=WARNING",
    ]
    assert overrides_of_rank({**TORCHRUN, "RANK": "0"}, ["output_dir=x"]) == []
    assert overrides_of_rank({}, []) == []


def test_the_first_of_several_tasks_of_srun_is_one_of_several_and_a_batch_script_is_not() -> None:
    batch = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}
    assert not is_one_of_several(batch)
    assert is_one_of_several({**batch, "SLURM_STEP_NUM_TASKS": "8"})
    assert not is_one_of_several({**batch, "SLURM_STEP_NUM_TASKS": "1"})


PROGRAM = "from r3cnn.cli.ranks import end_with_parent; end_with_parent(); print('goes on')"


@pytest.mark.parametrize("sweep", ["alive", "ended"])
def test_a_job_whose_sweep_ended_before_it_could_watch_it_ends_as_well(sweep: str) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    pid = {"alive": os.getpid(), "ended": process.pid}[sweep]
    environment = {**os.environ, "R3CNN_SWEEP": str(pid)}
    job = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert (job.returncode, job.stdout) == {"alive": (0, "goes on\n"), "ended": (1, "")}[sweep]
    assert ("the sweep that started this process has ended" in job.stderr) == (sweep == "ended")


@pytest.mark.parametrize("rank", ["0", "3"])
def test_ranks_that_would_each_make_a_folder_are_refused(rank: str) -> None:
    with pytest.raises(ValueError, match="output_dir is not on the command line"):
        overrides_of_rank({**TORCHRUN, "RANK": rank}, ["seed=1"])


BATCH_SCRIPT = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}


@pytest.mark.parametrize(
    ("environment", "ranks", "started"),
    [
        (BATCH_SCRIPT, 2, 1),
        (BATCH_SCRIPT, 1, 1),  # the others would be missed by nobody, but have been paid for
        ({**BATCH_SCRIPT, "SLURM_NTASKS": "1"}, 2, 1),
        ({**BATCH_SCRIPT, "SLURM_STEP_NUM_TASKS": "2"}, 4, 2),
    ],
)
def test_ranks_that_slurm_does_not_start_are_not_waited_for(
    environment: dict[str, str], ranks: int, started: int
) -> None:
    with pytest.raises(ValueError, match=f"SLURM has started {started}: `srun r3cnn …`"):
        check_tasks(environment, ranks)


@pytest.mark.parametrize(
    ("environment", "ranks"),
    [
        ({}, 2),
        ({**BATCH_SCRIPT, "SLURM_NTASKS": "1"}, 1),
        ({**BATCH_SCRIPT, "SLURM_STEP_NUM_TASKS": "2"}, 2),
        ({**BATCH_SCRIPT, "SLURM_JOB_NAME": "interactive"}, 2),  # where Lightning starts them itself
        ({**BATCH_SCRIPT, "SLURM_NTASKS": "1", **TORCHRUN}, 4),
    ],
)
def test_ranks_that_srun_torchrun_or_lightning_start_are_waited_for(environment: dict[str, str], ranks: int) -> None:
    check_tasks(environment, ranks)
