"""Fixtures that any test may use."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from r3cnn.data.shapes import write_shapes

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the workers share the cores
settings.register_profile("r3cnn", deadline=None)  # how long an example takes is up to what else the machine does
settings.load_profile("r3cnn")
# Shells ignore SIGINT for what they start in the background, nohup ignores SIGHUP, and the program keeps it so.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

RECORDINGS = Path(__file__).parent / "parity" / "golden" / "seed0"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds ``--golden``, which must be known before tests/parity is collected."""
    parser.addoption("--golden", default=str(RECORDINGS), help="folder of recordings of the original implementation")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Shapes are drawn into a folder of this session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("R3CNN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the real data sets: coco128/ and nuclei/, as the README says how to fetch them.

    A fresh clone has none, and its tests must pass; whoever names a folder wants all tests to run.
    """
    root = Path(os.environ.get("R3CNN_DATA", "data"))
    missing = [name for name in ("coco128", "nuclei") if not (root / name / "annotations").is_dir()]
    if missing and "R3CNN_DATA" in os.environ:
        pytest.fail(f"{root.resolve()} lacks {missing}, though R3CNN_DATA points there")
    if missing:
        pytest.skip(f"no real data in {root.resolve()}: set R3CNN_DATA to a folder with {missing}")
    return root


@pytest.fixture(scope="session")
def shapes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small shapes data set: 40 training and 20 validation images."""
    folder = tmp_path_factory.mktemp("cache") / "shapes"
    write_shapes(folder, train=40, val=20, seed=0)
    return folder
