"""What leaves the results of a run alone."""

from __future__ import annotations

from r3cnn.reporting.neutral import NEUTRAL, is_below, without


def test_a_key_stands_for_all_below_it_and_for_nothing_else() -> None:
    assert is_below("logger", NEUTRAL)
    assert is_below("logger.project", NEUTRAL)
    assert is_below("callbacks.last.every_n_train_steps", NEUTRAL)
    assert is_below("data.max_megapixels", NEUTRAL)  # whose default has changed: resume=auto goes on with older runs
    assert not is_below("loggers", NEUTRAL)
    assert not is_below("callbacks.ema", NEUTRAL)
    assert not is_below("data.root", NEUTRAL)


def test_keys_are_left_out_at_any_depth_and_the_original_stays_as_it_is() -> None:
    config = {"seed": 1, "logger": {"a": 1}, "data": {"workers": 2, "root": "x", "train": {"limit": None}}}
    assert without(config, ["logger", "data.workers", "data.train.limit", "model.none", "seed.deep"]) == {
        "seed": 1,
        "data": {"root": "x", "train": {}},
    }
    assert config["data"]["workers"] == 2
