"""How a trained network is to run: its loops, and the optional modes of inference."""

from __future__ import annotations

from omegaconf import DictConfig

from r3cnn.cli.configs import plain
from r3cnn.detector import RCNN
from r3cnn.inference_modes import InferenceModes
from r3cnn.roi.early_exit import LoopExit
from r3cnn.schedule import eval_heads
from r3cnn.training.build import build


def set_modes(model: RCNN, config: DictConfig) -> None:
    """Gives a network the loops and the modes that a command asks for.

    Args:
        model: Changed in place.
        config: Has ``eval_loops``, ``eval_heads``, ``early_exit``, ``precision`` and ``compile``.

    Raises:
        ValueError: If one of them makes no sense.
    """
    model.set_eval_heads(eval_heads(config.eval_loops, config.eval_heads, model.schedule))
    early_exit = build(plain(config.early_exit), LoopExit, "early_exit")  # type: ignore[type-abstract]
    InferenceModes(early_exit, config.precision, config.compile).apply(model)
