"""``r3cnn analyze rois``: figure 2 of the paper from what runs left behind."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from r3cnn.cli.folder_lock import writing_below
from r3cnn.cli.terminal import left_out_on_error
from r3cnn.run_files import ROIS, TRAINING_ROIS, write_json

FILES = {"train": TRAINING_ROIS, "val": ROIS}
FOLDER, REPORT, PICTURE = "outputs/rois", "rois.json", "roi_histograms.png"


def analyze_rois(config: DictConfig) -> None:
    """Draws the IoU histograms of several runs beside each other and prints the numbers.

    Raises:
        ValueError: For an unknown split or without any run.
    """
    from r3cnn.reporting.rois import draw_figure_2, print_roi_tables, read_roi_report

    if not config.runs:
        raise ValueError("runs is empty: name the folders of train or evaluate runs, such as runs=[runs/mask,runs/r3]")
    given = [config.runs] if isinstance(config.runs, str) else list(config.runs)
    folders = found_folders(given, FILES[config.split])
    names = names_of(folders)
    reports = {
        name: read_roi_report(Path(folder) / FILES[config.split]) for name, folder in zip(names, folders, strict=True)
    }
    output_dir = Path(config.output_dir or FOLDER)
    with writing_below(output_dir):
        write_json(reports, output_dir / REPORT)
        print_roi_tables(reports)
        with left_out_on_error(PICTURE):
            draw_figure_2(reports, output_dir / PICTURE, from_iou=config.from_iou)
    print(f"written to {output_dir}")


def found_folders(given: Sequence[str], file: str) -> list[str]:
    """The folders of runs that were named one by one or by a pattern such as ``outputs/sweeps/demo/htc-*``.

    Args:
        given: Folders and patterns.
        file: What a folder that fits a pattern must hold, as a run that has not come so far does not.

    Raises:
        ValueError: For a name or a pattern that no such folder fits.
    """
    found = []
    for each in given:
        fitting = [each]
        if not Path(each).is_dir():
            fitting = sorted(folder for folder in glob.glob(each) if (Path(folder) / file).is_file())
        if not fitting:
            raise ValueError(f"runs has {each}: no folder of that name has {file} in it")
        found += fitting
    return found


def names_of(folders: list[str]) -> list[str]:
    """The folders without the part of the path that they share.

    Raises:
        ValueError: If one is named twice.
    """
    if len(set(folders)) < len(folders):
        raise ValueError(f"runs names a folder twice: {folders}")
    if len(folders) == 1:
        return [Path(folders[0]).name]
    shared = os.path.commonpath([Path(folder).absolute() for folder in folders])
    return [os.path.relpath(Path(folder).absolute(), shared) for folder in folders]
