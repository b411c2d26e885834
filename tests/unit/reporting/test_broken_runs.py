"""Folders of runs that are broken, or made to do harm: each becomes a line, and the others are reported."""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from page_samples import draw_strip, roi_report
from record_samples import config, make_record, metrics, write_record

from r3cnn.cli.main import start
from r3cnn.run_files import MOST_BYTES, read_config, write_config, write_json, write_text

CANARY = "only-in-the-environment"
BILLION = "a: &a [x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20)
)
DEEP = 1_000_000
Break = Callable[[Path], object]


def put(name: str, content: str | bytes) -> Break:
    """Writes a file in the run's folder."""
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def changed(name: str, *keys: str, value: object) -> Break:
    """Changes one value in a JSON file of the run."""

    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        inner = content
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        (folder / name).write_text(json.dumps(content))

    return change


def instead(name: str, make: Callable[[Path], object]) -> Break:
    """Puts something else in the place of a file."""

    def replace(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return replace


def sparse(name: str, size: int) -> Break:
    """A file of that many bytes, which takes no room."""
    return lambda folder: os.truncate(folder / name, size)


def with_config(key: str, text: str) -> Break:
    """A config.yaml with another value under a key of the first level."""

    def change(folder: Path) -> None:
        content = {name: value for name, value in config().items() if name != key}
        (folder / "config.yaml").write_text(f"{yaml.safe_dump(content)}\n{key}: {text}\n")

    return change


def of_all_files(kind: str, **contents: object) -> dict[str, Break]:
    return {f"{name} {kind}": put(name, content) for name, content in contents.items()}  # type: ignore[arg-type]


FILES = ("result.json", "metrics.json", "config.yaml")
BREAKS: dict[str, Break] = {
    **{f"{name} is empty": put(name, "") for name in FILES},
    **{f"{name} is cut": put(name, '{"box": {"ap": 0.') for name in FILES},
    **{f"{name} is a list": put(name, "[]") for name in FILES},
    **{f"{name} is null": put(name, "null") for name in FILES},
    **{f"{name} is binary": put(name, bytes(range(256))) for name in FILES},
    **{f"{name} is UTF-16": put(name, '{"box": 1}'.encode("utf-16")) for name in FILES},
    **{f"{name} is nested deeply": put(name, "[" * DEEP + "]" * DEEP) for name in FILES},
    **{f"{name} has deep mappings": put(name, '{"a":' * DEEP) for name in FILES},
    **{f"{name} is huge": sparse(name, 2**30) for name in FILES},
    **{f"{name} is a folder": instead(name, Path.mkdir) for name in FILES},
    **{f"{name} is a pipe": instead(name, os.mkfifo) for name in FILES},
    **{f"{name} is a device": instead(name, lambda path: path.symlink_to("/dev/zero")) for name in FILES},
    **{f"{name} is a link outside": instead(name, lambda path: path.symlink_to("/etc/hostname")) for name in FILES},
    **{f"{name} is a link to itself": instead(name, lambda path: path.symlink_to(path.name)) for name in FILES},
    "metrics are NaN": put(
        "metrics.json", '{"box": {"ap": NaN}, "mask": {}, "per_class": {}, "loops": {}, "images": {}}'
    ),
    "AP is infinite": changed("metrics.json", "loops", "2", "box", "ap", value=float("inf")),
    "AP is text": changed("metrics.json", "loops", "2", "box", "ap", value="0.5"),
    "AP is true": changed("metrics.json", "loops", "2", "box", "ap", value=True),
    "AP is a list": changed("metrics.json", "box", "ap", value=[0.5]),
    "AP is 50": changed("metrics.json", "box", "ap", value=50),
    "AP is negative": changed("metrics.json", "loops", "1", "mask", "ap50", value=-1),
    "AP is enormous": changed("metrics.json", "box", "ap75", value=10**400),
    "AP is missing": changed("metrics.json", "loops", "1", "mask", value={"ap50": 0.5}),
    "a kind is missing": changed("metrics.json", "loops", "1", value={"box": {}}),
    "there are no loops": changed("metrics.json", "loops", value={}),
    "loops are a list": changed("metrics.json", "loops", value=[1, 2]),
    "loops are words": changed("metrics.json", "loops", value={"one": {}}),
    "images are missing": changed("metrics.json", "images", value={}),
    "images are text": changed("metrics.json", "images", "seen", value="many"),
    "classes are numbers": changed("metrics.json", "per_class", value={"cat": 3}),
    "seed is text": changed("result.json", "seed", value="0"),
    "seed is enormous": changed("result.json", "seed", value=10**400),
    "format is of the future": changed("result.json", "format", value=2),
    "config is text": changed("result.json", "config", value="model"),
    "config has no heads": changed("result.json", "config", "model", value={}),
    "heads are text": changed("result.json", "config", "model", "roi_heads", "schedule", "heads", value="000"),
    "learning rate is text": changed("result.json", "config", "optimizer", "lr", value="fast"),
    "images per step are none": changed("result.json", "config", "optimizer", "base_images", value=0),
    "batches are infinite": put("result.json", '{"format": 1, "checkpoint_mib": 1e999}'),
    "overrides are numbers": changed("result.json", "overrides", value=[1]),
    "the file of annotations is null": changed("result.json", "data", "val", "file", value=None),
    "parameters are missing": changed("result.json", "parameters", value={}),
    "speeds are text": changed("result.json", "images_per_second", "train", value="fast"),
    "record has half a number": put("result.json", '{"format": 1, "\\ud800": 1e999}'),
    "aliases": put("config.yaml", BILLION),
    "alias to itself": put("config.yaml", "a: &a [*a]"),
    "anchor": with_config("extra", "&a 1"),
    "tag of Python": with_config("extra", "!!python/object/apply:os.system [touch canary]"),
    "tag of ours": with_config("extra", "!include /etc/hostname"),
    "binary": with_config("extra", "!!binary aGk="),
    "date that is none": with_config("extra", "2001-13-45"),
    "number in base sixty": with_config("extra", ":".join(["1"] * 200_000)),
    "number of a million digits": with_config("extra", "9" * 1_000_000),
    "key that is a list": with_config("extra", "{? [a] : b}"),
    "two documents": with_config("extra", "1\n---\na: 1"),
    "tabs": put("config.yaml", "a:\n\t- b"),
    "deep flow": with_config("extra", "[" * 5_000),
    "schedule is a number": with_config("model", "{roi_heads: 3}"),
    "thresholds are text": with_config("model", "{roi_heads: {schedule: {heads: [0], iou_thresholds: [half]}}}"),
    "heads are fractions": with_config("model", "{roi_heads: {schedule: {heads: [0.5], iou_thresholds: [0.5]}}}"),
    "data are text": with_config("data", "coco"),
    "val is a list": with_config("data", "{root: x, val: [1]}"),
}


def write_run(folder: Path) -> Path:
    """A whole run, with all files that a report reads."""
    record = make_record("htc")
    write_record(folder, record)
    write_json(record.metrics, folder / "metrics.json")
    write_config(config(), folder / "config.yaml")
    write_json(roi_report(3), folder / "roi_statistics.json")
    write_text("step,train/loss\n0,3.0\n1,2.0\n", folder / "metrics.csv")
    return folder


def report(*overrides: str) -> None:
    start(["report", *overrides, "significance.resamples=0", "output_dir=found"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two whole runs and every broken one, reported by one call."""
    folder = tmp_path_factory.mktemp("broken")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HYDRA_FULL_ERROR", "1")
        patch.setenv("SECRET", CANARY)
        for name in ("first", "last"):
            write_run(folder / "runs" / name)
        for number, breaks in enumerate(BREAKS.values()):
            breaks(write_run(folder / "runs" / f"run-{number:03d}"))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begin = time.monotonic()
        report("search=[runs]")
        (folder / "cost.json").write_text(
            json.dumps([time.monotonic() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before])
        )
    return folder


def test_there_are_enough_broken_runs() -> None:
    assert len(BREAKS) >= 50


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_run_becomes_a_line_that_says_which_and_why(whole: Path, name: str) -> None:
    folder = f"runs/run-{[*BREAKS].index(name):03d}"
    lines = [
        line for line in (whole / "found" / "report.md").read_text().splitlines() if line.startswith(f"- {folder}: ")
    ]
    assert len(lines) == 1
    assert len(lines[0]) < 600
    assert f'<li class="missing">{folder}: ' in (whole / "found" / "report.html").read_text()


def test_the_whole_runs_beside_them_are_reported(whole: Path) -> None:
    text = (whole / "found" / "report.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("### ")] == ["### runs/first", "### runs/last"]


def test_all_of_them_together_take_neither_memory_nor_time(whole: Path) -> None:
    seconds, kib = json.loads((whole / "cost.json").read_text())
    assert seconds < 60
    assert kib < 600_000


def test_nothing_is_run_resolved_or_copied_into_the_report(whole: Path) -> None:
    assert not [*whole.rglob("canary")]
    host = Path("/etc/hostname").read_text().strip()
    for file in (whole / "found").glob("report.*"):
        text = file.read_text()
        assert CANARY not in text
        assert not host or host not in text.replace("/etc/hostname", "")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.csv", "a,b\n1,2\n"),
        ("metrics.csv", "step,train/loss\n0,1e308\n1,1e308\n2,-1e308\n"),
        ("metrics.csv", "step," + ",".join(map(str, range(20_000))) + "\n"),
        ("metrics.csv", 'step,train/loss\n0,"' + "x" * 200_000),
        ("metrics.csv", "\0" * 100),
        ("roi_statistics.json", "{}"),
        ("roi_statistics.json", "[" * DEEP),
        ("roi_statistics.json", json.dumps(roi_report(1)).replace("0.5", "1e308")),
        ("roi_statistics.json", json.dumps({**roi_report(1), "bin_edges": [0, 1]})),
        ("roi_statistics.json", json.dumps({**roi_report(1), "images": -(10**18)})),
        ("pictures/1_loops.png", "\x89PNG\r\n\x1a\n"),
    ],
)
def test_a_broken_part_of_a_run_is_left_out_and_the_run_is_reported(
    name: str, content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_run(tmp_path / "runs" / "odd")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(content)
    report("search=[runs]")
    assert "### runs/odd" in (tmp_path / "found" / "report.md").read_text()


@pytest.mark.parametrize("name", ["metrics.csv", "roi_statistics.json"])
@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/etc/passwd")])
def test_what_is_no_file_of_the_run_is_not_opened(
    name: str, make: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    instead(name, make)(write_run(tmp_path / "runs" / "odd"))
    report("search=[runs]")
    assert "root:" not in (tmp_path / "found" / "report.html").read_text()


EVIL = "${oc.env:SECRET} {{1234*5678}} </script><b>x</b> **x** [x](y) \\input{z} $x$ \x1b[31m \x9b \u202e"


def test_names_out_of_files_are_text_whatever_they_mean_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET", CANARY)
    folder = write_run(tmp_path / "runs" / "odd")
    changed("result.json", "device", value=EVIL)(folder)
    changed("metrics.json", "per_class", value={EVIL: metrics((10,))["box"]})(folder)
    write_config(
        {**config(), "data": {"root": f"/x/{EVIL}".replace("</", "<"), "val": {"annotations": EVIL}}},
        folder / "config.yaml",
    )
    draw_strip(folder / "pictures" / "${oc.env:SECRET} {{1234*5678}} <b>_loops.png", 3)
    report("search=[runs]")
    shown = capsys.readouterr().out + "".join(path.read_text() for path in (tmp_path / "found").glob("report.*"))
    for unwanted in (CANARY, "7006652", "\x1b[31m", "\x9b", "\u202e"):
        assert unwanted not in shown
    assert "<b>" not in (tmp_path / "found" / "report.html").read_text().replace("<b>1</b>", "")
    assert "${oc.env:SECRET}" in shown


def test_a_run_whose_files_may_not_be_read_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("first", "locked"):
        write_run(tmp_path / "runs" / name)
    real = os.open

    def refuse(path: str | Path, *rest: int, **more: int) -> int:  # root may read everything
        if str(path).endswith("locked/metrics.json"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    report("search=[runs]")
    assert "- runs/locked: " in (tmp_path / "found" / "report.md").read_text()


def test_files_and_missing_folders_in_the_place_of_runs_are_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "first")
    (tmp_path / "file").touch()
    report("runs=[file,nowhere,first]")
    text = (tmp_path / "found" / "report.md").read_text()
    assert "- file: " in text
    assert "- nowhere: " in text
    with pytest.raises(ValueError, match=r"no run to report: file: .* and 1 more"):
        report("runs=[file,nowhere]")


def test_what_is_just_small_enough_is_read(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    text = (folder / "metrics.json").read_text()
    (folder / "metrics.json").write_text(text + " " * (MOST_BYTES - len(text)))
    from r3cnn.reporting.runs import read_run

    assert read_run(folder).metrics["images"]["seen"] == 5000


def test_a_configuration_with_a_value_twice_is_written_without_an_anchor(tmp_path: Path) -> None:
    mean = [1.0, 2.0]
    write_config({"a": mean, "b": mean}, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml") == {"a": mean, "b": mean}
