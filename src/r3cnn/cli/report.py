"""``r3cnn report``: finished runs beside the published tables, and the AP of each after every loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig

from r3cnn.cli.configs import read_config
from r3cnn.reporting.latex import to_latex
from r3cnn.reporting.markdown import to_markdown
from r3cnn.reporting.paper import TABLES, Paper, read_paper
from r3cnn.reporting.paper_tables import measured_rows, paper_tables
from r3cnn.reporting.records import Record
from r3cnn.reporting.report import print_report
from r3cnn.reporting.rows import by_setting
from r3cnn.reporting.runs import Run, find_runs, read_run
from r3cnn.reporting.setting import Setting
from r3cnn.reporting.tables import Table

ALL = "all"
MARKDOWN, LATEX, PAGE = "report.md", "report.tex", "report.html"


def run(config: DictConfig) -> None:
    """Prints the tables and writes them as Markdown, LaTeX and a page."""
    names, paper = chosen_tables(config.table), read_paper()
    runs = [read_run(folder, read_config) for folder in run_folders(config)]
    records = {Path(run.name): run.record for run in runs if run.record is not None}
    tables = tables_of(paper, names, records, with_empty=config.table != ALL)
    differences = differences_of(paper, names, records, config.significance) if config.significance.resamples else []
    shown = [*tables, *differences]
    output_dir = Path(config.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    (output_dir / MARKDOWN).write_text(to_markdown(runs, shown), encoding="utf-8")
    (output_dir / LATEX).write_text(to_latex(shown), encoding="utf-8")
    write_page(output_dir / PAGE, runs, tables, differences, config.html)
    print_report(runs, shown)
    for file in (MARKDOWN, LATEX, PAGE):
        print(f"written to {output_dir / file}")


def write_page(
    path: Path, runs: Sequence[Run], tables: Sequence[Table], differences: Sequence[Table], config: DictConfig
) -> None:
    """Writes ``report.html``; what is imported for its pictures takes seconds.

    Raises:
        ValueError: For a setting out of range.
    """
    from r3cnn.data.loading import read_image
    from r3cnn.reporting.html import HtmlSettings, PictureSettings, write_html

    settings = HtmlSettings(PictureSettings(**config.pictures), config.curve_points)
    write_html(path, runs, tables, differences, settings, read_image)


def chosen_tables(table: str) -> tuple[str, ...]:
    """Tables of the paper that are asked for.

    Raises:
        ValueError: For an unknown name.
    """
    if table == ALL:
        return TABLES
    if table not in TABLES:
        raise ValueError(f"table is {table!r}: one of {', '.join(TABLES)} or {ALL} is needed")
    return (table,)


def tables_of(paper: Paper, names: Sequence[str], records: Mapping[Path, Record], *, with_empty: bool) -> list[Table]:
    """The paper's tables, each once per setting that measures any of its rows.

    Args:
        paper: The published numbers.
        names: ``table1`` … ``table4``.
        records: Finished runs.
        with_empty: Whether a table that nothing measures is shown as well, once.
    """
    found = []
    for name in names:
        settings = settings_of(paper, name, records)
        for setting, runs in settings.items():
            found += paper_tables(paper, name, setting, runs)
        if not settings and with_empty:
            found += paper_tables(paper, name, None, {})
    return found


def differences_of(
    paper: Paper, names: Sequence[str], records: Mapping[Path, Record], settings: DictConfig
) -> list[Table]:
    """How the systems of each table differ, and whether that may be chance.

    Raises:
        ValueError: For a setting out of range.
    """
    from r3cnn.reporting.differences import difference_tables  # scoring takes seconds to import
    from r3cnn.reporting.significance import Draws

    draws = Draws(settings.resamples, settings.confidence, settings.seed)
    return [
        table
        for name in names
        for setting, runs in settings_of(paper, name, records).items()
        for table in difference_tables(paper, name, setting, measured_rows(paper, name, runs), draws)
    ]


def settings_of(paper: Paper, name: str, records: Mapping[Path, Record]) -> dict[Setting, dict[Path, Record]]:
    """The runs of each setting that measures any row of a table."""
    return {setting: runs for setting, runs in by_setting(records).items() if measured_rows(paper, name, runs)}


def run_folders(config: DictConfig) -> list[Path]:
    """The folders asked for, or all that hold a finished run.

    Raises:
        ValueError: For an empty list.
    """
    if config.runs is None:
        return find_runs([Path(parent) for parent in config.search])
    folders = [config.runs] if isinstance(config.runs, str) else list(config.runs)
    if not folders:
        raise ValueError("runs is empty: name at least one folder, or leave it out to take all finished runs")
    return [Path(str(folder)) for folder in folders]
