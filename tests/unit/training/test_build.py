from __future__ import annotations

import json
import re
import subprocess
import sys
import typing
from enum import Enum
from numbers import Real
from pathlib import Path

import pytest
from torch import nn

from r3cnn.schedule import LoopSchedule
from r3cnn.training.build import TRUSTED_TARGETS, find_target, instantiate, trusted_targets

LINEAR = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3}


def test_nested_targets_lists_and_scalars_are_built_in_place() -> None:
    built = instantiate({"layers": [LINEAR, {"_target_": "torch.nn.ReLU"}], "depth": 2, "name": None})
    assert isinstance(built, dict)
    assert [type(layer) for layer in built["layers"]] == [nn.Linear, nn.ReLU]
    assert (built["depth"], built["name"]) == (2, None)


def test_a_partial_node_builds_its_nested_nodes_anew_at_every_call() -> None:
    factory = instantiate({"_target_": "builtins.dict", "_partial_": True, "layer": LINEAR, "deep": {"layer": LINEAR}})
    first, second = factory(size=1), factory(size=2)
    assert (first["size"], second["size"]) == (1, 2)
    assert first["layer"] is not second["layer"]
    assert first["deep"]["layer"].weight is not second["deep"]["layer"].weight


def test_arguments_of_the_call_win_over_those_of_the_configuration() -> None:
    factory = instantiate({**LINEAR, "_partial_": True})
    assert factory(out_features=5).weight.shape == (5, 2)


def test_trusted_targets_are_found_and_a_named_package_is_trusted_as_a_whole() -> None:
    assert find_target("r3cnn.schedule.LoopSchedule", TRUSTED_TARGETS) is LoopSchedule
    assert find_target("torch.nn.modules.linear.Linear", trusted_targets(["torch.nn"])) is nn.Linear
    assert find_target("torch.nn.Linear", trusted_targets("torch.nn")) is nn.Linear


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "torch.load",
        "torch.nnx.Linear",
        "r3cnn.cli.main.main",
        "r3cnn.schedule.math.floor",
        "r3cnn.data.loading.np.load",
        "r3cnn.training.wandb_run.WandbRun",
        "eval",
        "torch.nn.Linear",
        "r3cnn.data.shapes._publish",
        "r3cnn.data.shapes.shutil.rmtree",
        "r3cnn.data.nuclei.convert_nuclei",
        "r3cnn.schedule.LoopSchedule.field_values",
    ],
)
def test_targets_that_no_configuration_of_ours_names_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="not trusted"):
        find_target(path, TRUSTED_TARGETS)


@pytest.mark.parametrize("path", ["r3cnn.schedule.dataclass", "r3cnn.data.shapes._publish", "r3cnnx.heads.Head"])
def test_imported_private_and_foreign_names_of_a_trusted_package_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="not trusted"):
        find_target(path, trusted_targets(["r3cnn"]))


def test_what_a_checkpoint_may_build_writes_fetches_and_starts_nothing_and_costs_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty, files, cache = tmp_path / "empty", tmp_path / "files", tmp_path / "cache"
    for folder in (empty, files):
        folder.mkdir()
    monkeypatch.setenv("R3CNN_CACHE", str(cache))
    program = [sys.executable, str(Path(__file__).with_name("hostile_builds.py")), str(files), "150"]
    done = subprocess.run(program, cwd=empty, capture_output=True, text=True, timeout=600, check=False)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert len(found) > 2000
    foreign = [(name, trace) for name, *_, traces in found for trace in traces if str(cache) not in trace]
    assert foreign == []
    assert [row for row in found if row[1] not in ("built", "refused") or row[2] > 10 or row[3] > 10**9] == []
    assert [*empty.iterdir()] == []
    assert [path.name for path in files.iterdir()] == ["hostile.ckpt"]


