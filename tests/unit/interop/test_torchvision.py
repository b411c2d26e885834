"""torchvision's Mask R-CNN and ours with the same weights give the same."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.error import URLError

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor, nn
from torchvision.models import WeightsEnum
from torchvision.models.detection import MaskRCNN, maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.image_list import ImageList

from r3cnn.cli.candidates import network_shapes
from r3cnn.cli.configs import config_folder, plain, register_resolvers
from r3cnn.interop import torchvision as interop
from r3cnn.interop.translation import compare, shapes_of
from r3cnn.roi.extractors import SingleLevelRoIExtractor
from r3cnn.structures import RoiRows
from r3cnn.training.checkpoint import build_model

SIZE = (256, 320)  # whole multiples of the coarsest stride, so that theirs is 64 as well
SMALL = ("backbone=resnet18_gn", "backbone.norm=bn_eval")


def configured(*overrides: str) -> DictConfig:
    register_resolvers()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return compose("train", [*SMALL, *overrides, "output_dir=somewhere"])


@pytest.fixture(scope="module")
def config() -> DictConfig:
    return configured("experiment=mask_rcnn")


class OurPooling(nn.Module):
    """Pools as the networks here do, in the place of torchvision's RoIAlign, whose pixels are shifted by half."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.extractor = SingleLevelRoIExtractor(side, [4, 8, 16, 32], 56)

    def forward(self, features: dict[str, Tensor], boxes: Sequence[Tensor], shapes: object) -> Tensor:
        image = torch.cat([torch.full((len(some),), index) for index, some in enumerate(boxes)])
        valid = torch.ones(len(image), dtype=torch.bool)
        rows = RoiRows(torch.cat(list(boxes)), image, torch.arange(len(image)), valid, is_static=False)
        return self.extractor(list(features.values())[:4], rows)


def their_network(num_classes: int, eps: float) -> MaskRCNN:
    """A network with lively random weights, pooling and anchors of ours, and no score for ids without objects."""
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d)
    net = MaskRCNN(backbone, num_classes).eval()
    net.roi_heads.box_roi_pool, net.roi_heads.mask_roi_pool = OurPooling(7), OurPooling(14)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = eps
                module.running_var.uniform_(0.5, 2.0)
                module.running_mean.normal_(0, 0.1)
        predictor = net.roi_heads.box_predictor
        predictor.cls_score.weight.normal_(0, 0.1)
        predictor.bbox_pred.weight.normal_(0, 0.02)
        net.roi_heads.mask_predictor.mask_fcn_logits.weight.normal_(0, 0.1)
        if num_classes == len(interop.CATEGORIES):
            unused = [number for number, name in enumerate(interop.CATEGORIES) if name == "N/A"]
            predictor.cls_score.bias[unused] = -100.0
    ratios = torch.tensor(net.rpn.anchor_generator.aspect_ratios[0]).sqrt()
    net.rpn.anchor_generator.cell_anchors = [
        torch.stack([-1 / ratios, -ratios, 1 / ratios, ratios], dim=1) * side / 2 for side in (32, 64, 128, 256, 512)
    ]
    return net


@torch.no_grad()
def their_detections(net: MaskRCNN, images: Tensor) -> dict[str, Tensor]:
    features = net.backbone(images)
    proposals, _ = net.rpn(ImageList(images, [SIZE] * len(images)), features)
    return net.roi_heads(features, proposals, [SIZE] * len(images))[0][0]


@pytest.mark.parametrize("eps", [pytest.param(1e-5, marks=pytest.mark.slow), 0.0])
@torch.no_grad()
def test_both_networks_detect_the_same_with_the_same_weights(config: DictConfig, eps: float) -> None:
    net = their_network(len(interop.CATEGORIES), eps)
    classes = list(config.data.classes)
    found = interop.translate(net.state_dict(), network_shapes(config), classes, eps)
    assert (found.unknown, found.ignored, found.unfilled) == ([], {}, {})
    model = build_model(plain(config.model), trusted=None).eval()
    model.load_state_dict(dict(found.weights))
    images = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    for theirs, ours in zip(net.backbone(images).values(), model.features(images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))
    theirs, ours = their_detections(net, images), model.detect(images, [SIZE])[0]
    ids = interop.category_ids_of(classes)
    assert len(ours) == len(theirs["scores"]) == 100
    assert len(set(theirs["labels"].tolist())) > 5
    unmatched = set(range(100))
    for box, score, label, mask in zip(ours.boxes, ours.scores, ours.labels.tolist(), ours.masks, strict=True):
        distance = (theirs["boxes"] - box).abs().amax(1) + 1e4 * (theirs["labels"] != ids[label])
        index = int(distance.argmin())
        assert distance[index] < 0.01, f"{ids[label]} at {box.tolist()}"
        torch.testing.assert_close(theirs["scores"][index], score, rtol=0, atol=1e-4)
        torch.testing.assert_close(theirs["masks"][index, 0], mask, rtol=0, atol=1e-3)
        unmatched.discard(index)
    assert not unmatched


def test_other_classes_are_taken_in_their_order(config: DictConfig) -> None:
    net = their_network(3, 1e-5)
    found = interop.translate(
        net.state_dict(), network_shapes(configured("experiment=mask_rcnn", "num_classes=2")), ["cat", "dog"], 1e-5
    )
    logits = net.roi_heads.box_predictor.cls_score.bias
    assert torch.equal(found.weights["roi_heads.box_heads.0.logits.bias"], logits[[1, 2, 0]])
    deltas = net.roi_heads.box_predictor.bbox_pred.weight
    assert torch.equal(found.weights["roi_heads.box_heads.0.deltas.weight"], deltas[4:])


