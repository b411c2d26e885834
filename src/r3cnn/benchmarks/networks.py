"""Whole networks side by side: ours beside torchvision's, and every system beside our Mask R-CNN.

Networks are new, but their work is that of trained ones, and equal on both sides: see `draw_proposals` and
`imitate_training`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn
from torch.optim import SGD

from r3cnn.benchmarks.counting import counted, peak_bytes
from r3cnn.benchmarks.harness import MB, Row, Turns, compare, take_turns
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
BACKWARD, OPTIMISER, REST = "backward", "optimiser", "rest"
Step = Callable[[], float]
Section = Callable[[str], contextlib.AbstractContextManager[object]]


class Ours(nn.Module):
    """One of our networks and its batch; called, it returns the total loss.

    Args:
        network: The network; given drawn proposals, in place.
        workload: The batch.
        seed: Of the proposals and the sampling of RoIs.
        candidates: Class scores per image that pass the score threshold at inference.
        backward: As in `RCNN.total_loss`.

    Attributes:
        section: Called with the name of what runs next; parts of a step are timed by it.
    """

    def __init__(
        self, network: RCNN, workload: Workload, *, seed: int, candidates: int, backward: BackwardOrder = "at_once"
    ) -> None:
        super().__init__()
        self.network, self.workload, self.backward_order = network, workload, backward
        self.section: Section = contextlib.nullcontext
        self._generator = torch.Generator(workload.images.device).manual_seed(seed)
        impose_proposals(network, workload, seed)
        imitate_training(network, workload, candidates)

    def forward(self) -> Tensor:
        """Weighted sum of all losses."""
        with self.section(NORMALISATION):
            images = self.workload.normalized()
        targets = self.workload.targets
        order = self.backward_order
        return self.network.total_loss(images, self.workload.sizes, targets, self._generator, backward=order)[0]

    def infer(self, autocast: contextlib.AbstractContextManager[object]) -> int:
        """From images to run-length codes of all masks; returns their number."""
        size = self.workload.size
        with autocast:
            with self.section(NORMALISATION):
                images = self.workload.normalized()
            found = self.network.detect(images, self.workload.sizes)
        with self.section(CODES):
            rles = [paste_and_encode(one.masks, one.boxes, size, threshold=one.mask_threshold) for one in found]
        return sum(len(each.counts) for each in rles)


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


def training_step(side: Ours | Torchvision, case: Case) -> Step:
    """All losses, gradients and update; returns the loss, which must be finite: else the time is of something else."""
    optimizer = new_optimizer(side)
    device = side.workload.images.device

    def step() -> float:
        side.train()
        with side.section(REST):
            with case.autocast(device):
                loss = side()
            with side.section(BACKWARD):
                loss.backward()
            with side.section(OPTIMISER):
                optimizer.step()
                optimizer.zero_grad()
                value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value}")
        return value

    return step


def new_optimizer(side: Ours | Torchvision) -> SGD:
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


def inference_step(side: Ours | Torchvision, case: Case) -> Step:
    """From images to run-length codes; returns the number of detections."""
    device = side.workload.images.device

    def infer() -> float:
        side.eval()
        with side.section(REST), torch.inference_mode():
            return side.infer(case.autocast(device))

    return infer


@dataclass(frozen=True)
class Task:
    """What is timed.

    Attributes:
        name: For the rows.
        step: Makes the call.
        targets: Largest ratio to torchvision's time, by the kind of device.
    """

    name: str
    step: Callable[[Ours | Torchvision, Case], Step]
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
        mean: Of each channel, in [0, 255].
        std: Of each channel, in [0, 255].
        candidates: Class scores per image that pass the score threshold at inference.
        repetitions: Rounds that count.
        warmups: Rounds before them.
        seed: Of everything drawn.
        own: Overrides of networks that are compared among themselves, not with torchvision's.
    """

    build: Callable[[str, Sequence[str]], RCNN]
    device: torch.device
    cases: Sequence[Case]
    mean: tuple[float, ...]
    std: tuple[float, ...]
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
        workload = draw_workload(case, mean=self.mean, std=self.std, seed=self.seed, device=self.device)
        return Ours(network, workload, seed=self.seed, candidates=self.candidates, backward=backward)

    def torchvision(self, ours: Ours) -> Torchvision:
        """Torchvision's network with the weights and the batch of our Mask R-CNN."""
        return Torchvision(ours.network, ours.workload, self.seed)

    def take_turns(self, calls: Mapping[str, Step]) -> Turns:
        """The calls in turns, as often as was asked for."""
        return take_turns(calls, repetitions=self.repetitions, warmups=self.warmups, device=self.device)


