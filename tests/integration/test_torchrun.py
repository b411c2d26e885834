"""Ranks that torchrun starts, on one node and on several."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_runs import TINY_RUN

RUN = (*TINY_RUN, "trainer.max_steps=2", "data.batch_size=2", "pictures=0", "trainer.strategy=ddp")
TIMEOUT = 600  # seconds; a machine may be busy


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(program: list[str], *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", *program, "train", *RUN, *arguments]
    # Sums depend on the number of threads in their last bit.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def torchrun(node: int, port: int) -> list[str]:
    place = ["--nnodes", "2", "--node-rank", str(node), "--nproc-per-node", "1"]
    return ["torch.distributed.run", *place, "--master-addr", "127.0.0.1", "--master-port", str(port), "-m", "r3cnn"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.slow
def test_two_nodes_of_one_rank_train_as_two_ranks_of_one_node_do_and_write_one_folder(tmp_path: Path) -> None:
    port, nodes, local = free_port(), tmp_path / "nodes", tmp_path / "local"
    shape = ("trainer.num_nodes=2", "trainer.devices=1", f"output_dir={nodes}")
    for run in [start(torchrun(node, port), *shape) for node in (0, 1)]:
        _, errors = run.communicate(timeout=TIMEOUT)
        assert run.returncode == 0, errors
    run = start(["r3cnn"], "trainer.devices=2", f"output_dir={local}")
    _, errors = run.communicate(timeout=TIMEOUT)
    assert run.returncode == 0, errors

    assert sorted(path.name for path in tmp_path.iterdir()) == ["local", "nodes"]
    for folder in (nodes, local):
        assert [path.name for path in folder.glob("*.log")] == ["train.log"]
        assert (folder / "train.log").read_text().count("everything of this run goes to") == 1
    for name in ("metrics.json", "detections.json", "roi_statistics_train.json"):
        assert (nodes / name).read_text() == (local / name).read_text(), name
    ours, theirs = weights(nodes), weights(local)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())


@pytest.mark.slow
def test_ranks_that_would_each_make_a_folder_are_refused_before_they_make_any(tmp_path: Path) -> None:
    place = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "r3cnn"]
    command = [sys.executable, "-m", *place, "train", *RUN, "trainer.devices=2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    assert done.returncode != 0
    assert "output_dir is not on the command line" in done.stderr
    assert list(tmp_path.iterdir()) == []
