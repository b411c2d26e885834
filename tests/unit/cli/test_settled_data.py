from __future__ import annotations

import json
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from r3cnn.cli.configs import (
    fill_classes,
    override_of_classes,
    plain,
    register_resolvers,
    settle,
    settle_folders,
)
from r3cnn.run_files import read_config, write_config


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


def test_an_empty_output_folder_is_not_taken_for_the_current_one() -> None:
    with pytest.raises(ValueError, match=r"output_dir is '': .* output_dir=\. is the current one"):
        settle(OmegaConf.create({"output_dir": ""}))


def test_classes_are_found_in_a_file_below_the_home_folder(home: Path) -> None:
    content = {"images": [], "annotations": [], "categories": [{"id": 3, "name": "cat"}, {"id": 1, "name": "dog"}]}
    (home / "train.json").write_text(json.dumps(content))
    config = OmegaConf.create({"data": {"root": ".", "classes": None, "train": {"annotations": "~/train.json"}}})
    fill_classes(config)
    assert config.data.classes == ["dog", "cat"]


NAMES = (
    "???",
    "${x}",
    "${oc.env:HOME}",
    "\\${x}",
    "a ${data.root} b",
    "$",
    "1e5",
    "null",
    "line\nbreak",
    "half \ud83d",
)


def test_names_of_classes_are_text_whatever_they_mean_to_omegaconf(home: Path) -> None:
    register_resolvers()
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES, start=1)]
    (home / "train.json").write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
    data = {"root": ".", "classes": None, "train": {"annotations": "~/train.json"}}
    config = OmegaConf.create({"data": data, "num_classes": "${count:${data.classes}}"})
    fill_classes(config)
    assert plain(config)["data"]["classes"] == [*NAMES]  # type: ignore[index]
    assert config.num_classes == len(NAMES)


def test_classes_that_a_configuration_names_are_text_whatever_yaml_reads() -> None:
    config = OmegaConf.create({"data": {"classes": [1, 2.5, True, "e\u0301", "???"]}})
    fill_classes(config)
    assert OmegaConf.to_container(config, resolve=True) == {"data": {"classes": ["1", "2.5", "True", "\u00e9", "???"]}}


def test_a_folder_may_be_called_like_an_interpolation(home: Path) -> None:
    register_resolvers()
    config = OmegaConf.create({"data": {"root": "\\${x}", "prepare": {"folder": "${data.root}"}}})
    settle_folders(config)
    assert config.data.root == config.data.prepare.folder == str(home.parent / "${x}")


def test_a_written_configuration_is_read_back_the_same(tmp_path: Path) -> None:
    content = {"classes": [*NAMES], "lr": 1e-5, "flip": True, "limit": None, "sizes": [1, 2.5], "none": {}, "猫": "'\""}
    write_config(content, tmp_path / "below" / "config.yaml")
    assert read_config(tmp_path / "below" / "config.yaml") == content


@pytest.mark.parametrize("text", ["- a", "a: [", "a: !!python/object:x.Y {}"])
def test_a_file_that_is_no_configuration_of_ours_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"config\.yaml is no configuration of a run"):
        read_config(tmp_path / "config.yaml")


def test_classes_named_on_the_command_line_are_these_classes() -> None:
    register_resolvers()
    names = [
        *NAMES,
        "cat",
        "traffic light",
        "a,b=[c]",
        'it\'s "x"',
        "back\\",
        "true",
        "1",
        " blank ",
        "猫",
        "x: y",
        "#",
    ]
    override = OverridesParser.create().parse_override(override_of_classes(names))
    assert plain(OmegaConf.create({"classes": override.value()})) == {"classes": names}
    assert override_of_classes(["cat", "traffic light"]) == "data.classes=[cat,traffic light]"
