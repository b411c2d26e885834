"""What the report calls a row of the paper is configured as the paper says."""

from __future__ import annotations

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from r3cnn.cli.configs import config_folder, plain, register_resolvers
from r3cnn.cli.ledger import MIB, checkpoint_bytes
from r3cnn.cli.params import count_parameters
from r3cnn.reporting.differences import COMPARED
from r3cnn.reporting.paper import TABLES, PaperRow, read_paper
from r3cnn.training.build import instantiate
from r3cnn.training.checkpoint import build_model
from r3cnn.training.optim import OptimizerSettings

PAPER = read_paper()
ROWS = [(table, row) for table in TABLES for row in PAPER.rows(table)]
MEASURED_MIB = {1: 338.06, 2: 338.06, 3: 590.29, 4: 336.09, 5: 336.09, 6: 383.09}
"""Training checkpoints of the authors' own networks: weights, buffers and momentum."""


def composed(experiment: str) -> DictConfig:
    register_resolvers()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return compose("train", overrides=[f"experiment={experiment}"])


@pytest.mark.parametrize(("table", "row"), ROWS, ids=[f"{table}-{row.row}" for table, row in ROWS])
def test_every_experiment_of_a_row_has_its_loops_heads_and_order(table: str, row: PaperRow) -> None:
    for experiment in row.experiments:
        config = composed(experiment)
        schedule = config.model.roi_heads.schedule
        assert config.scale_name == "coco"
        if row.train_loops is not None:
            assert len(schedule.heads) == row.train_loops
            assert len(set(schedule.heads)) == row.heads
        if row.iou_order is not None:
            thresholds = list(schedule.iou_thresholds)
            assert thresholds == sorted(thresholds, reverse=row.iou_order == "decreasing")
            assert len(set(thresholds)) == row.train_loops
    if row.eval_loops is not None:  # the first one reaches them, others may only reach the first few
        schedule = composed(row.experiments[0]).model.roi_heads.schedule
        assert len(schedule.eval_heads) >= row.eval_loops


@pytest.mark.parametrize("row", PAPER.table1, ids=lambda row: str(row.row))
def test_parameters_and_size_of_table_1_are_those_of_the_configured_networks(row: PaperRow) -> None:
    config = composed(row.experiments[0])
    with torch.device("meta"):
        model = build_model(plain(config.model), trusted=None)
    config.optimizer.factory.fused = False  # there are no such kernels for tensors without content
    settings = instantiate(plain(config.optimizer))
    assert isinstance(settings, OptimizerSettings)
    optimizer = settings.build(model.parameters(), images_per_step=16)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    size = checkpoint_bytes(model, optimizer) / MIB
    assert size == pytest.approx(MEASURED_MIB[row.row], abs=0.01)
    assert 0 < (row.model_size_mb or 0) - size < 1.5  # the printed file holds a little more than tensors
    counts = count_parameters(model)
    assert isinstance(counts["trainable"], int)
    assert counts["trainable"] // 1000 == row.params_thousand


def test_rows_are_compared_with_other_rows_of_their_table() -> None:
    assert COMPARED.keys() == {*TABLES}
    for table, pairs in COMPARED.items():
        numbers = {row.row for row in PAPER.rows(table)}
        assert all(first != second and {first, second} <= numbers for first, second in pairs)
