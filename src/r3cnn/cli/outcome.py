"""What a run leaves behind: metrics, detections, the table on the terminal, and pictures."""

from __future__ import annotations

import logging
from collections.abc import Collection
from contextlib import suppress
from io import StringIO
from pathlib import Path

from r3cnn.archive import read_archive
from r3cnn.cli.shown import examples_with_loops
from r3cnn.cli.terminal import left_out_on_error
from r3cnn.data.datamodule import CocoDataModule
from r3cnn.evaluation.metrics import EvaluationResult
from r3cnn.reporting.console import print_metrics, terminal
from r3cnn.reporting.curves import plot_training_curves
from r3cnn.reporting.figures import draw_loop_strip, draw_predictions
from r3cnn.reporting.rois import draw_roi_statistics, read_roi_report
from r3cnn.run_files import (
    BEST,
    BOOTSTRAPS,
    CHECKPOINTS,
    CONFIG,
    CURVES,
    DETECTIONS,
    ERROR_PICTURES,
    ERROR_REPORT,
    ERRORS,
    EVALUATED,
    IMAGE_IDS,
    LAST,
    LOOP_DETECTIONS,
    LOOPS,
    METRICS,
    NUMBERS,
    PICTURES,
    PREDICTIONS,
    RESULT,
    ROIS,
    TRAINING_CONFIG,
    TRAINING_ROIS,
    picture_file,
    read_config,
    read_json,
    write_json,
    write_json_list,
)
from r3cnn.structures import Id
from r3cnn.training.checkpoint_io import link_or_copy, names_of_checkpoints
from r3cnn.training.module import EvaluationModule

log = logging.getLogger(__name__)
LOG_WIDTH = 120


def evaluation_files(output_dir: Path) -> list[Path]:
    """Files that an evaluation left in the folder, its error analysis included; other people's are not among them."""
    pictures, errors, ids = output_dir / PICTURES, output_dir / ERRORS, output_dir / IMAGE_IDS
    names = [METRICS, DETECTIONS, BOOTSTRAPS, ROIS, "pictures/roi_statistics.png"]
    found = [output_dir / name for name in names]
    found += output_dir.glob(LOOP_DETECTIONS.format("[0-9]*"))
    found += [errors / name for name in (ERROR_REPORT, *ERROR_PICTURES)]
    images: list[Id] = []
    with suppress(OSError, ValueError):  # half of it, or another program's
        images = read_json(ids, list[Id])
    found += [picture_file(pictures, image, kind) for image in images for kind in (PREDICTIONS, LOOPS)]
    return [path for path in (*found, ids) if path.is_file()]


def run_files(output_dir: Path) -> list[Path]:
    """Files that a training run left in the folder, its evaluation included, but for its log."""
    names = [CONFIG, TRAINING_CONFIG, RESULT, NUMBERS, TRAINING_ROIS]
    names += [f"pictures/{CURVES}", "pictures/roi_statistics_train.png"]
    found = [output_dir / name for name in names] + checkpoint_files(output_dir / CHECKPOINTS)
    return [path for path in found if path.is_file()] + evaluation_files(output_dir)


def checkpoint_files(folder: Path) -> list[Path]:
    """Checkpoints that a run wrote into its folder: those of the usual names, and those that these tell of."""
    usual = [folder / name for name in (LAST, BEST, EVALUATED)]
    found = dict.fromkeys(path for path in usual if path.is_file())
    for path in [*found]:
        # What cannot be read tells nothing, and neither does what other programs write.
        with suppress(OSError, ValueError):
            found |= dict.fromkeys(folder / name for name in names_of_checkpoints(read_archive(path, mapped=True)))
    return [path for path in found if path.is_file()]


def remove_evaluation(output_dir: Path, but: Collection[Path]) -> None:
    """Removes what an earlier evaluation left in the folder, but for what this one has written already."""
    for path in evaluation_files(output_dir):
        if path not in but:
            path.unlink()


