"""`r3cnn bench` at its smallest size: the form of what it prints and that both sides do the same work, never times."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from tiny_runs import Cli

from r3cnn.benchmarks.peer import torchvision_inputs, torchvision_peer
from r3cnn.benchmarks.steps import imitate_training
from r3cnn.cli import main as cli_main
from r3cnn.cli.bench import network, workload_of
from r3cnn.cli.configs import config_folder, register_resolvers

KEYS = {"name", "ours", "peer", "ratio", "unit", "target", "accept"}


@pytest.mark.slow
def test_bench_prints_one_json_object_with_three_comparisons_and_writes_nothing(
    cli: Cli, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cli("bench", "size=tiny", "format=json")
    printed = json.loads(capsys.readouterr().out)
    assert printed.keys() == {"rows", "machine"}
    assert all(row.keys() == KEYS for row in printed["rows"])
    assert [(row["target"], row["accept"]) for row in printed["rows"]] == [(1.0, True), (None, False), (0.85, True)]
    for row in printed["rows"]:
        assert row["unit"] == "s"
        assert row["ratio"] == row["ours"] / row["peer"] > 0
    found = printed["machine"]["workload"]["detections"]
    assert min(found.values()) > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_torchvision_gets_our_weights_and_our_frozen_layers() -> None:
    register_resolvers()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("bench", ["size=tiny"])
        workload = workload_of(config)
        model = network("mask_rcnn", config, workload)
    imitate_training(model, workload, candidates=50)
    peer = torchvision_peer(model, workload).eval()
    images, targets = torchvision_inputs(workload)
    with torch.no_grad():
        ours = model.rpn.head(model.features(workload.normalized()))
        batch, _ = peer.transform(images)
        theirs = peer.rpn.head(list(peer.backbone(batch.tensors).values()))
    for our_maps, their_maps in zip(ours, theirs, strict=True):
        for our_map, their_map in zip(our_maps, their_maps, strict=True):
            torch.testing.assert_close(our_map, their_map, rtol=1e-3, atol=1e-4)
    frozen = [name for name, parameter in peer.named_parameters() if not parameter.requires_grad]
    assert {name.split(".")[2] for name in frozen} == {"conv1", "bn1", "layer1"}
    assert targets[0]["masks"].shape == (3, 64, 96)
    assert int(targets[0]["labels"].min()) >= 1


@pytest.mark.parametrize(
    ("arguments", "overrides"),
    [
        (["train", "size=tiny"], ["part=train", "size=tiny"]),
        (["infer"], ["part=infer"]),
        ([], []),
        (["size=tiny"], ["size=tiny"]),
    ],
)
def test_a_part_may_be_named_without_its_key(
    arguments: list[str], overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr("sys.argv", ["r3cnn", "bench", *arguments])
    monkeypatch.setattr(
        sys.modules["r3cnn.cli.main"], "run_command", lambda command, given: calls.append((command.name, given))
    )
    cli_main()
    assert calls == [("bench", overrides)]


def test_a_misspelt_part_ends_with_a_suggestion(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli("bench", "trian")
    assert stop.value.code == 2
    assert "no bench part 'trian'; did you mean 'train'" in capsys.readouterr().err


@pytest.mark.parametrize("override", ["part=predict", "size=huge", "format=xml"])
def test_a_choice_that_does_not_exist_is_refused_with_those_that_do(override: str, cli: Cli) -> None:
    name, value = override.split("=")
    with pytest.raises(ValueError, match=f"{name} must be one of .*, got '{value}'"):
        cli("bench", override)
