"""A real SLURM on this machine alone, for whoever wants to try ``launcher=slurm`` without a cluster.

It needs Debian's packages ``slurm-wlm`` and ``munge`` (``apt-get install slurm-wlm munge``) and was tried as root. Its
folder, ports and munge key are its own, so it disturbs no SLURM that is installed already::

    python tests/slurm/local_cluster.py start /tmp/slurm     # munged, slurmctld, one slurmd per node; prints a line
    export SLURM_CONF=/tmp/slurm/slurm.conf                  # that line: from now on sbatch and all others speak to it
    r3cnn train -m experiment=demo seed=0,1 launcher=slurm launcher.tasks_per_node=2 launcher.partition=one
    squeue; scancel --signal=USR1 <job>; scontrol requeue <job>
    python tests/slurm/local_cluster.py status /tmp/slurm
    python tests/slurm/local_cluster.py stop /tmp/slurm      # cancels all jobs and ends what `start` started

Partition ``one`` (the default) has one node, ``pair`` two, both of them this machine, with two CPUs each, whatever the
machine has. Jobs may be requeued, start again five seconds later, and are killed five seconds after their SIGTERM.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
PACKAGES = "slurm-wlm munge"
SYSTEM_FOLDERS = ("/usr/sbin", "/sbin")  # where Debian puts daemons; not in every user's PATH
WAIT_S = 60.0
CONFIGURATION = """\
ClusterName=r3cnn
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmctldPort={ports[0]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=100000
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 State=UNKNOWN
NodeName={host}-second NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 State=UNKNOWN
PartitionName=one Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=pair Nodes={host},{host}-second MaxTime=INFINITE State=UP
"""


def missing_programs() -> list[str]:
    """Programs of SLURM and munge that this machine lacks."""
    return [name for name in PROGRAMS if _find(name) is None]


class LocalCluster:
    """munged, slurmctld and two slurmd's in one folder.

    Args:
        folder: Where everything of it lies; on the local disk, with a path of less than 90 characters.
        ends_with_us: Whether the daemons end with this process, even if it is killed.

    Raises:
        RuntimeError: If a program is missing.
    """

    def __init__(self, folder: Path, *, ends_with_us: bool = False) -> None:
        missing = missing_programs()
        if missing:
            raise RuntimeError(f"{', '.join(missing)} not found; on Debian: apt-get install {PACKAGES}")
        self.folder = folder.absolute()
        self.configuration = self.folder / "slurm.conf"
        self.environment = {**os.environ, "SLURM_CONF": str(self.configuration)}
        self._daemons = self.folder / "daemons.json"
        self._guard = ("setpriv", "--pdeathsig", "TERM") if ends_with_us else ()

    def start(self) -> None:
        """Starts the daemons and waits until both nodes are idle.

        Raises:
            RuntimeError: If one does not come up; what was started is stopped again.
        """
        if self.is_running():
            raise RuntimeError(f"a cluster is running in {self.folder} already")
        host = socket.gethostname().partition(".")[0]
        socket.gethostbyname(host)  # ranks meet there
        self._write_files(host)
        key, munge = self.folder / "munge.key", self.folder / "munge"
        try:
            files = [f"--{name}-file={munge}.{name}" for name in ("pid", "log", "seed")]
            self._launch("munged", f"--key-file={key}", f"--socket={munge}.socket", *files, "--force", "--foreground")
            _wait_for(Path(f"{munge}.socket").exists, f"munged did not start, see {munge}d.out")
            self._launch("slurmctld", "-D", "-f", str(self.configuration))
            for node in (host, f"{host}-second"):
                self._launch("slurmd", "-D", "-N", node, "-f", str(self.configuration))
            _wait_for(lambda: self.states() == ["idle", "idle"], f"nodes are not idle, see {self.folder}/*.log")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kills all jobs, then the daemons that `start` started; others of the same name stay."""
        if self.is_running():
            self.command("scancel", "--user", pwd.getpwuid(os.getuid()).pw_name, check=False)
            with contextlib.suppress(RuntimeError):
                _wait_for(lambda: not self.command("squeue", "--noheader", check=False), "jobs are left")
        for pid, started in reversed(self._recorded()):
            _end(pid, started)
        self._daemons.unlink(missing_ok=True)

    def is_running(self) -> bool:
        """Whether all daemons that were started live."""
        daemons = self._recorded()
        return bool(daemons) and all(_start_time(pid) == started for pid, started in daemons)

    def states(self) -> list[str]:
        """State of each node, such as ``idle``, ``alloc`` or ``unk*``; empty as long as nobody answers."""
        return sorted(self.command("sinfo", "--noheader", "--Node", "-p", "pair", "-o", "%t", check=False).split())

    def command(self, *arguments: str, check: bool = True) -> str:
        """What a program of SLURM prints.

        Raises:
            subprocess.CalledProcessError: If it fails and ``check`` is set.
        """
        done = subprocess.run(arguments, env=self.environment, capture_output=True, text=True, check=check)
        return done.stdout.strip()

    def _write_files(self, host: str) -> None:
        for name in ("state", f"spool-{host}", f"spool-{host}-second"):
            shutil.rmtree(self.folder / name, ignore_errors=True)  # jobs of an earlier cluster
            (self.folder / name).mkdir(parents=True)
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        user = pwd.getpwuid(os.getuid()).pw_name
        text = CONFIGURATION.format(host=host, user=user, folder=self.folder, ports=_free_ports(3))
        self.configuration.write_text(text)

    def _launch(self, program: str, *arguments: str) -> None:
        """Starts a daemon in a session of its own, where the terminal's Ctrl-C does not reach it."""
        path = _find(program) or program
        with (self.folder / f"{program}.out").open("ab") as output:
            process = subprocess.Popen(
                [*self._guard, path, *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._daemons.write_text(json.dumps([*self._recorded(), (process.pid, _start_time(process.pid))]))

    def _recorded(self) -> list[tuple[int, int]]:
        """(process id, start time) of the daemons; the time tells a daemon from a later process of the same id."""
        if not self._daemons.is_file():
            return []
        return [(int(pid), int(started)) for pid, started in json.loads(self._daemons.read_text())]


@contextlib.contextmanager
def local_cluster(folder: Path) -> Iterator[LocalCluster]:
    """A cluster for as long as the block lasts, and no longer than this process."""
    cluster = LocalCluster(folder, ends_with_us=True)
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()


def _find(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path=os.pathsep.join(SYSTEM_FOLDERS))


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on; all are held until the last one is found, so that they differ."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in sockets]


def _start_time(pid: int) -> int:
    """When a process was started, in clock ticks since boot; -1 if there is none or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return -1
    return -1 if fields[0] == "Z" else int(fields[19])


def _end(pid: int, started: int) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if _start_time(pid) != started:
            return
        os.kill(pid, number)
        with contextlib.suppress(RuntimeError):
            _wait_for(lambda: _start_time(pid) != started, f"{pid} is still there", seconds=10)


def _wait_for(is_done: Callable[[], bool], message: str, seconds: float = WAIT_S) -> None:
    deadline = time.monotonic() + seconds
    while not is_done():
        if time.monotonic() > deadline:
            raise RuntimeError(message)
        time.sleep(0.1)


def main(arguments: Sequence[str]) -> int:
    """``start``, ``status`` or ``stop`` and a folder; 0 if it could be done, or if the cluster runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("start", "status", "stop"))
    parser.add_argument("folder", type=Path)
    chosen = parser.parse_args(arguments)
    try:
        cluster = LocalCluster(chosen.folder)
        if chosen.action == "start":
            cluster.start()
            print(f"export SLURM_CONF={cluster.configuration}")
        elif chosen.action == "stop":
            cluster.stop()
        else:
            print(cluster.command("sinfo") if cluster.is_running() else f"no cluster runs in {cluster.folder}")
            return 0 if cluster.is_running() else 1
    except (RuntimeError, OSError) as error:
        print(f"local_cluster: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
