"""What a network cannot do on several ranks, said before the first step."""

from __future__ import annotations

from torch import nn


def check_sync_batch_norm(model: nn.Module, device_type: str, num_ranks: int) -> None:
    """Refuses batch norm over several ranks where torch has none.

    Args:
        model: The network.
        device_type: Kind of device that it trains on, such as ``cpu`` or ``cuda``.
        num_ranks: Number of ranks.

    Raises:
        ValueError: For ``sync_bn`` on two or more CPU ranks.
    """
    if device_type != "cpu" or num_ranks < 2:
        return
    if any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
        raise ValueError(
            f"backbone.norm=sync_bn needs GPUs, this run has {num_ranks} CPU ranks: "
            "set backbone.norm=bn or bn_eval, or trainer.devices=1"
        )


def check_loss_scaling(backward: str, precision: str) -> None:
    """Gradients made loop by loop are made before the loss is scaled, as float16 needs it.

    Raises:
        ValueError: For that pair of settings.
    """
    if backward == "by_loop" and precision == "16-mixed":
        raise ValueError(
            "backward=by_loop makes gradients before the loss is scaled, which trainer.precision=16-mixed needs: take "
            "trainer.precision=bf16-mixed or 32-true, or backward=at_once"
        )
