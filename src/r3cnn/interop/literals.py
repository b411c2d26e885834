"""Literal values in configurations of mmdetection, read without running them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Unreadable:
    """Takes the place of a value that is no literal."""


UNREADABLE = Unreadable()
_TOKENS = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"|#[^\n]*|[()]")


def calls(text: str, pattern: str) -> Iterator[dict[str, object]]:
    """Keyword arguments of each ``dict(…)`` whose beginning matches a pattern, in the order of the text.

    Args:
        text: A configuration.
        pattern: Regular expression that contains ``dict(`` literally, such as ``model = dict(``.
    """
    for match in re.finditer(pattern, text, flags=re.MULTILINE):
        value = _value_of(_call_at(text, match.group(0).index("dict(") + match.start()))
        yield value if isinstance(value, dict) else {}


def _call_at(text: str, start: int) -> str:
    """``dict(…)`` at ``start``, up to its closing parenthesis; empty if there is none."""
    depth = 0
    for match in _TOKENS.finditer(text, start):
        depth += {"(": 1, ")": -1}.get(match.group(0), 0)
        if depth == 0 and match.group(0) == ")":
            return text[start : match.end()]
    return ""


def _value_of(source: str) -> object:
    try:
        return _value(ast.parse(source, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # what `ast.parse` says to strange texts
        return UNREADABLE


def _value(node: ast.expr) -> object:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {keyword.arg: _value(keyword.value) for keyword in node.keywords if keyword.arg is not None}
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {str(_value(key)): _value(value) for key, value in pairs if key is not None}
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(element) for element in node.elts]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return UNREADABLE


def floats_of(value: object) -> tuple[float, ...] | None:
    """A list of numbers; None if the value is anything else."""
    if not isinstance(value, list) or not all(isinstance(number, int | float) for number in value):
        return None
    try:
        return tuple(float(number) for number in value)
    except OverflowError:
        return None