def keep_training_config(output_dir: Path) -> None:
    """Lets the configuration of a training stay in its folder under another name when it is evaluated into."""
    path = output_dir / CONFIG
    kept = output_dir / TRAINING_CONFIG
    is_training = path.is_file() and not kept.exists()  # where it cannot be read, as after an edit by hand
    with suppress(OSError, ValueError):
        is_training = "resume" in read_config(path)
    if is_training:
        path.replace(kept)


def keep_evaluated(checkpoint: Path, output_dir: Path) -> None:
    """Puts the checkpoint that was evaluated beside its metrics, as a hard link where the file system can."""
    link_or_copy(checkpoint.resolve(), output_dir / CHECKPOINTS / EVALUATED)


def write_outcome(result: EvaluationResult, module: EvaluationModule, output_dir: Path) -> None:
    """Writes ``metrics.json`` and ``detections.json``."""
    write_json(result.metrics, output_dir / METRICS, indent=2)
    if result.metrics["images"]["seen"]:
        write_loops(result, output_dir, with_earlier=module.options.save_loops)


def show_outcome(
    result: EvaluationResult, module: EvaluationModule, data: CocoDataModule, output_dir: Path, num_pictures: int
) -> None:
    """Prints the AP per loop and per class and draws curves and pictures; what fails is left out with a warning."""
    pictures = output_dir / PICTURES
    if result.metrics["images"]["seen"]:
        with left_out_on_error("the tables of AP"):
            _print_tables(result)
    else:
        log.warning("there was no validation, so there is no AP: evaluate on images with ground truth to get one")
    if (output_dir / NUMBERS).is_file():
        with left_out_on_error(CURVES):
            plot_training_curves(output_dir / NUMBERS, pictures / CURVES)
    for path in sorted(output_dir.glob("roi_statistics*.json")):
        with left_out_on_error(f"{path.stem}.png"):
            draw_roi_statistics(read_roi_report(path), pictures / f"{path.stem}.png")
    if num_pictures > 0:
        with left_out_on_error("pictures of validation images"):
            draw_pictures(module, data, pictures, num_pictures)
    log.info("written to %s", output_dir)


def _print_tables(result: EvaluationResult) -> None:
    print_metrics(result.metrics)
    text = StringIO()
    print_metrics(result.metrics, terminal(text, LOG_WIDTH))
    log_to_file(text.getvalue())


def write_loops(result: EvaluationResult, output_dir: Path, *, with_earlier: bool) -> None:
    """Writes what was found after the last loop, ``detections.json``, and after the earlier ones if asked for.

    Beside it ``image_ids.json``, the images that were looked at: one without a detection is in no other file.
    """
    write_json(result.image_ids, output_dir / IMAGE_IDS)
    for path in output_dir.glob(LOOP_DETECTIONS.format("*")):  # of an earlier evaluation with more loops
        path.unlink()
    for loop in range(1, len(result.metrics["loops"]) if with_earlier else 1):
        write_json_list(result.entries(loop - 1), output_dir / LOOP_DETECTIONS.format(loop))
    write_json_list(result.entries(-1), output_dir / DETECTIONS)


def log_to_file(text: str) -> None:
    """Writes what stands on the terminal already into the log files alone."""
    record = log.makeRecord(log.name, logging.INFO, __file__, 0, "\n%s", (text.rstrip(),), None)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def draw_pictures(module: EvaluationModule, data: CocoDataModule, folder: Path, count: int) -> None:
    """Draws, for images spread over the validation set, predictions beside ground truth and the boxes of every loop."""
    for example, found in examples_with_loops(module, data, count):
        image, target, image_id = example.image, example.target, data.val_set.file_id(example.image_id)
        draw_predictions(image, found[-1], target, data.classes, picture_file(folder, image_id, PREDICTIONS))
        draw_loop_strip(image, found, target, picture_file(folder, image_id, LOOPS))
