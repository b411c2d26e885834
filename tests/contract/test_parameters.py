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


@pytest.mark.parametrize("name", ["mask_rcnn", "r3cnn_naive", "htc"])
def test_counts_equal_the_original_per_submodule(name: str) -> None:
    counts, expected = count(f"experiment={name}"), EXPECTED[name]
    assert {key: counts[key] for key in ("trainable", "total", "submodules")} == {
        key: expected[key] for key in ("trainable", "total", "submodules")
    }


@pytest.mark.parametrize("recursion", ["r3cnn_1_loop", "r3cnn_2_loops", "r3cnn_4_loops", "r3cnn_decreasing"])
def test_r3cnn_has_as_many_parameters_with_any_number_of_loops(recursion: str) -> None:
    assert count("experiment=r3cnn_naive", f"recursion={recursion}")["trainable"] == 43_912_884
