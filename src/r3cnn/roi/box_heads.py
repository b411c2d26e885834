"""Box heads: class logits and box deltas of pooled RoIs."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor, nn
from torch.nn import functional as F

from r3cnn.layers.init import init_normal, init_xavier


class BoxOutput(NamedTuple):
    """What a box head says about R RoIs.

    Attributes:
        logits: (R, K + 1), background last.
        deltas: (R, 4) class-agnostic, or (R, 4K) class by class.
    """

    logits: Tensor
    deltas: Tensor


class BoxHead(Protocol):
    """Anything that classifies and refines pooled RoIs."""

    def __call__(self, pooled: Tensor) -> BoxOutput:
        """Judges pooled features (R, C, S, S)."""
        ...


class SharedFCBoxHead(nn.Module):
    """Two fully connected layers shared by both outputs (arXiv 1612.03144, section 4.2).

    Args:
        in_channels: Channels of the pooled features.
        roi_size: Side of the pooled grid.
        num_classes: K, foreground classes.
        class_agnostic: One set of deltas for all classes instead of one per class.
        hidden: Width of the layers.
    """

    def __init__(self, in_channels: int, roi_size: int, num_classes: int, class_agnostic: bool, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_channels * roi_size * roi_size, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.logits = nn.Linear(hidden, num_classes + 1)
        self.deltas = nn.Linear(hidden, 4 if class_agnostic else 4 * num_classes)
        init_xavier(self.fc1)
        init_xavier(self.fc2)
        init_normal(self.logits, std=0.01)
        init_normal(self.deltas, std=0.001)

    def forward(self, pooled: Tensor) -> BoxOutput:
        """Judges pooled features (R, C, S, S)."""
        hidden = F.relu(self.fc2(F.relu(self.fc1(pooled.flatten(1)))))
        return BoxOutput(self.logits(hidden), self.deltas(hidden))
