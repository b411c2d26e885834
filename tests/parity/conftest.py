"""Every test that asks for a ``name`` runs once per recorded run in the folder given by ``--golden``."""

from __future__ import annotations

from pathlib import Path

import pytest
from recordings import Recording, load_recording, recordings_in


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Path:
    return golden_folder(request.config)


@pytest.fixture
def recording(golden: Path, name: str) -> Recording:
    return load_recording(golden, name)


def golden_folder(config: pytest.Config) -> Path:
    return Path(config.getoption("--golden")).resolve()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "name" in metafunc.fixturenames:
        names = recordings_in(golden_folder(metafunc.config))
        assert names, f"no recordings in {golden_folder(metafunc.config)}"
        metafunc.parametrize("name", names)
