"""Pictures of overlapping shapes, drawn with numpy from one random generator."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from r3cnn.structures import Size

CLASSES = ("circle", "square", "triangle")

SHORT_SIDES = (128, 160)
MAX_ASPECT = 1.25
DIAMETERS = (18.0, 64.0)
MIN_VISIBLE = 0.4
MIN_SIDE = 12
MIN_CONTRAST = 90.0
TRIES = 60


@dataclass(frozen=True)
class Shape:
    """One object.

    Attributes:
        label: Index into ``CLASSES``.
        polygon: (V, 2) outline ``(x, y)`` in pixels.
        mask: (H, W) bool; all of it, hidden or not.
    """

    label: int
    polygon: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class Scene:
    """One picture.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        shapes: Objects, later ones in front.
        owner: (H, W) index of the object that is seen there, -1 for none.
        crowd: (H, W) bool; a heap of small objects that were not annotated one by one.
    """

    pixels: np.ndarray
    shapes: tuple[Shape, ...]
    owner: np.ndarray
    crowd: np.ndarray


def draw_scene(random: np.random.Generator, *, count: int, has_crowd: bool) -> Scene:
    """Draws a picture of at least 128 px with up to ``count`` objects of 12 to 64 px.

    Half of the objects are put where they hide a part of another one; of each object at least 40% stays visible.
    """
    short = int(random.integers(SHORT_SIDES[0], SHORT_SIDES[1] + 1))
    size = (short, int(short * random.uniform(1, MAX_ASPECT)))
    size = size if random.random() < 0.5 else size[::-1]
    picture = _background(random, size)
    shapes: list[Shape] = []
    owner = np.full(size, -1)
    for _ in range(TRIES):
        if len(shapes) == count:
            break
        shape = _random_shape(random, size, shapes)
        after = np.where(shape.mask, len(shapes), owner)
        if _all_visible([*shapes, shape], after):
            picture[shape.mask] = _paint(random, picture, shape.mask)
            shapes.append(shape)
            owner = after
    crowd = _draw_crowd(random, picture, owner) if has_crowd else np.zeros(size, dtype=bool)
    noisy = picture + random.normal(0, 6, picture.shape)
    return Scene(np.clip(np.rint(noisy), 0, 255).astype(np.uint8), tuple(shapes), owner, crowd)


def outline(label: int, diameter: float, angle: float, squeeze: float) -> np.ndarray:
    """(V, 2) outline around the origin whose bounding box has a longer side of ``diameter`` pixels.

    Args:
        label: Index into ``CLASSES``.
        diameter: Longer side of the bounding box in pixels.
        angle: Rotation in radians.
        squeeze: Factor in (0, 1] on one axis before the rotation.
    """
    vertices = {"circle": 32, "square": 4, "triangle": 3}[CLASSES[label]]
    turns = 2 * math.pi * np.arange(vertices) / vertices
    points = np.stack([np.cos(turns) * squeeze, np.sin(turns)], axis=1)
    if CLASSES[label] == "square":  # squeezing a square along its diagonal would make it a rhombus
        points = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]) * (squeeze, 1.0)
    rotation = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    points = points @ rotation
    low, high = points.min(axis=0), points.max(axis=0)
    return (points - (low + high) / 2) * (diameter / (high - low).max())


def _random_shape(random: np.random.Generator, size: Size, others: list[Shape]) -> Shape:
    label = int(random.integers(len(CLASSES)))
    diameter = random.uniform(*DIAMETERS)
    points = outline(label, diameter, random.uniform(0, 2 * math.pi), random.uniform(0.8, 1.0))
    limit = np.array(size[::-1], dtype=float)
    center = random.uniform(0, limit)
    if others and random.random() < 0.5:
        other = others[int(random.integers(len(others)))].polygon
        low, high = other.min(axis=0), other.max(axis=0)
        direction = random.normal(size=2)
        reach = random.uniform(0.3, 0.45) * ((high - low).max() + diameter)
        center = (low + high) / 2 + reach * direction / np.linalg.norm(direction)
    half = np.abs(points).max(axis=0)
    polygon = points + np.clip(center, half, limit - half)
    return Shape(label, polygon, _fill(polygon, size))


def _fill(polygon: np.ndarray, size: Size) -> np.ndarray:
    """(H, W) bool mask, by the rasteriser that will read the annotation."""
    runs = coco_mask.frPyObjects([polygon.round(3).reshape(-1).tolist()], *size)
    return np.asarray(coco_mask.decode(runs)[:, :, 0], dtype=bool)


def _all_visible(shapes: list[Shape], owner: np.ndarray) -> bool:
    for number, shape in enumerate(shapes):
        visible = owner == number
        if visible.sum() < MIN_VISIBLE * shape.mask.sum():
            return False
        if min(np.ptp(np.flatnonzero(visible.any(axis=axis))) + 1 for axis in (0, 1)) < MIN_SIDE:
            return False
    return True


def _paint(random: np.random.Generator, picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(P, 3) colours of a mask's pixels: two shades in stripes or blotches, unlike what they cover."""
    behind = picture[mask].mean(axis=0)
    color = random.uniform(20, 235, 3)
    while np.linalg.norm(color - behind) < MIN_CONTRAST:
        color = random.uniform(20, 235, 3)
    height, width = mask.shape
    if random.random() < 0.5:
        y, x = np.mgrid[:height, :width]
        angle, period = random.uniform(0, math.pi), random.uniform(4, 10)
        pattern = np.sin((x * math.cos(angle) + y * math.sin(angle)) * 2 * math.pi / period)
    else:
        pattern = _clouds(random, (height, width), cells=24)
    shade = random.normal(0, 1, 3)
    return color + 22 * pattern[mask][:, None] * shade / np.linalg.norm(shade)


def _background(random: np.random.Generator, size: Size) -> np.ndarray:
    """(H, W, 3) float picture: coarse and fine clouds around a random colour."""
    color = random.uniform(60, 195, 3)
    coarse = np.stack([_clouds(random, size, cells=4) for _ in range(3)], axis=2)
    fine = _clouds(random, size, cells=32)
    return color + 25 * coarse + 12 * fine[:, :, None]


def _clouds(random: np.random.Generator, size: Size, cells: int) -> np.ndarray:
    """(H, W) smooth noise of unit scale."""
    coarse = random.normal(size=(cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BILINEAR), dtype=np.float64)


def _draw_crowd(random: np.random.Generator, picture: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Draws a heap of small circles behind everything else, where most of it is seen; its visible mask."""
    size = owner.shape
    best = np.zeros(size, dtype=bool)
    for _ in range(20):
        corner = random.uniform(8, np.array(size[::-1]) - 48)
        heap = np.zeros(size, dtype=bool)
        for center in corner + random.uniform(0, 40, (14, 2)):
            heap |= _fill(center + outline(0, random.uniform(6, 9), 0.0, 1.0), size)
        heap &= owner < 0
        best = heap if heap.sum() > best.sum() else best
    picture[best] = _paint(random, picture, best)
    return best
