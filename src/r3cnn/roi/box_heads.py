"""Box heads: class logits and box deltas of pooled RoIs."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor, nn
from torch.nn import functional as F

from r3cnn.layers.init import init_kaiming, init_normal, init_xavier
from r3cnn.layers.non_local import NonLocal, for_large_kernels
from r3cnn.ranges import check_range


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
        check_range("[1, inf)", in_channels=in_channels, roi_size=roi_size, num_classes=num_classes, hidden=hidden)
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
        hidden = F.relu(self.fc1(pooled.flatten(1)), inplace=True)
        hidden = F.relu(self.fc2(hidden), inplace=True)
        return BoxOutput(self.logits(hidden), self.deltas(hidden))


class NonLocalBoxHead(nn.Module):
    """A non-local block and two large convolutions instead of fully connected layers (R3-CNN, section 3.3).

    The paper calls it FCC; its 8.7 million parameters stand against 14.0 million of the shared fully connected layers.

    Args:
        in_channels: Channels of the pooled features.
        roi_size: Side of the pooled grid.
        num_classes: K, foreground classes.
        class_agnostic: One set of deltas for all classes instead of one per class.
        widths: Output channels of the two convolutions.
        kernel_size: Side of all convolutions, odd.
        reduction: By how much the non-local block narrows its channels.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        roi_size: int,
        num_classes: int,
        class_agnostic: bool,
        widths: tuple[int, int],
        kernel_size: int,
        reduction: int,
    ) -> None:
        super().__init__()
        check_range("[1, inf)", in_channels=in_channels, roi_size=roi_size, num_classes=num_classes, widths=widths)
        first, second = widths
        self.attention = NonLocal(in_channels, reduction=reduction, kernel_size=kernel_size)
        self.conv1 = nn.Conv2d(in_channels, first, kernel_size, padding=kernel_size // 2)
        self.conv2 = nn.Conv2d(first, second, kernel_size, padding=kernel_size // 2)
        self.logits = nn.Linear(second * roi_size * roi_size, num_classes + 1)
        self.deltas = nn.Linear(second * roi_size * roi_size, 4 if class_agnostic else 4 * num_classes)
        init_kaiming(self.conv1)
        init_kaiming(self.conv2)
        init_normal(self.logits, std=0.01)
        init_normal(self.deltas, std=0.001)

    def forward(self, pooled: Tensor) -> BoxOutput:
        """Judges pooled features (R, C, S, S)."""
        hidden = F.relu(self.attention(for_large_kernels(pooled)), inplace=True)
        hidden = F.relu(self.conv1(hidden), inplace=True)
        hidden = F.relu(self.conv2(hidden), inplace=True).flatten(1)
        return BoxOutput(self.logits(hidden), self.deltas(hidden))
