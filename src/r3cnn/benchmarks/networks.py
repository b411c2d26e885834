"""Whole networks side by side: ours beside torchvision's, and every system beside our Mask R-CNN.

Networks are new, but their work is that of trained ones, and equal on both sides: see `draw_proposals` and
`imitate_training`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product

import torch
from torch import Tensor, nn
from torch.optim import SGD

from r3cnn.benchmarks.counting import counted, peak_bytes
from r3cnn.benchmarks.harness import MB, Row, Turns, compare, section, take_turns
from r3cnn.benchmarks.torchvision import CODES, NORMALISATION, Torchvision
from r3cnn.benchmarks.workload import Case, Workload, draw_proposals, draw_workload
from r3cnn.detector import RCNN, BackwardOrder
from r3cnn.evaluation.paste import paste_and_encode
from r3cnn.ops.fusion import fuse_scores
from r3cnn.structures import Rois, Size, Target

REFERENCE, TORCHVISION = "mask_rcnn", "torchvision"
TIME_OVER_FLOPS = 1.1
MEMORY_OF = "r3cnn_naive"
MEMORY_TARGETS: dict[BackwardOrder, float] = {"at_once": 1.35, "by_loop": 1.15}
# The weights, and with them the work, stay what they are, while the optimizer has all of its own to do.
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 1e-9, 0.9, 1e-4
BACKWARD, OPTIMISER, REST = "backward", "optimiser", "rest"  # sections of a step
Step = Callable[[], float]


class Ours(nn.Module):
    """One of our networks and its batch; called, it returns the total loss.

    Args:
        network: The network; given drawn proposals, in place.
        workload: The batch.
        seed: Of the proposals and the sampling of RoIs.
        candidates: Class scores per image that pass the score threshold at inference.
        backward: As in `RCNN.total_loss`.
    """

    def __init__(
        self, network: RCNN, workload: Workload, *, seed: int, candidates: int, backward: BackwardOrder = "at_once"
    ) -> None:
        super().__init__()
        self.network, self.workload, self.backward_order = network, workload, backward
        self._generator = torch.Generator(workload.images.device).manual_seed(seed)
        impose_proposals(network, workload, seed)
        imitate_training(network, workload, candidates)

    def forward(self) -> Tensor:
        """Weighted sum of all losses."""
        with section(NORMALISATION):
            images = self.workload.normalized()
        targets = self.workload.targets
        order = self.backward_order
        return self.network.total_loss(images, self.workload.sizes, targets, self._generator, backward=order)[0]

    def infer(self) -> int:
        """From images to run-length codes of all masks; returns their number."""
        size = self.workload.size
        with self.workload.autocast():
            with section(NORMALISATION):
                images = self.workload.normalized()
            found = self.network.detect(images, self.workload.sizes)
        with section(CODES):
            rles = [paste_and_encode(one.masks, one.boxes, size, threshold=one.mask_threshold) for one in found]
        return sum(len(each.counts) for each in rles)


Side = Ours | Torchvision


def impose_proposals(network: RCNN, workload: Workload, seed: int) -> None:
    """Lets the proposal network do all of its work, and hands on drawn proposals instead; changes it in place."""
    rpn = network.rpn
    boxes = [draw_proposals(workload, each.per_image, seed) for each in (rpn.train_proposals, rpn.eval_proposals)]
    in_training, at_inference = (
        Rois(each, torch.ones(each.shape[:2], dtype=torch.bool, device=each.device)) for each in boxes
    )
    own_losses, own_propose = rpn.losses, rpn.propose

    def losses(
        features: Sequence[Tensor], sizes: Sequence[Size], targets: Sequence[Target], generator: torch.Generator | None
    ) -> tuple[Rois, dict[str, Tensor]]:
        return in_training, own_losses(features, sizes, targets, generator)[1]

    def propose(features: Sequence[Tensor], sizes: Sequence[Size]) -> Rois:
        own_propose(features, sizes)
        return at_inference

    for replacement in (losses, propose):
        setattr(rpn, replacement.__name__, replacement)


@torch.no_grad()
def imitate_training(network: RCNN, workload: Workload, candidates: int) -> None:
    """Brings a new network to where its work is that of a trained one; changes it in place.

    Batch norm gets the statistics of the images, so that activations neither grow nor vanish. The score threshold
    becomes the score that ``candidates`` class scores per image reach: random weights pass none of the usual ones,
    and no mask would be made.
    """
    for module in network.backbone.modules():
        if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
            module.momentum = 1.0
            module.train()
    network.backbone(workload.normalized())
    network.eval()
    logits: list[Tensor] = []
    heads = network.roi_heads.box_heads
    hooks = [head.register_forward_hook(lambda _, inputs, box: logits.append(box.logits)) for head in heads]
    network.detect(workload.normalized(), workload.sizes)
    for hook in hooks:
        hook.remove()
    scores = fuse_scores(logits, network.schedule.score_fusion)[:, :-1].flatten()
    passing = min(candidates * len(workload.images), len(scores))
    threshold = float(scores.topk(passing).values[-1])
    network.roi_heads.detection = replace(network.roi_heads.detection, score_threshold=threshold)


def training_step(side: Side) -> Step:
    """All losses, gradients and update; returns the loss, which must be finite: else the time is of something else."""
    optimizer = new_optimizer(side)

    def step() -> float:
        side.train()
        with section(REST):
            with side.workload.autocast():
                loss = side()
            with section(BACKWARD):
                loss.backward()
            with section(OPTIMISER):
                optimizer.step()
                optimizer.zero_grad()
                value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value}")
        return value

    return step


def new_optimizer(side: Side) -> SGD:
    """An optimizer that has its momentum already, so that every step takes the same time and memory.

    Ours is fused, as in ``conf/optimizer``; torchvision's is what its reference training has.
    """
    trainable = [parameter for parameter in side.parameters() if parameter.requires_grad]
    fused = isinstance(side, Ours) or None
    optimizer = SGD(trainable, lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, fused=fused)
    for parameter in trainable:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


def inference_step(side: Side) -> Step:
    """From images to run-length codes; returns the number of detections."""

    def step() -> float:
        side.eval()
        with section(REST), torch.inference_mode():
            return float(side.infer())

    return step


@dataclass(frozen=True)
class Task:
    """What is timed.

    Attributes:
        name: For the rows.
        step: Makes the call.
        targets: Largest ratio to torchvision's time, by the kind of device.
    """

    name: str
    step: Callable[[Side], Step]
    targets: Mapping[str, float]


TRAINING = Task("training step", training_step, {"cpu": 1.0, "cuda": 0.8})
INFERENCE = Task("inference, image to RLE", inference_step, {"cpu": 0.85, "cuda": 0.6})


@dataclass(frozen=True)
class Speed:
    """What a step of one of several networks took.

    Attributes:
        name: What tells it from the others.
        seconds: Median time of a step.
        flops: Operations of a step.
        peak_bytes: Memory of a step.
        outcome: What the step returned: the loss, or the number of detections.
    """

    name: str
    seconds: float
    flops: int
    peak_bytes: int
    outcome: float


@dataclass(frozen=True)
class Bench:
    """What every part about networks is given.

    Attributes:
        build: Makes a new network of an experiment with overrides, random weights from the seed, on the CPU.
        device: Where everything runs.
        cases: Every precision with every batch size that was asked for.
        candidates: Class scores per image that pass the score threshold at inference.
        repetitions: Rounds that count.
        warmups: Rounds before them.
        seed: Of everything drawn.
        own: Overrides of networks that are compared among themselves, not with torchvision's.
    """

    build: Callable[[str, Sequence[str]], RCNN]
    device: torch.device
    cases: Sequence[Case]
    candidates: int
    repetitions: int
    warmups: int
    seed: int
    own: tuple[str, ...]

    def side(
        self, experiment: str, case: Case, overrides: Sequence[str] = (), backward: BackwardOrder = "at_once"
    ) -> Ours:
        """A new network of an experiment and the batch of a case."""
        network = self.build(experiment, overrides).to(self.device)
        workload = draw_workload(case, num_classes=network.num_classes, seed=self.seed, device=self.device)
        return Ours(network, workload, seed=self.seed, candidates=self.candidates, backward=backward)

    def beside_torchvision(self, case: Case) -> dict[str, Side]:
        """Our Mask R-CNN, and torchvision's with its weights and its batch."""
        ours = self.side(REFERENCE, case)
        return {REFERENCE: ours, TORCHVISION: Torchvision(ours.network, ours.workload, self.seed)}

    def speeds(self, task: Task, sides: Mapping[str, Side]) -> tuple[Turns, list[Speed]]:
        """Networks in turns, after one step of each in which operations and memory are counted."""
        calls = {name: task.step(side) for name, side in sides.items()}
        counts = {name: counted(call, self.device) for name, call in calls.items()}
        turns = take_turns(calls, repetitions=self.repetitions, warmups=self.warmups, device=self.device)
        return turns, [Speed(name, turns.median(name), *counts[name], turns.outcomes[name]) for name in calls]


