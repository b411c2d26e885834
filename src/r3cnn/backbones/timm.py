"""Any backbone of timm (optional extra) that gives feature maps at strides 4, 8, 16 and 32."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from types import ModuleType

import torch
from torch import Tensor, nn

from r3cnn.backbones.backbone import STRIDES, Backbone

log = logging.getLogger(__name__)
# Set by ourselves, or a way to other files: what a checkpoint builds must not read any.
REFUSED_OPTIONS = (
    "cache_dir",
    "checkpoint_path",
    "features_only",
    "out_indices",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class TimmBackbone(Backbone):
    """A timm network without its classifier.

    Args:
        name: As ``timm.list_models()`` has it, with or without a tag: ``convnext_tiny.in12k_ft_in1k``.
        pretrained: Whether ``fetch_weights`` loads timm's weights.
        out_indices: Which of the network's feature maps are C2 to C5; None picks those at strides 4, 8, 16 and 32.
        frozen: Parameters whose name starts with one of these are not trained, such as ``stem_0``.
        fixed_statistics: Whether batch norm keeps its running statistics, as the paper's ResNets do.
        options: Further arguments of ``timm.create_model``; plain values, such as ``drop_path_rate: 0.1``.

    Raises:
        ValueError: Without timm, for a network that it does not have, and for one without the four strides.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool,
        out_indices: Sequence[int] | None = None,
        frozen: Sequence[str] = (),
        fixed_statistics: bool = True,
        options: dict[str, object] | None = None,
    ) -> None:
        super().__init__()
        self._name, self._pretrained, self._fixed_statistics = name, pretrained, fixed_statistics
        self._create = _creator(name, options or {})
        self._indices = tuple(out_indices) if out_indices is not None else _pyramid_of(name, self._create)
        self.net = self._create(self._indices, False)
        reductions = _strides_of(self.net)
        if reductions != STRIDES:
            raise ValueError(
                f"backbone.out_indices={list(self._indices)} of {name} have the strides {list(reductions)}: the "
                f"pyramid needs {list(STRIDES)}; out_indices=null finds them"
            )
        self.out_channels = tuple(vars(self.net)["feature_info"].channels())
        self._has_channels_last = str(getattr(self.net, "output_fmt", "NCHW")).endswith("NHWC")
        _freeze(self.net, frozen, name)
        self.train()

    def forward(self, images: Tensor) -> list[Tensor]:
        """C2, C3, C4, C5 of images (B, 3, H, W), at strides 4, 8, 16, 32."""
        features = self.net(images)
        if self._has_channels_last:
            return [feature.permute(0, 3, 1, 2).contiguous() for feature in features]
        return list(features)

    def train(self, mode: bool = True) -> TimmBackbone:
        """Like ``nn.Module.train``, but ``fixed_statistics`` of batch norm stay fixed."""
        super().train(mode)
        for layer in self.modules() if self._fixed_statistics else ():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.eval()
        return self

    def fetch_weights(self) -> None:
        """Loads timm's weights, if ``pretrained``.

        Raises:
            RuntimeError: If timm has none for this network, or they cannot be fetched.
        """
        if not self._pretrained:
            return
        try:
            source = self._create(self._indices, True)
        except (OSError, RuntimeError) as error:
            raise RuntimeError(
                f"cannot fetch timm's weights of {self._name} ({error}). Either copy them from a machine with internet "
                "access into the Hugging Face cache ($HF_HOME), or set backbone.pretrained=false and train from scratch"
            ) from error
        self.net.load_state_dict(source.state_dict())
        _report_normalisation(self._name, source)


def _creator(name: str, options: dict[str, object]) -> Callable[[Sequence[int] | None, bool], nn.Module]:
    """Builds the network with given feature maps (None: all), with or without weights."""
    timm = _import_timm()
    refused = [key for key in options if key in REFUSED_OPTIONS]
    if refused:
        raise ValueError(f"backbone.options holds {refused}: the other settings of the backbone stand for these")

    def create(out_indices: Sequence[int] | None, pretrained: bool) -> nn.Module:
        chosen = {} if out_indices is None else {"out_indices": tuple(out_indices)}
        settings = {"features_only": True, "pretrained": pretrained, **chosen, **options}
        try:
            network = _create_for_any_size(timm, name, settings)
        except (TypeError, IndexError, AssertionError, ValueError) as error:
            raise ValueError(f"timm cannot build {name} as a backbone with {settings}: {error}") from error
        if not isinstance(network, nn.Module):
            raise ValueError(f"timm builds a {type(network).__name__} for {name}, a torch module is needed")
        return network

    if not timm.is_model(name):
        close = timm.list_models(f"*{name.split('.')[0].split('_')[0]}*")[:5]
        raise ValueError(f"timm {timm.__version__} has no network {name!r}; it has e.g. {close}")
    return create


def _create_for_any_size(timm: ModuleType, name: str, settings: dict[str, object]) -> object:
    """Networks with windows are built for one image size unless told otherwise; others do not know the argument."""
    try:
        return timm.create_model(name, **{"strict_img_size": False, **settings})
    except TypeError:
        return timm.create_model(name, **settings)


def _import_timm() -> ModuleType:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ValueError("backbone=timm needs timm, which is not installed: pip install 'r3cnn[timm]'") from error
    return timm


def _strides_of(network: nn.Module) -> tuple[int, ...]:
    """Stride of each feature map, as timm declares it."""
    return tuple(vars(network)["feature_info"].reduction())


def _pyramid_of(name: str, create: Callable[[Sequence[int] | None, bool], nn.Module]) -> tuple[int, ...]:
    """Index of the last feature map at each of the strides."""
    with torch.device("meta"):  # shapes alone
        reductions = _strides_of(create(None, False))
    if not set(STRIDES) <= set(reductions):
        raise ValueError(
            f"{name} has feature maps at strides {list(reductions)}: the pyramid needs {list(STRIDES)}, as "
            "convolutional and hierarchical networks such as convnext, swin or regnet have them"
        )
    return tuple(len(reductions) - 1 - reductions[::-1].index(stride) for stride in STRIDES)


def _freeze(network: nn.Module, prefixes: Sequence[str], name: str) -> None:
    names = [key for key, _ in network.named_parameters()]
    for prefix in prefixes:
        if not any(key.startswith(prefix) for key in names):
            raise ValueError(
                f"backbone.frozen: no parameter of {name} starts with {prefix!r}; e.g. {names[0]!r} exists"
            )
    for key, parameter in network.named_parameters():
        if key.startswith(tuple(prefixes)):
            parameter.requires_grad_(False)


def _report_normalisation(name: str, network: nn.Module) -> None:
    """Says so where the weights were learnt from images of other mean and deviation than ImageNet's."""
    given = getattr(network, "pretrained_cfg", None) or {}
    mean, std = tuple(given.get("mean", IMAGENET_MEAN)), tuple(given.get("std", IMAGENET_STD))
    if (mean, std) != (IMAGENET_MEAN, IMAGENET_STD):
        scaled = [[round(255 * value, 3) for value in values] for values in (mean, std)]
        log.warning("weights of %s want data.mean=%s data.std=%s", name, *scaled)
