"""`r3cnn export`: what a file finds is what the network finds, in onnxruntime and in torch without this package."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest
import torch
from hydra import compose, initialize_config_dir
from tiny_runs import Cli
from torch import Tensor, nn
from torch.nn import functional as F

from r3cnn.cli.configs import config_folder, plain, register_resolvers
from r3cnn.cli.export import compare, example_images
from r3cnn.data.loading import ImageReader
from r3cnn.detector import RCNN
from r3cnn.interop.comparison import Differences
from r3cnn.interop.export import FORMATS, INPUTS, OUTPUTS, Description, Program, export
from r3cnn.interop.exported_detector import FixedSizes, with_sizes
from r3cnn.ops.images import normalize_images
from r3cnn.structures import Detections
from r3cnn.training.checkpoint import CheckpointInfo, Preprocessing, build_model, save_weights

SIZES = FixedSizes((90, 128), batch=2)  # 90 is no multiple of 32
IMAGE = Preprocessing((120.0, 115.0, 100.0), (58.0, 57.0, 56.0), (90, 128))
SMALL = (
    "scale=demo",
    "channels=16",
    "fc_channels=32",
    "num_mask_convs=1",
    "rpn.eval_proposals.per_level=40",
    "rpn.eval_proposals.per_image=40",
    "model.roi_heads.detection.max_detections=20",
)
NAIVE = ("experiment=r3cnn_naive",)
# Together they have every kind of head, extractor and plug-in, and boxes class by class.
ADVANCED = ("experiment=r3cnn_advanced_groie", "backbone_plugin=dcn")
HTC = ("experiment=htc_gcnet", "class_agnostic=false")
# Float32 sums in another order: some ten times what was measured for these networks.
FLOAT32 = Differences(boxes=5e-3, scores=2e-4, masks=2e-3, mask_scores=2e-4)


def network(*overrides: str) -> tuple[RCNN, dict[str, object]]:
    """A small network that finds different things in different images, as if it were trained; its configuration."""
    register_resolvers()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = plain(compose("train", [*overrides, *SMALL, "output_dir=somewhere"]).model)
    torch.manual_seed(0)
    model = build_model(config, trusted=None).eval()
    factors = {"rpn.head.deltas.weight": 10, "rpn.head.objectness.weight": 100, "mask_branch.heads.0.logits.weight": 5}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter *= next((factor for end, factor in factors.items() if name.endswith(end)), 1)
            if name.startswith("roi_heads.box_heads") and name.endswith(("logits.weight", "deltas.weight")):
                parameter *= 20 / parameter.shape[1] ** 0.5  # whatever the width of the layer before
            elif not parameter.any() and name.endswith("weight"):
                nn.init.normal_(parameter, std=0.02)  # a plug-in that is the identity at first
    return model, config


@pytest.fixture(scope="module")
def images(request: pytest.FixtureRequest) -> list[Tensor]:
    """Drawn pictures, and where there are real data, pictures of them."""
    found = list(example_images(None, SIZES.image, ImageReader()))
    if "R3CNN_DATA" in os.environ:
        root: Path = request.getfixturevalue("data_root")
        for folder in ("coco128/val2017", "nuclei/images"):
            paths = sorted(path for path in (root / folder).iterdir() if path.suffix == ".jpg")
            found += [image for path in paths[:2] for image in example_images(path, SIZES.image, ImageReader())]
    return found


def found_in(model: RCNN, images: list[Tensor]) -> list[Detections]:
    sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    return model.detect(normalize_images(images, SIZES.canvas, IMAGE.mean, IMAGE.std), sizes)


def find_nothing_in_one(model: RCNN, images: list[Tensor]) -> None:
    """Raises the score threshold until one of the images has no detection."""
    best = sorted(float(found.scores.max()) for found in found_in(model, images))
    threshold = 0.9 * best[0] + 0.1 * best[1]
    model.roi_heads.detection = replace(model.roi_heads.detection, score_threshold=threshold)
    assert sorted(len(found) > 0 for found in found_in(model, images)) == [False] + [True] * (len(images) - 1)


def written(model: RCNN, name: str, folder: Path) -> Path:
    path = folder / f"network{FORMATS[name].suffix}"
    export(model, SIZES, name, path, mean=IMAGE.mean, std=IMAGE.std, description={"classes": ["a", "b", "c"]})
    return path


def assert_same(program: Program, model: RCNN, images: list[Tensor]) -> None:
    expected = sum(len(found) for found in found_in(model, images))
    padded = images + images[: len(images) % SIZES.batch]
    result = compare(program, model, padded, SIZES, IMAGE)
    assert result.compared >= expected >= len(images)
    assert result.is_within(FLOAT32), str(result)


def checkpoint(model: RCNN, config: dict[str, object], folder: Path) -> Path:
    path = folder / "network.ckpt"
    config["roi_heads"]["detection"]["score_threshold"] = model.roi_heads.detection.score_threshold
    save_weights(path, CheckpointInfo(config, {}, ("a", "b", "c"), (1, 2, 3), IMAGE), model.state_dict())
    return path


def test_onnxruntime_finds_what_the_network_finds(images: list[Tensor], tmp_path: Path) -> None:
    model, _ = network(*ADVANCED)
    find_nothing_in_one(model, images)
    assert_same(FORMATS["onnx"].load(written(model, "onnx", tmp_path)), model, images)


def test_the_command_writes_a_file_for_onnxruntime_alone(
    images: list[Tensor], tmp_path: Path, cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    model, config = network(*HTC)
    find_nothing_in_one(model, images)
    path = tmp_path / "new" / "htc.onnx"
    settings = ("batch_size=2", "image_size=[90,128]", "detections=12", "proposals=30")
    cli("export", f"checkpoint={checkpoint(model, config, tmp_path)}", f"output={path}", *settings)
    assert "detections in 4 images: boxes" in capsys.readouterr().out
    assert [file.name for file in path.parent.iterdir()] == ["htc.onnx"]

    session = onnxruntime.InferenceSession(path)
    shapes = {value.name: value.shape for value in (*session.get_inputs(), *session.get_outputs())}
    assert tuple(shapes) == (*INPUTS, *OUTPUTS)
    assert (shapes["images"], shapes["boxes"], shapes["masks"]) == ([2, 3, 90, 128], [2, 12, 4], [2, 12, 28, 28])
    facts = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert (facts["classes"], facts["image_size"], facts["detections"]) == (["a", "b", "c"], [90, 128], 12)
    assert facts["score_threshold"] == model.roi_heads.detection.score_threshold
    assert facts["eval_heads"] == [0, 1, 2]

    model = with_sizes(model, FixedSizes((90, 128), 2, proposals=30, detections=12))
    assert_same(FORMATS["onnx"].load(path), model, images)


# What a user without this package does.
PLAIN_TORCH = """
import json, sys, torch, torchvision
facts = {"r3cnn.json": ""}
program = torch.export.load(sys.argv[1], extra_files=facts).module()
torch.save({**program(*torch.load(sys.argv[2])), "classes": json.loads(facts["r3cnn.json"])["classes"]}, sys.argv[3])
assert "r3cnn" not in sys.modules
"""


def test_a_torch_program_finds_what_the_network_finds_without_this_package(
    images: list[Tensor], tmp_path: Path
) -> None:
    model, _ = network(*HTC)
    find_nothing_in_one(model, images)
    path = written(model, "torch_export", tmp_path)
    program = FORMATS["torch_export"].load(path)
    assert_same(program, model, images)

    inputs = (torch.stack([torch.full((3, 90, 128), 60, dtype=torch.uint8)] * 2), torch.tensor([[90, 128], [64, 96]]))
    torch.save(inputs, tmp_path / "inputs")
    files = [str(tmp_path / name) for name in ("network.pt2", "inputs", "found")]
    subprocess.run([sys.executable, "-c", PLAIN_TORCH, *files], check=True, cwd=tmp_path)
    found = torch.load(tmp_path / "found")
    assert found.pop("classes") == ["a", "b", "c"]
    expected = program(*inputs)
    assert set(found) == set(OUTPUTS)
    assert all(torch.allclose(found[name], expected[name], atol=1e-5) for name in OUTPUTS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("format=tflite",), "format is 'tflite': one of onnx, torch_export is needed"),
        (("output=a.pt2",), "a.pt2 must end with .onnx for format=onnx"),
        (("batch_size=0",), "batch_size is 0: a whole number in"),
        (("batch_size=null",), "batch_size is None: a whole number in"),
        (("batch_size=many",), "batch_size is 'many': a whole number in"),
        (("proposals=0",), "proposals is 0: a whole number in \\[1, 100000\\] or null is needed"),
        (("output=null",), "output is None: the path of a file or folder is needed"),
        (("checkpoint=null",), "checkpoint is None: the path"),
        (("example=[a,b]",), r"example=.*\[a,b\]: no such image or folder"),
        (("eval_heads=first",), "eval_heads is 'first': a list of"),
        (("trusted_packages=5",), "trusted_packages is 5: a name or a list of names"),
        (("image_size=[96,-1]",), r"image_size is \[96, -1\]: a list of 2 "),
        (("image_size=[60000,60000]",), r"image_size is \[60000, 60000\]: at most 1073741824 pixels"),
        (("image_size=96",), "image_size is 96: a list of 2 "),
        (("proposals=2", "detections=7"), "detections=7 are more than 2 proposals times 3 classes"),
        (("eval_loops=0",), "eval_loops is 0: a whole number in"),
        (("example=absent.jpg",), "example=.*absent.jpg: no such image or folder"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(
    settings: tuple[str, ...], message: str, small: Path, tmp_path: Path, cli: Cli
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        cli("export", f"checkpoint={small}", f"output={tmp_path}/a.onnx", *settings)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(*network(*NAIVE), tmp_path_factory.mktemp("checkpoint"))


def test_a_missing_package_is_named(small: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    with pytest.raises(ImportError, match=r"format=onnx needs onnxscript: pip install 'r3cnn\[export\]'"):
        cli("export", f"checkpoint={small}", f"output={tmp_path}/a.onnx")


def test_a_file_that_finds_other_things_is_not_kept(
    small: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(detector: nn.Module, example: tuple[Tensor, Tensor], path: Path, description: Description) -> None:
        path.touch()

    def find_nothing(images: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        none = torch.zeros(len(images), 0)
        return {**dict.fromkeys(OUTPUTS, none), "valid": none.bool()}

    blind = replace(FORMATS["torch_export"], write=write, load=lambda path: find_nothing)
    monkeypatch.setitem(FORMATS, "torch_export", blind)
    with pytest.raises(
        ValueError, match=r"is not kept; largest differences in 4 images: .* [1-9]\d* detections of one"
    ):
        cli("export", f"checkpoint={small}", "format=torch_export", f"output={tmp_path}/a.pt2")
    assert list(tmp_path.iterdir()) == []


class Causal(nn.Module):
    """Something that ONNX has no operator for."""

    def forward(self, images: Tensor, sizes: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(images, images, images, is_causal=True)


class Looking(nn.Module):
    """Something that cannot be traced."""

    def forward(self, images: Tensor, sizes: Tensor) -> Tensor:
        return images if sizes.sum() > 3 else images * 2


@pytest.mark.parametrize(
    ("part", "message"),
    [(Causal(), "cannot become ONNX: attention that is causal"), (Looking(), "a part of it looks at values")],
)
def test_a_network_that_cannot_be_exported_is_refused(part: nn.Module, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        FORMATS["onnx"].write(part, (torch.rand(1, 2, 4, 4), torch.tensor([[1, 2]])), tmp_path / "a.onnx", {})