def compare_networks(task: Task, bench: Bench, systems: Sequence[str]) -> tuple[list[Row], list[dict[str, object]]]:
    """Our Mask R-CNN beside torchvision's, and every other system beside it; and the figures behind the rows."""
    rows: list[Row] = []
    figures: list[dict[str, object]] = []
    for case, system in product(bench.cases, dict.fromkeys((REFERENCE, *systems))):
        is_reference = system == REFERENCE
        sides = (
            bench.beside_torchvision(case)
            if is_reference
            else {name: bench.side(name, case, bench.own) for name in (system, REFERENCE)}
        )
        title = f"{task.name}, {case.name}: {' / '.join(sides)}"
        turns, (ours, baseline) = bench.speeds(task, sides)
        if is_reference:
            rows.append(turns.row(title, REFERENCE, TORCHVISION, task.targets.get(bench.device.type)))
        else:
            rows += cost_rows(title, turns, ours, baseline, TIME_OVER_FLOPS)
        for one in (ours, baseline):
            speed = {**asdict(one), "images_per_second": case.batch_size / one.seconds}
            figures.append({"comparison": title, **asdict(case), **speed})
    return rows, figures


def cost_rows(title: str, turns: Turns, ours: Speed, baseline: Speed, target: float | None = None) -> list[Row]:
    """Time beside operations, time, and memory, of two networks; ``target`` is for the first."""
    time = turns.row(f"{title}, time", ours.name, baseline.name)
    ratios = compare(
        f"{title}, time ratio beside FLOP ratio", time.ratio or 0.0, ours.flops / baseline.flops, target, "x"
    )
    memory = compare(f"{title}, peak memory", ours.peak_bytes / MB, baseline.peak_bytes / MB, unit="MB")
    return [replace(ratios, spread=time.spread), time, memory]


def memory_rows(bench: Bench, case: Case, overrides: Sequence[str]) -> list[Row]:
    """Peak memory of a training step of R3-CNN beside that of Mask R-CNN, for every way to the gradients."""

    def megabytes(system: str, order: BackwardOrder) -> float:
        side = bench.side(system, case, (*bench.own, *overrides), order)
        return peak_bytes(TRAINING.step(side), bench.device) / MB

    reference = megabytes(REFERENCE, "at_once")
    title = f"peak training memory, {case.name}"
    return [
        compare(
            f"{title}, backward={order}: {MEMORY_OF} / {REFERENCE}", megabytes(MEMORY_OF, order), reference, goal, "MB"
        )
        for order, goal in MEMORY_TARGETS.items()
    ]
