"""The cluster for trying SLURM says what it lacks; that it works is shown by the tests that use it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import local_cluster


def call(action: str, folder: Path, path: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(Path(local_cluster.__file__)), action, str(folder)]
    return subprocess.run(command, env={"PATH": path}, capture_output=True, text=True, check=False)


def test_missing_programs_are_named_with_the_packages_that_have_them(tmp_path: Path) -> None:
    done = call("start", tmp_path / "cluster", path=str(tmp_path))
    assert done.returncode == 1
    assert "sbatch, srun, squeue, scancel, scontrol not found" in done.stderr
    assert "apt-get install slurm-wlm munge" in done.stderr
    assert not (tmp_path / "cluster").exists()


def test_stopping_what_does_not_run_ends_nothing_and_is_no_error(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in local_cluster.PROGRAMS:  # none of them is called
        (programs / name).symlink_to("/bin/false")
    done = call("stop", tmp_path, path=str(programs))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_recorded_process_that_ended_is_not_taken_for_a_later_one_of_the_same_number() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        started = local_cluster._start_time(process.pid)
        local_cluster._end(process.pid, started - 1)  # another one's
        assert process.poll() is None
        local_cluster._end(process.pid, started)
        assert process.wait() < 0
    assert local_cluster._start_time(process.pid) == -1
