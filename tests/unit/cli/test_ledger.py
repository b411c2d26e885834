"""What a finished run says about itself."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import r3cnn
from r3cnn.cli.ledger import checkpoint_bytes, facts_of, git_state, roi_balance, versions
from r3cnn.data.dataset import CocoDataset
from r3cnn.data.reading import read_annotations
from r3cnn.data.shapes import CLASSES, write_shapes


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A package in a checkout of its own."""
    package = tmp_path / "src" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return package


def test_the_commit_is_that_of_the_checkout(checkout: Path) -> None:
    state = git_state(checkout)
    assert state is not None
    assert (state.commit, state.is_dirty) == (git(checkout, "rev-parse", "HEAD"), False)


def test_a_change_that_is_in_no_commit_makes_it_dirty_and_a_new_file_does_not(checkout: Path) -> None:
    (checkout / "notes.txt").write_text("mine")
    clean = git_state(checkout)
    (checkout / "__init__.py").write_text("changed = True")
    dirty = git_state(checkout)
    assert clean is not None
    assert dirty is not None
    assert (clean.is_dirty, dirty.is_dirty) == (False, True)


def test_a_package_installed_below_somebody_elses_checkout_belongs_to_no_commit(checkout: Path) -> None:
    installed = checkout.parent / ".venv" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert git_state(installed) is None


def test_a_program_that_a_checkout_names_to_be_asked_for_changes_is_not_run(checkout: Path, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o700)
    git(checkout, "config", "core.fsmonitor", str(program))
    assert git_state(checkout) is not None
    assert not (tmp_path / "ran").exists()


def test_without_git_there_is_no_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert git_state(checkout) is None


def test_a_checkpoint_holds_weights_buffers_and_what_the_optimizer_remembers() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
    model[0].weight.requires_grad_(False)  # (5, 3): 60 bytes without momentum
    trainable = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=0.1, momentum=0.9)
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    weights, buffers, momentum = (15 + 5 + 5 + 5) * 4, (5 + 5) * 4 + 8, (5 + 5 + 5) * 4
    assert checkpoint_bytes(model, optimizer) == weights + buffers + momentum


def test_the_balance_comes_from_the_files_of_the_run_and_is_left_out_without_them(tmp_path: Path) -> None:
    assert roi_balance(tmp_path) == {}
    content = {"loops": {"1": {"balance": 0.5, "rois": 3}, "2": {"balance": None, "rois": 0}}}
    (tmp_path / "roi_statistics_train.json").write_text(json.dumps(content))
    (tmp_path / "roi_statistics.json").write_text("{")
    assert roi_balance(tmp_path) == {"train": {"1": 0.5, "2": None}}


def test_a_finished_run_is_recorded_though_its_data_set_has_been_removed_meanwhile(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_shapes(tmp_path / "shapes", train=3, val=3, seed=0)
    file = tmp_path / "shapes" / "annotations" / "instances_train.json"
    annotations = read_annotations(file, CLASSES)
    images = CocoDataset(annotations, tmp_path / "shapes" / "train", indices=np.arange(3), image_size=(64, 96))
    whole = facts_of(images)
    file.unlink()
    assert facts_of(images) == replace(whole, digest="")
    assert whole.digest != ""
    assert f"left out the digest of {file}: FileNotFoundError" in caplog.text


def test_versions_name_what_decides_on_a_result() -> None:
    found = versions()
    assert found.keys() == {"torch", "torchvision", "lightning", "r3cnn", "python"}
    assert found["r3cnn"] == r3cnn.__version__
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
