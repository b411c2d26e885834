"""Two ranks with an image each have the mean of the gradients that one process has for each image."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from r3cnn.detector import RCNN, BackwardOrder
from r3cnn.ops.sampling import BalancedSampler
from r3cnn.structures import Size, Target

OBJECTS = (tiny.SOME, tiny.SOME[:1])  # of the image of each rank


class Step(nn.Module):
    """A training step as the forward pass that DDP wraps."""

    def __init__(self, backward: BackwardOrder) -> None:
        super().__init__()
        self.model: RCNN = tiny.model(tiny.schedule())
        self.model.rpn.sampler = BalancedSampler(100_000, 1.0)  # nothing is sampled away
        self.backward = backward

    def forward(self, images: Tensor, sizes: list[Size], targets: list[Target]) -> Tensor:
        return self.model.total_loss(images, sizes, targets, backward=self.backward)[0]


def inputs_of(rank: int) -> tuple[Tensor, list[Size], list[Target]]:
    images, sizes = tiny.images(2)
    return images[rank : rank + 1], sizes[rank : rank + 1], [tiny.target(OBJECTS[rank])]


def gradients(step: nn.Module) -> dict[str, Tensor]:
    return {name.removeprefix("module."): p.grad for name, p in step.named_parameters() if p.grad is not None}


def run_rank(rank: int, folder: Path, backward: BackwardOrder) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    step = DistributedDataParallel(Step(backward).train(), gradient_as_bucket_view=True, static_graph=True)
    for _ in range(2):  # the second step reuses the buckets and the graph of the first
        step.zero_grad()
        step(*inputs_of(rank)).backward()
    torch.save(gradients(step), folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("backward", ["at_once", "by_loop"])
def test_two_ranks_have_the_mean_of_the_gradients_of_their_images(tmp_path: Path, backward: BackwardOrder) -> None:
    multiprocessing.spawn(run_rank, (tmp_path, backward), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    alone = []
    for rank in range(2):
        step = Step("at_once").train()
        step(*inputs_of(rank)).backward()
        alone.append(gradients(step))
    assert found[0].keys() == found[1].keys() == alone[0].keys() | alone[1].keys()
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name]), name
        expected = torch.stack([each.get(name, torch.zeros_like(gradient)) for each in alone]).mean(dim=0)
        rounding = 1e-5 * max(1e-3, float(expected.abs().max()))
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=rounding, msg=name)
