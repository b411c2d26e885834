from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from evaluation_samples import write_coco


@pytest.fixture
def coco_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a tiny annotation file: ``coco_file(annotations, image_ids=(1,))``."""
    return partial(write_coco, tmp_path)
