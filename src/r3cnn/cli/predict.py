"""``r3cnn predict``: overlays and COCO results for an image or a folder of images."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig
from PIL import Image

from r3cnn.cli.configs import path_of, plain, settle
from r3cnn.cli.earlier_run import refuse_used
from r3cnn.cli.modes import set_modes
from r3cnn.cli.parts import chosen_views, save_config
from r3cnn.data.loading import ImageError, read_image
from r3cnn.training.checkpoint import restore_model
from r3cnn.training.predictor import FoundObject, Predictor

log = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Finds objects in every image of ``source``; image ids count from 1 in the order of the file names.

    Raises:
        ImageError: At the end, if there were files that cannot be read; the others are done by then.
    """
    from r3cnn.reporting.figures import overlay

    output_dir = settle(config)
    refuse_used(output_dir, way_out="")
    paths = image_files(Path(config.source))
    predictor = load_predictor(config)
    save_config(plain(config), output_dir / "config.yaml")
    entries: list[FoundObject] = []
    unreadable: list[Path] = []
    for image_id, path in enumerate(paths, start=1):
        try:
            detections, size = predictor.detect(path)
        except ImageError as error:
            log.error("%s", error)
            unreadable.append(path)
            continue
        entries += predictor.entries(detections[-1], size, path, image_id)
        picture = output_dir / "pictures" / f"{path.name}.png"
        overlay(
            read_image(path),
            detections[-1].to("cpu"),
            predictor.info.classes,
            picture,
            score_threshold=config.score_threshold,
        )
        drawn = int((detections[-1].scores >= config.score_threshold).sum())
        log.info("%s: %d objects with score >= %g, drawn in %s", path, drawn, config.score_threshold, picture)
    (output_dir / "detections.json").write_text(json.dumps(entries, allow_nan=False) + "\n", encoding="utf-8")
    print(f"{len(entries)} detections in {len(paths) - len(unreadable)} images: {output_dir / 'detections.json'}")
    if unreadable:
        names = ", ".join(path.name for path in unreadable)
        raise ImageError(f"{len(unreadable)} of {len(paths)} files could not be read as images: {names}")


def load_predictor(config: DictConfig) -> Predictor:
    """The checkpoint's network with the loops, modes, views and image size that are asked for.

    Raises:
        ValueError: If the checkpoint is refused, or one of them makes no sense.
    """
    model, info = restore_model(path_of(config, "checkpoint"), config.trusted_packages)
    set_modes(model, config)
    if config.image_size is not None:
        preprocessing = replace(info.preprocessing, image_size=tuple(config.image_size))
        info = replace(info, preprocessing=preprocessing)
    return Predictor(model, info, config.device, chosen_views(config.evaluation))


def image_files(source: Path) -> list[Path]:
    """The image itself, or the images directly inside a folder, by name.

    Raises:
        FileNotFoundError: If there is nothing.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise FileNotFoundError(f"source={source}: no such image or folder")
    formats = Image.registered_extensions()  # some can only be written, such as PDF
    suffixes = {suffix for suffix, name in formats.items() if name in Image.OPEN}
    found = sorted(path for path in source.iterdir() if path.is_file() and path.suffix.lower() in suffixes)
    if not found:
        raise FileNotFoundError(f"source={source}: the folder holds no image")
    return found
