"""R3-CNN (Recursively Refined R-CNN, arXiv 2104.01329) as a PyTorch Lightning research framework."""

# Nothing is imported here: with `python -m r3cnn` modules of the current folder would still come first.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from r3cnn.training.predictor import Predictor

__version__ = "0.1.0"
__all__ = ["Predictor", "__version__"]


def __getattr__(name: str) -> object:
    """Imports `Predictor` when it is first asked for, so that `import r3cnn` stays cheap."""
    if name == "Predictor":
        from r3cnn.training.predictor import Predictor

        return Predictor
    raise AttributeError(f"module 'r3cnn' has no attribute {name!r}")
