from __future__ import annotations

import pytest

from r3cnn.backbones import ResNet
from r3cnn.training.rank_checks import check_loss_scaling, check_sync_batch_norm


def test_batch_norm_over_cpu_ranks_is_refused_with_what_to_set() -> None:
    with pytest.raises(ValueError, match=r"sync_bn needs GPUs, this run has 2 CPU ranks: set backbone\.norm=bn"):
        check_sync_batch_norm(ResNet(10, "sync_bn", 1, None), "cpu", 2)


@pytest.mark.parametrize(("norm", "device", "ranks"), [("bn", "cpu", 2), ("sync_bn", "cpu", 1), ("sync_bn", "cuda", 8)])
def test_everything_else_is_fine(norm: str, device: str, ranks: int) -> None:
    model = ResNet(10, norm, 1, None)
    check_sync_batch_norm(model, device, ranks)
    assert model.norm == norm


@pytest.mark.parametrize(("backward", "precision"), [("by_loop", "bf16-mixed"), ("at_once", "16-mixed")])
def test_only_gradients_made_loop_by_loop_cannot_do_with_a_scaled_loss(backward: str, precision: str) -> None:
    check_loss_scaling(backward, precision)
    with pytest.raises(ValueError, match=r"backward=by_loop makes .* take trainer.precision=bf16-mixed"):
        check_loss_scaling("by_loop", "16-mixed")