@pytest.mark.parametrize(("classes", "count"), [(["cat"], 91), (["cat", "dog"], 91), (["cat", "dog"], 5)])
def test_other_numbers_of_classes_are_both_named(classes: list[str], count: int) -> None:
    with pytest.raises(ValueError, match=rf"{count} rows.*{len(classes)} classes.*data\.classes"):
        interop.rows_of(classes, count)


def test_ids_are_cocos_for_its_classes_and_count_up_for_others(config: DictConfig) -> None:
    classes = list(config.data.classes)
    ids = interop.category_ids_of(classes)
    assert (len(ids), ids[0], ids[11], ids[-1]) == (80, 1, 13, 90)
    assert interop.category_ids_of(classes[::-1]) == ids[::-1]
    assert interop.category_ids_of(["cat", "gizmo"]) == (1, 2)


def test_a_network_of_several_loops_gets_what_fits_and_lists_the_rest() -> None:
    config = configured("experiment=htc")
    network = network_shapes(config)
    found = interop.translate(their_network(91, 1e-5).state_dict(), network, list(config.data.classes), 1e-5)
    assert set(found.weights) | set(found.unfilled) == set(network)
    assert not set(found.weights) & set(found.unfilled)
    assert list(found.ignored) == [f"roi_heads.box_predictor.bbox_pred.{leaf}" for leaf in ("weight", "bias")]
    assert "one head" in found.unfilled["roi_heads.box_heads.2.fc1.weight"]
    assert "class" in found.unfilled["roi_heads.box_heads.0.deltas.weight"]


@pytest.mark.parametrize(
    ("experiment", "unused", "fresh"),
    [
        ("mask_rcnn", 0, ""),
        ("mask_rcnn_gcnet", 0, r"backbone\.layer[234]\.\d\.context\."),
        ("mask_rcnn_dcn", 0, r"backbone\.layer[234]\.\d\.conv2\.offset\."),
        ("r3cnn_advanced", 8, r"roi_heads\.(box_heads\.0\.|mask_branch\.(iou_head|heads\.0\.feedback)\.)"),
    ],
)
def test_of_every_kind_of_network_what_fits_is_filled_and_the_rest_explained(
    experiment: str, unused: int, fresh: str
) -> None:
    register_resolvers()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", [f"experiment={experiment}", "output_dir=somewhere"])
    with torch.device("meta"):
        state = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    network = network_shapes(config)
    found = interop.translate(state, network, list(config.data.classes), interop.NORM_EPS)
    assert (
        compare(
            shapes_of(found.weights), {name: network[name] for name in network if name not in found.unfilled}
        ).distance
        == 0
    )
    assert (len(found.ignored), list(found.unknown)) == (unused, [])
    assert set(found.sources.values()) | set(found.ignored) == set(state)
    assert any("soft-max" in note for note in found.notes) == ("roi_heads.box_heads.0.logits.weight" in found.weights)
    assert bool(found.unfilled) == bool(fresh)
    assert all(re.match(fresh, name) for name in found.unfilled)


def test_a_lost_layer_is_not_explained_away(config: DictConfig) -> None:
    state = their_network(91, 1e-5).state_dict()
    del state["roi_heads.box_head.fc7.weight"]
    found = interop.translate(state, network_shapes(config), list(config.data.classes), 1e-5)
    assert not found.unfilled
    assert compare(shapes_of(found.weights), network_shapes(config)).missing == ("roi_heads.box_heads.0.fc2.weight",)


def test_older_names_of_torchvision_are_known() -> None:
    assert interop.our_name("roi_heads.mask_head.mask_fcn2.bias") == interop.our_name("roi_heads.mask_head.1.0.bias")
    assert interop.our_name("rpn.head.conv.weight") == interop.our_name("rpn.head.conv.0.0.weight")
    assert interop.our_name("backbone.fpn.inner_blocks.3.bias") == interop.our_name(
        "backbone.fpn.inner_blocks.3.0.bias"
    )


def test_our_names_become_those_of_the_present_torchvision_and_back() -> None:
    with torch.device("meta"):
        state = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    assert {key: interop.their_name(str(interop.our_name(key))) for key in state} == {key: key for key in state}
    assert interop.their_name("roi_heads.box_heads.1.fc1.weight") is None


def test_the_second_version_is_refused_with_what_is_different() -> None:
    with torch.device("meta"):
        state = maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None).state_dict()
    with pytest.raises(ValueError, match=r"V2.*four convolutions with batch norm"):
        interop.translate(state, {}, [], 1e-5)


def test_weights_of_coco_v1_divide_by_the_bare_deviation() -> None:
    assert interop.norm_eps_of("MaskRCNN_ResNet50_FPN_Weights.COCO_V1") == 0
    assert interop.norm_eps_of("maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth") == 0
    assert interop.norm_eps_of("mine.pth") == interop.NORM_EPS == nn.BatchNorm2d(1).eps


def test_without_a_connection_the_error_says_which_file_to_bring(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*arguments: object, **options: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", offline)
    with pytest.raises(RuntimeError, match=r"maskrcnn_resnet50_fpn_coco-bf2d0c1e\.pth.*input=FILE"):
        interop.named_weights("MaskRCNN_ResNet50_FPN_Weights.COCO_V1")


@pytest.mark.parametrize("name", ["absent.pth", "NoSuch_Weights.COCO_V1", "MaskRCNN_ResNet50_FPN_Weights.COCO_V9"])
def test_a_name_that_is_neither_file_nor_weights_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="neither a file nor weights"):
        interop.named_weights(name)
