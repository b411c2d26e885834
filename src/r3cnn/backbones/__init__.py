"""Feature extractors: torchvision ResNets, networks of timm, and the feature pyramid."""

from r3cnn.backbones.backbone import Backbone
from r3cnn.backbones.fpn import FPN
from r3cnn.backbones.resnet import ResNet
from r3cnn.backbones.timm import TimmBackbone

__all__ = ["FPN", "Backbone", "ResNet", "TimmBackbone"]
