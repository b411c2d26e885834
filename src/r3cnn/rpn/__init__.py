"""Region proposal network (arXiv 1506.01497) on a feature pyramid."""

from r3cnn.rpn.anchors import AnchorGenerator
from r3cnn.rpn.rpn import RPN

__all__ = ["RPN", "AnchorGenerator"]