def compare_networks(task: Task, bench: Bench, systems: Sequence[str]) -> tuple[list[Row], dict[str, object]]:
    """Our Mask R-CNN beside torchvision's, and every system beside our Mask R-CNN; and the figures behind the rows."""
    rows: list[Row] = []
    outcomes: dict[str, float] = {}
    figures: list[dict[str, object]] = []
    for case in bench.cases:
        ours = bench.side(REFERENCE, case)
        sides: dict[str, Ours | Torchvision] = {REFERENCE: ours, TORCHVISION: bench.torchvision(ours)}
        turns = bench.take_turns({name: task.step(side, case) for name, side in sides.items()})
        title = f"{task.name}, {case.name}: {REFERENCE} / {TORCHVISION}"
        rows.append(turns.row(title, REFERENCE, TORCHVISION, task.targets[bench.device.type]))
        outcomes |= {f"{name}, {case.name}": outcome for name, outcome in turns.outcomes.items()}
        found, about = beside_reference(task, bench, case, systems)
        rows += found
        figures += about
    return rows, {"outcomes": outcomes, "systems": figures}


def speeds(task: Task, bench: Bench, sides: Mapping[str, tuple[Ours, Case]]) -> tuple[Turns, list[Speed]]:
    """Networks in turns, after one step of each in which operations and memory are counted."""
    calls = {name: task.step(side, case) for name, (side, case) in sides.items()}
    counts = {name: counted(call, bench.device) for name, call in calls.items()}
    turns = bench.take_turns(calls)
    return turns, [Speed(name, turns.median(name), *counts[name], turns.outcomes[name]) for name in calls]


def cost_rows(title: str, turns: Turns, ours: Speed, baseline: Speed, target: float | None = None) -> list[Row]:
    """Time beside operations, time, and memory, of two networks; ``target`` is for the first."""
    time = turns.row(f"{title}, time", ours.name, baseline.name)
    ratios = compare(
        f"{title}, time ratio beside FLOP ratio", time.ratio or 0.0, ours.flops / baseline.flops, target, "x"
    )
    memory = compare(f"{title}, peak memory", ours.peak_bytes / MB, baseline.peak_bytes / MB, unit="MB")
    return [replace(ratios, spread=time.spread), time, memory]


def beside_reference(
    task: Task, bench: Bench, case: Case, systems: Sequence[str]
) -> tuple[list[Row], list[dict[str, object]]]:
    """Every system and our Mask R-CNN, two networks at a time; and the figures behind the rows."""
    rows: list[Row] = []
    found: dict[str, Speed] = {}
    for system in systems:
        sides = {name: bench.side(name, case, bench.own) for name in (system, REFERENCE)}
        turns, measured = speeds(task, bench, {name: (side, case) for name, side in sides.items()})
        found |= {speed.name: speed for speed in measured}
        title = f"{task.name}, {case.name}: {system} / {REFERENCE}"
        rows += cost_rows(title, turns, found[system], found[REFERENCE], TIME_OVER_FLOPS)
    return rows, [
        {"system": name, **asdict(case), **asdict(speed), "images_per_second": case.batch_size / speed.seconds}
        for name, speed in found.items()
    ]


def memory_rows(bench: Bench, case: Case) -> list[Row]:
    """Peak memory of a training step of R3-CNN beside that of Mask R-CNN, for every way to the gradients."""

    def megabytes(system: str, order: BackwardOrder) -> float:
        step = TRAINING.step(bench.side(system, case, bench.own, order), case)
        return peak_bytes(step, bench.device) / MB

    reference = megabytes(REFERENCE, "at_once")
    title = f"peak training memory, {case.name}"
    return [
        compare(
            f"{title}, backward={order}: {MEMORY_OF} / {REFERENCE}", megabytes(MEMORY_OF, order), reference, goal, "MB"
        )
        for order, goal in MEMORY_TARGETS.items()
    ]
