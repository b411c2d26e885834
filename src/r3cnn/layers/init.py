"""Weight initialisation as in the released configurations (reference values in ``experiments/README.md``)."""

from __future__ import annotations

from torch import nn


def init_kaiming(module: nn.Module) -> None:
    """Kaiming-normal weights for the fan-out of a ReLU network (arXiv 1502.01852), zero bias, for all convolutions."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            zero_bias(layer)


def init_xavier(module: nn.Module) -> None:
    """Xavier-uniform weights, zero bias, for all convolutions and linear layers."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            zero_bias(layer)


def init_normal(layer: nn.Conv2d | nn.Linear, std: float) -> None:
    """Normal weights of the given standard deviation, zero bias."""
    nn.init.normal_(layer.weight, std=std)
    zero_bias(layer)


def zero_bias(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> None:
    """Zero bias, if the layer has one."""
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
