"""The same training step on more and more processes, each with a batch of its own."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from r3cnn.benchmarks.cases import Case, Effort
from r3cnn.benchmarks.proposals import impose_proposals
from r3cnn.benchmarks.steps import Step, imitate_training, new_optimizer, update
from r3cnn.benchmarks.timing import take_turns
from r3cnn.benchmarks.workload import Workload
from r3cnn.detector import RCNN


@dataclass(frozen=True)
class RankJob:
    """What every process is given.

    Attributes:
        model: Network with the same weights everywhere, on the CPU.
        workload: Batch of each process, on the CPU.
        case: Precision.
        effort: How often it runs.
        device_type: ``cpu``: gloo; ``cuda``: NCCL, one GPU per process.
        threads: Of each process, however many there are.
    """

    model: RCNN
    workload: Workload
    case: Case
    effort: Effort
    device_type: str
    threads: int


class TotalLoss(nn.Module):
    """The weighted sum of all losses, as one forward that DDP can wrap."""

    def __init__(self, model: RCNN, case: Case, generator: torch.Generator) -> None:
        super().__init__()
        self.model, self.case, self.generator = model, case, generator

    def forward(self, workload: Workload) -> Tensor:
        """Scalar."""
        with self.case.context(workload.images.device):
            inputs = workload.normalized(), workload.sizes, workload.targets
            return self.model.total_loss(*inputs, self.generator)[0]


def seconds_by_ranks(job: RankJob, ranks: Sequence[int]) -> dict[int, float]:
    """Median seconds of a step, by the number of processes that train together.

    Raises:
        ValueError: If there are fewer GPUs than that.
        torch.multiprocessing.ProcessRaisedException: If a process fails.
    """
    if job.device_type == "cuda" and torch.cuda.device_count() < max(ranks):
        raise ValueError(f"scale.ranks is {list(ranks)}, but there are {torch.cuda.device_count()} GPUs")
    context = multiprocessing.get_context("spawn")
    results: SimpleQueue[tuple[int, float]] = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (max(ranks), tuple(ranks), job, str(Path(folder) / "group"), results)
        multiprocessing.start_processes(_run_rank, arguments, nprocs=max(ranks), start_method="spawn")
        return dict(results.get() for _ in ranks)


def _run_rank(
    rank: int,
    world: int,
    ranks: Sequence[int],
    job: RankJob,
    file: str,
    results: SimpleQueue[tuple[int, float]],
) -> None:
    """One process: takes part where it is one of the first so many, and waits where it is not."""
    torch.set_num_threads(job.threads)
    device = torch.device(job.device_type, rank) if job.device_type == "cuda" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, init_method=f"file://{file}", rank=rank, world_size=world)
    try:
        for count in ranks:
            group = distributed.new_group(list(range(count)))
            if isinstance(group, distributed.ProcessGroup):
                seconds = _step_seconds(job, device, group)
                if rank == 0:
                    results.put((count, seconds))
            distributed.barrier()
    finally:
        distributed.destroy_process_group()


def _step_seconds(job: RankJob, device: torch.device, group: distributed.ProcessGroup) -> float:
    effort = job.effort
    step = _step(_own_copy(job, device), group)
    calls = {f"{distributed.get_world_size(group)} ranks": step}
    measured = take_turns(calls, repetitions=effort.repetitions, warmups=max(effort.warmups, 1), device=device)
    return next(iter(measured.values())).seconds


def _own_copy(job: RankJob, device: torch.device) -> RankJob:
    """A copy of the network, which all processes share memory of, and of the batch on the device."""
    workload = job.workload
    moved = replace(
        workload,
        images=workload.images.to(device),
        targets=tuple(target.to(device) for target in workload.targets),
    )
    model = copy.deepcopy(job.model).to(device)
    impose_proposals(model, moved, job.effort.seed)
    imitate_training(model, moved, job.effort.candidates)
    return replace(job, model=model, workload=moved)


def _step(job: RankJob, group: distributed.ProcessGroup) -> Step:
    optimizer = new_optimizer(job.model)
    generator = torch.Generator(job.workload.images.device).manual_seed(job.effort.seed)
    job.model.train()
    network = DistributedDataParallel(
        TotalLoss(job.model, job.case, generator),
        process_group=group,
        gradient_as_bucket_view=True,
        static_graph=True,
    )

    def step() -> float:
        loss = network(job.workload)
        loss.backward()
        return update(optimizer, loss.detach())

    return step
