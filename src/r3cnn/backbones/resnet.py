"""ResNet (arXiv 1512.03385) from torchvision's parts, with the freezing rules of detection training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, TypeAlias, cast
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models import get_model_weights, get_weight, list_models, resnet

from r3cnn.backbones.backbone import Backbone
from r3cnn.layers.residual import Residual, conv_norm
from r3cnn.ranges import check_range

Block: TypeAlias = resnet.BasicBlock | resnet.Bottleneck
Norm = Literal["bn_eval", "bn", "sync_bn", "group_norm"]

_BLOCKS: dict[int, tuple[type[Block], list[int]]] = {
    10: (resnet.BasicBlock, [1, 1, 1, 1]),
    18: (resnet.BasicBlock, [2, 2, 2, 2]),
    34: (resnet.BasicBlock, [3, 4, 6, 3]),
    50: (resnet.Bottleneck, [3, 4, 6, 3]),
    101: (resnet.Bottleneck, [3, 4, 23, 3]),
}
_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "bn_eval": nn.BatchNorm2d,
    "bn": nn.BatchNorm2d,
    "sync_bn": nn.SyncBatchNorm,
    "group_norm": partial(nn.GroupNorm, 32),
}


class ResNet(Backbone):
    """The four stages C2 to C5 of a ResNet with the stride in the 3x3 convolution.

    Args:
        depth: 10 and 18 (for CPU work), 34, 50 or 101.
        norm: ``bn_eval``: running statistics fixed, affine parameters trained outside frozen stages (the paper's).
            ``bn``: batch statistics. ``sync_bn``: batch statistics over all ranks. ``group_norm``: 32 groups
            (arXiv 1803.08494), for training from scratch with few images.
        frozen_stages: -1: nothing is frozen; 0: the stem; 1: stem and C2 (the paper's), and so on up to 4.
        weights: Name of torchvision's ImageNet weights such as ``ResNet50_Weights.IMAGENET1K_V1``, or ``None``.
            They are fetched by ``fetch_weights``, never by building the module.
        block_changes: What each block goes through, one after the other, such as `deform_block`. Layers
            that are there keep their names, so ImageNet weights fit.
        changed_layers: Where, of 1 to 4 (C2 to C5); the paper's are all but the first.
        checkpointing: Keep no more than the input of each block for the backward pass, and compute the rest again
            there (arXiv 1604.06174): less memory, a third more work in the backbone.

    Raises:
        ValueError: For an unknown depth or norm, ``frozen_stages`` or ``changed_layers`` out of range, weights that
            do not fit the norm, or checkpointing of live batch statistics, which would be counted twice.
    """

    def __init__(
        self,
        depth: int,
        norm: Norm,
        frozen_stages: int,
        weights: str | None,
        block_changes: Sequence[Callable[[Block], nn.Module]] = (),
        changed_layers: Sequence[int] = (2, 3, 4),
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        _check(depth, norm, frozen_stages, weights, changed_layers)
        if checkpointing and norm in ("bn", "sync_bn"):
            raise ValueError(f"checkpointing needs norm=bn_eval or group_norm, got {norm}: it would count images twice")
        block, layers = _BLOCKS[depth]
        net = resnet.ResNet(block, layers, num_classes=1, norm_layer=_NORMS[norm])
        self.conv1, self.bn1, self.maxpool = net.conv1, net.bn1, net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
        self._imagenet_names = frozenset(self.state_dict())
        for layer in [getattr(self, f"layer{number}") for number in changed_layers]:
            for change in block_changes:
                for position, one in enumerate(layer):
                    layer[position] = change(one)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            for position, one in enumerate(layer):
                layer[position] = Residual(one) if type(one) in (resnet.BasicBlock, resnet.Bottleneck) else one
        self.norm = norm
        self.weights = weights
        self.checkpointing = checkpointing
        self.out_channels = tuple(width * block.expansion for width in (64, 128, 256, 512))
        self._frozen = [self.conv1, self.bn1, self.layer1, self.layer2, self.layer3, self.layer4][
            : frozen_stages + 2 if frozen_stages >= 0 else 0
        ]
        for module in self._frozen:
            module.requires_grad_(False)
        self.train()  # a trainer may keep the mode that it finds: fixed statistics must be fixed from the start

    def forward(self, images: Tensor) -> list[Tensor]:
        """C2, C3, C4, C5 of images (B, 3, H, W), at strides 4, 8, 16, 32."""
        x = self.maxpool(conv_norm(self.conv1, self.bn1, images).relu_())
        features = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in layer:
                x = self._forget(block, x) if self.checkpointing and torch.is_grad_enabled() else block(x)
            features.append(x)
        return features

    @staticmethod
    def _forget(block: nn.Module, x: Tensor) -> Tensor:
        return cast(Tensor, checkpoint(block, x, use_reentrant=False))

    def train(self, mode: bool = True) -> ResNet:
        """Like ``nn.Module.train``, but statistics of frozen stages and of ``bn_eval`` stay fixed."""
        super().train(mode)
        for module in [self] if self.norm == "bn_eval" else self._frozen:
            for layer in module.modules():
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    layer.eval()
        return self

    def fetch_weights(self) -> None:
        """Loads the ImageNet weights named by ``weights``; does nothing for ``None``.

        Raises:
            RuntimeError: If they are neither in torch's cache nor can be downloaded.
        """
        if self.weights is None:
            return
        try:
            state = get_weight(self.weights).get_state_dict(progress=False, check_hash=True)
        except (URLError, OSError) as error:
            raise RuntimeError(
                f"cannot fetch {self.weights} ({error}). Either download the file on a machine with internet access "
                "and copy it into torch's hub cache ($TORCH_HOME/hub/checkpoints), or train from scratch with "
                "`backbone.weights=null backbone.norm=group_norm backbone.frozen_stages=-1`."
            ) from error
        state = {key: value for key, value in state.items() if not key.startswith("fc.")}
        missing, unexpected = self.load_state_dict(state, strict=False)
        if unexpected or not self._imagenet_names.isdisjoint(missing):
            raise RuntimeError(f"{self.weights} does not fit: missing {missing}, unexpected {unexpected}")


def _check(depth: int, norm: str, frozen_stages: int, weights: str | None, changed_layers: Sequence[int]) -> None:
    if depth not in _BLOCKS:
        raise ValueError(f"depth must be one of {sorted(_BLOCKS)}, got {depth}")
    check_range("[-1, 4]", frozen_stages=frozen_stages)
    if weights is not None and weights not in _weights_of(depth):
        raise ValueError(f"weights is {weights!r}: null or one of {_weights_of(depth)} is needed for depth={depth}")
    if norm == "group_norm" and weights is not None:
        raise ValueError(f"norm=group_norm has no ImageNet weights, got weights={weights}: set weights=null")
    check_range("[1, 4]", changed_layers=changed_layers or None)
    if len(set(changed_layers)) < len(changed_layers):
        raise ValueError(f"changed_layers names a layer twice: {list(changed_layers)}")


def _weights_of(depth: int) -> list[str]:
    """Names of torchvision's ImageNet weights of a depth."""
    name = f"resnet{depth}"
    return [str(one) for one in get_model_weights(name)] if name in list_models() else []
