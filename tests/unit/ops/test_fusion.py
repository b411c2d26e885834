"""Score and mask fusion, worked out by hand."""

from __future__ import annotations

import pytest
import torch

from r3cnn.ops.fusion import fuse_masks, fuse_scores

A, B = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]])


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("mean_logits", torch.tensor([[1.0, 0.5]]).softmax(1)),
        ("mean_probs", (A.softmax(1) + B.softmax(1)) / 2),
        ("max", torch.tensor([[2.0, 1.0]]).softmax(1)),
        ("last", B.softmax(1)),
    ],
)
def test_rule_gives_what_its_name_says(rule: str, expected: torch.Tensor) -> None:
    torch.testing.assert_close(fuse_scores([A, B], rule), expected)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("mean_probs", (A.sigmoid() + B.sigmoid()) / 2),
        ("mean_logits", torch.tensor([[1.0, 0.5]]).sigmoid()),
        ("max", torch.tensor([[2.0, 1.0]]).sigmoid()),
        ("last", B.sigmoid()),
    ],
)
def test_masks_are_fused_as_the_rule_says(rule: str, expected: torch.Tensor) -> None:
    torch.testing.assert_close(fuse_masks([A, B], rule), expected)
