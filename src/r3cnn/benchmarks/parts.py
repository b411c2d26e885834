"""``r3cnn bench parts``: where the time of a training step and of inference goes, beside torchvision's parts."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, wraps

from r3cnn.benchmarks.counting import flop_counter
from r3cnn.benchmarks.harness import Row, compare, wait_for
from r3cnn.benchmarks.networks import (
    BACKWARD,
    INFERENCE,
    OPTIMISER,
    REFERENCE,
    REST,
    TORCHVISION,
    TRAINING,
    Bench,
    Ours,
    Step,
    Task,
)
from r3cnn.benchmarks.torchvision import CODES, NORMALISATION, Torchvision
from r3cnn.benchmarks.workload import Case

BACKBONE, PYRAMID, RPN, MASKS = "backbone", "pyramid", "RPN", "masks"
HEADS, TOGETHER = "RoI heads: matching, refinement, losses, selection", "RoI heads together"
IN_BOTH = (NORMALISATION, BACKBONE, PYRAMID, RPN, BACKWARD, OPTIMISER, TOGETHER)


class Sections:
    """Splits what a clock counts among named sections; each gets what the sections inside it leave over.

    Args:
        clock: Never runs backwards.

    Attributes:
        clock: May be replaced between two steps.
        spent: By section, in the order in which they were first entered.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.spent: dict[str, float] = {}
        self._open: list[str] = []
        self._since = 0.0

    @contextlib.contextmanager
    def section(self, name: str) -> Iterator[None]:
        """What happens inside is paid by ``name``."""
        self._settle()
        self.spent.setdefault(name, 0.0)
        self._open.append(name)
        try:
            yield
        finally:
            self._settle()
            self._open.pop()

    def _settle(self) -> None:
        now = self.clock()
        if self._open:
            self.spent[self._open[-1]] += now - self._since
        self._since = now

    def watch(self, owner: object, method: str, name: str | Callable[[], str]) -> None:
        """Every call of a method, such as the ``forward`` of a module, is paid by ``name``; changes ``owner``."""
        own = getattr(owner, method)

        @wraps(own)
        def watched(*args: object, **kwargs: object) -> object:
            with self.section(name if isinstance(name, str) else name()):
                return own(*args, **kwargs)

        setattr(owner, method, watched)


def watch(side: Ours | Torchvision, sections: Sections) -> None:
    """Tells ``sections`` what runs; changes ``side`` in place."""
    side.section = sections.section
    if isinstance(side, Ours):
        _watch_ours(side, sections)
    else:
        _watch_torchvision(side, sections)


def _watch_ours(side: Ours, sections: Sections) -> None:
    """Loops are counted by what each calls once. At inference the masks of all loops come together."""
    network = side.network
    heads, branch = network.roi_heads, network.roi_heads.mask_branch
    loops = {"boxes": 0, "masks": 0}

    def step_begins() -> str:
        loops.update(boxes=0, masks=0)
        return HEADS

    def loop_begins(kind: str) -> str:
        loops[kind] += 1
        return f"loop {loops[kind]}: {kind}"

    sections.watch(network.backbone, "forward", BACKBONE)
    sections.watch(network.fpn, "forward", PYRAMID)
    for method in ("losses", "propose"):
        sections.watch(network.rpn, method, RPN)
    for method in ("losses", "detect"):
        sections.watch(heads, method, step_begins)
    sections.watch(heads.box_extractor, "forward", lambda: loop_begins("boxes"))
    for head in heads.box_heads:
        sections.watch(head, "forward", lambda: f"loop {loops['boxes']}: boxes")
    sections.watch(branch, "train_on", lambda: loop_begins("masks"))
    sections.watch(branch, "predict", MASKS)


def _watch_torchvision(side: Torchvision, sections: Sections) -> None:
    """What its transform does at the end of inference is pasting."""
    network = side.network
    heads = network.roi_heads
    sections.watch(network.transform, "forward", NORMALISATION)
    sections.watch(network.transform, "postprocess", lambda: REST if side.training else CODES)
    sections.watch(network.backbone.body, "forward", BACKBONE)
    sections.watch(network.backbone.fpn, "forward", PYRAMID)
    sections.watch(network.rpn, "forward", RPN)
    sections.watch(heads, "forward", HEADS)
    for module in (heads.box_roi_pool, heads.box_head, heads.box_predictor):
        sections.watch(module, "forward", "loop 1: boxes")
    for module in (heads.mask_roi_pool, heads.mask_head, heads.mask_predictor):
        sections.watch(module, "forward", lambda: "loop 1: masks" if side.training else MASKS)


def part_rows(bench: Bench, systems: Sequence[str]) -> tuple[list[Row], dict[str, object]]:
    """Share of every part, and time beside torchvision's where it has the same part; operations are in the details.

    Mask targets are ours of the masks and torchvision's of the rest of the heads, so heads are compared as a whole.
    """
    rows: list[Row] = []
    details: dict[str, object] = {}
    for case in bench.cases:
        for task in (TRAINING, INFERENCE):
            seconds, flops = split_steps(bench, case, task, systems)
            theirs = with_heads_together(seconds[TORCHVISION])
            for system in systems:
                title, ours = f"{task.name}, {case.name}: {system}", seconds[system]
                whole = sum(ours.values())
                rows += [compare(f"{title}, {part} / all", spent, whole) for part, spent in ours.items()]
                rows += [
                    compare(f"{title} / {TORCHVISION}, {part}", spent, theirs[part])
                    for part, spent in with_heads_together(ours).items()
                    if part in IN_BOTH and part in theirs
                ]
                details[title] = {"seconds": ours, "flops": flops[system]}
    return rows, details


def with_heads_together(seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds of each section, and of everything that is done with RoIs, without its backward."""
    heads = [spent for name, spent in seconds.items() if name in (HEADS, MASKS) or name.startswith("loop ")]
    return {**seconds, TOGETHER: sum(heads)}


def split_steps(
    bench: Bench, case: Case, task: Task, systems: Sequence[str]
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Median seconds, and operations, of each section of steps of our networks and of torchvision's in turns."""

    def clock() -> float:
        wait_for(bench.device)  # so that the device's time goes to whoever asked for it
        return time.perf_counter()

    sides: dict[str, Ours | Torchvision] = {TORCHVISION: bench.torchvision(bench.side(REFERENCE, case))}
    sides |= {name: bench.side(name, case, () if name == REFERENCE else bench.own) for name in systems}
    sections = {name: Sections(clock) for name in sides}
    for name, side in sides.items():
        watch(side, sections[name])
    calls = {name: task.step(side, case) for name, side in sides.items()}
    flops = {name: split_operations(call, sections[name]) for name, call in calls.items()}
    records: dict[str, list[dict[str, float]]] = {name: [] for name in calls}

    def recorded(name: str) -> float:
        sections[name].spent = {}
        outcome = calls[name]()
        records[name].append(sections[name].spent)
        return outcome

    bench.take_turns({name: partial(recorded, name) for name in calls})
    return {name: medians(found[bench.warmups :]) for name, found in records.items()}, flops


def split_operations(call: Step, sections: Sections) -> dict[str, float]:
    """Counted operations of each section of one call."""
    clock, sections.spent = sections.clock, {}
    with flop_counter() as counter:
        sections.clock = counter.get_total_flops
        call()
    sections.clock = clock
    return sections.spent


def medians(records: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Median of each section over all records; a section that a record lacks took nothing there."""
    names = dict.fromkeys(name for record in records for name in record)
    return {name: statistics.median(record.get(name, 0.0) for record in records) for name in names}
