"""What a run found in a few images after loop 1, 2, …, drawn from its detection files and the images themselves."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor

from r3cnn.data.image_files import ImageFolder
from r3cnn.reporting.drawing import Mark, draw_marks
from r3cnn.reporting.figures import MAX_LABELS, TRUTH, best_ious, iou_color, to_pillow
from r3cnn.reporting.html.coco_files import (
    CocoFile,
    CocoImage,
    FileId,
    Found,
    detection_files,
    read_coco,
    read_found,
    seen_ids,
)

ReadImage = Callable[[Path, Mapping[str, object]], Tensor]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PictureSettings:
    """How many pictures, and how large.

    Attributes:
        images: Images per run, spread over those that it was scored on; 0 for none.
        side: Longer side of a picture in pixels.
        quality: Of the WebP files, in [1, 100].
        score_threshold: Detections with a lower score are left out.
    """

    images: int
    side: int
    quality: int
    score_threshold: float

    def __post_init__(self) -> None:
        if self.images < 0:
            raise ValueError(f"pictures.images is {self.images}: 0 or more are possible")
        if self.side < 1:
            raise ValueError(f"pictures.side is {self.side}: at least one pixel is needed")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"pictures.quality is {self.quality}: it goes from 1 to 100")
        if not 0 <= self.score_threshold <= 1:
            raise ValueError(f"pictures.score_threshold is {self.score_threshold}: scores lie in [0, 1]")


@dataclass(frozen=True)
class LoopPicture:
    """One image after one loop.

    Attributes:
        uri: The picture itself, as a data URI.
        text: What it shows, such as "12 boxes, mean IoU 0.81".
    """

    uri: str
    text: str


@dataclass(frozen=True)
class LoopPictures:
    """One image after every loop.

    Attributes:
        file_name: Of the image.
        width: Of the pictures, in pixels.
        height: Of the pictures, in pixels.
        loops: Loop 1 first.
    """

    file_name: str
    width: int
    height: int
    loops: tuple[LoopPicture, ...]


class NoPicturesError(ValueError):
    """Pictures cannot be drawn; the message says what is missing."""


def loop_pictures(
    folder: Path, data: Mapping[str, object], num_loops: int, settings: PictureSettings, read_image: ReadImage
) -> list[LoopPictures]:
    """Draws a run's detections loop by loop; boxes and masks have the colour of the box's IoU with the ground truth.

    Args:
        folder: Of the finished run.
        data: The part ``data`` of its configuration.
        num_loops: Loops that were scored.
        settings: How many pictures, and how large.
        read_image: (3, H, W) uint8 RGB of an image file, as ``data`` wants it read; raises ValueError where it cannot
            be: that image is left out.

    Raises:
        NoPicturesError: If a file that it takes is not there, or is not what a run writes, or no image can be read.
    """
    if not settings.images:
        return []
    images, coco = _coco_of(data)
    on_disk = ImageFolder(images)
    files = detection_files(folder, num_loops)
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise NoPicturesError(f"{missing.name} is not in the run's folder: evaluate with evaluation.save_loops=true")
    try:
        chosen = [coco.images[key] for key in _spread(seen_ids(folder, coco), settings.images)]
        found = [read_found(file, {image.id for image in chosen}) for file in files]
    except KeyError as error:
        raise NoPicturesError(f"image {error} is not in the annotation file any more") from error
    except ValueError as error:
        raise NoPicturesError(str(error)) from error
    drawn: list[LoopPictures] = []
    for image in chosen:
        try:
            photo = to_pillow(read_image(images / on_disk.find(image.file_name), data))
        except ValueError as error:
            log.warning("skipping picture: %s", error)
            unreadable = str(error)
            continue
        drawn.append(_pictures(image, photo, coco, [loop.get(image.id, []) for loop in found], settings))
    if chosen and not drawn:
        raise NoPicturesError(unreadable)
    return drawn


def _coco_of(data: Mapping[str, object]) -> tuple[Path, CocoFile]:
    """Folder of the validation images, and their annotations."""
    part = data.get("val")
    if not isinstance(part, Mapping):
        raise NoPicturesError("the run's configuration names no validation data")
    root = Path(str(data.get("root") or ""))
    images, annotations = root / str(part.get("images")), root / str(part.get("annotations"))
    for path in (annotations, images):
        if not path.exists():
            raise NoPicturesError(f"{path} is not there any more")
    try:
        return images, read_coco(annotations)
    except ValueError as error:
        raise NoPicturesError(str(error)) from error


def _spread(ids: Sequence[FileId], count: int) -> list[FileId]:
    count = min(count, len(ids))
    return [ids[position * len(ids) // count] for position in range(count)]


def _pictures(
    image: CocoImage, photo: Image.Image, coco: CocoFile, loops: Sequence[Sequence[Found]], settings: PictureSettings
) -> LoopPictures:
    truth = torch.tensor(coco.boxes.get(image.id, []), dtype=torch.float32).reshape(-1, 4)
    drawn = [_picture(photo, found, truth, settings) for found in loops]
    width, height = drawn[0][0].size
    return LoopPictures(
        image.file_name,
        width,
        height,
        tuple(LoopPicture(_data_uri(picture, settings.quality), text) for picture, text in drawn),
    )


def _picture(
    photo: Image.Image, found: Sequence[Found], truth: Tensor, settings: PictureSettings
) -> tuple[Image.Image, str]:
    shown = sorted((one for one in found if one.score >= settings.score_threshold), key=lambda one: -one.score)
    boxes = torch.tensor([one.corners() for one in shown], dtype=torch.float32).reshape(-1, 4)
    ious = best_ious(boxes, truth)
    is_labelled = len(shown) <= MAX_LABELS
    marks = [
        _mark(one, photo.size, iou, is_labelled=is_labelled) for one, iou in zip(shown, ious.tolist(), strict=True)
    ]
    marks += [Mark((x1, y1, x2, y2), TRUTH, is_outline=True) for x1, y1, x2, y2 in truth.tolist()]
    mean = f"mean IoU {ious.mean():.3f}" if len(ious) and len(truth) else "no IoU"
    text = f"{len(shown)} {'box' if len(shown) == 1 else 'boxes'}, {mean}"
    return draw_marks(photo, marks, scale=settings.side / max(photo.size)), text


def _mark(found: Found, size: tuple[int, int], iou: float, *, is_labelled: bool) -> Mark:
    """A detection in the colour of its IoU, with its mask cut to the pixels that its box touches."""
    corners = found.corners()
    left, top = max(0, int(corners[0])), max(0, int(corners[1]))
    right, bottom = min(size[0], int(corners[2]) + 1), min(size[1], int(corners[3]) + 1)
    code = {"size": found.segmentation.size, "counts": found.segmentation.counts.encode()}
    mask = coco_mask.decode(code)[top:bottom, left:right].astype(bool)
    return Mark(corners, iou_color(iou), f"{iou:.2f}" if is_labelled else "", mask, (left, top))


def _data_uri(picture: Image.Image, quality: int) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
