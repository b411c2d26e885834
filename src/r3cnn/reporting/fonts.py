"""Fonts for names of any script: DejaVu Sans, which matplotlib ships, and installed ones for what that lacks."""

from __future__ import annotations

import logging
from functools import cache, lru_cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import ImageFont

if TYPE_CHECKING:
    from matplotlib.ft2font import FT2Font

log = logging.getLogger(__name__)
MIN_SIZE = 11
UNWANTED = ("serif", "bold", "italic", "oblique", "light", "thin", "black", "medium", "mono", "cond", "fallback")


def runs_of(text: str) -> list[tuple[str, Path]]:
    """The parts of a text with the font file that each is written in."""
    if text.isascii():
        return [(text, default_font())]
    return [("".join(part), file) for file, part in groupby(text, key=font_with)]


def families_of(text: str) -> list[str]:
    """The same fonts as matplotlib calls them, the usual one first."""
    return [*dict.fromkeys((family_in(default_font()), *(family_in(file) for _, file in runs_of(text))))]


@lru_cache(maxsize=64)
def pillow_font(file: Path, size: int) -> ImageFont.FreeTypeFont:
    """One of them for Pillow, not so small that it could not be read."""
    return ImageFont.truetype(str(file), max(size, MIN_SIZE))


@lru_cache
def default_font() -> Path:
    """DejaVu Sans: pictures look alike everywhere."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"


@cache
def font_with(character: str) -> Path:
    """The first font that can draw a character; the usual one, with a box in its place, where none can."""
    for file in (default_font(), *_installed()):
        if (font := _opened(file)) is not None and font.get_char_index(ord(character)):
            return file
    _say_missing()
    return default_font()


@lru_cache
def _say_missing() -> None:
    log.warning("names hold characters that no installed font has; pictures show boxes for them: Noto fonts have most")


@lru_cache
def _installed() -> list[Path]:
    """All fonts of this machine, plain ones without serifs first."""
    from matplotlib.font_manager import findSystemFonts

    def flaws(file: Path) -> tuple[int, str]:
        return sum(word in file.stem.lower() for word in UNWANTED), str(file)

    return sorted(map(Path, findSystemFonts()), key=flaws)


@cache
def _opened(file: Path) -> FT2Font | None:
    """None for a font that is damaged, or made of pictures of one size, as those of coloured emoji."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(str(file))
    except (RuntimeError, OSError):
        return None
    return font if font.scalable else None


@lru_cache
def family_in(file: Path) -> str:
    """Name of a font's family, once matplotlib knows the file: its own list may be older than the font."""
    from matplotlib import font_manager

    if file != default_font():
        font_manager.fontManager.addfont(str(file))
    return font_manager.get_font(str(file)).family_name
