"""Seeds of an experiment are runs of one configuration, wherever and with whichever logger they are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hydra import compose, initialize_config_dir

from r3cnn.cli.configs import config_folder, plain, register_resolvers
from r3cnn.reporting.paper import TABLES, read_paper
from r3cnn.reporting.records import DataFacts, Parameters, Record, Speed, Splits
from r3cnn.reporting.setting import configuration_of, setting_of

FACTS = DataFacts("instances.json", "digest", 1, 1)
ELSEWHERE = ("logger=csv_wandb", "launcher=ddp", "callbacks.rois.folder=there", "data.root=/elsewhere", "resume=auto")


def record(*overrides: str) -> Record:
    """What a run with these overrides would say of its configuration."""
    register_resolvers()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = plain(compose("train", list(overrides)))
    return Record(
        format=1,
        name="any",
        scale="any",
        sweep=None,
        hash="0" * 12,
        overrides=overrides,
        config=config,
        git=None,
        versions={},
        device="cpu",
        ranks=1,
        seed=0,
        data=Splits(FACTS, FACTS),
        parameters=Parameters(1, 1),
        train_memory_bytes=None,
        memory_kind="resident",
        images_per_second=Speed(None, None),
        checkpoint_mib=1.0,
        metrics={},  # type: ignore[typeddict-item]
        roi_balance={},
        seconds={},
    )


@pytest.mark.parametrize("experiment", [("experiment=r3cnn_naive",), ("experiment=mask_rcnn", "scale=demo")])
def test_seed_and_place_change_neither_setting_nor_configuration(experiment: Sequence[str]) -> None:
    one = record(*experiment, "seed=1", "output_dir=here", "data.index_cache=null")
    two = record(*experiment, "seed=2", "output_dir=there", *ELSEWHERE)
    assert configuration_of(one) == configuration_of(two)
    assert setting_of(one) == setting_of(two)


def test_another_network_is_another_configuration_and_another_rate_another_setting_too() -> None:
    one, other = record("experiment=r3cnn_naive"), record("experiment=htc")
    assert configuration_of(one) != configuration_of(other)
    assert setting_of(one) == setting_of(other)
    faster = record("experiment=r3cnn_naive", "optimizer.lr=4e-2")
    assert configuration_of(one) != configuration_of(faster)
    assert setting_of(faster).overrides == ("optimizer.lr=0.04",)


def test_the_papers_images_per_step_are_two_on_each_of_eight_ranks() -> None:
    setting = setting_of(replace(record("experiment=r3cnn_naive"), ranks=8))
    assert (setting.images_per_step, setting.lr_per_image) == (16, 0.02 / 16)
    assert "learning rate" not in setting.unlike_the_papers


@pytest.mark.parametrize("scale", ["coco", "nuclei", "demo"])
def test_all_rows_of_the_paper_have_one_setting_at_a_scale(scale: str) -> None:
    paper = read_paper()
    names = {name for table in TABLES for row in paper.rows(table) for name in row.experiments}
    settings = {setting_of(record(f"experiment={name}", f"scale={scale}")) for name in names}
    assert len(names) > 10
    assert len(settings) == 1
