"""Whether a difference between two systems is more than chance, from the detections that their runs left."""

from __future__ import annotations

import hashlib
import math
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path

import msgspec
import numpy as np

from r3cnn.data.index_cache import digest_of
from r3cnn.evaluation.bootstrap import ApDifference, Resampled, match_images, paired_bootstrap, resample
from r3cnn.evaluation.ground_truth import GroundTruth, load_ground_truth
from r3cnn.evaluation.protocol import IouType
from r3cnn.evaluation.results import read_results
from r3cnn.names import Id
from r3cnn.reporting.records import Record
from r3cnn.reporting.rows import Scored
from r3cnn.reporting.setting import value_at
from r3cnn.run_files import (
    BOOTSTRAPS,
    DETECTIONS,
    IMAGE_IDS,
    LOOP_DETECTIONS,
    own_file,
    read_bytes,
    read_json,
    write_json,
)

IOU_TYPES: dict[str, IouType] = {"box": "bbox", "mask": "segm"}
ROUNDING = 1e-9  # of an AP computed twice
WORTH_PROCESSES = 8  # runs
CACHE_VERSION, MOST_KEPT = 1, 8  # boxes and masks after a few loops


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
        box: Difference in box AP; None where it cannot be told.
        mask: Difference in mask AP; None where it cannot be told.
        reason: Why not; None where it can.
    """

    box: ApDifference | None = None
    mask: ApDifference | None = None
    reason: str | None = None


def compare(runs: Sequence[Scored], baseline: Sequence[Scored], draws: Draws) -> Comparison:
    """Compares the runs of two systems, paired by their seeds.

    A comparison that cannot be made says why instead of raising: the rest of a report is worth reading without it.

    Args:
        runs: Of one system, at most one per seed.
        baseline: Those of the other.
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
        return Comparison(reason=str(error))
    return Comparison(box, mask)


def describe(difference: ApDifference) -> str:
    """The difference in percentage points with its interval, as ``+1.2 [+0.3, +2.1]``; says when it may be chance."""
    text = " ".join((f"{100 * difference.value:+.1f}", f"[{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"))
    return text if difference.is_significant else f"{text}, not significant"


def _difference(pairs: Sequence[tuple[Scored, Scored]], kind: str, draws: Draws) -> ApDifference:
    if len({one.record.data.val.digest for pair in pairs for one in pair}) > 1:
        raise ValueError("evaluated on different annotation files")
    first, second = ([_resampled(one, kind, draws) for one in group] for group in zip(*pairs, strict=True))
    return paired_bootstrap(first, second, confidence=draws.confidence, seed=draws.seed)


def prepare(runs: Sequence[Scored], draws: Draws) -> None:
    """Scores the resamples of many runs on all cores, so that `compare` finds them kept beside the runs."""
    by_folder: dict[Path, list[Scored]] = {}
    for run in runs:
        by_folder.setdefault(run.folder, []).append(run)
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
    if cores > 1 and len(by_folder) >= WORTH_PROCESSES:
        # Forked: they begin at once, and nothing is imported from wherever the command was started.
        with ProcessPoolExecutor(cores, get_context("fork")) as pool:
            for _ in pool.map(partial(_prepare, draws=draws), by_folder.values()):
                pass


def _prepare(runs: Sequence[Scored], draws: Draws) -> None:
    for run in runs:
        for kind in IOU_TYPES:
            with suppress(Exception):  # `compare` says what is wrong
                _resampled(run, kind, draws)


def _resampled(run: Scored, kind: str, draws: Draws) -> Resampled:
    """AP of one run over images drawn anew, once it is known to be of the detections that its AP speaks of.

    It is kept beside the run under a name for all that it depends on, since it takes long.

    Raises:
        FileNotFoundError: If a file is gone.
        ValueError: If the files do not give the AP of the run's record.
    """
    annotations, name, ids = Path(run.record.data.val.file), _file_of(run), run.folder / IMAGE_IDS
    for path in (annotations, run.folder / name):
        if not path.is_file():
            raise FileNotFoundError(f"{path} is gone")
    detections = own_file(run.folder, name)
    stamp, limits = annotations.stat().st_mtime_ns, (_max_detections(run.record), _max_overhang(run.record))
    texts = [digest_of(detections), read_bytes(own_file(run.folder, IMAGE_IDS)).hex() if ids.exists() else ""]
    parts = (CACHE_VERSION, kind, _digest(annotations, stamp), *texts, *limits, draws.resamples, draws.seed)
    key = hashlib.sha256(repr(parts).encode()).hexdigest()
    kept = _kept(run.folder, draws.resamples)
    if key not in kept:
        truth = _truth(annotations, stamp, limits[1])
        found = read_results(detections, truth, IOU_TYPES[kind])
        seen = read_json(own_file(run.folder, IMAGE_IDS), list[Id]) if ids.exists() else [*truth.own_ids]
        matches = match_images(truth, found, [truth.own_ids[one] for one in seen], IOU_TYPES[kind], limits[0])
        fresh = resample(matches, draws.resamples, draws.seed)
        new = _Kept(fresh.images, fresh.value, fresh.drawn.tolist())
        new.digest = new.digest_under(key)
        kept = {**dict([*kept.items()][1 - MOST_KEPT :]), key: new}
        with suppress(OSError):  # somebody else's folder
            write_json(msgspec.to_builtins(kept), run.folder / BOOTSTRAPS)
    noted, computed = run.record.metrics["loops"][str(run.loop)][kind]["ap"], kept[key].value
    if noted is None or computed is None or abs(noted - computed) > ROUNDING:
        raise ValueError(f"{detections} gives a {kind} AP of {computed}, the run noted {noted}")
    return Resampled(kept[key].images, computed, np.array(kept[key].drawn))


class _Kept(msgspec.Struct):
    images: str
    value: float | None
    drawn: list[float]
    digest: str = ""

    def digest_under(self, key: str) -> str:
        """Of all of it, so that a damaged file is made again."""
        return hashlib.sha256(repr((key, self.images, self.value, self.drawn)).encode()).hexdigest()


def _kept(folder: Path, resamples: int) -> dict[str, _Kept]:
    """What earlier reports have noted of a run; nothing where that cannot be read."""
    with suppress(OSError, ValueError):
        found = read_json(own_file(folder, BOOTSTRAPS), dict[str, _Kept])
        whole = {key: one for key, one in found.items() if one.digest == one.digest_under(key)}
        return {key: one for key, one in whole.items() if len(one.drawn) in (0, resamples)}
    return {}


@lru_cache(maxsize=4)
def _digest(annotations: Path, stamp: int) -> str:
    return digest_of(annotations)


@lru_cache(maxsize=2)
def _truth(annotations: Path, stamp: int, max_overhang: float) -> GroundTruth:
    return load_ground_truth(annotations, "skip", max_overhang)


def _file_of(run: Scored) -> str:
    loops = len(run.record.metrics["loops"])
    if not 1 <= run.loop <= loops:
        raise ValueError(f"{run.folder} was evaluated with {loops} loops, loop {run.loop} is asked for")
    return DETECTIONS if run.loop == loops else LOOP_DETECTIONS.format(run.loop)


def _max_detections(record: Record) -> int:
    limit = value_at(record.config, "evaluation.max_detections")
    return limit if isinstance(limit, int) else 100


def _max_overhang(record: Record) -> float:
    limit = value_at(record.config, "data.max_overhang")
    return float(limit) if isinstance(limit, int | float) else math.inf
