"""Names of weights there and here, checked against recorded state dicts of the original implementation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from r3cnn.interop.mmdetection import RULES, our_name, to_mmdetection, translate

KEYS = Path(__file__).parents[2] / "parity" / "golden" / "keys"
NETWORKS = sorted(path.stem for path in KEYS.glob("*.json"))


def recorded(network: str) -> dict[str, Tensor]:
    """A state dict of theirs without memory."""
    entries = json.loads((KEYS / f"{network}.json").read_text())
    return {key: torch.empty(shape, dtype=getattr(torch, dtype), device="meta") for key, shape, dtype in entries}


def test_all_twelve_networks_of_the_paper_are_recorded() -> None:
    assert len(NETWORKS) == 12


@pytest.mark.parametrize("network", NETWORKS)
def test_there_and_back_gives_the_same_names_in_the_same_order(network: str) -> None:
    state = recorded(network)
    ours = translate(state).weights
    assert len(ours) == len(state)
    back = to_mmdetection(ours, cascade=not network.startswith("mask_rcnn"))
    assert list(back) == list(state)
    assert all(back[key] is state[key] for key in state)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_way_back_does_not_depend_on_how_modules_are_ordered_here(network: str) -> None:
    state = recorded(network)
    ours = translate(state).weights
    heads_first = sorted(ours, key=lambda name: not name.startswith("roi_heads"))
    back = to_mmdetection({name: ours[name] for name in heads_first}, cascade=not network.startswith("mask_rcnn"))
    assert list(back) == list(state)


def test_every_rule_is_used_by_a_network_of_the_paper() -> None:
    keys = {key for network in NETWORKS for key in recorded(network)}
    unused = [rule for rule in RULES if not any(rule.our_name(key) for key in keys)]
    assert unused == []


def test_a_network_of_one_head_has_no_index_there() -> None:
    assert our_name("roi_head.bbox_head.fc_cls.weight") == "roi_heads.box_heads.0.logits.weight"
    assert our_name("roi_head.bbox_head.2.fc_cls.weight") == "roi_heads.box_heads.2.logits.weight"
    weights = {"backbone.bn1.running_mean": torch.zeros(1), "roi_heads.box_heads.0.logits.bias": torch.zeros(1)}
    assert list(to_mmdetection(weights, cascade=False))[1] == "roi_head.bbox_head.fc_cls.bias"
    assert list(to_mmdetection(weights, cascade=True))[1] == "roi_head.bbox_head.0.fc_cls.bias"


def test_offsets_of_deformable_convolutions_are_known_under_their_older_name() -> None:
    assert our_name("backbone.layer2.0.conv2_offset.bias") == our_name("backbone.layer2.0.conv2.conv_offset.bias")


def test_what_has_no_counterpart_is_named() -> None:
    assert translate({"roi_head.extra.weight": torch.zeros(1)}).unknown == ["roi_head.extra.weight"]
    with pytest.raises(ValueError, match=r"no layer for 1 weights: roi_heads\.box_heads\.0\.hidden\.weight"):
        to_mmdetection(
            {"backbone.bn1.running_mean": torch.zeros(1), "roi_heads.box_heads.0.hidden.weight": torch.zeros(1)},
            cascade=True,
        )


def test_group_norm_has_other_names_there_so_it_is_refused() -> None:
    with pytest.raises(ValueError, match="batch norm"):
        to_mmdetection({"backbone.bn1.weight": torch.zeros(1)}, cascade=True)


def test_every_key_is_translated_or_ignored_for_a_reason_or_unknown() -> None:
    state = recorded("htc")
    extra = {
        "data_preprocessor.mean": torch.zeros(3, 1, 1),
        "roi_head.mask_head.0.conv_res.conv.bias": torch.zeros(256),
        "roi_head.glbctx_head.fc.bias": torch.zeros(80),
    }
    found = translate({**state, **extra}, network=set(translate(state).weights))
    assert list(found.ignored) == ["data_preprocessor.mean", "roi_head.mask_head.0.conv_res.conv.bias"]
    assert found.unknown == ["roi_head.glbctx_head.fc.bias"]
    assert set(found.sources.values()) == set(state)


def test_feedback_of_the_only_mask_head_is_not_ignored() -> None:
    found = translate(recorded("r3cnn_naive"))
    assert not found.ignored
    assert "roi_heads.mask_branch.heads.0.feedback.weight" in found.weights
    assert not translate(recorded("r3cnn_naive"), network=set()).ignored


def test_feedback_of_the_first_of_several_mask_heads_is_kept_where_the_network_owns_it() -> None:
    key = "roi_head.mask_head.0.conv_res.conv.weight"
    name = "roi_heads.mask_branch.heads.0.feedback.weight"
    state = {**recorded("htc"), key: torch.zeros(256, 256, 1, 1)}
    assert translate(state, network={name}).sources[name] == key
    assert translate(state).sources[name] == key
    assert list(translate(state, network=set()).ignored) == [key]


def test_two_keys_for_one_weight_are_not_both_taken() -> None:
    found = translate(
        {key: torch.zeros(1) for key in ("roi_head.bbox_head.fc_cls.bias", "roi_head.bbox_head.0.fc_cls.bias")}
    )
    assert found.unknown == ["roi_head.bbox_head.0.fc_cls.bias"]


def test_a_semantic_branch_is_refused_since_the_heads_were_trained_with_its_features() -> None:
    with pytest.raises(ValueError, match=r"semantic branch.*features are added"):
        translate({**recorded("htc"), "roi_head.semantic_head.conv_logits.bias": torch.zeros(183)})


def test_version_1_is_refused_with_the_way_to_upgrade() -> None:
    old = {key.removeprefix("roi_head."): value for key, value in recorded("mask_rcnn").items()}
    with pytest.raises(ValueError, match=r"mmdetection 1\.x.*upgrade_model_version"):
        translate(old)