def test_a_distrusted_module_is_not_even_imported() -> None:
    sys.modules.pop("this", None)
    with pytest.raises(ValueError, match="trusted_packages="):
        instantiate({"_target_": "this.c"}, TRUSTED_TARGETS)
    assert "this" not in sys.modules


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_target_": "torch.nn.Linaer"}, "has no 'Linaer'"),
        ({"_target_": "no_such_package.Thing"}, "No module named"),
        ({"_target_": "math.pi"}, "is a float"),
        ({**LINEAR, "_recursive_": False}, "_recursive_"),
        ({**LINEAR, "colour": 1}, "colour: Linear has no such argument"),
    ],
)
def test_what_cannot_be_built_is_named(config: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        instantiate(config)


RESNET = {
    "_target_": "r3cnn.backbones.ResNet",
    "depth": 10,
    "norm": "group_norm",
    "frozen_stages": -1,
    "weights": None,
}
EXTRACTOR = {"_target_": "r3cnn.roi.extractors.SingleLevelRoIExtractor", "output_size": 7, "finest_scale": 56}
DETECTOR = {"_target_": "r3cnn.detector.RCNN", "backbone": RESNET, "fpn": LINEAR, "rpn": None, "roi_heads": None}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**RESNET, "depth": "10"}, "model.x.depth is '10': int is needed"),
        ({**RESNET, "depth": True}, "model.x.depth is True: int is needed"),
        ({**RESNET, "depth": 10.0}, "model.x.depth is 10.0: int is needed"),
        ({**RESNET, "depth": None}, "model.x.depth is None: int is needed"),
        ({**RESNET, "norm": "batch"}, "model.x.norm is 'batch': one of ('bn_eval', "),
        ({**RESNET, "weights": 5}, "model.x.weights is 5: str | None is needed"),
        ({**RESNET, "changed_layers": [2, "3"]}, "model.x.changed_layers[1] is '3': Sequence[int] is needed"),
        ({**RESNET, "changed_layers": "234"}, "model.x.changed_layers is '234': Sequence[int] is needed"),
        ({**RESNET, "changed_layers": [0]}, "model.x.changed_layers must be in [1, 4], got 0"),
        ({**RESNET, "block_changes": [3]}, "model.x.block_changes[0] is 3: "),
        ({**RESNET, "dept": 10}, "model.x.dept: ResNet has no such argument; did you mean depth?"),
        ({"_target_": "r3cnn.backbones.ResNet", "depth": 10}, "model.x.norm is missing: ResNet needs it"),
        ({**EXTRACTOR, "strides": [-1]}, "model.x.strides must be in [1, inf), got -1"),
        ({**EXTRACTOR, "strides": [4], "output_size": 10**6}, "model.x.output_size must be in [1, 64], got 1000000"),
        (
            {**EXTRACTOR, "strides": [4], "finest_scale": 10**30},
            f"model.x.finest_scale is {10**30}: a number of at most 64",
        ),
        ({**EXTRACTOR, "strides": [4, 10**30]}, f"model.x.strides[1] is {10**30}: a number of at most 64 bits"),
        ({**EXTRACTOR, "strides": []}, "model.x.strides is empty: "),
        ({**EXTRACTOR, "strides": {"a": 4}}, "model.x.strides is {'a': 4}: Sequence[int] is needed"),
        ({**DETECTOR, "fpn": None}, "model.x.fpn is None: Callable["),
        ({**DETECTOR, "rpn": {**LINEAR, "_partial_": True}}, "model.x.roi_heads is None: RoIHeads is needed"),
        ({"_target_": "torch.nn.Linear", "in_features": 2**40, "out_features": 2**40}, "model.x"),
        (
            {"_target_": "torch.nn.Dropout", "p": 2},
            "model.x: dropout probability has to be between 0 and 1, but got 2 (given p=2)",
        ),
        ({"_target_": "fractions.Fraction", "numerator": 1, "denominator": 0}, "model.x: ZeroDivisionError: "),
        ({"_target_": "r3cnn.data.augmentation.Augmentation", "scaling": RESNET}, "model.x.scaling builds a ResNet: "),
        ({"_target_": "r3cnn.ops.matching.Matcher", "foreground": float("nan")}, "model.x.background is missing"),
    ],
)
def test_arguments_are_held_against_the_constructors_annotations_and_named_by_their_keys(
    config: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        instantiate(config, key="model.x")
    assert str(caught.value).startswith("model.x")


class Color(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("hint", "taken", "refused"),
    [
        (typing.List, [1, "a"], 1),  # noqa: UP006
        (typing.Tuple, [1, 2], "12"),  # noqa: UP006
        (typing.Sequence, [1, 2], {"a": 1}),
        (typing.Optional[typing.Dict], {"a": 1}, [1]),  # noqa: UP006, UP045
        (Path, "weights/head.pt", 3),
        (Color, "red", "blue"),
        (list[Color], ["red"], ["red", 1]),
    ],
)
def test_parts_of_the_users_own_take_what_their_annotations_commonly_stand_for(
    hint: object, taken: object, refused: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def part(value: object) -> object:
        return value

    part.__annotations__["value"] = hint
    monkeypatch.setattr(sys.modules[__name__], "part", part, raising=False)
    assert instantiate({"_target_": f"{__name__}.part", "value": taken}) == taken
    with pytest.raises(ValueError, match=r"^head\.value"):
        instantiate({"_target_": f"{__name__}.part", "value": refused}, key="head")


@pytest.mark.parametrize("hint", [Real, typing.SupportsFloat])
def test_a_number_is_taken_where_any_kind_of_number_is_declared(hint: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def part(value: object) -> object:
        return value

    part.__annotations__["value"] = hint
    monkeypatch.setattr(sys.modules[__name__], "part", part, raising=False)
    assert instantiate({"_target_": f"{__name__}.part", "value": 0.5}) == 0.5


def test_what_the_annotations_allow_is_taken_as_it_is() -> None:
    assert instantiate({**EXTRACTOR, "strides": [4, 8]}).strides == (4, 8)
    matcher = instantiate(
        {"_target_": "r3cnn.ops.matching.Matcher", "foreground": 1, "background": 0, "low_quality": 2}
    )
    assert (matcher.foreground, matcher.low_quality) == (1, 2)


def test_a_factory_names_its_key_when_it_is_called() -> None:
    head = {"_target_": "r3cnn.roi.mask_heads.FCNMaskHead", "_partial_": True, "in_channels": 8, "num_convs": -1}
    factory = instantiate({**head, "num_classes": 3}, key="mask_head")
    with pytest.raises(ValueError, match=r"^mask_head\.num_convs must be in \[0, inf\), got -1"):
        factory(feedback=False)
    with pytest.raises(ValueError, match=r"^mask_head: .*feedback"):
        factory()
    with pytest.raises(ValueError, match=r"^mask_head\.num_convs is 'two': int is needed"):
        instantiate({**head, "num_convs": "two"}, key="mask_head")
