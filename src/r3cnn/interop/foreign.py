"""Reads checkpoints of other code bases without running anything that stands in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from r3cnn.archive import read_archive

# Bookkeeping that training runs of mmdetection leave beside the weights (`message_hub`, `optimizer`, `meta`).
# None of these names is looked up: an inert object takes the place of whatever they would make.
INERT_NAMES = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    "builtins.getattr",  # how such a buffer's methods are pickled
    "numpy.ndarray",
    "numpy.dtype",
    *(
        f"numpy.{core}.multiarray.{name}"
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar", "_frombuffer")
    ),
)
WRAPPERS = ("state_dict", "model")  # mmdetection's and Lightning's; that of torchvision's training script
DATA_PARALLEL = "module."


class Inert:
    """Swallows what it is made from and remembers nothing."""

    def __new__(cls, *ignored: object) -> Inert:
        """An object without content."""
        return super().__new__(cls)

    def __init__(self, *ignored: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        """Takes no state."""


@dataclass(frozen=True)
class ForeignCheckpoint:
    """Content of a file.

    Attributes:
        state: Weights by their name, without the prefix of data-parallel training.
        meta: What the file says about them; empty if it says nothing.
        others: Further entries of the file, such as the state of an optimizer.
    """

    state: Mapping[str, Tensor]
    meta: Mapping[str, object]
    others: tuple[str, ...]


def read_foreign(path: Path) -> ForeignCheckpoint:
    """Reads a checkpoint onto the CPU.

    Raises:
        FileNotFoundError: When there is no such file.
        ValueError: When it is unreadable, holds objects that could run code, or holds no weights.
    """
    if not path.is_file():
        raise FileNotFoundError(f"input={path}: no such file")
    content = read_archive(path, inert=dict.fromkeys(INERT_NAMES, Inert))
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, a state dict or a checkpoint with one is needed")
    if "r3cnn" in content:
        raise ValueError(f"{path} is a checkpoint of r3cnn already: from= reads those of other code bases")
    wrapper = next((name for name in WRAPPERS if isinstance(content.get(name), Mapping)), None)
    state = content[wrapper] if wrapper else content
    strange = [str(key) for key, value in state.items() if not isinstance(value, Tensor)]
    if not state or strange:
        names = f"entries that are no tensors: {', '.join(strange[:5])}" if strange else "nothing"
        raise ValueError(f"{path} holds no state dict: under {wrapper or 'its top level'} there are {names}")
    meta = content.get("meta") if wrapper else None
    return ForeignCheckpoint(
        state=without_prefix({str(key): value for key, value in state.items()}),
        meta=meta if isinstance(meta, Mapping) else {},
        others=tuple(str(key) for key in content if key not in (wrapper, "meta")) if wrapper else (),
    )


def without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefix that data-parallel training puts before all of them."""
    if not all(key.startswith(DATA_PARALLEL) for key in state):
        return dict(state)
    return {key.removeprefix(DATA_PARALLEL): value for key, value in state.items()}
