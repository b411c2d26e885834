import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from record_samples import make_record, write_record

from r3cnn.cli.main import start
from r3cnn.reporting.console import terminal
from r3cnn.reporting.markdown import escape, to_markdown
from r3cnn.reporting.paper import read_paper
from r3cnn.reporting.paper_tables import paper_tables
from r3cnn.reporting.report import cost_table, parts_of, print_report, summary_table
from r3cnn.reporting.rows import by_setting
from r3cnn.reporting.runs import find_runs, read_run

CONFIG = """
model:
  roi_heads:
    schedule: {heads: [0, 0], iou_thresholds: [0.5, 0.6]}
data:
  root: /some/where/coco128
  val: {annotations: annotations/instances_val2017.json}
"""


def write_run(folder: Path, loops: int = 2) -> Path:
    """A finished run whose box AP after loop t is t / 10 and whose mask AP is half of that."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    scores = {
        str(t): {kind: {**dict.fromkeys(names, t / divisor), "ap_large": None} for kind, divisor in kinds.items()}
        for t in range(1, loops + 1)
        for kinds in [{"box": 10, "mask": 20}]
    }
    metrics = {**scores[str(loops)], "per_class": {}, "loops": scores, "images": {"seen": 3, "total": 5}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def report(*overrides: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    start(["report", *overrides])


def test_a_run_is_one_row_with_its_loops_and_its_result(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "naive"))
    table = summary_table([run])
    assert dict(zip(table.columns, table.rows[0], strict=True)) == {
        "run": str(tmp_path / "naive"),
        "data set": "coco128 instances_val2017",
        "loops": "2",
        "heads": "0 0",
        "IoU": "0.5 0.6",
        "box AP": "20.0",
        "box AP50": "20.0",
        "mask AP": "10.0",
        "mask AP50": "10.0",
        "images": "3 of 5",
    }


def test_more_loops_scored_than_trained_are_stated(tmp_path: Path) -> None:
    table = summary_table([read_run(write_run(tmp_path / "five", loops=5))])
    assert table.rows[0][2] == "2, scored 5"


def test_the_markdown_has_one_table_of_all_runs_and_one_per_run_with_every_loop(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / name)) for name in ("a", "b|c")]
    lines = to_markdown(runs).splitlines()
    assert [line for line in lines if line.startswith("### ")] == [f"### {escape(run.name)}" for run in runs]
    assert lines.count("| 1 | box | 10.0 | 10.0 | 10.0 | 10.0 | 10.0 | – |") == 2
    assert lines.count("| 2 | mask | 10.0 | 10.0 | 10.0 | 10.0 | 10.0 | – |") == 2
    assert any("b\\|c |" in line for line in lines)


def test_the_terminal_shows_the_same_numbers_even_if_it_is_narrow(tmp_path: Path) -> None:
    console = terminal(file=io.StringIO(), width=80)
    print_report([read_run(write_run(tmp_path / "naive"))], console=console)
    rows = [line.split() for line in console.file.getvalue().splitlines()]
    assert ["2", "mask", "10.0", "10.0", "10.0", "10.0", "10.0", "–"] in rows
    assert any(row[-3:] == ["10.0", "10.0", "3"] or row[-5:] == ["10.0", "10.0", "3", "of", "5"] for row in rows)
    assert max(map(len, console.file.getvalue().splitlines())) <= 80


def test_the_loops_of_many_runs_are_printed_for_the_first_ones(tmp_path: Path) -> None:
    console = terminal(file=io.StringIO(), width=200)
    print_report([read_run(write_run(tmp_path / f"run-{number:02d}")) for number in range(22)], console=console)
    text = console.file.getvalue()
    assert [text.count(f"run-{number:02d}") for number in (0, 19, 20, 21)] == [
        2,
        2,
        1,
        1,
    ]  # in the table of all as well
    assert "The loops of 2 more runs stand in the files." in text


def test_all_finished_runs_below_the_current_folder_are_found_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "outputs" / "sweep" / "0")
    write_run(tmp_path / "runs" / "naive")
    write_run(tmp_path / "elsewhere")
    (tmp_path / "runs" / "unfinished").mkdir()
    report(folder=tmp_path, monkeypatch=monkeypatch)
    text = (tmp_path / "outputs" / "report" / "report.md").read_text()
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == ["# Results", "## All runs", "### outputs/sweep/0", "### runs/naive"]
    assert "outputs/report/report.md" in capsys.readouterr().out


def test_named_runs_alone_are_reported_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        write_run(tmp_path / "runs" / name)
    report("runs=[runs/c,runs/a]", "output_dir=found", folder=tmp_path, monkeypatch=monkeypatch)
    lines = (tmp_path / "found" / "report.md").read_text().splitlines()
    assert [line for line in lines if line.startswith("### ")] == ["### runs/c", "### runs/a"]


def test_without_any_run_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"r3cnn train .*r3cnn report runs="):
        find_runs([tmp_path])


@pytest.mark.parametrize("missing", ["metrics.json", "config.yaml"])
def test_a_folder_that_lacks_a_file_is_named(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (write_run(tmp_path / "runs" / "broken") / missing).unlink()
    with pytest.raises(ValueError, match=rf"no run to report: runs/broken: .*runs/broken has no {missing}"):
        report("runs=[runs/broken]", folder=tmp_path, monkeypatch=monkeypatch)
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("metrics.json", "{", "is not valid JSON"),
        ("metrics.json", '{"box": {}}', r"does not hold what a run writes: .*missing required field `mask`"),
        ("config.yaml", "model: {roi_heads: 3}", "is no configuration of a train or evaluate run"),
    ],
)
def test_a_damaged_file_is_named(file: str, content: str, message: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "broken")
    (folder / file).write_text(content)
    with pytest.raises(ValueError, match=rf"broken/{file} {message}"):
        read_run(folder)


def test_old_runs_and_those_of_the_ledger_share_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "runs" / "old")
    write_record(tmp_path / "outputs" / "sweeps" / "coco" / "htc-0", make_record("htc"))
    report(folder=tmp_path, monkeypatch=monkeypatch)
    folder = tmp_path / "outputs" / "report"
    text = (folder / "report.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("### ")] == [
        "### outputs/sweeps/coco/htc-0",
        "### runs/old",
    ]
    assert [line[:10] for line in text.splitlines() if line.startswith("## ")] == [
        "## Table 1",
        "## Table 4",
        "## Table 4",
        "## All run",
    ]
    assert "| 3 | HTC | 1 |" in text
    assert {path.name for path in folder.glob("report.*")} == {"report.md", "report.tex", "report.html"}
    assert "written to outputs/report/report.html" in capsys.readouterr().out


def test_one_table_alone_is_shown_even_if_nothing_measures_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "runs" / "old")
    report("table=table3", folder=tmp_path, monkeypatch=monkeypatch)
    text = (tmp_path / "outputs" / "report" / "report.md").read_text()
    assert text.count("## Table") == 1
    assert text.count("| not run |") == 5


def test_the_last_evaluation_in_a_folder_is_what_the_table_of_all_runs_shows(tmp_path: Path) -> None:
    folder = write_record(write_run(tmp_path / "run"), make_record())
    evaluated = read_run(folder)
    (folder / "metrics.json").unlink()
    trained = read_run(folder)
    assert [run.metrics["box"]["ap"] for run in (evaluated, trained)] == [0.2, 0.41]
    assert evaluated.record == trained.record == make_record()


def test_what_runs_took_is_a_table_of_those_in_the_ledger(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / "old"))]
    runs.append(read_run(write_record(tmp_path / "new", make_record(seed=7))))
    table = cost_table(runs)
    assert table.rows == (
        (
            str(tmp_path / "new"),
            *("r3cnn_naive", "coco", "7", "43,912,884", "8.0", "5.5", "6.0", "336.1", "cpu", "cccccccccc"),
        ),
    )


@pytest.mark.parametrize("width", [60, 80, 120, 300])
def test_a_narrow_terminal_shows_a_wide_table_in_parts_without_losing_a_number(width: int, tmp_path: Path) -> None:
    folder = write_record(tmp_path / "naive", make_record())
    run = read_run(folder)
    ((setting, records),) = by_setting({folder: make_record()}).items()
    (table,) = paper_tables(read_paper(), "table1", setting, records)
    parts = parts_of(table, width)
    assert {number for part in parts for number in part} == {*range(len(table.columns))}
    assert (len(parts) == 1) == (width == 300)
    console = terminal(file=io.StringIO(), width=width)
    print_report([run], [table], console)
    words = console.file.getvalue()
    assert "…" not in words.split("Average precision")[0]
    for row in table.rows:
        assert all(text in words for cell in row for text in cell.text.split())


def test_the_report_needs_no_torch() -> None:
    parts = "r3cnn.cli.report, r3cnn.reporting.html, r3cnn.reporting.differences"
    check = f"import sys, {parts}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
