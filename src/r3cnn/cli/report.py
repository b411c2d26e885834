"""``r3cnn report``: the results of finished runs in one table, with the AP after every loop."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from r3cnn.cli.configs import Config, plain
from r3cnn.reporting.report import print_report, to_markdown
from r3cnn.reporting.runs import find_runs, read_run

FILE = "report.md"


def run(config: DictConfig) -> None:
    """Prints the tables and writes them as Markdown."""
    runs = [read_run(folder, read_config) for folder in run_folders(config)]
    print_report(runs)
    output_dir = Path(config.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    path = output_dir / FILE
    path.write_text(to_markdown(runs), encoding="utf-8")
    print(f"written to {path}")


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


def read_config(path: Path) -> Config:
    """A yaml file as plain containers."""
    return plain(OmegaConf.load(path))
