"""Fixtures that any test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from r3cnn.data.shapes import write_shapes


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the real data sets: coco128/ and nuclei/, as the README says how to fetch them."""
    root = Path(os.environ.get("R3CNN_DATA", "data"))
    missing = [name for name in ("coco128", "nuclei") if not (root / name / "annotations").is_dir()]
    if missing:
        pytest.fail(f"{root.resolve()} lacks {missing}: set R3CNN_DATA to the folder of the data sets")
    return root


@pytest.fixture(scope="session")
def shapes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small shapes data set: 40 training and 20 validation images."""
    folder = tmp_path_factory.mktemp("cache") / "shapes"
    write_shapes(folder, train=40, val=20, seed=0)
    return folder
