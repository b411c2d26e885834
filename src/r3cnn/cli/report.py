"""``r3cnn report``: finished runs beside the published tables, and the AP of each after every loop."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig

from r3cnn.cli.folder_lock import sole_writer
from r3cnn.reporting.latex import to_latex
from r3cnn.reporting.markdown import to_markdown
from r3cnn.reporting.paper import TABLES, Paper, read_paper
from r3cnn.reporting.paper_tables import measured_rows, paper_tables
from r3cnn.reporting.records import Record
from r3cnn.reporting.report import print_report
from r3cnn.reporting.rows import by_setting, trained_heads
from r3cnn.reporting.runs import Run, find_runs, read_run
from r3cnn.reporting.setting import Setting
from r3cnn.reporting.tables import Table
from r3cnn.run_files import write_text

log = logging.getLogger(__name__)
ALL = "all"
MARKDOWN, LATEX, PAGE = "report.md", "report.tex", "report.html"


def run(config: DictConfig) -> None:
    """Prints the tables and writes them as Markdown, LaTeX and a page.

    Raises:
        ValueError: For a setting out of range, or if no run can be read.
    """
    from r3cnn.reporting.html import HtmlSettings, PictureSettings, write_html  # takes seconds

    names, paper = chosen_tables(config.table), read_paper()
    settings = HtmlSettings(
        PictureSettings(**config.html.pictures), config.html.curve_points, config.html.detailed_runs
    )
    runs, left_out = readable_runs(run_folders(config))
    if not runs:
        more = f", and {len(left_out) - 1} more cannot be read either" if len(left_out) > 1 else ""
        asked = "search" if config.runs is None else "runs"
        raise ValueError(f"{asked}: no run to report: {left_out[0]}{more}")
    records = {Path(run.name): run.record for run in runs if run.record is not None}
    tables = tables_of(paper, names, records, with_empty=config.table != ALL)
    differences = differences_of(paper, names, records, config.significance) if config.significance.resamples else []
    shown = [*tables, *differences]
    output_dir = Path(config.output_dir)
    with sole_writer(output_dir):
        write_text(to_markdown(runs, shown, left_out), output_dir / MARKDOWN)
        write_text(to_latex(shown), output_dir / LATEX)
        write_html(output_dir / PAGE, runs, tables, differences, settings, left_out)
    print_report(runs, shown)
    for line in left_out:
        log.warning("left out %s", line)
    for file in (MARKDOWN, LATEX, PAGE):
        print(f"written to {output_dir / file}")


def readable_runs(folders: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """The runs that can be reported, and a line for each of the others, which says why not."""
    from r3cnn.reporting.html.runs import page_runs, runs_table

    runs, left_out = [], []
    for folder in folders:
        try:
            run = read_run(folder)
            if run.record is not None:
                by_setting({folder: run.record})
                trained_heads(run.record.config)
            to_markdown([run])  # rows that cannot be made are noticed here
            runs_table(page_runs([run]))
            runs.append(run)
        except Exception as error:  # whatever a broken file leads to: the other runs are worth reporting
            is_told = isinstance(error, OSError | ValueError)
            left_out.append(f"{folder}: {error if is_told else f'{type(error).__name__}: {error}'}")
    return runs, left_out


def chosen_tables(table: str) -> tuple[str, ...]:
    """Tables of the paper that are asked for."""
    return TABLES if table == ALL else (table,)


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
    from r3cnn.reporting.differences import compared_runs, difference_tables  # scoring takes seconds to import
    from r3cnn.reporting.significance import Draws, prepare

    draws = Draws(settings.resamples, settings.confidence, settings.seed)
    measured = [
        (name, setting, measured_rows(paper, name, runs))
        for name in names
        for setting, runs in settings_of(paper, name, records).items()
    ]
    prepare([run for name, _, rows in measured for run in compared_runs(name, rows)], draws)
    return [table for name, setting, rows in measured for table in difference_tables(paper, name, setting, rows, draws)]


def settings_of(paper: Paper, name: str, records: Mapping[Path, Record]) -> dict[Setting, dict[Path, Record]]:
    """The runs of each setting that measures any row of a table."""
    return {setting: runs for setting, runs in by_setting(records).items() if measured_rows(paper, name, runs)}


def run_folders(config: DictConfig) -> list[Path]:
    """The folders asked for, each once, or all that hold a finished run.

    Raises:
        ValueError: For an empty list.
    """
    if config.runs is None:
        return find_runs([Path(parent) for parent in config.search])
    folders = [config.runs] if isinstance(config.runs, str) else list(config.runs)
    if not folders:
        raise ValueError("runs is empty: name at least one folder, or leave it out to take all finished runs")
    named: dict[Path, Path] = {}
    for folder in map(Path, map(str, folders)):
        named.setdefault(folder.resolve(), folder)
    return [*named.values()]
