"""The loop schedule: which head runs in which loop, at which IoU threshold.

Mask R-CNN, HTC and R3-CNN are one program under different schedules (R3-CNN, arXiv 2104.01329, Fig. 1 and Table 1).
``loop`` counts passes over the RoIs, ``head`` counts sets of weights; they never stand in for each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from r3cnn.ranges import check_range

MaskFeedback = Literal["released", "trained", "off"]
ScoreFusion = Literal["mean_logits", "mean_probs", "max", "last"]
MaskFusion = Literal["mean_probs", "mean_logits", "max", "last"]
MOST_LOOPS = 100


def _tuple_of_ints(name: str, values: Sequence[int]) -> tuple[int, ...]:
    for value in values:
        if isinstance(value, bool) or int(value) != value:
            raise ValueError(f"{name} must hold integers, got {value!r}")
        if value < 0:
            raise ValueError(f"{name} must hold head indices >= 0, got {value}")
    return tuple(int(value) for value in values)


@dataclass(frozen=True)
class LoopSchedule:
    """Checked value object; lists run in parallel, one entry per training loop unless said otherwise.

    Attributes:
        heads: Head that each training loop runs, in ``[0, num_heads)``.
        iou_thresholds: IoU in (0, 1] from which on an RoI is foreground.
        loss_weights: Factor >= 0 of the loop's class, box and mask loss.
        eval_heads: Head that each evaluation loop runs; any length >= 1.
        delta_stds: Per head, the four standard deviations of the box deltas ``(dx, dy, dw, dh)``; one row serves all
            heads.
        interleaved: Whether masks are trained on the refined, re-sampled boxes (HTC, arXiv 1901.07518) or on the
            loop's own RoIs (Mask R-CNN).
        mask_feedback: ``released``: what the authors' code does, see ``feedback_heads_before``. ``trained``: the
            mask feature of the loop before feeds the next one in training as in evaluation. ``off``: never.
        feedback_heads: Heads whose mask head owns a feedback convolution; ``None``: those that run after the first
            loop, in training or in evaluation, since only they have something to be fed with.
        score_fusion: How the class scores of the loops become one: ``mean_logits`` (the paper's), ``mean_probs``,
            ``max`` (of the logits) or ``last``.
        mask_fusion: How the masks of the loops become one: ``mean_probs`` (the released code's; the paper says
            nothing), ``mean_logits``, ``max`` (element-wise) or ``last``.

    Raises:
        ValueError: For lists of unequal length, values out of range, or a head without weights.
    """

    heads: Sequence[int]
    iou_thresholds: Sequence[float]
    loss_weights: Sequence[float]
    eval_heads: Sequence[int]
    delta_stds: Sequence[Sequence[float]]
    interleaved: bool
    mask_feedback: MaskFeedback
    feedback_heads: Sequence[int] | None = None
    score_fusion: ScoreFusion = "mean_logits"
    mask_fusion: MaskFusion = "mean_probs"

    def __post_init__(self) -> None:
        set_field = object.__setattr__  # frozen dataclass: lists from a config become tuples once, here
        for name in ("heads", "eval_heads"):
            set_field(self, name, _tuple_of_ints(name, getattr(self, name)))
        later = sorted({*self.heads[1:], *self.eval_heads[1:]}) or [0]  # one loop has the weights of any number
        feedback = later if self.feedback_heads is None else self.feedback_heads
        set_field(self, "feedback_heads", _tuple_of_ints("feedback_heads", feedback))
        for name in ("iou_thresholds", "loss_weights"):
            set_field(self, name, tuple(float(value) for value in getattr(self, name)))
        stds = tuple(tuple(float(std) for std in row) for row in self.delta_stds)
        set_field(self, "delta_stds", stds * len(set(self.heads)) if len(stds) == 1 else stds)
        self._check_lengths()
        self._check_heads()
        self._check_ranges()

    def _check_lengths(self) -> None:
        if not self.heads:
            raise ValueError("heads is empty: at least one training loop is needed")
        if not self.eval_heads:
            raise ValueError("eval_heads is empty: at least one evaluation loop is needed")
        for name in ("heads", "eval_heads"):
            if len(getattr(self, name)) > MOST_LOOPS:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries: {MOST_LOOPS} loops are the most")
        for name in ("iou_thresholds", "loss_weights"):
            got = len(getattr(self, name))
            if got != len(self.heads):
                raise ValueError(f"{name} has {got} entries, heads has {len(self.heads)}: one per loop is needed")

    def _check_heads(self) -> None:
        used = sorted(set(self.heads))
        if used != list(range(len(used))):
            raise ValueError(f"heads is {list(self.heads)}: heads must be numbered 0, 1, … without a gap")
        if len(self.delta_stds) != len(used):
            got = f"delta_stds has {len(self.delta_stds)} entries, there are {len(used)} heads"
            raise ValueError(f"{got}: one for all of them or one for each is needed")
        for name in ("eval_heads", "feedback_heads"):
            missing = sorted(set(getattr(self, name)) - set(used))
            if missing:
                raise ValueError(f"{name} names head {missing[0]}, but only heads {used} have weights")

    def _check_ranges(self) -> None:
        check_range("(0, 1]", iou_thresholds=self.iou_thresholds)
        check_range("[0, inf)", loss_weights=self.loss_weights)
        for stds in self.delta_stds:
            if len(stds) != 4:
                raise ValueError(f"delta_stds needs four positive numbers per head, got {list(stds)}")
            check_range("(0, inf)", delta_stds=stds)

    @property
    def num_heads(self) -> int:
        """Number of sets of weights."""
        return len(self.delta_stds)

    @property
    def num_loops(self) -> int:
        """Number of training loops."""
        return len(self.heads)

    @property
    def has_feedback(self) -> bool:
        """Whether an evaluation loop's mask head is fed with the mask feature of the loop before."""
        return self.mask_feedback != "off"

    def feedback_heads_before(self, loop: int) -> tuple[int, ...]:
        """Mask heads whose features are chained, in this order, to feed training loop ``loop``.

        The released code runs in training the heads with a smaller *index* than the current one. For HTC, where head
        and loop coincide, that is the chain of earlier loops; for R3-CNN, whose only head is 0, it is nothing, so its
        feedback convolution sees zeros and only its bias learns. At evaluation it chains the earlier loops.
        """
        if not self.has_feedback:
            return ()
        return tuple(range(self.heads[loop])) if self.mask_feedback == "released" else tuple(self.heads[:loop])


def eval_heads(loops: int | None, heads: Sequence[int] | None, schedule: LoopSchedule) -> list[int]:
    """Which head each evaluation loop runs.

    Args:
        loops: Number of loops asked for, or None for as many as trained.
        heads: Head of each loop asked for, or None to derive it from ``loops``.
        schedule: Schedule of the trained network.

    Raises:
        ValueError: When a network of several heads is asked for more loops than it was made for without saying which
            head to repeat, or when both arguments contradict each other.
    """
    if loops is not None and (not isinstance(loops, int) or isinstance(loops, bool) or loops < 1):
        raise ValueError(f"eval_loops must be a whole number >= 1, got {loops!r}")
    if heads is not None:
        if (
            isinstance(heads, str)
            or not isinstance(heads, Sequence)
            or not all(isinstance(each, int) for each in heads)
        ):
            raise ValueError(f"eval_heads must be a list of head indices such as [0,0,0], got {heads!r}")
        if loops is not None and loops != len(heads):
            raise ValueError(f"eval_loops={loops} contradicts eval_heads={list(heads)}: give one of them")
        return list(heads)
    trained = list(schedule.eval_heads)
    if loops is None:
        return trained
    if schedule.num_heads == 1:
        return [0] * loops
    if loops > len(trained):
        example = trained + trained[-1:] * (loops - len(trained))
        raise ValueError(
            f"eval_loops={loops}, but the network was made for {len(trained)} loops with {schedule.num_heads} heads: "
            f"say which head each loop runs, such as eval_heads={example}"
        )
    return trained[:loops]
