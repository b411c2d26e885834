"""What a job of SLURM is submitted with, and what runs in it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from hydra.errors import CompactHydraException
from hydra_plugins.hydra_submitit_launcher.config import SlurmQueueConf
from omegaconf import DictConfig, OmegaConf

from r3cnn.cli.configs import config_folder
from r3cnn.cli.processes import LOG_FILE
from r3cnn.cli.slurm_jobs import OURS, job_states, queue, queue_parameters
from r3cnn.cli.slurm_rank import threads_in
from r3cnn.training.preemption import requeue_job

# Retries are submitit's business only where it requeues, which it does not for us.
NOT_OFFERED = {"_target_", "max_num_timeout"}


@pytest.fixture
def settings() -> DictConfig:
    config = OmegaConf.load(config_folder() / "launcher" / "slurm.yaml")
    return OmegaConf.create({"launcher": config.launcher, "output_dir": "sweep"}).launcher


def changed(settings: DictConfig, **values: object) -> DictConfig:
    return OmegaConf.merge(settings, values)


def test_the_settings_are_those_of_the_plugin_and_a_few_of_ours(settings: DictConfig) -> None:
    of_the_plugin = {field.name for field in fields(SlurmQueueConf)} - NOT_OFFERED
    assert set(settings) == of_the_plugin | set(OURS)


def test_slurm_is_to_send_the_signal_that_training_listens_for_and_may_queue_the_job_again(
    settings: DictConfig,
) -> None:
    given = queue_parameters(changed(settings, signal_delay_s=300))
    assert given["additional_parameters"] == {"signal": "USR1@300", "requeue": True}


def test_further_options_of_sbatch_are_added_and_win(settings: DictConfig) -> None:
    given = queue_parameters(changed(settings, additional_parameters={"mail-type": "END", "requeue": False}))
    assert given["additional_parameters"] == {"signal": "USR1@120", "requeue": False, "mail-type": "END"}


def test_srun_is_given_the_cpus_of_a_rank_and_ends_all_ranks_with_a_failed_one(settings: DictConfig) -> None:
    assert queue_parameters(settings)["srun_args"] == ["--kill-on-bad-exit=1"]
    given = queue_parameters(changed(settings, cpus_per_task=4))
    assert given["srun_args"] == ["--kill-on-bad-exit=1", "--cpus-per-task=4"]


def test_a_job_runs_nothing_of_the_folder_that_it_was_submitted_in(
    settings: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    executor = queue(changed(settings, submitit_folder=str(tmp_path / "log")))
    assert " -P -u -m submitit" in executor._executor._submitit_command_str


def test_what_is_ours_does_not_reach_sbatch(settings: DictConfig) -> None:
    assert not set(OURS) & queue_parameters(settings).keys()


@pytest.mark.parametrize(("key", "value"), [("time_limit", 5), ("nodes", "many")])
def test_an_unknown_or_wrong_setting_is_refused_by_its_name(settings: DictConfig, key: str, value: object) -> None:
    with pytest.raises(CompactHydraException, match=key):
        queue_parameters(changed(settings, **{key: value}))


@pytest.mark.parametrize(
    ("environment", "threads"),
    [({"SLURM_CPUS_PER_TASK": "4", "OMP_NUM_THREADS": "1"}, "4"), ({"OMP_NUM_THREADS": "2"}, "2"), ({}, "1")],
)
def test_the_cpus_of_a_task_win_over_the_profile_of_the_cluster(environment: dict[str, str], threads: str) -> None:
    assert threads_in(environment) == threads


def test_without_the_programs_of_slurm_nothing_is_known_and_nothing_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    assert job_states(["5"]) == {}
    requeue_job()
    assert "SLURM cannot be asked" in caplog.text
    assert "SLURM job 5 could not be requeued" in caplog.text


def run_rank(folder: Path, *arguments: str) -> int:
    code = "import sys; from pathlib import Path; from r3cnn.cli.slurm_rank import run_rank; "
    code += "run_rank(tuple(sys.argv[2:]), Path(sys.argv[1]))"
    return subprocess.run([sys.executable, "-c", code, str(folder), *arguments], check=False).returncode


def test_a_rank_ends_with_the_status_of_its_run_and_its_words_are_in_the_log(tmp_path: Path) -> None:
    assert run_rank(tmp_path / "good", "--help") == 0
    assert "usage: r3cnn <command>" in (tmp_path / "good" / LOG_FILE).read_text()
    assert run_rank(tmp_path / "bad", "trian") == 2
    assert "did you mean 'train'?" in (tmp_path / "bad" / LOG_FILE).read_text()
