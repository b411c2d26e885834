"""What a run leaves behind: metrics, detections, the table on the terminal, and pictures."""

from __future__ import annotations

import logging
import shutil
from io import StringIO
from pathlib import Path

import torch
from lightning.fabric.utilities import rank_zero_only

from r3cnn.data.datamodule import CocoDataModule
from r3cnn.data.loading import collate
from r3cnn.data.samplers import Draw
from r3cnn.evaluation.coco_ap import EvaluationResult, write_detections, write_metrics
from r3cnn.training.module import EvaluationModule

log = logging.getLogger(__name__)
METRICS, DETECTIONS = "metrics.json", "detections.json"
EVALUATED = "evaluated.ckpt"
CURVES, PREDICTIONS, LOOPS = "training_curves.png", "_predictions.png", "_loops.png"
LOG_WIDTH = 120


@rank_zero_only
def remove_outcome(output_dir: Path) -> None:
    """Removes what an earlier training run left in the folder, so that nothing of it passes for the new run's.

    Only checkpoints, results and pictures under the names that we write; any other file stays.
    """
    pictures = output_dir / "pictures"
    found = [output_dir / METRICS, output_dir / DETECTIONS, pictures / CURVES]
    found += [*(output_dir / "checkpoints").glob("*.ckpt"), *pictures.glob(f"*{PREDICTIONS}")]
    found += pictures.glob(f"*{LOOPS}")
    for path in found:
        path.unlink(missing_ok=True)


@rank_zero_only
def keep_evaluated(checkpoint: Path, output_dir: Path) -> None:
    """Puts the checkpoint that was evaluated beside its metrics, as a hard link where the file system can."""
    kept, source = output_dir / "checkpoints" / EVALUATED, checkpoint.resolve()
    if kept.exists() and kept.samefile(source):
        return
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.unlink(missing_ok=True)
    try:
        kept.hardlink_to(source)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, kept)


def write_outcome(
    result: EvaluationResult, module: EvaluationModule, data: CocoDataModule, output_dir: Path, num_pictures: int
) -> None:
    """Writes ``metrics.json``, ``detections.json`` and pictures, and prints the AP per loop and per class."""
    from rich.console import Console

    from r3cnn.reporting.console import print_metrics
    from r3cnn.reporting.curves import plot_training_curves

    write_metrics(result, output_dir / METRICS)
    write_detections(result, output_dir / DETECTIONS)
    print_metrics(result.metrics)
    text = StringIO()
    print_metrics(result.metrics, Console(file=text, width=LOG_WIDTH))
    log_to_file(text.getvalue())
    if (output_dir / "metrics.csv").is_file():
        plot_training_curves(output_dir / "metrics.csv", output_dir / "pictures" / CURVES)
    if num_pictures > 0:
        draw_pictures(module, data, output_dir / "pictures", num_pictures)
    log.info("written to %s", output_dir)


def log_to_file(text: str) -> None:
    """Writes what stands on the terminal already into the log files alone."""
    record = log.makeRecord(log.name, logging.INFO, __file__, 0, "\n%s", (text.rstrip(),), None)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def draw_pictures(module: EvaluationModule, data: CocoDataModule, folder: Path, count: int) -> None:
    """Draws, for images spread over the validation set, predictions beside ground truth and the boxes of every loop."""
    from r3cnn.reporting.figures import draw_loop_strip, draw_predictions

    images = data.val_set
    count = min(count, len(images))
    module.eval()
    for index in [position * len(images) // count for position in range(count)]:
        example = images[Draw(0, index)]
        batch = collate([example]).to(module.device)
        with torch.inference_mode():
            found = [loop[0].to("cpu") for loop in module.model.detect_per_loop(module.normalized(batch), batch.sizes)]
        target = example.target
        draw_predictions(example.image, found[-1], target, data.classes, folder / f"{example.image_id}{PREDICTIONS}")
        draw_loop_strip(example.image, found, target, folder / f"{example.image_id}{LOOPS}")
