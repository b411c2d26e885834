"""Checkpoints: what they hold beside the weights, and how a network is rebuilt from them without running their code.

A checkpoint is Lightning's own file plus the key ``r3cnn`` with plain containers only. It is read with
``weights_only=True``, and its network is built only from trusted targets.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from r3cnn.archive import FOREIGN, read_archive
from r3cnn.data.loading import MAX_MEGAPIXELS, checked_range
from r3cnn.data.transforms import check_input
from r3cnn.detector import RCNN, check_shapes
from r3cnn.disk import whole_file
from r3cnn.structures import Id, Size
from r3cnn.training.build import build, trusted_targets

FORMAT = 2  # 1: mask heads stood in roi_heads.mask_heads, beside the box heads
KEY = "r3cnn"
WEIGHT_PREFIX = "model."
SPARE, SPARE_PARTS, SPARE_VALUES = 16, 10_000, 1 << 24  # what building may throw away, as replaced layers


@dataclass(frozen=True)
class Preprocessing:
    """What happens to an image before the network.

    Attributes:
        mean: Per RGB channel, in [0, 255].
        std: Per RGB channel, > 0.
        image_size: Upper bounds of the short and of the long side in pixels.
        image_range: Grey values (low, high) that become 0 and 255 in images of more than 8 bits, see `ImageReader`.
    """

    mean: Sequence[float]
    std: Sequence[float]
    image_size: Size
    image_range: Sequence[float] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))
        object.__setattr__(self, "image_size", tuple(self.image_size))
        check_input(self.image_size, self.mean, self.std)
        if self.image_range is not None:
            object.__setattr__(self, "image_range", checked_range(self.image_range))

    def check_image_size(self, max_megapixels: float | None = MAX_MEGAPIXELS) -> None:
        """Refuses a size that a checkpoint, which may be anybody's, asks a machine's memory for.

        Raises:
            ValueError: When an image may become larger.
        """
        megapixels = self.image_size[0] * self.image_size[1] / 1e6
        if max_megapixels is not None and megapixels > max_megapixels:
            raise ValueError(
                f"the checkpoint brings images to image_size={[*self.image_size]}, {megapixels:g} megapixels, and "
                f"{max_megapixels:g} are the most; image_size=[short,long] chooses a size, also a larger one"
            )


@dataclass(frozen=True)
class CheckpointInfo:
    """Everything but the weights that a trained network needs to be used.

    Attributes:
        model: Resolved configuration of the network, plain containers.
        data: Resolved configuration of the data module that it was trained with.
        classes: Name of each label.
        category_ids: Id of each label in the annotation file.
        preprocessing: What happens to an image before the network.
    """

    model: Mapping[str, object]
    data: Mapping[str, object]
    classes: tuple[str, ...]
    category_ids: tuple[Id, ...]
    preprocessing: Preprocessing

    def to_dict(self) -> dict[str, object]:
        """Plain containers for the checkpoint."""
        return {
            "format": FORMAT,
            "model": copy.deepcopy(dict(self.model)),
            "data": copy.deepcopy(dict(self.data)),
            "classes": list(self.classes),
            "category_ids": list(self.category_ids),
            "preprocessing": {key: _plain(value) for key, value in asdict(self.preprocessing).items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, object], source: Path) -> CheckpointInfo:
        """Reads what `to_dict` wrote.

        Raises:
            ValueError: For another format or missing keys.
        """
        if values.get("format") != FORMAT:
            raise ValueError(
                f"{source} has format {values.get('format')!r}, this version reads {FORMAT}, whose weights have other "
                "names: use the version of r3cnn that wrote it, or train anew"
            )
        try:
            saved = msgspec.convert(values, _Saved)
            image = Preprocessing(*msgspec.structs.astuple(saved.preprocessing))
            for name in ("classes", "category_ids"):
                if len(set(getattr(saved, name))) < max(1, len(saved.classes)):
                    raise ValueError(f"{name} is {getattr(saved, name)}: as many as classes, each once, are needed")
            if len(saved.category_ids) != len(saved.classes):
                raise ValueError(f"there are {len(saved.classes)} classes and {len(saved.category_ids)} category_ids")
        except ValueError as error:
            raise ValueError(f"{source} is damaged under {KEY!r}: {error}") from error
        return cls(saved.model, saved.data, tuple(saved.classes), tuple(saved.category_ids), image)


class _SavedImage(msgspec.Struct):
    mean: list[float]
    std: list[float]
    image_size: tuple[int, int]
    image_range: tuple[float, float] | None = None  # older checkpoints have none


class _Saved(msgspec.Struct):
    """What `CheckpointInfo.to_dict` writes."""

    model: dict[str, Any]
    data: dict[str, Any]
    classes: list[str]
    category_ids: list[Id]
    preprocessing: _SavedImage


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def load_checkpoint(path: Path) -> tuple[CheckpointInfo, dict[str, Tensor]]:
    """Reads a checkpoint on the CPU without running code from it.

    Returns:
        What it says about the network, and the network's weights by name.

    Raises:
        FileNotFoundError: When there is no such file.
        ValueError: When it holds more than tensors and plain containers, or was not written by `r3cnn train`.
    """
    content = _read(Path(path))
    return CheckpointInfo.from_dict(content[KEY], Path(path)), weights_in(content)


def check_resumable(path: Path) -> tuple[CheckpointInfo, dict[str, dict[str, object]]]:
    """Refuses a checkpoint that no run can go on from.

    Returns:
        What it says about the network, and all of its entries; their tensors stay on the disk until they are used.

    Raises:
        FileNotFoundError: When there is no such file.
        ValueError: When it is refused, see `load_checkpoint`, or holds weights alone.
    """
    content = _read(path, mapped=True)
    info = CheckpointInfo.from_dict(content[KEY], path)
    if "optimizer_states" not in content:
        raise ValueError(
            f"{path} holds weights alone, as `r3cnn convert` writes them: a run can start from them, init={path}, but "
            "there is no run to go on with, resume="
        )
    return info, content


def _read(path: Path, *, mapped: bool = False) -> dict[str, dict[str, object]]:
    """The entries of a checkpoint of ours; ``mapped`` leaves the tensors on the disk until they are used."""
    content = read_archive(path, mapped=mapped)
    if not (isinstance(content, dict) and all(isinstance(content.get(key), dict) for key in (KEY, "state_dict"))):
        raise ValueError(
            f"{path} was not written by `r3cnn train`: it has no {KEY!r} entry beside its weights; {FOREIGN}"
        )
    return content


def weights_in(content: Mapping[str, Mapping[str, object]]) -> dict[str, Tensor]:
    """The network's weights by name, of the entries of a checkpoint."""
    return {
        name.removeprefix(WEIGHT_PREFIX): tensor
        for name, tensor in content["state_dict"].items()
        if name.startswith(WEIGHT_PREFIX) and isinstance(tensor, Tensor)
    }


