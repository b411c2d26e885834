from __future__ import annotations

import sys

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
        ({**LINEAR, "colour": 1}, "cannot build torch.nn.Linear.*colour"),
    ],
)
def test_what_cannot_be_built_is_named(config: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        instantiate(config)
