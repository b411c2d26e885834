"""Paths on the command line, which are text, whatever they would mean in Hydra's grammar."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf.errors import GrammarParseError
from omegaconf.grammar_parser import parse

ONE_PATH = {
    *("output_dir", "resume", "init", "checkpoint", "input", "output", "report", "example", "run"),
    *("images", "annotations", "masks", "data.root", "data.prepare.folder", "data.index_cache"),
    *("data.train.images", "data.train.annotations", "data.val.images", "data.val.annotations"),
    *("hydra.run.dir", "hydra.sweep.dir", "launcher.submitit_folder"),
}
PATHS = {"source", "runs", "search", "detections"}  # one, or a list
NUMBERS_TOO = {"images", "detections"}  # of `analyze speed` and `export`: how many


def quoted_paths(words: Sequence[str], *, is_sweep: bool) -> list[str]:
    """Command line words with the values of paths quoted for Hydra, where it would take them for something else.

    What Hydra reads as the same text stays as it is, and so do values in quotes of Hydra's, ``${…}`` and, in a sweep,
    its choices. A file or folder of just the name that is given is always meant.

    Args:
        words: Overrides and options.
        is_sweep: Whether a comma stands between choices.
    """
    parser = OverridesParser.create()
    return [_quoted(word, parser, is_sweep) for word in words]


def _quoted(word: str, parser: OverridesParser, is_sweep: bool) -> str:
    key, _, text = word.partition("=")
    name = key.lstrip("+")
    if not text or name not in ONE_PATH | PATHS:
        return word

    def value_of(item: str) -> str:
        return item if _is_understood(item, parser, name) else _as_text(item)

    if os.path.exists(text):
        return f"{key}={value_of(text)}"
    if name in PATHS and text.startswith("[") and text.endswith("]"):
        if os.path.exists(text[1:-1]):
            return f"{key}=[{value_of(text[1:-1])}]"
        return f"{key}={text if _can_be_read(text, parser) else '[' + _each(text[1:-1], value_of) + ']'}"
    if is_sweep:
        return word if _can_be_read(text, parser) else f"{key}={_each(text, value_of)}"
    return f"{key}={value_of(text)}"


def _each(text: str, value_of: Callable[[str], str]) -> str:
    return ",".join(value_of(item.strip()) for item in text.split(","))


def _can_be_read(text: str, parser: OverridesParser) -> bool:
    try:
        parser.parse_override(f"key={text}")
    except HydraException:
        return False
    return True


def _is_understood(text: str, parser: OverridesParser, name: str) -> bool:
    """Whether Hydra makes the path, or what is none on purpose, of a value as it stands."""
    if not _can_be_read(text, parser):
        return False
    value = parser.parse_override(f"key={text}").value()
    if isinstance(value, str):
        is_escaped = value != text and (text[0] in "'\"" or "\\" in text) and not os.path.exists(text)
        return is_escaped or (value == text and "${" not in text) or _is_interpolation(text)
    return value is None or (name in NUMBERS_TOO and isinstance(value, int) and not os.path.exists(text))


def _is_interpolation(text: str) -> bool:
    try:
        parse(text)
    except GrammarParseError:
        return False
    return "${" in text and not os.path.exists(text)


def _as_text(path: str) -> str:
    path = os.path.expanduser(path)
    if "${" in path and not _is_interpolation(path):
        path = path.replace("${", "\\${")
    return str(QuotedString(path, Quote.single).with_quotes())
