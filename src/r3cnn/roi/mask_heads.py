"""Mask heads: per-class mask logits of pooled RoIs, with features that can be fed back from loop to loop."""

from __future__ import annotations

from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from r3cnn.layers.init import init_kaiming
from r3cnn.ranges import check_range


class MaskHead(Protocol):
    """Anything that predicts masks in two steps, so that the next loop can use the feature between them."""

    def trunk(self, pooled: Tensor, state: Tensor | None) -> Tensor:
        """Feature (R, C, S, S) from pooled features (R, C, S, S) and the feature of the mask head before."""
        ...

    def predict(self, state: Tensor) -> Tensor:
        """Logits (R, K, 2S, 2S) from the feature; in training it runs twice, so no batch statistics may live in it."""
        ...

    def predict_class(self, state: Tensor, labels: Tensor) -> Tensor:
        """Logits (R, 2S, 2S) of one class (R,) int64 per RoI: that row of ``predict``, without making the others."""
        ...


class FCNMaskHead(nn.Module):
    """3x3 convolutions, upsampling, a 1x1 convolution (arXiv 1703.06870), with mask feedback (arXiv 1901.07518).

    Args:
        in_channels: C, channels of the pooled features and of every layer.
        num_classes: K, foreground classes.
        num_convs: Number of 3x3 convolutions.
        feedback: Whether a 1x1 convolution adds the feature of the mask head before. Where there is none yet, zeros
            go through it, as in the released code, so only its bias acts there. That bias starts at 0, where the
            ReLU's gradient is 0: a network that only ever feeds zeros never trains it at all.
    """

    def __init__(self, in_channels: int, num_classes: int, num_convs: int, feedback: bool) -> None:
        super().__init__()
        check_range("[1, inf)", in_channels=in_channels, num_classes=num_classes)
        check_range("[0, inf)", num_convs=num_convs)
        self.convs = nn.ModuleList(nn.Conv2d(in_channels, in_channels, 3, padding=1) for _ in range(num_convs))
        self.upsample = nn.ConvTranspose2d(in_channels, in_channels, 2, stride=2)
        self.logits = nn.Conv2d(in_channels, num_classes, 1)
        self.feedback = nn.Conv2d(in_channels, in_channels, 1) if feedback else None
        init_kaiming(self)

    def trunk(self, pooled: Tensor, state: Tensor | None) -> Tensor:
        """Feature (R, C, S, S) from pooled features (R, C, S, S) and the feature of the mask head before."""
        if self.feedback is not None:
            before = pooled.new_zeros(1, pooled.shape[1], 1, 1) if state is None else state
            pooled = pooled + F.relu(self.feedback(before))
        for conv in self.convs:
            pooled = F.relu(conv(pooled), inplace=True)
        return pooled

    def predict(self, state: Tensor) -> Tensor:
        """Logits (R, K, 2S, 2S) from the feature (R, C, S, S)."""
        return self.logits(F.relu(self.upsample(state), inplace=True))

    def predict_class(self, state: Tensor, labels: Tensor) -> Tensor:
        """Logits (R, 2S, 2S) of the classes (R,); only these maps are brought into the order of the upsampled grid."""
        (count, channels), (height, width) = state.shape[:2], state.shape[2:]
        cells = state.permute(0, 2, 3, 1).reshape(-1, channels)  # (R * S * S, C)
        weight = self.upsample.weight.permute(0, 2, 3, 1).reshape(channels, -1)  # (C, 2 * 2 * C)
        bias = cast(Tensor, self.upsample.bias).repeat(4)
        hidden = F.relu(torch.addmm(bias, cells, weight), inplace=True).view(count, height * width * 4, channels)
        of_class = self.logits.weight[labels].flatten(1)[..., None]  # (R, C, 1)
        logits = torch.bmm(hidden, of_class).view(count, height, width, 2, 2).transpose(2, 3)
        return logits.reshape(count, 2 * height, 2 * width) + cast(Tensor, self.logits.bias)[labels, None, None]
