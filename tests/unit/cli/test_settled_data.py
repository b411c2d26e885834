from __future__ import annotations

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from r3cnn.cli.configs import fill_classes, settle_folders


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.mark.parametrize(("root", "expected"), [("./data/coco", "data/coco"), (".", ""), ("~/sets", "home/sets")])
def test_folders_of_data_become_absolute(root: str, expected: str, home: Path) -> None:
    config = OmegaConf.create({"data": {"root": root, "prepare": {"folder": "${data.root}"}}})
    settle_folders(config)
    assert config.data.root == config.data.prepare.folder == str(home.parent / expected)


@pytest.mark.parametrize("content", [{}, {"data": None}, {"data": {"root": "???", "prepare": None}}])
def test_a_job_without_a_folder_of_data_stays_as_it_is(content: dict[str, object], home: Path) -> None:
    config = OmegaConf.create(content)
    settle_folders(config)
    assert config == OmegaConf.create(content)


def test_classes_are_found_in_a_file_below_the_home_folder(home: Path) -> None:
    content = {"images": [], "annotations": [], "categories": [{"id": 3, "name": "cat"}, {"id": 1, "name": "dog"}]}
    (home / "train.json").write_text(json.dumps(content))
    config = OmegaConf.create({"data": {"root": ".", "classes": None, "train": {"annotations": "~/train.json"}}})
    fill_classes(config)
    assert config.data.classes == ["dog", "cat"]
