from __future__ import annotations

import sys

import pytest
from torch import nn

from r3cnn.schedule import LoopSchedule
from r3cnn.training.build import TRUSTED_PACKAGES, find_target, instantiate

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


def test_trusted_packages_allow_the_network_and_torchs_layers() -> None:
    assert find_target("torch.nn.Linear", TRUSTED_PACKAGES) is nn.Linear
    assert find_target("r3cnn.schedule.LoopSchedule", TRUSTED_PACKAGES) is LoopSchedule


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
        "r3cnn.training.loggers.wandb_logger",
        "eval",
    ],
)
def test_targets_outside_the_trusted_packages_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"not trusted|No module named"):
        find_target(path, TRUSTED_PACKAGES)


def test_what_a_trusted_module_only_imported_is_refused() -> None:
    with pytest.raises(ValueError, match="not trusted"):
        find_target("r3cnn.schedule.dataclass", TRUSTED_PACKAGES)


def test_a_distrusted_module_is_not_even_imported() -> None:
    sys.modules.pop("this", None)
    with pytest.raises(ValueError, match="trusted_packages="):
        instantiate({"_target_": "this.c"}, TRUSTED_PACKAGES)
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
