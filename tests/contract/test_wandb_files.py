"""The files for Weights & Biases say the same as conf/: rows of the tables, and commands that compose."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
from itertools import product
from pathlib import Path
from types import ModuleType

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args, load_sweep_config

from r3cnn.cli.configs import config_folder, plain, register_resolvers
from r3cnn.cli.report import run_folders

TABLES = sorted(path.stem for path in (config_folder() / "sweep").glob("*.yaml"))
FOLDER = Path(__file__).parents[2] / "experiments" / "wandb"
SAVED = ("Loops", "Precision", "Losses per loop", "RoIs", "Cost")


def sweep_file(table: str) -> dict[str, object]:
    content = load_sweep_config(str(FOLDER / f"{table}.yaml"))
    assert content is not None
    return content


def commands(sweep: dict[str, object]) -> list[list[str]]:
    """What an agent starts, one run after another, as its own code puts it together."""
    grid = {name: entry.get("values", [entry.get("value")]) for name, entry in sweep["parameters"].items()}
    words = create_sweep_command(sweep["command"])
    found = []
    for values in product(*grid.values()):
        chosen = {name: {"value": value} for name, value in zip(grid, values, strict=True)}
        arguments = create_sweep_command_args({"args": chosen})["args_no_hyphens"]
        found.append([part for word in words for part in (arguments if word == "${args_no_hyphens}" else [word])])
    return found


@pytest.fixture(scope="module")
def workspace() -> ModuleType:
    source = importlib.util.spec_from_file_location("workspace", FOLDER / "workspace.py")
    assert source is not None
    assert source.loader is not None
    module = importlib.util.module_from_spec(source)
    source.loader.exec_module(module)
    return module


def test_every_table_has_a_sweep_file() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == TABLES


@pytest.mark.parametrize("table", TABLES)
def test_a_sweep_file_has_the_rows_of_its_table(table: str) -> None:
    rows = OmegaConf.load(config_folder() / "sweep" / f"{table}.yaml").hydra.sweeper.params.experiment
    sweep = sweep_file(table)
    assert sweep["parameters"]["experiment"]["values"] == [row.strip() for row in rows.split(",")]
    assert (sweep["method"], sweep["name"]) == ("grid", table)


@pytest.mark.parametrize("table", TABLES)
def test_every_command_of_an_agent_is_a_run_of_its_own(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "abc123")
    register_resolvers()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        for words in commands(sweep_file(table)):
            assert words[:2] == ["r3cnn", "train"]
            config = compose("train", words[2:])
            assert config.output_dir == "outputs/wandb/abc123"
            assert (config.sweep_name, config.resume, config.scale_name) == (table, "auto", "coco")
            assert plain(config.logger.wandb)["project"] == sweep_file(table)["project"]


@pytest.mark.parametrize("table", TABLES)
def test_the_command_that_makes_the_table_finds_a_run_of_an_agent(table: str, tmp_path: Path) -> None:
    (told,) = re.findall(r"`r3cnn (report [^`]+)`", (FOLDER / f"{table}.yaml").read_text())
    name, *overrides = told.split()
    folder = Path("outputs/wandb/abc123")  # as the commands above say
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "metrics.json").write_text("{}")
    register_resolvers()
    with initialize_config_dir(str(config_folder()), version_base="1.3"), contextlib.chdir(tmp_path):
        assert run_folders(compose(name, overrides)) == [folder]


def test_the_workspace_is_built_and_serialised_without_a_server(workspace: ModuleType) -> None:
    sent = workspace.serialised(workspace.build_workspace("someone", "r3cnn"))
    section = sent["spec"]["section"]
    assert tuple(one["name"] for one in section["panelBankConfig"]["sections"]) == SAVED
    first = section["panelBankConfig"]["sections"][0]["panels"][0]
    assert (first["config"]["xAxis"], first["config"]["metrics"]) == ("by_loop/loop", ["by_loop/mask_ap"])
    assert section["runSets"][0]["grouping"] == [{"section": "config", "name": "experiment.value"}]
    json.dumps(sent)


def test_the_report_is_built_and_serialised_without_a_server(workspace: ModuleType) -> None:
    sent = workspace.serialised(workspace.build_report("someone", "r3cnn"))
    spec = sent["spec"] if isinstance(sent["spec"], dict) else json.loads(sent["spec"])
    grids = [block for block in spec["blocks"] if block["type"] == "panel-grid"]
    assert len(grids) == len(SAVED)
    panels = [panel for grid in grids for panel in grid["metadata"]["panelBankSectionConfig"]["panels"]]
    scatter = next(panel for panel in panels if panel["viewType"] == "Scatter Plot")
    assert scatter["config"]["xAxis"] == "summary:parameters/trainable"
    places = [(panel["layout"]["x"], panel["layout"]["y"]) for panel in panels[:3]]
    assert places == [(0, 0), (8, 0), (16, 0)]
