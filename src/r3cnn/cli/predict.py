"""``r3cnn predict``: overlays and COCO results for images, or folders of them."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig, ListConfig

from r3cnn.cli.configs import path_of, plain, settle
from r3cnn.cli.earlier_run import refuse_used
from r3cnn.cli.folder_lock import sole_writer
from r3cnn.cli.modes import set_modes
from r3cnn.cli.parts import chosen_views
from r3cnn.cli.terminal import left_out_on_error
from r3cnn.data.loading import ImageError, find_images
from r3cnn.names import file_name, visible
from r3cnn.run_files import CONFIG, DETECTIONS, PICTURES, write_config, write_json
from r3cnn.training.checkpoint import restore_model
from r3cnn.training.predictor import FoundObject, Predictor

log = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Finds objects in every image of ``source``; image ids count from 1 in the order of the files.

    Files that cannot be read are named, counted and left out.

    Raises:
        ImageError: If there is no file that can be read.
        ValueError: For a setting that makes no sense.
    """
    output_dir = settle(config)
    paths = image_files(config.source, is_recursive=config.recursive, leave_out=output_dir / PICTURES)
    predictor = load_predictor(config)
    with sole_writer(output_dir):
        refuse_used(output_dir, "predict")
        write_config(plain(config), output_dir / CONFIG)
        predict(config, predictor, paths, output_dir)


def predict(config: DictConfig, predictor: Predictor, paths: Sequence[Path], output_dir: Path) -> None:
    """Finds objects in these images, draws them, and writes ``detections.json``.

    Raises:
        ImageError: If there is no file that can be read.
    """
    from r3cnn.reporting.figures import overlay

    names, pictures = names_of(paths, sources_of(config.source)), config.pictures
    entries: list[FoundObject] = []
    unreadable: dict[str, str] = {}
    for image_id, (path, name) in enumerate(zip(paths, names, strict=True), start=1):
        try:
            image = predictor.reader(path)
        except ImageError as error:
            log.error("%s", visible(str(error)))
            unreadable[name] = str(error)
            continue
        detections, size = predictor.detect(image)
        found, threshold, place = detections[-1].to("cpu"), config.score_threshold, ""
        entries += predictor.entries(found, size, name, image_id)
        if pictures is None or image_id - len(unreadable) <= pictures:
            picture = (output_dir / PICTURES / name).with_name(file_name(path.name, ".png"))
            with left_out_on_error(str(picture)):
                overlay(image, found, predictor.info.classes, picture, score_threshold=threshold)
                place = f", drawn in {picture}"
        count = (found.scores >= threshold).sum()
        log.info("%s", visible(f"{path}: {count} objects with score >= {threshold:g}{place}"))
    if len(unreadable) == len(paths):
        raise ImageError(f"none of {len(paths)} files can be read as an image: {unreadable[names[0]]}")
    write_json(entries, output_dir / DETECTIONS)
    print(f"{len(entries)} detections in {len(paths) - len(unreadable)} images: {output_dir / DETECTIONS}")
    if unreadable:
        log.warning("left out %d of %d files, which cannot be read: %s", len(unreadable), len(paths), [*unreadable])


def load_predictor(config: DictConfig) -> Predictor:
    """The checkpoint's network with the loops, modes, views, image size and grey values that are asked for.

    Raises:
        ValueError: If the checkpoint is refused, or one of them makes no sense.
    """
    model, info = restore_model(path_of(config, "checkpoint"), config.trusted_packages)
    set_modes(model, config)
    given = {key: config[key] for key in ("image_size", "image_range") if config[key] is not None}
    if config.image_size is None:
        info.preprocessing.check_image_size(config.max_megapixels)
    info = replace(info, preprocessing=replace(info.preprocessing, **given))
    views = chosen_views(config.evaluation)
    return Predictor(model, info, config.device, views, max_megapixels=config.max_megapixels)


def sources_of(source: object) -> list[Path]:
    """``source``, which is one path or a list of them, as absolute paths.

    Raises:
        ValueError: If it names nothing.
    """
    given = list(source) if isinstance(source, ListConfig | list | tuple) else [source]
    if not given or any(one is None or one == "" for one in given):
        raise ValueError(f"source={source}: an image, a folder of images, or a list of them is needed")
    return [Path(os.path.abspath(Path(str(one)).expanduser())) for one in given]


def image_files(
    source: object, *, is_recursive: bool, leave_out: Path | None = None, key: str = "source"
) -> list[Path]:
    """The images that ``source`` names, and those in the folders that it names, each once.

    Args:
        source: A path or a list of them.
        is_recursive: Whether folders in folders are looked through.
        leave_out: Folder that is not, because pictures are drawn into it.
        key: What the setting is called.

    Raises:
        FileNotFoundError: If one of them is not there, or is a folder without an image.
        ValueError: If it names nothing.
    """
    found: list[Path] = []
    for path in sources_of(source):
        if not path.is_dir():
            if not path.exists():
                raise FileNotFoundError(f"{key}={path}: no such image or folder")
            found.append(path)
            continue
        inside = [one for one in find_images(path, recursive=is_recursive) if leave_out not in one.parents]
        if not inside:
            below = 0 if is_recursive else len(find_images(path, recursive=True))
            hint = f"; recursive=true takes the {below} in its sub-folders" if below else ""
            raise FileNotFoundError(f"{key}={path}: the folder holds no image{hint}")
        found += inside
    return list(dict.fromkeys(found))


def names_of(paths: Sequence[Path], sources: Sequence[Path]) -> list[str]:
    """Names that tell images of several folders apart: paths below the folder that all sources lie in."""
    folders = [source if source.is_dir() else source.parent for source in sources]
    above = os.path.commonpath(folders)
    return [path.relative_to(above).as_posix() for path in paths]
