"""What checkpoints of mmdetection 2.x and 3.x say about their weights, and how to say it to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from r3cnn.interop.foreign import ForeignCheckpoint
from r3cnn.interop.image_norm import ImageNorm, image_norm_in, uses_caffe_style
from r3cnn.interop.recursion import StatedLoops, loops_in

CAFFE = (
    "this network has a caffe-style ResNet, with its strides in the 1x1 convolutions; the networks here have them in "
    "the 3x3 ones (style='pytorch'). Its weights have the same names and shapes and would compute something else"
)


def layout_of(meta: Mapping[str, object]) -> str:
    """Which version of mmdetection wrote this, as far as can be told."""
    if any(key in meta for key in ("mmengine_version", "dataset_meta", "cfg")):
        return "mmdetection 3.x"
    if any(key in meta for key in ("mmdet_version", "mmcv_version", "CLASSES", "config")):
        return "mmdetection 2.x"
    return "names of mmdetection, without meta data"


def classes_in(meta: Mapping[str, object]) -> tuple[str, ...] | None:
    """Class names in the order of the labels; None if there are none."""
    data_set = meta.get("dataset_meta")
    places = [data_set, meta] if isinstance(data_set, Mapping) else [meta]
    for place in places:
        names = place.get("CLASSES", place.get("classes"))
        if isinstance(names, str):
            return (names,)  # of one class, where a comma was forgotten
        if isinstance(names, Sequence) and names and all(isinstance(name, str) for name in names):
            return tuple(names)
    return None


def image_norm_of(checkpoint: ForeignCheckpoint) -> tuple[ImageNorm, str] | None:
    """The normalisation of the input, and where it was found; None if the file states none.

    Raises:
        ValueError: For a network whose strides lie elsewhere.
    """
    config = _config_in(checkpoint.meta)
    if uses_caffe_style(config):
        raise ValueError(CAFFE)
    stated = image_norm_in(config)
    if stated is not None:
        return stated, "the configuration in the checkpoint"
    mean, std = (checkpoint.state.get(f"data_preprocessor.{name}") for name in ("mean", "std"))
    if mean is not None and std is not None and mean.numel() == std.numel() == 3:
        return ImageNorm(_numbers(mean), _numbers(std), "rgb"), "data_preprocessor, whose order of channels is unsaid"
    return None


def loops_of(checkpoint: ForeignCheckpoint) -> StatedLoops:
    """What the configuration in the file says about the loops."""
    return loops_in(_config_in(checkpoint.meta))


def exported(
    state: Mapping[str, Tensor], classes: Sequence[str], mean: Sequence[float], std: Sequence[float]
) -> dict[str, object]:
    """A checkpoint that mmdetection 2.x and 3.x read: both find their class names, and both their normalisation."""
    norm = f"mean={[float(value) for value in mean]}, std={[float(value) for value in std]}"
    return {
        "meta": {
            "CLASSES": tuple(classes),
            "dataset_meta": {"CLASSES": tuple(classes), "classes": tuple(classes)},
            "config": f"img_norm_cfg = dict({norm}, to_rgb=True)\n",
            "cfg": f"model = dict(data_preprocessor=dict(type='DetDataPreprocessor', {norm}, bgr_to_rgb=True))\n",
        },
        "state_dict": dict(state),
    }


def _config_in(meta: Mapping[str, object]) -> str:
    texts = [meta.get(key) for key in ("config", "cfg")]
    return "\n".join(text for text in texts if isinstance(text, str))


def _numbers(tensor: Tensor) -> tuple[float, ...]:
    return tuple(float(value) for value in tensor.flatten().tolist())
