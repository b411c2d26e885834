"""What was found in a data set, as tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

from r3cnn.names import shortened
from r3cnn.reporting.console import LONGEST_NAME, plain_table, terminal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

QUANTITIES = {
    "image_width": "image width (px)",
    "image_height": "image height (px)",
    "image_aspect": "image width / height",
    "objects_per_image": "objects per image",
    "object_side": "object side, √area of box (px)",
    "network_side": "object side at the network's input (px)",
    "object_aspect": "box width / height",
}
QUANTILES = {"min": "least", "q05": "5 %", "median": "median", "mean": "mean", "q95": "95 %", "max": "largest"}
MAX_CLASSES = 20


class Histogram(TypedDict):
    """N counts between N + 1 edges."""

    edges: list[float]
    counts: list[int]


class Quantity(TypedDict):
    """Quantiles, mean and histogram; None where there is no value."""

    min: float | None
    q05: float | None
    median: float | None
    q95: float | None
    max: float | None
    mean: float | None
    histogram: Histogram


class Statistics(TypedDict):
    """Numbers of one data set, see `r3cnn.data.statistics`."""

    images: int
    images_without_objects: int
    objects: int
    crowds: int
    area_share: dict[str, float]
    per_class: dict[str, dict[str, int]]
    quantity: dict[str, Quantity]


class Found(TypedDict):
    """What ``check.json`` holds for one data set; ``statistics`` is empty if its file cannot be read."""

    file: str
    problems: list[str]
    notes: list[str]
    statistics: Statistics


def print_check(found: Mapping[str, Found], max_lines: int, console: Console | None = None) -> None:
    """Prints statistics, problems and notes of each data set.

    Args:
        found: Content of ``check.json``.
        max_lines: Sentences of each kind that are printed.
        console: Where to; standard output by default.
    """
    console = console or terminal()
    if any(split["statistics"] for split in found.values()):
        console.print(quantity_table(found))
        console.print(class_table(found))
    for name, split in found.items():
        console.print(f"{name}: {split['file']}", style="bold")
        if split["statistics"]:
            console.print(f"  {summary(split['statistics'])}")
        for title, sentences in (("problem", split["problems"]), ("note", split["notes"])):
            style = "bold red" if title == "problem" and sentences else None
            console.print(f"  {len(sentences)} {title}{'' if len(sentences) == 1 else 's'}", style=style)
            for sentence in sentences[:max_lines]:
                console.print(f"    {sentence}")
            if len(sentences) > max_lines:
                console.print(f"    … and {len(sentences) - max_lines} more")


def summary(statistics: Statistics) -> str:
    """One line: how many images and objects, and how large these are."""
    shares = ", ".join(f"{100 * share:.0f} % {name}" for name, share in statistics["area_share"].items())
    return (
        f"{statistics['images']} images ({statistics['images_without_objects']} without objects), "
        f"{statistics['objects']} objects ({shares}), {statistics['crowds']} crowds"
    )


def quantity_table(found: Mapping[str, Found]) -> Table:
    """Quantiles of sizes, aspect ratios and counts."""
    table = plain_table("Sizes", ("quantity", "set", *QUANTILES.values()), names=2)
    for key, title in QUANTITIES.items():
        for number, (name, statistics) in enumerate(_known(found)):
            cells = [number_text(statistics["quantity"][key][quantile]) for quantile in QUANTILES]  # type: ignore[literal-required]
            table.add_row(title if number == 0 else "", name, *cells)
    return table


def class_table(found: Mapping[str, Found]) -> Table:
    """Objects and images of the most frequent classes."""
    known = _known(found)
    names = list(known[0][1]["per_class"])
    names.sort(key=lambda name: -sum(statistics["per_class"][name]["objects"] for _, statistics in known))
    hidden = len(names) - MAX_CLASSES
    headings = [heading for split, _ in known for heading in (f"{split} objects", "images")]
    caption = f"and {hidden} rarer ones" if hidden > 0 else None
    table = plain_table("Classes", ("class", *headings), names=1, caption=caption)
    for name in names[:MAX_CLASSES]:
        cells = [str(row["per_class"][name][key]) for _, row in known for key in ("objects", "images")]
        table.add_row(shortened(name, LONGEST_NAME), *cells)
    return table


def number_text(value: float | None) -> str:
    """Four digits at most; a dash where there is no value."""
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.2f}"


def _known(found: Mapping[str, Found]) -> Sequence[tuple[str, Statistics]]:
    return [(name, split["statistics"]) for name, split in found.items() if split["statistics"]]
