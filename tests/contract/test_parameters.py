"""Parameter counts equal those of the original networks, in all and per submodule."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from r3cnn.cli.configs import config_folder, plain, register_resolvers
from r3cnn.cli.params import count_parameters
from r3cnn.training.checkpoint import build_model

EXPECTED = json.loads((Path(__file__).parents[1] / "parity" / "params.json").read_text())


def count(*overrides: str) -> dict[str, object]:
    register_resolvers()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = plain(compose("train", overrides=list(overrides)).model)
    with torch.device("meta"):
        return count_parameters(build_model(config, trusted=None))


@pytest.mark.parametrize("name", EXPECTED)
def test_counts_equal_the_original_per_submodule(name: str) -> None:
    counts, expected = count(f"experiment={name}"), EXPECTED[name]
    assert {key: counts[key] for key in ("trainable", "total", "submodules")} == {
        key: expected[key] for key in ("trainable", "total", "submodules")
    }


NAIVE = EXPECTED["r3cnn_naive"]["trainable"]
HEADS = NAIVE - 23_282_688 - 3_344_384 - 593_935  # one box head and one mask head with feedback
FEEDBACK = 256 * 256 + 256


@pytest.mark.parametrize("variant", ["1_loop", "2_loops", "4_loops", "5_eval_loops", "decreasing"])
def test_naive_r3cnn_has_as_many_parameters_with_any_number_and_order_of_loops(variant: str) -> None:
    assert count(f"experiment=r3cnn_naive_{variant}")["trainable"] == NAIVE == 43_912_884


@pytest.mark.parametrize(
    ("experiment", "expected"),
    [
        ("mask_rcnn_3x", EXPECTED["mask_rcnn"]["trainable"]),
        ("mask_rcnn_matched", NAIVE - FEEDBACK),
        ("r3cnn_heads_001", NAIVE + HEADS),
        ("r3cnn_heads_011", NAIVE + HEADS - FEEDBACK),
        ("r3cnn_heads_012", EXPECTED["htc"]["trainable"]),
    ],
)
def test_networks_that_were_not_recorded_have_the_parts_they_should_have(experiment: str, expected: int) -> None:
    assert count(f"experiment={experiment}")["trainable"] == expected
