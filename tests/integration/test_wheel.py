"""The wheel alone is enough to work with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("r3cnn-*.whl"))


@pytest.mark.slow
def test_the_wheel_ships_every_configuration(wheel: Path) -> None:
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("r3cnn/conf/")}
    expected = {f"r3cnn/conf/{path.relative_to(ROOT / 'conf')}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert shipped == expected


@pytest.mark.slow
def test_the_wheel_ships_the_launchers_where_hydra_looks_for_them(wheel: Path) -> None:
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("hydra_plugins/")}
    expected = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src/hydra_plugins").rglob("*.py")}
    assert shipped == expected
    assert "hydra_plugins/__init__.py" not in shipped  # other packages have plugins there too


@pytest.mark.slow
def test_the_wheel_ships_what_the_reports_page_is_made_of(wheel: Path) -> None:
    names = {Path(name).name for name in zipfile.ZipFile(wheel).namelist() if "reporting/html/templates" in name}
    assert names == {"report.html.j2", "report.css", "report.js"}


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_environment_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    install = [sys.executable, "-m", "pip", "--python", str(home), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    # The heavy libraries come from this environment, whose own .pth files (the editable r3cnn) are not read.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command = [str(home / "bin" / "r3cnn"), "params", "experiment=r3cnn_naive", "format=json"]
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "HYDRA_FULL_ERROR")}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trainable"] == 43_912_884
    assert list(elsewhere.iterdir()) == []
    where = [str(home / "bin" / "python"), "-c", "import r3cnn; print(r3cnn.__file__)"]
    found = subprocess.run(where, cwd=elsewhere, capture_output=True, text=True, env=environment, check=True)
    assert Path(found.stdout.strip()).is_relative_to(site)
