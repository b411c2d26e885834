"""``r3cnn export``: a trained network as one file that runs elsewhere, compared with the network before it is kept."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from r3cnn import __version__
from r3cnn.cli.configs import path_of
from r3cnn.cli.folder_lock import writing_file
from r3cnn.cli.predict import image_files
from r3cnn.data.loading import ImageReader
from r3cnn.data.scenes import draw_scene
from r3cnn.data.transforms import resize_image
from r3cnn.detector import RCNN
from r3cnn.interop.comparison import TOLERANCE, Differences, differences
from r3cnn.interop.export import OUTPUTS, Program, checked_format, export
from r3cnn.interop.exported_detector import FixedSizes, with_sizes
from r3cnn.names import is_utf_8
from r3cnn.ops.images import normalize_images
from r3cnn.schedule import eval_heads
from r3cnn.structures import Size
from r3cnn.training.checkpoint import CheckpointInfo, Preprocessing, restore_model

SHAPES = (0, 8, 8, 8)  # in each drawn picture
OUTSIDE = 200  # pixels outside an image, which must make no difference


def run(config: DictConfig) -> None:
    """Writes the file, runs it on examples, and keeps it if it finds what the network finds.

    Raises:
        ValueError: If it does not, or for a setting that makes no sense.
    """
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # it warns of every empty list
    output = path_of(config, "output")
    if not is_utf_8(output):
        raise ValueError(f"output={output}: a name in UTF-8 is needed, as the libraries that read it take no other")
    checked_format(config.format, output)
    model, info = restore_model(path_of(config, "checkpoint"), config.trusted_packages)
    model.set_eval_heads(eval_heads(config.eval_loops, config.eval_heads, model.schedule))
    image_size = config.image_size
    if image_size is None:
        info.preprocessing.check_image_size()
        image_size = info.preprocessing.image_size
    sizes = FixedSizes(image_size, config.batch_size, config.proposals, config.detections)
    model = with_sizes(model, sizes)
    source = None if config.example is None else path_of(config, "example")
    images = list(example_images(source, sizes.image, ImageReader(info.preprocessing.image_range)))
    output.parent.mkdir(parents=True, exist_ok=True)
    draft = output.with_name(f"{output.stem}.draft{output.suffix}")
    with writing_file(output):
        try:
            found = write_and_compare(config.format, draft, model, info, sizes, images)
            draft.replace(output)
        finally:
            draft.unlink(missing_ok=True)
    print_account(output, sizes, model, found, len(images))


def write_and_compare(
    name: str, path: Path, model: RCNN, info: CheckpointInfo, sizes: FixedSizes, images: Sequence[Tensor]
) -> Differences:
    """Writes a file in the format of that name; gives how far what it finds is from what the network finds.

    Raises:
        ValueError: If that is too far.
    """
    image = info.preprocessing
    export(model, sizes, name, path, mean=image.mean, std=image.std, description=describe(model, info, sizes))
    found = compare(checked_format(name, path).load(path), model, images, sizes, image)
    if not found.is_within(TOLERANCE):
        raise ValueError(
            "the exported network does not find what the network finds, so it is not kept; largest differences in "
            f"{len(images)} images: {found}. Detections that score alike to float32 rounding may change places: then "
            "other images, example=…, show no difference"
        )
    return found


def describe(model: RCNN, info: CheckpointInfo, sizes: FixedSizes) -> dict[str, object]:
    """What a file says about itself, plain containers."""
    detection, image = model.roi_heads.detection, info.preprocessing
    return {
        "r3cnn_version": __version__,
        "classes": list(info.classes),
        "category_ids": list(info.category_ids),
        "image_size": list(sizes.image),
        "batch_size": sizes.batch,
        "proposals": model.rpn.eval_proposals.per_image,
        "detections": detection.max_detections,
        "mean": list(image.mean),
        "std": list(image.std),
        "trained_image_size": list(image.image_size),
        "image_range": image.image_range and list(image.image_range),
        "score_threshold": detection.score_threshold,
        "nms_threshold": detection.nms_threshold,
        "mask_threshold": detection.mask_threshold,
        "eval_heads": list(model.schedule.eval_heads),
        "has_mask_scores": model.roi_heads.mask_branch.iou_head.has_scores,
    }


def example_images(source: Path | None, limit: Size, reader: ImageReader) -> Iterator[Tensor]:
    """(3, h, w) uint8 images as large as ``limit`` allows: those of ``source``, or drawn shapes."""
    files = [] if source is None else image_files(source, is_recursive=False, key="example")
    for image in drawn_images() if source is None else map(reader, files):
        height, width = image.shape[-2:]
        scale = min(limit[0] / height, limit[1] / width)
        size = (max(round(height * scale), 1), max(round(width * scale), 1))
        yield resize_image(image, size)


def drawn_images() -> Iterator[Tensor]:
    """(3, h, w) uint8 pictures, the first one without any object; always the same."""
    random = np.random.default_rng(0)
    for count in SHAPES:
        yield torch.from_numpy(draw_scene(random, count=count, has_crowd=False).pixels).permute(2, 0, 1)


def compare(
    program: Program, model: RCNN, images: Sequence[Tensor], sizes: FixedSizes, preprocessing: Preprocessing
) -> Differences:
    """Largest differences between an exported network and the network that it was made from, over all images."""
    parts = []
    for start in range(0, len(images), sizes.batch):
        batch = [images[index % len(images)] for index in range(start, start + sizes.batch)]
        own = [(image.shape[-2], image.shape[-1]) for image in batch]
        pixels = torch.full((sizes.batch, 3, *sizes.image), OUTSIDE, dtype=torch.uint8)
        for row, image, (height, width) in zip(pixels, batch, own, strict=True):
            row[:, :height, :width] = image
        with torch.inference_mode():
            normalized = normalize_images(batch, sizes.canvas, preprocessing.mean, preprocessing.std)
            wanted = model.detect(normalized, own)
        parts.append(differences(program(pixels, torch.tensor(own)), wanted))
    return Differences.largest(parts)


def print_account(output: Path, sizes: FixedSizes, model: RCNN, found: Differences, images: int) -> None:
    """Says what goes in and out, and how far the file is from the network."""
    batch, (height, width) = sizes.batch, sizes.image
    print(f"in:  images ({batch}, 3, {height}, {width}) uint8 RGB, sizes ({batch}, 2) int64 height and width in them")
    print(f"out: {', '.join(OUTPUTS)}; {model.roi_heads.detection.max_detections} slots per image")
    print(f"largest differences from the network, {found.compared} detections in {images} images: {found}")
    if not found.compared:
        print(
            "nothing was found in any image: name one with objects, example=photo.jpg, for a comparison that says more"
        )
    print(f"written to {output}, {output.stat().st_size / 2**20:.1f} MiB")
