"""Names are text: how those of classes, files and runs, which may hold anything, are shown and logged."""

from __future__ import annotations

import hashlib
import re
import unicodedata

Size = tuple[int, int]
"""(height, width) in pixels; here, as the next, for those that do not need torch."""
Id = int | str
"""Of an image or a category, as an annotation file has it; whole floats are integers."""
LONGEST_LABEL = 32
LONGEST_FILE_NAME = 255  # bytes

# What acts on a terminal or page instead of standing there: control characters, line separators, overrides of the
# writing direction, blanks without width, halves of surrogate pairs, which no encoding has, and what no XML may hold.
_ACTIVE = re.compile("[\x00-\x1f\x7f-\x9f\u200b\u2028-\u202e\u2066-\u2069\ud800-\udfff\u2060\ufeff\ufffe\uffff]")
_NO_PART_OF_A_KEY = re.compile(f"{_ACTIVE.pattern}|[/%]")


def visible(text: str) -> str:
    r"""One line in which everything can be seen: a line break is shown as ``\n``, ESC as ``\x1b``."""
    return _ACTIVE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def visible_lines(text: str) -> str:
    """Likewise with line breaks and tabs as they are, for our own texts with names in them."""
    return "\n".join(visible(line) for line in text.expandtabs().split("\n"))


def composed(text: str) -> str:
    """A name in the form in which letters with marks are the same, however they were typed (NFC)."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def is_utf_8(path: object) -> bool:
    """Whether a path can be handed to libraries in C++, which take no name with other bytes."""
    return str(path).encode(errors="replace").decode() == str(path)


def shortened(name: str, longest: int = LONGEST_LABEL) -> str:
    """A name for where there is little room: visible, and cut in its middle where it is long."""
    text = visible(name)
    half = longest // 2
    return text if len(text) <= longest else f"{text[: longest - half]}…{text[1 - half :]}"


def file_name(name: str, suffix: str) -> str:
    """A file name that begins with ``name``; what is too long for a file system is cut and told apart by a digest."""
    whole = name.encode("utf-8", "surrogateescape")
    if len(whole) + len(suffix) <= LONGEST_FILE_NAME:
        return name + suffix
    end = f"-{hashlib.sha256(whole).hexdigest()[:12]}{suffix}"
    return whole[: LONGEST_FILE_NAME - len(end)].decode(errors="ignore") + end


def metric_key(name: str) -> str:
    """A name as one part of a metric's key, different for different names.

    A slash begins a section in TensorBoard and Weights & Biases, so it is percent-encoded as in a URL.
    """
    return _NO_PART_OF_A_KEY.sub(lambda match: "".join(map("%{:02X}".format, _bytes(match[0]))), name)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
