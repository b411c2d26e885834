"""``r3cnn analyze errors``: what is wrong with saved detections, loop by loop."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import DictConfig

from r3cnn.cli.configs import plain, read_config
from r3cnn.cli.outcome import DETECTIONS, ERROR_REPORT, ERRORS, IMAGE_IDS, LOOP_DETECTIONS, METRICS
from r3cnn.cli.parts import build_data
from r3cnn.cli.terminal import left_out_on_error
from r3cnn.data.annotations import ids_of_labels
from r3cnn.evaluation.error_report import ErrorSettings, error_report
from r3cnn.evaluation.ground_truth import GroundTruth, load_ground_truth
from r3cnn.evaluation.protocol import Protocol
from r3cnn.evaluation.results import read_results
from r3cnn.training.build import trusted_targets


@dataclass(frozen=True)
class Saved:
    """Saved detections and what they are compared with.

    Attributes:
        files: COCO results of every loop.
        truth: The annotation file.
        image_ids: Images that were looked at; objects of others do not count.
        max_detections: Detections per image and category that counted, or count if nothing else is said.
    """

    files: tuple[Path, ...]
    truth: GroundTruth
    image_ids: tuple[int, ...]
    max_detections: int = Protocol.max_detections


def analyze_errors(config: DictConfig) -> None:
    """Writes ``errors.json`` and pictures, prints tables.

    Raises:
        ValueError: Unless either a run, or detections and annotations are named.
        FileNotFoundError: If one of the files is missing.
    """
    from r3cnn.reporting.error_figures import draw_errors
    from r3cnn.reporting.error_tables import print_errors

    given = config.max_detections
    settings = ErrorSettings(
        tuple(config.foreground_ious),
        config.background_iou,
        config.score_threshold,
        Protocol.max_detections if given is None else given,
    )
    saved = _of_run(Path(config.run), config.trusted_packages) if config.run is not None else _of_files(config)
    loops = [read_results(file, saved.truth, "bbox") for file in saved.files]
    masks = [read_results(file, saved.truth, "segm") for file in saved.files]
    if given is None:
        settings = replace(settings, max_detections=saved.max_detections)
    report = error_report(saved.truth, loops, masks, saved.image_ids, settings)
    output_dir = _output_dir(config)
    output_dir.mkdir(parents=True, exist_ok=True)
    (output_dir / ERROR_REPORT).write_text(json.dumps(report, allow_nan=False) + "\n", encoding="utf-8")
    print_errors(report)
    with left_out_on_error("pictures of the errors"):
        draw_errors(report, output_dir)
    print(f"written to {output_dir}")


def _of_run(folder: Path, trusted_packages: Sequence[str]) -> Saved:
    if (folder / METRICS).is_file() and not (folder / DETECTIONS).is_file():
        raise FileNotFoundError(
            f"{folder} has no {DETECTIONS}: it was trained without validation, so evaluate it first"
        )
    for name in (METRICS, "config.yaml"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} has no {name}: it is no folder of a finished train or evaluate run")
    metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    numbers = range(1, len(metrics["loops"]))
    files = (*(folder / LOOP_DETECTIONS.format(loop) for loop in numbers), folder / DETECTIONS)
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise FileNotFoundError(f"{missing[0]} does not exist: evaluate anew with evaluation.save_loops=true")
    if not (folder / IMAGE_IDS).is_file():
        raise FileNotFoundError(f"{folder} has no {IMAGE_IDS}, the images that were looked at: evaluate anew")
    config = read_config(folder / "config.yaml")
    data = build_data(plain(config["data"]), trusted_targets(trusted_packages))
    truth = load_ground_truth(data.val_annotations, data.on_bad_annotation, data.max_overhang)
    id_of = {name: category for category, name in truth.category_names.items()}
    names = dict(zip(ids_of_labels(id_of, data.classes), data.classes, strict=True))
    truth = replace(truth, category_names={**truth.category_names, **names})  # a class that the file lacks may be found
    own_ids, seen = truth.own_ids, json.loads((folder / IMAGE_IDS).read_text(encoding="utf-8"))
    if not own_ids.keys() >= set(seen):
        raise ValueError(f"{folder / IMAGE_IDS} names images that {data.val_annotations} lacks: are they its own?")
    image_ids = tuple(own_ids[one] for one in seen)
    return Saved(files, truth, image_ids, int(str(plain(config["evaluation"])["max_detections"])))


def _of_files(config: DictConfig) -> Saved:
    if not config.detections or config.annotations is None:
        raise ValueError("name a run (run=outputs/demo), or detections=[loop1.json,loop2.json] and annotations=FILE")
    names = [config.detections] if isinstance(config.detections, str) else list(config.detections)
    files = tuple(Path(name) for name in names)
    for file in (*files, Path(config.annotations)):
        if not file.is_file():
            raise FileNotFoundError(f"{file} does not exist")
    truth = load_ground_truth(Path(config.annotations), "skip")
    return Saved(files, truth, tuple(sorted(truth.images)))


def _output_dir(config: DictConfig) -> Path:
    if config.output_dir is not None:
        return Path(config.output_dir)
    return Path("outputs" if config.run is None else config.run) / ERRORS
