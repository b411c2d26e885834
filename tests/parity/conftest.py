"""Every test that asks for a ``name`` runs once per recorded run in the folder given by ``--golden``."""

from __future__ import annotations

from pathlib import Path

import pytest
from recordings import Recording, load_recording, recordings_in, split_name


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Path:
    return golden_folder(request.config)


@pytest.fixture
def recording(golden: Path, name: str) -> Recording:
    return load_recording(golden, name)


def golden_folder(config: pytest.Config) -> Path:
    return Path(config.getoption("--golden")).resolve()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per recorded network, or per network and recorded run; what goes beyond the main runs is slow."""
    if "name" not in metafunc.fixturenames:
        return
    folder = golden_folder(metafunc.config)
    names = recordings_in(folder)
    assert names, f"no recordings in {folder}"
    run_kind = next((kind for kind in RUNS if kind in metafunc.fixturenames), None)
    if run_kind is None:
        metafunc.parametrize("name", [pytest.param(name, marks=marks_of(name, None)) for name in names])
        return
    pairs = [(name, run) for name in names for run in RUNS[run_kind](load_recording(folder, name))]
    params = [pytest.param(name, run, marks=marks_of(name, run), id=f"{name}-{run}") for name, run in pairs]
    metafunc.parametrize(("name", run_kind), params)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one network behind one another, so that few networks are in memory at a time."""
    here = [item for item in items if Path(__file__).parent in item.path.parents and hasattr(item, "callspec")]
    names = {id(item): item.callspec.params.get("name", "") for item in here}
    in_order = iter(sorted(here, key=lambda item: (str(item.path), names[id(item)])))
    items[:] = [next(in_order) if id(item) in names else item for item in items]


RUNS = {
    "eval_run": lambda recording: sorted({key.split("/")[0] for key in recording.manifest["roi_test"]}),
    "given_run": lambda recording: [run for run in recording.manifest["train"] if run.startswith("train_given")],
    # `iof` recordings switch on a rule that no configuration of the paper uses, and that does not exist here.
    "whole_run": lambda recording: [
        run for run in recording.manifest["train"] if not run.startswith("train_given") and "iof" not in run
    ],
}


def marks_of(name: str, run: str | None) -> list[pytest.MarkDecorator]:
    is_main = split_name(name)[1] is None and run in (None, "roi_test", "train_given", "train")
    return [] if is_main else [pytest.mark.slow]
