"""Every system stands at every scale with its own loops; every row of every table is a named experiment."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from torch import nn

from r3cnn.cli.configs import config_folder, plain, register_resolvers
from r3cnn.cli.job_checks import check_job
from r3cnn.detector import RCNN
from r3cnn.layers.deformable import DeformableConv2d
from r3cnn.layers.global_context import GlobalContext
from r3cnn.roi.box_heads import NonLocalBoxHead
from r3cnn.roi.extractors import GRoIEExtractor
from r3cnn.roi.mask_iou_heads import MaskIoUHead
from r3cnn.training.build import TRUSTED_TARGETS
from r3cnn.training.checkpoint import build_model

CONF = config_folder()


def names(group: str) -> list[str]:
    return [path.stem for path in sorted((CONF / group).glob("*.yaml")) if not path.name.startswith("_")]


def is_recipe(experiment: str) -> bool:
    return "/scale/" in (CONF / "experiment" / f"{experiment}.yaml").read_text()


SCALES, SWEEPS = names("scale"), names("sweep")
SMALL_SCALES = [scale for scale in SCALES if scale != "coco"]
NUMBER_OF_ROWS = {"table1": 6, "table2": 2, "table3": 5, "table4": 11, "figure2": 3}  # table 2: of trained ones
SYSTEMS = [experiment for experiment in names("experiment") if not is_recipe(experiment)]


@pytest.fixture(scope="module", autouse=True)
def _hydra() -> Iterator[None]:
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


@cache
def composed(experiment: str, scale: str) -> DictConfig:
    return compose("train", [f"experiment={experiment}", f"scale={scale}", "output_dir=somewhere"])


@cache
def built(experiment: str, scale: str) -> RCNN:
    with torch.device("meta"):
        return build_model(plain(composed(experiment, scale).model), TRUSTED_TARGETS)


def sweep_of(name: str) -> DictConfig:
    config = compose("train", [f"sweep={name}"], return_hydra_config=True)
    OmegaConf.resolve(config.hydra.sweeper)
    return config


def rows_of(name: str) -> list[str]:
    return [row.strip() for row in sweep_of(name).hydra.sweeper.params.experiment.split(",")]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_can_run_at_every_scale_with_the_loops_that_it_has_at_the_papers(system: str, scale: str) -> None:
    config, papers = composed(system, scale), composed(system, "coco")
    check_job(config)
    assert config.scale_name == scale
    assert OmegaConf.to_container(config.recursion, resolve=True) == OmegaConf.to_container(
        papers.recursion, resolve=True
    )
    for name in ("box_head", "mask_head", "mask_iou_head", "roi_extractor", "backbone_plugin", "class_agnostic"):
        ours, theirs = (OmegaConf.to_container(one, resolve=False)[name] for one in (config, papers))
        assert ours == theirs, name


@pytest.mark.parametrize("scale", SMALL_SCALES)
@pytest.mark.parametrize(
    ("suffix", "kind"),
    [("gcnet", GlobalContext), ("dcn", DeformableConv2d), ("groie", GRoIEExtractor)],
)
def test_plug_ins_are_in_the_small_networks_wherever_they_are_in_the_papers(
    scale: str, suffix: str, kind: type[nn.Module]
) -> None:
    for system in (each for each in SYSTEMS if each.endswith(suffix)):
        network = built(system, scale)
        places = [name for name, module in network.named_modules() if isinstance(module, kind)]
        assert places, system
        if suffix != "groie":
            assert {name.split(".")[1] for name in places} == {"layer2", "layer3", "layer4"}


@pytest.mark.parametrize("scale", SMALL_SCALES)
def test_small_networks_are_of_one_width_and_normalise_without_statistics(scale: str) -> None:
    for system in SYSTEMS:
        network = built(system, scale)
        assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()), system
        assert sum(parameter.numel() for parameter in network.parameters()) < 20e6, system


@pytest.mark.parametrize("scale", SMALL_SCALES)
def test_the_advanced_system_keeps_its_heads_in_small(scale: str) -> None:
    heads = built("r3cnn_advanced", scale).roi_heads
    assert all(isinstance(head, NonLocalBoxHead) for head in heads.box_heads)
    assert isinstance(heads.mask_branch.iou_head, MaskIoUHead)


@pytest.mark.parametrize("scale", SCALES)
def test_three_times_as_long_is_three_times_as_long_at_every_scale(scale: str) -> None:
    short, long = (composed(system, scale).trainer for system in ("mask_rcnn", "mask_rcnn_3x"))
    key = "max_epochs" if scale == "coco" else "max_steps"
    assert long[key] == 3 * short[key] > 0


@pytest.mark.parametrize("recipe", ["demo", "nuclei"])
def test_the_recipe_of_a_scale_is_naive_r3cnn_at_that_scale(recipe: str) -> None:
    alone = compose("train", [f"experiment={recipe}", "output_dir=somewhere"])
    assert OmegaConf.to_container(alone, resolve=True) == OmegaConf.to_container(
        composed("r3cnn_naive", recipe), resolve=True
    )


def test_a_value_on_the_command_line_wins_over_the_scale() -> None:
    config = compose("train", ["experiment=htc", "scale=demo", "data=nuclei", "trainer.max_steps=7", "channels=32"])
    assert (config.data.classes, config.trainer.max_steps, config.channels) == (["nucleus"], 7, 32)


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_names_its_table_and_its_folder_and_runs_without_being_asked_for_a_multirun(name: str) -> None:
    config = sweep_of(name)
    assert config.sweep_name == name
    assert config.hydra.mode == RunMode.MULTIRUN
    assert config.output_dir == "outputs/sweeps/coco"
    assert compose("train", [f"sweep={name}", "scale=demo"]).output_dir == "outputs/sweeps/demo"
    assert f"sweep={name}" in (CONF / "sweep" / f"{name}.yaml").read_text().splitlines()[1]


@pytest.mark.parametrize(
    ("name", "rows"), [("table1", 6), ("table2", 2), ("table3", 5), ("table4", 11), ("figure2", 3)]
)
def test_a_sweep_has_a_named_experiment_for_each_row_of_the_paper(name: str, rows: int) -> None:
    assert len(set(rows_of(name))) == rows
    assert set(rows_of(name)) <= set(SYSTEMS)


def test_rows_that_tables_share_are_the_same_experiments() -> None:
    assert set(rows_of("figure2")) <= set(rows_of("table1"))
    assert set(rows_of("table2")) <= set(rows_of("table3"))
    assert {"mask_rcnn", "htc", "r3cnn_advanced"} <= set(rows_of("table1")) & set(rows_of("table4"))


def test_table_2_looks_at_five_loops_and_table_3_trains_one_to_four() -> None:
    loops = {row: composed(row, "demo").recursion for row in {*rows_of("table2"), *rows_of("table3")}}
    assert [len(loops[row].eval_heads) for row in rows_of("table2")] == [1, 5]
    assert [len(loops[row]["heads"]) for row in rows_of("table3")] == [1, 1, 2, 3, 4]


def outside_of_make() -> dict[str, str]:
    """The environment without what a `make` that runs these tests tells those that it starts."""
    return {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}


@pytest.mark.parametrize("name", SWEEPS)
def test_every_table_has_a_target_that_says_what_it_makes(name: str) -> None:
    makefile = Path(__file__).parents[2] / "Makefile"
    assert re.search(rf"^{name}: \$\(READY\) ## \S", makefile.read_text(), re.MULTILINE)
    run = ["make", "--dry-run", name, "SCALE=nuclei", "SEEDS=0,1", "ARGS=launcher=ddp"]
    commands = subprocess.run(
        run, cwd=makefile.parent, env=outside_of_make(), capture_output=True, text=True, check=True
    ).stdout
    assert f"train -m sweep={name} scale=nuclei seed=0,1 output_dir=outputs/sweeps/nuclei launcher=ddp" in commands
    assert f"output_dir=outputs/reports/nuclei/{name}" in commands


def test_a_table_is_made_of_the_rows_that_there_are_though_one_failed(tmp_path: Path) -> None:
    program, calls, ready = (tmp_path / name for name in ("r3cnn", "calls", "ready"))
    ready.touch()  # newer than what it is made from, so that nothing is set up
    program.write_text(f'#!/bin/sh\necho "$1" >> {calls}\n[ "$1" = train ] && exit 3\nexit 0\n')
    program.chmod(0o755)
    run = ["make", "table2", f"BIN={tmp_path}", f"READY={ready}"]
    done = subprocess.run(
        run, cwd=Path(__file__).parents[2], env=outside_of_make(), capture_output=True, text=True, check=False
    )
    assert calls.read_text().split() == ["train", "report"]
    assert done.returncode != 0
