"""What Hydra makes of paths after they are quoted for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from r3cnn.cli.path_words import quoted_paths


def read(word: str, *, is_sweep: bool = False) -> object:
    """The value of a setting as it stands in the configuration."""
    (quoted,) = quoted_paths([word], is_sweep=is_sweep)
    parsed = OverridesParser.create().parse_override(quoted)
    value = parsed.value()
    return OmegaConf.create({"key": value}).key if isinstance(value, str) else value


NAMES = [
    *("plain/in.png", "in (1)", "epoch=1.ckpt", "a,b", "a b", "a'b", 'a"b', "a'b\"c", "ä/ö", "файл", "日本", "a$b"),
    *("a${b", "a#b", "a\\", "a;b", "a&b", "a!b", "a{b}", "{a:b}", " a", "a ", "2024", "1e3", "true", "inf", "a:b"),
    *(
        "a%b",
        "a~b",
        "choice(a,b)",
        "int(3)",
        "a\u202fb",
        "[a",
        "a]",
        "C:\\x\\y",
        "a`b",
        "<a>",
        "a|b*?",
        "-a",
        "=a",
        "@",
    ),
]


@pytest.mark.parametrize("key", ["checkpoint", "source", "output_dir", "+data.train.images", "runs"])
@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_the_text_that_was_given(key: str, name: str) -> None:
    assert read(f"{key}={name}") == name


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("resume=null", None),
        ("images=5", 5),
        ("detections=12", 12),
        ("source='a b'", "a b"),
        ('source="a,b"', "a,b"),
        ("source=a\\,b", "a,b"),
        ("checkpoint=[a]", "[a]"),
        ("runs=[a,b]", ["a", "b"]),
        ("runs=[a (1),b=2.ckpt]", ["a (1)", "b=2.ckpt"]),
        ("runs=['a (1)',b]", ["a (1)", "b"]),
        ("source=~/a b", os.path.expanduser("~/a b")),
        ("source=~/a", os.path.expanduser("~/a")),
    ],
)
def test_lists_null_numbers_and_hydras_own_quotes_keep_their_meaning(word: str, expected: object) -> None:
    value = read(word)
    assert ([str(item) for item in value] if isinstance(value, list) else value) == expected


@pytest.mark.parametrize("word", ["seed=1,2", "experiment=demo", "data.root=${oc.env:HOME}/a", "--cfg", "source="])
def test_what_is_no_path_or_is_looked_up_is_left_alone(word: str) -> None:
    assert quoted_paths([word], is_sweep=False) == [word]


def test_in_a_sweep_a_comma_stands_between_choices() -> None:
    assert quoted_paths(["checkpoint=a,b", "checkpoint=glob(*)"], is_sweep=True) == [
        "checkpoint=a,b",
        "checkpoint=glob(*)",
    ]
    assert quoted_paths(["checkpoint=a=1,ä"], is_sweep=True) == ["checkpoint='a=1','ä'"]
    assert quoted_paths(["output_dir=in (1)"], is_sweep=True) == ["output_dir='in (1)'"]


@pytest.mark.parametrize("name", ["[a]", "a,b", "a (1)", "a\\,b", "5"])
def test_a_file_of_just_this_name_is_meant(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).touch()
    assert read(f"source={name}") == name
    assert read(f"images={name}") == name
    items = read(f"runs=[{name}]")
    assert isinstance(items, list)
    assert [str(item) for item in items] == [name]