def save_weights(path: Path, info: CheckpointInfo, weights: Mapping[str, Tensor]) -> None:
    """Writes a checkpoint without the state of a training run: it can be used and started from, but not resumed.

    Args:
        path: File to write.
        info: What is needed to use the weights.
        weights: State of the network.
    """
    state = {WEIGHT_PREFIX + name: tensor for name, tensor in weights.items()}
    with whole_file(path) as draft, draft.open("wb") as file:
        torch.save({KEY: info.to_dict(), "state_dict": state}, file)


def build_model(config: Mapping[str, object], trusted: Sequence[str] | None) -> RCNN:
    """Builds a network from its resolved configuration.

    Args:
        config: Nested ``_target_`` configuration.
        trusted: Targets that may be built, see `find_target`; None for the user's own configuration.

    Raises:
        ValueError: For a target that is unknown or not trusted, or when the result is not a detector.
    """
    return build(config, RCNN, "model", trusted)


def build_shapes(config: Mapping[str, object], trusted: Sequence[str] | None) -> RCNN:
    """Likewise on the device ``meta``, without memory for weights; its parts are known to fit together.

    A network with a part that needs values to be built, as ``torch.linspace(…).tolist()`` does, is built on the CPU.

    Raises:
        ValueError: As `build_model` does, or for parts that do not fit together.
    """
    try:
        with torch.device("meta"):
            network = build_model(config, trusted)
    except ValueError as error:
        if "meta" not in str(error):
            raise
        network = build_model(config, trusted)
    try:
        check_shapes(network)
    except ValueError as error:
        raise ValueError(f"model.{error}") from error
    return network


@contextmanager
def no_larger_than(weights: Mapping[str, Tensor], path: Path) -> Iterator[None]:
    """Stops the building of a network that is far larger than its weights, as only a made-up one is.

    Args:
        weights: Of the network.
        path: Where they stand, for the message.

    Raises:
        ValueError: When it is.
    """
    left = {"parts": SPARE_PARTS + SPARE * len(weights), "values": SPARE_VALUES}
    left["values"] += SPARE * sum(weight.numel() for weight in weights.values())

    def note(module: nn.Module, name: str, part: nn.Module | Tensor | None) -> None:
        left["parts"] -= 1
        left["values"] -= part.numel() if isinstance(part, Tensor) else 0
        if min(left.values()) < 0:
            raise ValueError(f"the network that {path} describes is far larger than the weights in it")

    kinds = ("parameter", "buffer", "module")
    handles = [getattr(torch.nn.modules.module, f"register_module_{kind}_registration_hook")(note) for kind in kinds]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def restore_model(path: Path, trusted_packages: str | Sequence[str] = ()) -> tuple[RCNN, CheckpointInfo]:
    """Rebuilds a trained network in evaluation mode on the CPU.

    Args:
        path: A checkpoint of `r3cnn train`.
        trusted_packages: Packages of the user's own that the network may be built from.

    Raises:
        FileNotFoundError: When there is no such file.
        ValueError: When the checkpoint is refused or its weights do not fit its configuration.
    """
    info, weights = load_checkpoint(path)
    trusted = trusted_targets(trusted_packages)
    try:
        with no_larger_than(weights, path):
            build_shapes(info.model, trusted)
        model = build_model(info.model, trusted)
    except ValueError as error:
        raise (
            error if str(path) in str(error) else ValueError(f"{path}: its network cannot be built: {error}")
        ) from error
    if model.num_classes != len(info.classes):
        raise ValueError(f"{path} names {len(info.classes)} classes, its network is for {model.num_classes}")
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"the weights in {path} do not fit its own configuration: {error}") from error
    return model.eval(), info
