"""R3-CNN (Recursively Refined R-CNN, arXiv 2104.01329) as a PyTorch Lightning research framework."""

__version__ = "0.1.0"
