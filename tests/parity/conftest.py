"""Every test that asks for a ``name`` runs once per recorded run in the folder given by ``--golden``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from recordings import Recording, batch_statistics_in, load_recording, recordings_in, runs_of

if TYPE_CHECKING:
    from replay_training import Step

pytest.register_assert_rewrite("checks", "selection", "replay", "replay_training", "training_tests")

QUICK = ("mask_rcnn", "htc", "r3cnn_naive")  # the networks of `make test`
MAIN_RUNS = ("roi_test", "train_given", "train")


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Path:
    return golden_folder(request.config)


@pytest.fixture
def recording(golden: Path, name: str) -> Recording:
    return load_recording(golden, name)


@pytest.fixture
def step(recording: Recording, run: str) -> Step:
    from replay_training import train_step  # after its assertions are registered

    return train_step(recording, run)


def golden_folder(config: pytest.Config) -> Path:
    folder = Path(config.getoption("--golden")).resolve()
    if not folder.is_dir():
        raise pytest.UsageError(f"--golden: {folder} is no folder")
    return folder


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per recorded network, or per network and recorded run; `make test` takes the main ones of three."""
    wanted, folder = metafunc.fixturenames, golden_folder(metafunc.config)
    if "statistics_name" in wanted:
        names = batch_statistics_in(folder)
        metafunc.parametrize("statistics_name", [pytest.param(name, marks=pytest.mark.slow) for name in names])
    if "name" not in wanted:
        return
    names = recordings_in(folder)
    if not names:
        raise pytest.UsageError(f"--golden: no recordings in {folder}")
    if hasattr(metafunc.module, "NETWORKS"):
        names = [name for name in names if Path(name).name in metafunc.module.NETWORKS]
    if "run" not in wanted:
        metafunc.parametrize("name", [pytest.param(name, marks=marks_of(name, "train")) for name in names])
        return
    kind = metafunc.cls.RUNS if metafunc.cls else "eval"
    pairs = [(name, run) for name in names for run in runs_of(load_recording(folder, name), kind)]
    params = [pytest.param(name, run, marks=marks_of(name, run), id=f"{name}-{run}") for name, run in pairs]
    metafunc.parametrize(("name", "run"), params)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of one network behind one another, and of one run: only one is in memory at a time.

    What a folder has no recording for is no test, rather than a skipped one.
    """
    empty = [item for item in items if is_here(item) and has_no_parameters(item)]
    config.hook.pytest_deselected(items=empty)
    items[:] = [item for item in items if item not in empty]
    here = [item for item in items if is_here(item) and hasattr(item, "callspec")]
    places = {id(item): [item.callspec.params.get(key, "") for key in ("name", "run")] for item in here}
    in_order = iter(sorted(here, key=lambda item: (str(item.path), *places[id(item)])))
    items[:] = [next(in_order) if id(item) in places else item for item in items]


def is_here(item: pytest.Item) -> bool:
    return Path(__file__).parent in item.path.parents


def has_no_parameters(item: pytest.Item) -> bool:
    marker = item.get_closest_marker("skip")
    return marker is not None and str(marker.kwargs.get("reason", "")).startswith("got empty parameter set")


def marks_of(name: str, run: str) -> list[pytest.MarkDecorator]:
    is_quick = Path(name).name in QUICK and run in MAIN_RUNS
    return [] if is_quick else [pytest.mark.slow]
