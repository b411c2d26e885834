"""Diagrams as SVG inside a page: text stays text, colours are the page's, and no id occurs twice."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from r3cnn.names import visible
from r3cnn.reporting.panels import COLORS, GRID, INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
# Matplotlib's colour -> the page's, which has one for light and one for dark surroundings.
PAGE_COLORS = {
    INK.lower(): "var(--ink)",
    GRID.lower(): "var(--grid)",
    "#ffffff": "var(--surface)",
    "#000000": "var(--ink)",
} | {color.lower(): f"var(--series-{number})" for number, color in enumerate(COLORS)}


def to_svg(figure: Figure, name: str, label: str) -> str:
    """The diagram as one ``<svg>`` element that scales with its surroundings; equal figures give equal text.

    Args:
        figure: A figure of matplotlib.
        name: Unique in the page, letters, digits and hyphens; all ids inside begin with it.
        label: What it shows, for those who do not see it.
    """
    import matplotlib

    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    root = ElementTree.fromstring(buffer.getvalue())
    _drop(root)
    for element in root.iter():
        _settle(element, name)
    for unwanted in ("width", "height", "version"):
        root.attrib.pop(unwanted, None)
    root.attrib |= {"role": "img", "aria-label": visible(label), "class": "plot"}
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    return ElementTree.tostring(root, encoding="unicode")


def _drop(root: ElementTree.Element) -> None:
    """Removes metadata and style sheets; the latter would apply to the whole page."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)


def _settle(element: ElementTree.Element, name: str) -> None:
    """Puts ``name`` before the element's ids and the page's colours into its style."""
    for key, value in element.attrib.items():
        if key == "id":
            element.set(key, f"{name}-{value}")
        elif key in ("href", f"{{{XLINK}}}href") and value.startswith("#"):
            element.set(key, f"#{name}-{value[1:]}")
        elif key == "style":
            plain = re.sub(r"font-family: [^;]*; ?", "", value)  # the page's font
            element.set(key, re.sub(r"#[0-9a-fA-F]{6}", _page_color, plain))
        elif value.startswith("url(#"):
            element.set(key, f"url(#{name}-{value[5:]}")


def _page_color(match: re.Match[str]) -> str:
    return PAGE_COLORS.get(match[0].lower(), match[0])
