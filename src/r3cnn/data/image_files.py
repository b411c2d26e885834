"""Where the image files lie that an annotation file names: below one folder, whoever wrote the names."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path, PureWindowsPath

from r3cnn.names import composed

DIGITS = re.compile(r"\d+")
MOST_COMPARED, COMPARISONS = 20_000, 5
"""Names in a folder, among more of which a similar one is not looked for; and missing files for which it is."""


class ImageFolder:
    """A folder of images, each of whose folders is listed once: that costs less than to ask for every file.

    Args:
        folder: The folder; nothing outside it is ever found.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._listed: dict[str, dict[str, str]] = {}
        self._by_looks: dict[str, dict[str, str]] = {}
        self._comparisons = COMPARISONS
        self._places = {os.path.abspath(folder), os.path.realpath(folder)}

    def find(self, name: str) -> str:
        """Path of an image below the folder as it lies there.

        The name may be absolute, hold backslashes, begin with the folder's own name, or be composed otherwise than on
        the disk (NFC, NFD); a file that has it to the letter comes first.

        Raises:
            ValueError: With the reason, if there is no such file.
        """
        if os.pardir not in name and not os.path.isabs(name):
            found = self._on_disk(os.path.normpath(name))
            if found is not None:
                return found
        inside = [path for path in map(self._below, _readings(name)) if path is not None]
        if not inside:
            last = PureWindowsPath(name).name
            hint = f": its {last} would be found under that name alone" if last in self._names("") else ""
            raise ValueError(f"{name!r} leaves the image folder {self._folder}{hint}")
        first = f"{self._folder.name}/"
        inside += [path.removeprefix(first) for path in inside if path.startswith(first)]
        found = next(filter(None, map(self._on_disk, inside)), None)
        if found is None:
            raise ValueError(f"{name!r} is not in {self._folder}{self._similar(inside[-1])}")
        return found

    def _below(self, name: str) -> str | None:
        """The name as a path below the folder; None if it leads out of it."""
        for place in self._places:
            path = os.path.relpath(os.path.normpath(os.path.join(place, name)), place)
            if path.split(os.sep)[0] not in (os.pardir, os.curdir):
                return path
        return None

    def _on_disk(self, path: str) -> str | None:
        folder, name = os.path.split(path)
        found = self._on_disk(folder) if folder else ""
        if found is None:
            return None
        names = self._names(found)
        name = names.get(name) or names.get(composed(name), name)
        path = os.path.join(found, name)
        # What is not listed may be there all the same, where a file system makes no difference between a and A.
        return path if name in names or (self._folder / path).exists() else None

    def _names(self, folder: str) -> dict[str, str]:
        """Names of what lies in a folder, by themselves and in composed form."""
        if folder not in self._listed:
            try:
                names = os.listdir(self._folder / folder)
            except OSError:
                names = []
            self._listed[folder] = {composed(name): name for name in names} | {name: name for name in names}
        return self._listed[folder]

    def _similar(self, path: str) -> str:
        """A hint at the file that may be meant, in which characters that look alike are told apart."""
        folder, name = os.path.split(path)
        folder = folder if self._names(folder) else ""
        if folder not in self._by_looks:
            self._by_looks[folder] = {_looks(one): one for one in self._names(folder).values()}
        by_looks, looks = self._by_looks[folder], _looks(name)
        close = [looks] if looks in by_looks else []
        if not close and len(by_looks) <= MOST_COMPARED and self._comparisons > 0:
            self._comparisons -= 1  # each takes long, and the first ones tell what is wrong
            digits = DIGITS.findall(looks)
            alike = [one for one in by_looks if DIGITS.findall(one) == digits]
            close = get_close_matches(looks, alike, n=1, cutoff=0.8)
        if not close:
            return "" if self._folder.is_dir() else ", which is no folder"
        found = by_looks[close[0]]
        if found == name:
            return f": its {name} would be found under that name alone"
        show = repr if name.isascii() and found.isascii() else ascii
        return f": {show(name)} is asked for, {show(found)} is there"


def _readings(name: str) -> Iterator[str]:
    yield name
    if "\\" in name:
        yield name.replace("\\", "/")


def _looks(name: str) -> str:
    """A name without what the eye does not tell apart: kinds of blanks, invisible characters, case, width."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(one for one in folded if unicodedata.category(one)[0] not in "ZC")
