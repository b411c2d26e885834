"""What lies in the current folder, as a downloaded data set's may be, is run by no command and none of its children."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import TINY_RUN

# What Python itself imports for `-m`, before any of our code runs: only `python -P -m` helps against these.
OF_PYTHON = ("runpy", "pkgutil", "types", "functools", "collections", "r3cnn")
MODULES = (
    *("hydra_plugins/trap", "hydra_plugins/hydra_trap/__init__", "hydra_plugins/r3cnn_launcher/local"),
    *("sitecustomize", "usercustomize", "pynvml", "dill", "amdsmi", "numpy", "torch", "torchvision", "yaml", "hydra"),
    *("omegaconf", "lightning", "torchmetrics", "wandb", "matplotlib", "rich", "jinja2", "PIL", "msgspec", "filelock"),
    *("pycocotools", "timm", "onnx", "onnxruntime", "tensorboard", "submitit", "trap", "conf", "tests", "_pytest"),
    *("logging", "typing", "__future__", "json", "re", "random", "site", "encodings", "ctypes", "multiprocessing"),
    *("subprocess", "signal", "threading", "socket", "ssl", "copyreg", "traceback", "difflib", "tokenize"),
)
ENTRY_POINTS = "".join(
    f"[{group}]\ntrap = trap:run\n" for group in ("lightning.pytorch.callbacks_factory", "torch.backends", "wandb")
)


@pytest.fixture
def traps(tmp_path: Path) -> Path:
    """A folder full of modules that leave a file behind when they are imported."""
    folder = tmp_path / "downloaded"
    for name in (*MODULES, *OF_PYTHON):
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"open({str(tmp_path)!r} + '/ran', 'a').write({name!r} + '\\n')\nrun = print\n")
    (folder / "trap-1.0.dist-info").mkdir()
    (folder / "trap-1.0.dist-info" / "entry_points.txt").write_text(ENTRY_POINTS)
    (folder / "trap-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: trap\nVersion: 1.0\n")
    (folder / "matplotlibrc").write_text("backend: module://trap\naxes.prop_cycle: cycler('color', ['r'] * 9**99)\n")
    (folder / "wandb").mkdir()
    (folder / "wandb" / "settings").write_text("[default]\nmode = offline\n")
    for name in (".env", "pyvenv.cfg", "python311._pth", "train.yaml", "conf/train.yaml", "config-defaults.yaml"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("PYTHONPATH=.\nimport trap\n")
    return folder


def ended(folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a command in a folder; the variables of the tests do not help it, nor a run of W&B in this process."""
    others = ("PYTHONPATH", "PYTHONSAFEPATH", "WANDB_SERVICE")
    kept = {name: value for name, value in os.environ.items() if name not in others}
    return subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, timeout=300, check=False)


def test_modules_in_the_current_folder_are_not_run_by_the_program(traps: Path) -> None:
    script = Path(sys.executable).parent / "r3cnn"
    params = ("params", "experiment=demo", "format=json")
    done = ended(traps, script, *params)
    assert (done.returncode, done.stderr) == (0, "")
    for name in OF_PYTHON:
        (traps / f"{name}.py").unlink()
    again = ended(traps, sys.executable, "-m", "r3cnn", *params)
    assert (again.returncode, again.stderr, again.stdout) == (0, "", done.stdout)
    assert not (traps.parent / "ran").exists()


@pytest.mark.slow
def test_modules_in_the_current_folder_are_not_run_by_jobs_ranks_and_workers(traps: Path) -> None:
    script = Path(sys.executable).parent / "r3cnn"
    settings = (*TINY_RUN, "trainer.max_steps=1", "data.workers=1", "output_dir=out", "seed=3", "trainer.devices=2")
    sweep = ("launcher=ddp", "launcher.ranks=2", "logger=csv_wandb")
    done = ended(traps, script, "train", "-m", *settings, *sweep)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len([*traps.glob("out/*/result.json")]) == 1
    assert not (traps.parent / "ran").exists()


def test_a_current_folder_that_has_been_deleted_is_named(tmp_path: Path) -> None:
    call = "os.execv(sys.executable, [sys.executable, '-P', '-m', 'r3cnn', 'params'])"
    words, gone = [sys.executable, "-P", "-c", f"import os, sys; os.rmdir(os.getcwd()); {call}"], tmp_path / "gone"
    gone.mkdir()
    ended = subprocess.run(words, cwd=gone, capture_output=True, text=True, check=False)
    assert ended.stderr == "r3cnn: the current folder has been deleted: change to one that is there\n"
    assert ended.returncode == 2
