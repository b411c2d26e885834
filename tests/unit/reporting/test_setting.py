"""Which runs have one setting and one configuration."""

from dataclasses import replace
from pathlib import Path

import pytest
from record_samples import TRAIN_2017, config, make_record, write_records

from r3cnn.reporting.rows import by_setting
from r3cnn.reporting.setting import configuration_of, setting_of


def test_runs_on_other_training_data_are_no_further_seeds(tmp_path: Path) -> None:
    other = make_record(seed=1, train=replace(TRAIN_2017, digest="c" * 128))
    assert [len(runs) for runs in by_setting(write_records(tmp_path, make_record(), other)).values()] == [1, 1]


def test_seed_place_and_logger_leave_the_configuration_the_same() -> None:
    def configured(**changes: object) -> str:
        return configuration_of(replace(make_record(), config={**config(), **changes}))

    assert configured(
        seed=1, output_dir="here", logger={"a": 1}, callbacks={"best": {"dirpath": "here"}}
    ) == configured(seed=2, callbacks={})
    assert configured(rois_per_image=256) != configured(rois_per_image=512)


def test_neither_place_nor_seed_nor_launcher_tells_settings_apart() -> None:
    neutral = ("output_dir=here", "logger.wandb.project=x", "hydra.mode=RUN", "trainer.devices=2", "sweep=table1")
    assert setting_of(make_record(seed=3, overrides=neutral)) == setting_of(make_record("htc"))
    assert setting_of(make_record(overrides=("optimizer.lr=0.1",))) != setting_of(make_record())
    eight = setting_of(replace(make_record(), ranks=8, config=config(batch_size=2)))
    assert "instances_train2017.json on 8 ranks, 16 per step, scored on" in eight.describe()


def test_one_value_in_two_spellings_is_one_setting() -> None:
    runs = [
        replace(make_record(overrides=(f"optimizer.lr={told}",)), config=config(lr=0.01)) for told in ("0.01", "1e-2")
    ]
    assert setting_of(runs[0]).overrides == setting_of(runs[1]).overrides == ("optimizer.lr=0.01",)


def test_what_is_no_configuration_of_a_training_run_has_no_setting() -> None:
    with pytest.raises(ValueError, match=r"trainer.accumulate_grad_batches=None: it is none of a training run"):
        setting_of(replace(make_record(), config={}))
