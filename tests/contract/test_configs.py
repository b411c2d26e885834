"""Every yaml composes; every experiment and every variant builds a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from r3cnn.cli.configs import config_folder, plain, register_resolvers
from r3cnn.cli.main import COMMANDS
from r3cnn.detector import RCNN
from r3cnn.structures import InstanceMasks, Target
from r3cnn.training.build import TRUSTED_TARGETS
from r3cnn.training.checkpoint import build_model

CONF = config_folder()
# Files whose name starts with an underscore hold what others share.
CHOICES = [path for path in sorted(CONF.glob("*/*.yaml")) if not path.name.startswith("_")]
GLOBAL_GROUPS = ("experiment", "scale", "sweep")  # their files set keys of the whole configuration
EXPERIMENTS = [path.stem for path in CHOICES if path.parent.name == "experiment"]
VARIANTS = [f"{path.parent.name}={path.stem}" for path in CHOICES if path.parent.name not in GLOBAL_GROUPS]
NETWORK_GROUPS = (
    "backbone",
    "backbone_plugin",
    "recursion",
    "box_head",
    "mask_head",
    "mask_iou_head",
    "roi_extractor",
    "rpn",
    "model",
)
NETWORKS = [variant for variant in VARIANTS if variant.split("=")[0] in NETWORK_GROUPS]
SMALL = ("backbone=resnet10_gn", "channels=32", "fc_channels=32")
# Everything of a network but its width: RoIs, proposals and layers are few.
LITTLE_WORK = (
    "channels=32",
    "fc_channels=32",
    "rois_per_image=8",
    "rpn.train_proposals.per_level=20",
    "rpn.eval_proposals.per_level=10",
    "rpn.eval_proposals.per_image=10",
    "model.roi_heads.detection.max_detections=5",
)
OUTSIDE = "output_dir=somewhere"  # what Hydra decides in a real run


@pytest.fixture(scope="module", autouse=True)
def _hydra() -> Iterator[None]:
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def composed(*overrides: str, command: str = "train") -> DictConfig:
    return compose(command, [*overrides, OUTSIDE])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_configuration(command: str) -> None:
    assert OmegaConf.is_dict(composed(command=command))


def test_every_file_in_conf_belongs_to_a_command_or_a_group() -> None:
    roots = {path.stem for path in CONF.glob("*.yaml")}
    assert roots == {*COMMANDS, "job", "quiet", "network"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_of_every_group_composes_and_resolves(variant: str) -> None:
    group, name = variant.split("=")
    command = next((command for command in COMMANDS if group in composed(command=command)), None)
    assert command is not None, f"no command has a group {group}"
    config = composed(variant, command=command)
    content = OmegaConf.to_container(config[group], resolve=True)
    assert isinstance(content, dict), f"conf/{group}/{name}.yaml"
    assert content or variant == "logger=none"  # that is what they are for


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_builds_from_trusted_targets_alone(experiment: str) -> None:
    config = composed(f"experiment={experiment}")
    with torch.device("meta"):  # shapes alone
        model = build_model(plain(config.model), TRUSTED_TARGETS)
    assert model.num_classes == len(config.data.classes)
    assert list(model.schedule.heads) == list(config.recursion.heads)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_says_in_its_first_comment_how_to_run_it(experiment: str) -> None:
    lines = (CONF / "experiment" / f"{experiment}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    assert f"experiment={experiment}" in lines[1]


def tiny_target(boxes: list[list[float]]) -> Target:
    masks = torch.zeros(len(boxes), 64, 96, dtype=torch.uint8)
    masks[:, 10:40, 10:50] = 1
    labels = torch.zeros(len(boxes), dtype=torch.int64)
    return Target(torch.tensor(boxes).reshape(-1, 4), labels, InstanceMasks.from_dense(masks))


@pytest.mark.parametrize("variant", NETWORKS)
def test_every_variant_of_the_network_trains_and_detects_with_and_without_objects(variant: str) -> None:
    backbone = [] if variant.startswith("backbone=") else ["backbone=resnet10_gn"]
    torch.manual_seed(0)
    model = build_model(plain(composed(*backbone, *LITTLE_WORK, variant).model), TRUSTED_TARGETS)
    images, sizes = torch.randn(2, 3, 64, 96), [(64, 96), (60, 90)]
    losses = model.losses(images, sizes, [tiny_target([[10.0, 10, 50, 40]]), tiny_target([])])
    assert losses.keys() == model.loss_weights().keys()
    total = torch.stack(list(losses.values())).sum()
    assert torch.isfinite(total)
    total.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    per_loop = model.eval().detect_per_loop(images, sizes)
    assert len(per_loop) == len(model.schedule.eval_heads)
    assert all(found.masks.shape[1:] == (28, 28) for found in per_loop[-1])


def targets_in(node: object) -> set[str]:
    if isinstance(node, list):
        return {target for value in node for target in targets_in(value)}
    if not isinstance(node, dict):
        return set()
    own = {str(node["_target_"])} if "_target_" in node else set()
    return own | {target for value in node.values() for target in targets_in(value)}


def test_trusted_targets_are_exactly_those_of_the_networks_and_data_sets() -> None:
    used: set[str] = set()
    for group in (*NETWORK_GROUPS, "data", "augmentation"):
        for path in (CONF / group).glob("*.yaml"):
            used |= targets_in(OmegaConf.to_container(OmegaConf.load(path), resolve=False))
    assert used - {"r3cnn.data.shapes.write_shapes"} == set(TRUSTED_TARGETS)  # which writes files
    assert len(TRUSTED_TARGETS) == len(set(TRUSTED_TARGETS))


def heads_of(model: RCNN) -> list[list[set[int]]]:
    """Identities of the parameters of each head, for the box heads and for the mask heads."""
    slots = (model.roi_heads.box_heads, model.roi_heads.mask_branch.heads)
    return [[{id(parameter) for parameter in head.parameters()} for head in slot] for slot in slots]


def test_the_heads_of_a_cascade_share_no_parameter() -> None:
    for sets in heads_of(build_model(plain(composed(*SMALL, "recursion=htc").model), TRUSTED_TARGETS)):
        assert len(sets) == 3
        assert all(sets)
        assert sum(len(parameters) for parameters in sets) == len(set.union(*sets))


def test_the_loops_of_r3cnn_share_one_head() -> None:
    for sets in heads_of(build_model(plain(composed(*SMALL, "recursion=r3cnn").model), TRUSTED_TARGETS)):
        assert len(sets) == 1


@pytest.mark.parametrize(
    ("experiment", "shorts"),
    [("r3cnn_naive", [640, 672, 704, 736, 768, 800]), ("nuclei", [205, 215, 225, 236, 246, 256])],
)
def test_multi_scale_training_follows_the_image_size_of_the_recipe(experiment: str, shorts: list[int]) -> None:
    config = composed(f"experiment={experiment}", "augmentation=multi_scale")
    assert plain(config.data.augmentation)["scaling"]["short_sides"] == shorts
    wider = composed(f"experiment={experiment}", "augmentation=multi_scale", "data.image_size=[100,200]")
    assert plain(wider.data.augmentation)["scaling"]["short_sides"] == [80, 84, 88, 92, 96, 100]


@pytest.mark.parametrize("override", ["data.batch_sise=2", "recursion.loops=3", "trainer.max_step=1", "colour=red"])
def test_unknown_keys_are_errors(override: str) -> None:
    with pytest.raises(Exception, match=override.split("=")[0].split(".")[-1]):
        composed(override)


def test_all_data_groups_share_the_keys_that_experiments_override() -> None:
    shared = {"classes", "batch_size", "eval_batch_size", "image_size", "workers", "seed", "flip"}
    shared |= {"on_bad_annotation", "crowd", "mean", "std"}
    for path in (Path(CONF) / "data").glob("*.yaml"):
        assert shared <= composed(f"data={path.stem}").data.keys(), path.name
