"""Feature extractors: torchvision ResNets and the feature pyramid."""

from r3cnn.backbones.fpn import FPN
from r3cnn.backbones.resnet import ResNet

__all__ = ["FPN", "ResNet"]
