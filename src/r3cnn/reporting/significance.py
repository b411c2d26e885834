"""Whether a difference between two systems is more than chance, from the detections that their runs left."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from r3cnn.evaluation.bootstrap import ApDifference, ImageMatches, match_images, paired_bootstrap
from r3cnn.evaluation.ground_truth import load_ground_truth
from r3cnn.evaluation.protocol import IouType
from r3cnn.evaluation.results import read_results
from r3cnn.reporting.records import Record
from r3cnn.reporting.rows import Scored

DETECTIONS, LOOP_DETECTIONS, IMAGE_IDS = "detections.json", "detections_loop{}.json", "image_ids.json"
IOU_TYPES: dict[str, IouType] = {"box": "bbox", "mask": "segm"}
ROUNDING = 1e-9  # of an AP computed twice
KEPT = 16  # runs matched to the objects, some 15 MB each on COCO: boxes and masks of both sides with a few seeds


@dataclass(frozen=True)
class Draws:
    """How the intervals are drawn.

    Attributes:
        resamples: Number of resamples of the images.
        confidence: Of the interval, in (0, 1).
        seed: Of the draws.
    """

    resamples: int
    confidence: float
    seed: int


@dataclass(frozen=True)
class Comparison:
    """One system beside another.

    Attributes:
        name: The system.
        baseline: What it is compared with.
        box: Difference in box AP; None where it cannot be told.
        mask: Difference in mask AP; None where it cannot be told.
        reason: Why not; None where it can.
    """

    name: str
    baseline: str
    box: ApDifference | None = None
    mask: ApDifference | None = None
    reason: str | None = None


def compare(
    name: str, runs: Sequence[Scored], baseline_name: str, baseline: Sequence[Scored], draws: Draws
) -> Comparison:
    """Compares the runs of two systems, paired by their seeds.

    A comparison that cannot be made says why instead of raising: the rest of a report is worth reading without it.

    Args:
        name: The system.
        runs: Its runs, at most one per seed.
        baseline_name: The other.
        baseline: Its runs.
        draws: How the intervals are drawn.
    """
    ours, theirs = ({one.record.seed: one for one in group} for group in (runs, baseline))
    seeds = sorted(ours.keys() & theirs.keys())
    try:
        if not seeds:
            raise ValueError(f"no seed in common: {sorted(ours)} and {sorted(theirs)}")
        pairs = [(ours[seed], theirs[seed]) for seed in seeds]
        box, mask = (_difference(pairs, kind, draws) for kind in ("box", "mask"))
    except (ValueError, FileNotFoundError) as error:
        return Comparison(name, baseline_name, reason=str(error))
    return Comparison(name, baseline_name, box, mask)


def describe(difference: ApDifference) -> str:
    """The difference in percentage points with its interval, as ``+1.2 [+0.3, +2.1]``; says when it may be chance."""
    text = " ".join((f"{100 * difference.value:+.1f}", f"[{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"))
    return text if difference.is_significant else f"{text}, not significant"


def _difference(pairs: Sequence[tuple[Scored, Scored]], kind: str, draws: Draws) -> ApDifference:
    first, second = ([_matches(one, kind) for one in group] for group in zip(*pairs, strict=True))
    if len({one.record.data.val.digest for pair in pairs for one in pair}) > 1:
        raise ValueError("evaluated on different annotation files")
    return paired_bootstrap(first, second, resamples=draws.resamples, confidence=draws.confidence, seed=draws.seed)


def _matches(run: Scored, kind: str) -> ImageMatches:
    """Detections of one run matched to the objects, once they are known to be those that its AP speaks of.

    Raises:
        FileNotFoundError: If a file is gone.
        ValueError: If the files do not give the AP of the run's record.
    """
    annotations, detections = Path(run.record.data.val.file), run.folder / _file_of(run)
    for path in (annotations, detections):
        if not path.is_file():
            raise FileNotFoundError(f"{path} is gone")
    ids = run.folder / IMAGE_IDS
    stamps = tuple(path.stat().st_mtime_ns for path in (annotations, detections, ids) if path.is_file())
    matches = _matched(
        annotations, detections, ids, IOU_TYPES[kind], _max_detections(run.record), _max_overhang(run.record), stamps
    )
    noted, computed = run.record.metrics["loops"][str(run.loop)][kind]["ap"], matches.average_precision()
    if noted is None or computed is None or abs(noted - computed) > ROUNDING:
        raise ValueError(f"{detections} gives a {kind} AP of {computed}, the run noted {noted}")
    return matches


@lru_cache(maxsize=KEPT)
def _matched(
    annotations: Path,
    detections: Path,
    ids: Path,
    kind: IouType,
    max_detections: int,
    max_overhang: float,
    stamps: tuple[int, ...],
) -> ImageMatches:
    """Kept for the next comparison with the same run, since matching takes long; ``stamps`` tell changed files."""
    truth = load_ground_truth(annotations, "skip", max_overhang)
    found = read_results(detections, truth, kind)
    seen = json.loads(ids.read_text(encoding="utf-8")) if ids.is_file() else [*truth.own_ids]
    return match_images(truth, found, [truth.own_ids[one] for one in seen], kind, max_detections)


def _file_of(run: Scored) -> str:
    loops = len(run.record.metrics["loops"])
    if not 1 <= run.loop <= loops:
        raise ValueError(f"{run.folder} was evaluated with {loops} loops, loop {run.loop} is asked for")
    return DETECTIONS if run.loop == loops else LOOP_DETECTIONS.format(run.loop)


def _max_detections(record: Record) -> int:
    evaluation = record.config.get("evaluation")
    limit = evaluation.get("max_detections") if isinstance(evaluation, Mapping) else None
    return limit if isinstance(limit, int) else 100


def _max_overhang(record: Record) -> float:
    data = record.config.get("data")
    limit = data.get("max_overhang") if isinstance(data, Mapping) else None
    return float(limit) if isinstance(limit, int | float) else math.inf
