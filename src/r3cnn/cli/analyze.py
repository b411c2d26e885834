"""``r3cnn analyze``: the loop from inside (``rois``), wrong detections (``errors``), AP against time (``speed``)."""

from __future__ import annotations

from omegaconf import DictConfig

from r3cnn.cli.analyze_errors import analyze_errors
from r3cnn.cli.analyze_rois import analyze_rois
from r3cnn.cli.analyze_speed import analyze_speed

PARTS = {"rois": analyze_rois, "errors": analyze_errors, "speed": analyze_speed}


def run(config: DictConfig) -> None:
    """Runs one part."""
    PARTS[config.part](config)
