"""``r3cnn analyze errors``: what is wrong with saved detections, loop by loop."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from omegaconf import DictConfig

from r3cnn.cli.folder_lock import writing_below
from r3cnn.cli.terminal import left_out_on_error
from r3cnn.data.annotations import ids_of_labels
from r3cnn.data.checks import OnBadAnnotation
from r3cnn.data.reading import MAX_OVERHANG
from r3cnn.evaluation.error_report import ErrorSettings, error_report
from r3cnn.evaluation.ground_truth import GroundTruth, load_ground_truth
from r3cnn.evaluation.protocol import Protocol
from r3cnn.evaluation.results import read_results
from r3cnn.names import composed
from r3cnn.reporting.records import read_metrics
from r3cnn.run_files import (
    CONFIG,
    DETECTIONS,
    ERROR_REPORT,
    ERRORS,
    IMAGE_IDS,
    LOOP_DETECTIONS,
    METRICS,
    mapping_at,
    own_file,
    read_config,
    read_json,
    write_json,
)
from r3cnn.structures import Id


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
    from r3cnn.reporting.errors import draw_errors, print_errors

    given = config.max_detections
    settings = ErrorSettings(
        tuple(config.foreground_ious),
        config.background_iou,
        config.score_threshold,
        Protocol.max_detections if given is None else given,
    )
    saved = _of_run(Path(config.run)) if config.run is not None else _of_files(config)
    loops = [read_results(file, saved.truth, "bbox") for file in saved.files]
    masks = [read_results(file, saved.truth, "segm") for file in saved.files]
    if given is None:
        settings = replace(settings, max_detections=saved.max_detections)
    report = error_report(saved.truth, loops, masks, saved.image_ids, settings)
    output_dir = _output_dir(config)
    with writing_below(output_dir):
        write_json(report, output_dir / ERROR_REPORT)
        print_errors(report)
        with left_out_on_error("pictures of the errors"):
            draw_errors(report, output_dir)
    print(f"written to {output_dir}")


def _of_run(folder: Path) -> Saved:
    if not folder.is_dir():
        raise FileNotFoundError(f"run={folder}: no such folder")
    if (folder / METRICS).is_file() and not (folder / DETECTIONS).exists():
        raise FileNotFoundError(
            f"{folder} has no {DETECTIONS}: it was trained without validation, so evaluate it first"
        )
    loops = range(1, len(read_metrics(folder)["loops"]))
    if missing := [name for name in map(LOOP_DETECTIONS.format, loops) if not (folder / name).exists()]:
        raise FileNotFoundError(f"{folder} has no {missing[0]}: evaluate anew with evaluation.save_loops=true")
    files = tuple(own_file(folder, name) for name in (*map(LOOP_DETECTIONS.format, loops), DETECTIONS))
    if not (folder / IMAGE_IDS).exists():
        raise FileNotFoundError(f"{folder} has no {IMAGE_IDS}, the images that were looked at: evaluate anew")
    seen = read_json(own_file(folder, IMAGE_IDS), list[Id])
    path = own_file(folder, CONFIG)
    config = read_config(path)
    try:
        data = msgspec.convert(mapping_at(config, "data"), _Data)
        evaluation = msgspec.convert(mapping_at(config, "evaluation"), _Evaluation)
    except (ValueError, msgspec.ValidationError) as error:
        raise ValueError(f"{path} is no configuration of a train or evaluate run: {error}") from error
    annotations = Path(data.root, data.val.annotations).expanduser()
    truth = load_ground_truth(annotations, data.on_bad_annotation, data.max_overhang)
    id_of = {name: category for category, name in truth.category_names.items()}
    classes = [composed(str(name)) for name in data.classes]
    names = dict(zip(ids_of_labels(id_of, classes), classes, strict=True))
    truth = replace(truth, category_names={**truth.category_names, **names})  # a class that the file lacks may be found
    if not truth.own_ids.keys() >= set(seen):
        raise ValueError(f"{folder / IMAGE_IDS} names images that {annotations} lacks: are they its own?")
    return Saved(files, truth, tuple(truth.own_ids[one] for one in seen), evaluation.max_detections)


class _Split(msgspec.Struct):
    annotations: str


class _Data(msgspec.Struct):
    root: str
    val: _Split
    classes: list[str | int | float]
    on_bad_annotation: OnBadAnnotation = "error"
    max_overhang: float = MAX_OVERHANG


class _Evaluation(msgspec.Struct):
    max_detections: int


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
