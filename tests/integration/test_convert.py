"""Foreign checkpoints become ours, are used, and go back; what does not fit is refused with the way out."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from foreign_files import (
    BGR,
    NETWORKS,
    SMALL_MASK_RCNN,
    recorded,
    small_checkpoint,
    small_network,
    small_state,
    write,
)
from hydra import initialize_config_dir
from omegaconf import OmegaConf
from tiny_runs import TINY_NETWORK, Cli
from torch import Tensor
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from r3cnn import Predictor
from r3cnn.cli import candidates
from r3cnn.cli.configs import config_folder, register_resolvers
from r3cnn.interop.mmdetection import translate
from r3cnn.interop.recursion import StatedLoops
from r3cnn.interop.translation import shapes_of
from r3cnn.training.checkpoint import load_checkpoint, restore_model

Convert = Callable[..., Path]
CONV1 = "backbone.conv1.weight"


@pytest.fixture
def convert(cli: Cli, tmp_path: Path) -> Convert:
    """Converts a file of mmdetection; gives the checkpoint written."""

    def run(path: Path, *overrides: str) -> Path:
        output = tmp_path / "ours.ckpt"
        cli("convert", "from=mmdet", f"input={path}", f"output={output}", *overrides)
        return output

    return run


@pytest.fixture(scope="module")
def networks() -> dict[str, candidates.Network]:
    """The network of every experiment for 80 classes."""
    register_resolvers()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return candidates.networks(80)


@pytest.fixture(autouse=True)
def _known_networks(networks: dict[str, candidates.Network], monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks the networks up instead of composing every experiment anew each time."""
    monkeypatch.setattr(candidates, "networks", lambda num_classes: networks)


def account_of(output: Path) -> dict[str, dict[str, str]]:
    return json.loads(Path(f"{output}.json").read_text())


@pytest.mark.parametrize("network", NETWORKS)
def test_each_network_of_the_paper_fits_its_own_experiment_and_those_with_the_same_network(
    network: str, networks: dict[str, candidates.Network]
) -> None:
    shapes = shapes_of(translate(recorded(network)).weights)
    exact = {name for name, known in networks.items() if known.fit(shapes).distance == 0}
    assert network in exact
    assert all(networks[name].shapes == networks[network].shapes for name in exact)
    assert exact & set(NETWORKS) == {network}


def test_recipes_are_no_candidates(networks: dict[str, candidates.Network]) -> None:
    assert not {"demo", "nuclei", "coco128_overfit"} & set(networks)
    assert set(NETWORKS) < set(networks)


@pytest.mark.parametrize("experiment", ["r3cnn_heads_001", "r3cnn_heads_011", "r3cnn_heads_012", "r3cnn_naive"])
def test_our_weights_go_there_and_come_back_whatever_head_owns_a_feedback(
    experiment: str, convert: Convert, cli: Cli, tmp_path: Path
) -> None:
    ours = small_checkpoint(tmp_path / "first.ckpt", experiment)
    cli("convert", "to=mmdet", f"input={ours}", f"output={tmp_path}/theirs.pth")
    back = convert(tmp_path / "theirs.pth", *SMALL_MASK_RCNN, f"experiment={experiment}")
    (_, before), (_, after) = load_checkpoint(ours), load_checkpoint(back)
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert account_of(back)["ignored"] == {}


@pytest.fixture
def small_experiments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes some experiments in small the only candidates."""
    names = ("htc", "r3cnn_heads_001", "r3cnn_heads_011", "r3cnn_heads_012")
    small = {name: small_network(name) for name in names}
    monkeypatch.setattr(candidates, "networks", lambda num_classes: small)


@pytest.mark.usefixtures("small_experiments")
def test_weights_that_fit_another_experiment_as_well_are_noted_with_the_difference(
    convert: Convert, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = write(tmp_path / "theirs.pth", small_state("experiment=htc", cascade=True))
    ours = convert(theirs, *SMALL_MASK_RCNN, "experiment=r3cnn_heads_012")
    expected = r"also fit experiment=htc \(differs in loss_weights, delta_stds\)"
    assert re.search(expected, str(account_of(ours)["notes"]))
    assert re.search(expected, " ".join(capsys.readouterr().out.split()))


@pytest.mark.usefixtures("small_experiments")
def test_an_experiment_that_leaves_feedback_out_is_noted_with_the_one_that_takes_it(
    convert: Convert, tmp_path: Path
) -> None:
    theirs = write(tmp_path / "theirs.pth", small_state("experiment=r3cnn_heads_001", cascade=True))
    account = account_of(convert(theirs, *SMALL_MASK_RCNN, "experiment=r3cnn_heads_011"))
    assert sorted(account["ignored"]) == [f"roi_head.mask_head.0.conv_res.conv.{leaf}" for leaf in ("bias", "weight")]
    assert "also fit experiment=r3cnn_heads_001" in str(account["notes"])


HTC_LOOPS = """model = dict(roi_head=dict(num_stages=3, stage_loss_weights=[1, 0.5, 0.25], bbox_head=[
    dict(bbox_coder=dict(target_stds=[0.1, 0.1, 0.2, 0.2])), dict(bbox_coder=dict(target_stds=[0.05, 0.05, 0.1, 0.1])),
    dict(bbox_coder=dict(target_stds=[0.033, 0.033, 0.067, 0.067]))]))
"""


@pytest.mark.usefixtures("small_experiments")
def test_what_the_file_says_about_its_loops_decides_between_equal_shapes(convert: Convert, tmp_path: Path) -> None:
    theirs = write(tmp_path / "theirs.pth", small_state("experiment=htc", cascade=True), config=HTC_LOOPS)
    with pytest.raises(
        ValueError, match=r"contradicts experiment=r3cnn_heads_012 in delta_stds, loss_weights"
    ) as caught:
        convert(theirs, *SMALL_MASK_RCNN, "experiment=r3cnn_heads_012")
    assert str(caught.value).endswith("these weights fit experiment=htc")
    assert "recursion.loss_weights=[1.0,0.5,0.25]" in str(caught.value)
    assert not (tmp_path / "ours.ckpt").exists()
    ours = convert(theirs, *SMALL_MASK_RCNN, "experiment=htc")
    assert account_of(ours)["notes"] == []


def test_numbers_of_loops_cannot_be_told_apart_by_shapes(networks: dict[str, candidates.Network]) -> None:
    naive = networks["r3cnn_naive"]
    note = candidates.alternatives(naive.shapes, 80, StatedLoops(), naive.model)
    assert note is not None
    assert "experiment=r3cnn_naive_decreasing (differs in iou_thresholds)" in note
    assert "experiment=r3cnn_naive_5_eval_loops (differs in eval_heads)" in note
    assert "r3cnn_naive (" not in note


@pytest.mark.parametrize("network", [pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS])
def test_a_round_trip_gives_every_tensor_back_bit_by_bit_and_in_its_order(
    network: str, convert: Convert, cli: Cli, tmp_path: Path
) -> None:
    state = recorded(network, full=True)
    theirs = write(tmp_path / "theirs.pth", state)
    ours = convert(theirs, f"experiment={network}")
    cli("convert", "to=mmdet", f"input={ours}", f"output={tmp_path}/back.pth")
    back = torch.load(tmp_path / "back.pth", weights_only=True)["state_dict"]
    for path in (theirs, ours, tmp_path / "back.pth"):
        path.unlink()  # else the temporary folder grows by gigabytes
    assert list(back) == list(state)
    assert all(back[key].dtype == state[key].dtype and torch.equal(back[key], state[key]) for key in state)


def test_a_converted_network_evaluates_predicts_and_trains_on(
    convert: Convert, cli: Cli, tmp_path: Path, data_root: Path
) -> None:
    state = small_state()
    data = ("data=coco128", f"data.root={data_root.resolve()}/coco128", "data.workers=0", "data.val.limit=2")
    theirs = write(tmp_path / "theirs.pth", {f"module.{key}": value for key, value in state.items()}, config=BGR)
    ours = convert(theirs, *SMALL_MASK_RCNN, "data.image_size=[64,96]")

    cli("evaluate", f"checkpoint={ours}", *data, f"output_dir={tmp_path}/evaluated", "pictures=0")
    metrics = json.loads((tmp_path / "evaluated/metrics.json").read_text())
    assert metrics["images"]["seen"] == 2

    photo = next((data_root / "coco128/val2017").iterdir())
    cli("predict", f"checkpoint={ours}", f"source={photo}", f"output_dir={tmp_path}/found", "device=cpu")
    assert (tmp_path / "found/detections.json").is_file()

    short = ("trainer.max_steps=2", "trainer.accelerator=cpu", "data.train.limit=4", "data.batch_size=2", "pictures=0")
    norm = ("data.mean=[123.7,116.3,103.5]", "data.std=[1.2,1.1,1.0]", "data.image_size=[64,96]")
    run = f"{tmp_path}/run"
    cli("train", *SMALL_MASK_RCNN, *data, *short, *norm, f"init={ours}", f"output_dir={run}", "optimizer.lr=1e-12")
    _, before = load_checkpoint(ours)
    _, after = load_checkpoint(Path(run) / "checkpoints/last.ckpt")
    assert all(torch.allclose(after[name], before[name], atol=1e-6) for name in before)
    cli("train", *SMALL_MASK_RCNN, *data, *short, *norm, "resume=last", f"output_dir={run}", "trainer.max_steps=3")


def test_a_bgr_network_becomes_the_rgb_network_that_does_the_same(convert: Convert, cli: Cli, tmp_path: Path) -> None:
    state = small_state()
    ours = convert(write(tmp_path / "theirs.pth", state, config=BGR), *SMALL_MASK_RCNN)
    info, weights = load_checkpoint(ours)
    assert info.preprocessing.mean == (123.7, 116.3, 103.5)
    assert info.preprocessing.std == (1.2, 1.1, 1.0)
    assert info.data["mean"] == [123.7, 116.3, 103.5]
    assert torch.equal(weights[CONV1], state[CONV1].flip(1))
    assert Predictor.from_checkpoint(ours, device="cpu").info.category_ids[-1] == 90
    cli("convert", "to=mmdet", f"input={ours}", f"output={tmp_path}/back.pth")
    again = convert(tmp_path / "back.pth", *SMALL_MASK_RCNN)
    assert load_checkpoint(again)[0].preprocessing == info.preprocessing
    assert torch.equal(load_checkpoint(again)[1][CONV1], weights[CONV1])


def test_half_precision_becomes_single(convert: Convert, tmp_path: Path) -> None:
    state = {key: value.half() if value.is_floating_point() else value for key, value in small_state().items()}
    _, weights = load_checkpoint(convert(write(tmp_path / "theirs.pth", state), *SMALL_MASK_RCNN))
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32, torch.int64}
    assert torch.equal(weights[CONV1], state[CONV1].float())


def test_options_win_over_what_the_file_states(convert: Convert, tmp_path: Path) -> None:
    theirs = write(tmp_path / "theirs.pth", small_state(), config=BGR)
    ours = convert(theirs, *SMALL_MASK_RCNN, "channel_order=rgb", "std=[4,5,6]", f"category_ids={[*range(7, 87)]}")
    info, _ = load_checkpoint(ours)
    assert info.preprocessing.mean == (123.7, 116.3, 103.5)
    assert info.preprocessing.std == (4, 5, 6)
    assert info.category_ids == tuple(range(7, 87))
    assert "std=, channel_order=" in str(account_of(ours)["preprocessing"]["found in"])


def test_every_key_and_every_tensor_is_accounted_for(convert: Convert, tmp_path: Path) -> None:
    state = {key: value for key, value in small_state().items() if not key.endswith("num_batches_tracked")}
    state["data_preprocessor.std"] = torch.ones(3, 1, 1)
    theirs = tmp_path / "theirs.pth"
    torch.save(
        {"state_dict": state, "meta": {"mmengine_version": "0.7"}, "optimizer": {}, "ema_state_dict": {}}, theirs
    )
    ours = convert(theirs, *SMALL_MASK_RCNN)
    account, (_, weights) = account_of(ours), load_checkpoint(ours)
    assert set(account["used"]) | set(account["ignored"]) == {*state, "optimizer", "ema_state_dict"}
    assert "before averaging" in account["ignored"]["ema_state_dict"]
    assert set(account["filled"]) | set(account["unfilled"]) == set(weights)
    assert set(account["used"].values()) == set(account["filled"])
    assert all(name.endswith("num_batches_tracked") for name in account["unfilled"])
    model, _ = restore_model(ours)
    assert int(model.backbone.bn1.num_batches_tracked) == 0


@pytest.mark.parametrize(
    "meta",
    [
        {"mmdet_version": "2.3.0", "CLASSES": ("cat", "dog", "fox")},
        {"mmengine_version": "0.7.0", "dataset_meta": {"CLASSES": ("cat", "dog", "fox"), "PALETTE": [(1, 2, 3)]}},
        {"mmengine_version": "0.9.0", "dataset_meta": {"classes": ["cat", "dog", "fox"]}},
    ],
)
def test_class_names_come_from_the_file_in_its_order(meta: dict[str, object], convert: Convert, tmp_path: Path) -> None:
    theirs = write(tmp_path / "theirs.pth", small_state("data.classes=[a,b,c]"), **meta)
    info, _ = load_checkpoint(convert(theirs, *SMALL_MASK_RCNN, "data.classes=[dog,fox,cat]"))
    assert info.classes == ("cat", "dog", "fox")
    assert info.data["classes"] == ["cat", "dog", "fox"]
    assert info.category_ids == (1, 2, 3)


def test_without_names_in_the_file_those_of_the_experiment_count(convert: Convert, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.pth"
    torch.save(small_state("data.classes=[a,b,c]"), theirs)
    assert load_checkpoint(convert(theirs, *SMALL_MASK_RCNN, "data.classes=[dog,fox,cat]"))[0].classes == (
        "dog",
        "fox",
        "cat",
    )


def test_names_that_cannot_be_those_of_the_weights_are_noted(convert: Convert, tmp_path: Path) -> None:
    theirs = write(tmp_path / "theirs.pth", small_state("data.classes=[a,b,c]"), CLASSES=("cat", "dog"))
    ours = convert(theirs, *SMALL_MASK_RCNN, "data.classes=[dog,fox,cat]")
    assert load_checkpoint(ours)[0].classes == ("dog", "fox", "cat")
    assert "names 2 classes and has weights for 3" in str(account_of(ours)["notes"])


@pytest.mark.parametrize(
    ("network", "experiment", "expected"),
    [
        (
            "htc",
            "r3cnn_naive",
            ["roi_head.bbox_head.1.fc_cls.weight", "fit experiment=htc or experiment=r3cnn_heads_012"],
        ),
        ("mask_rcnn", "htc", ["roi_heads.box_heads.1.fc1.weight", "fc_reg.weight [320, 1024] instead of [4, 1024]"]),
        ("r3cnn_naive", "mask_rcnn", ["conv_res.conv.weight", "experiment=r3cnn_naive or experiment=r3cnn_naive_"]),
        ("r3cnn_advanced_gcnet", "r3cnn_advanced", ["context_block", "fit experiment=r3cnn_advanced_gcnet"]),
    ],
)
def test_the_wrong_experiment_is_refused_and_the_right_one_named(
    network: str, experiment: str, expected: list[str], convert: Convert, tmp_path: Path
) -> None:
    theirs = write(tmp_path / "theirs.pth", recorded(network))
    with pytest.raises(ValueError, match=f"do not fit experiment={experiment}") as caught:
        convert(theirs, f"experiment={experiment}")
    assert all(part in str(caught.value) for part in expected), str(caught.value)
    assert not (tmp_path / "ours.ckpt").exists()


def broken(change: str) -> dict[str, Tensor]:
    state = recorded("mask_rcnn")
    if change == "missing":
        del state["roi_head.mask_head.upsample.bias"]
    elif change == "surplus":
        state["roi_head.extra_head.fc.weight"] = torch.zeros(3)
    else:
        state["neck.fpn_convs.2.conv.weight"] = torch.zeros(()).expand(128, 256, 3, 3)
    return state


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("missing", r"lack: roi_heads\.mask_branch\.heads\.0\.upsample\.bias\n"),
        ("surplus", r"no counterpart here: roi_head\.extra_head\.fc\.weight\n"),
        ("shape", r"neck\.fpn_convs\.2\.conv\.weight \[128, 256, 3, 3\] instead of \[256, 256, 3, 3\]"),
    ],
)
def test_missing_surplus_and_misshapen_keys_are_named(
    change: str, expected: str, convert: Convert, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=expected) as caught:
        convert(write(tmp_path / "theirs.pth", broken(change)), "experiment=mask_rcnn")
    assert "experiment=mask_rcnn" in str(caught.value).splitlines()[-1]


@pytest.mark.slow
def test_another_number_of_classes_is_refused_with_both_numbers_and_the_names(convert: Convert, tmp_path: Path) -> None:
    state = recorded("mask_rcnn")
    rows = {"fc_cls": 4, "fc_reg": 12, "conv_logits": 3}
    for key, value in state.items():
        layer = key.split(".")[-2]
        if layer in rows:
            state[key] = torch.zeros(()).expand(rows[layer], *value.shape[1:])
    theirs = write(tmp_path / "theirs.pth", state, CLASSES=("cat", "dog", "fox"))
    with pytest.raises(
        ValueError, match=r"for 3 classes, the network is for 80.*data\.classes=\[cat,dog,fox\]"
    ) as caught:
        convert(theirs, "experiment=mask_rcnn")
    assert "fit experiment=mask_rcnn" in str(caught.value)


def test_without_an_experiment_the_error_says_which_would_fit(convert: Convert, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"experiment=NAME is missing\n- these weights fit experiment=htc_dcn"):
        convert(write(tmp_path / "theirs.pth", recorded("htc_dcn")))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("backbone.body.layer1.{}.conv1.weight", "look like from=torchvision"),
        ("module{}.weight", "are of no code base"),
    ],
)
def test_keys_of_another_code_base_are_told_from_a_broken_network(
    name: str, hint: str, convert: Convert, tmp_path: Path
) -> None:
    theirs = write(tmp_path / "theirs.pth", {name.format(number): torch.zeros(1) for number in range(9)})
    with pytest.raises(ValueError, match=rf"^9 of 9 keys in \S+ have no counterpart here: .*\n- they {hint}") as caught:
        convert(theirs, "experiment=mask_rcnn")
    assert len(str(caught.value).splitlines()) == 2


def test_a_file_that_would_run_code_is_refused_and_nothing_is_written(convert: Convert, tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "trace"),)

    theirs = write(tmp_path / "theirs.pth", recorded("mask_rcnn"), config=Harmful())
    with pytest.raises(ValueError, match="could run code"):
        convert(theirs, "experiment=mask_rcnn")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["theirs.pth"]


def test_weights_with_nan_are_refused(convert: Convert, tmp_path: Path) -> None:
    state = small_state()
    state["rpn_head.rpn_cls.bias"] = torch.full((3,), torch.nan)
    with pytest.raises(ValueError, match=r"NaN or infinity: rpn\.head\.objectness\.bias"):
        convert(write(tmp_path / "theirs.pth", state), *SMALL_MASK_RCNN)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("from=mmdet", "to=mmdet"), "say either from="),
        ((), "say either from="),
        (("from=detectron2",), "from is 'detectron2': one of mmdet, torchvision or null"),
        (("to=torchvision",), "to is 'torchvision': one of mmdet or null"),
    ],
)
def test_directions_that_do_not_exist_are_refused(arguments: tuple[str, ...], message: str, cli: Cli) -> None:
    with pytest.raises(ValueError, match=message):
        cli("convert", *arguments, "input=a.pth", "output=b.ckpt")


def test_the_input_is_never_overwritten(cli: Cli, tmp_path: Path) -> None:
    theirs = write(tmp_path / "theirs.pth", {})
    with pytest.raises(ValueError, match="would be overwritten"):
        cli("convert", "from=mmdet", f"input={theirs}", f"output={theirs}")
    with pytest.raises(ValueError, match="output is None: the path of a file"):
        cli("convert", "from=mmdet", f"input={theirs}", "output=null")


@pytest.mark.parametrize("option", ["output", "report"])
def test_a_folder_is_no_file_to_write(option: str, cli: Cli, tmp_path: Path) -> None:
    files = {"output": tmp_path / "ours.ckpt", "report": tmp_path / "ours.json", option: tmp_path}
    with pytest.raises(ValueError, match=rf"{option}=\S+ is a folder: name a file"):
        cli("convert", "from=mmdet", "input=absent.pth", *(f"{name}={path}" for name, path in files.items()))


def test_torchvision_fills_what_fits_and_says_what_starts_anew(
    cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(1)
    net = MaskRCNN(resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=torch.nn.BatchNorm2d), 91)
    torch.save({"model": net.state_dict(), "epoch": 3}, tmp_path / "theirs.pth")
    output = tmp_path / "ours.ckpt"
    files = ("from=torchvision", f"input={tmp_path}/theirs.pth", f"output={output}")
    cli("convert", *files, "experiment=r3cnn_naive", "backbone=resnet18_gn", "backbone.norm=bn_eval")
    account, (model, info) = account_of(output), restore_model(output)
    assert set(account["unfilled"]) == {
        f"roi_heads.{part}.{leaf}"
        for part in ("box_heads.0.deltas", "mask_branch.heads.0.feedback")
        for leaf in ("weight", "bias")
    }
    assert set(account["ignored"]) == {"epoch", *(f"roi_heads.box_predictor.bbox_pred.{x}" for x in ("weight", "bias"))}
    assert "4 tensors keep their initial values" in capsys.readouterr().err
    assert info.category_ids[-1] == 90
    assert torch.equal(
        model.fpn.state_dict()["pyramid.layer_blocks.2.0.bias"], net.state_dict()["backbone.fpn.layer_blocks.2.0.bias"]
    )


def test_a_network_that_mmdetection_lacks_does_not_go_there(trained: Path, cli: Cli, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a backbone with batch norm"):
        cli("convert", "to=mmdet", f"input={trained}/checkpoints/last.ckpt", f"output={tmp_path}/theirs.pth")
    assert not (tmp_path / "theirs.pth").exists()


def test_a_run_starts_from_weights_for_other_classes_with_fresh_layers_for_them(
    trained: Path, cli: Cli, tmp_path: Path
) -> None:
    start = trained / "checkpoints/last.ckpt"
    data = OmegaConf.load(trained / "config.yaml").data
    annotations = json.loads((Path(data.root) / data.train.annotations).read_text())
    for number, category in enumerate(annotations["categories"]):
        category["name"] = f"thing{number}"
    (tmp_path / "things.json").write_text(json.dumps(annotations))
    files = [f"data.{split}.annotations={tmp_path}/things.json" for split in ("train", "val")]
    images = [f"data.{split}.images={data.root}/{data.train.images}" for split in ("train", "val")]
    run = (
        "train", *TINY_NETWORK, "data=custom", *files, *images, "data.image_size=[64,96]", "data.workers=0",
        "data.batch_size=2", "trainer.accelerator=cpu", "trainer.max_steps=1", "pictures=0", "optimizer.lr=1e-12",
        f"init={start}", f"output_dir={tmp_path}/run",
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"3 classes \(circle, square, triangle\).*3 \(thing0.*init_classes=fresh"):
        cli(*run)
    cli(*run, "init_classes=fresh")
    (_, before), (info, after) = load_checkpoint(start), load_checkpoint(tmp_path / "run/checkpoints/last.ckpt")
    fresh = {
        name for name in before if before[name].is_floating_point() and (before[name] - after[name]).abs().max() > 1e-4
    }
    assert info.classes == ("thing0", "thing1", "thing2")
    assert fresh == {"roi_heads.box_heads.0.logits.weight", "roi_heads.mask_branch.heads.0.logits.weight"} | {
        name for name in fresh if name.endswith("logits.bias")
    }


def test_what_a_run_cannot_start_from_is_refused_before_anything_is_removed(
    trained: Path, train_tiny: Callable[..., Path], tmp_path: Path
) -> None:
    start = f"init={trained}/checkpoints/last.ckpt"
    (tmp_path / "metrics.csv").write_text("step")
    (tmp_path / "config.yaml").write_text("resume: null\noverwrite: false\n")  # of a run without any checkpoint
    for overrides, message in (
        ((start, "data.classes=[triangle,square,circle]"), r"another order: data\.classes=\[circle,square,triangle\]"),
        ((start, "data.mean=[1,2,3]"), r"images of mean .* data\.mean="),
        ((start, "resume=last"), "give only one"),
        ((start, "init_classes=some"), "init_classes is 'some': one of same, fresh is needed"),
        ((start, "channels=24"), r"do not fit this network.*of another shape"),
        (("init=absent.ckpt",), "no checkpoint at absent"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=r"(?s)" + message):
            train_tiny(*overrides, folder=tmp_path)
        assert (tmp_path / "metrics.csv").read_text() == "step"


def test_a_foreign_checkpoint_is_not_evaluated_before_it_is_converted(cli: Cli, tmp_path: Path) -> None:
    for name, is_zip in (("new.pth", True), ("old.pth", False)):
        torch.save({"state_dict": small_state()}, tmp_path / name, _use_new_zipfile_serialization=is_zip)
        with pytest.raises(ValueError, match="go through `r3cnn convert` first"):
            cli("evaluate", f"checkpoint={tmp_path}/{name}", f"output_dir={tmp_path}/out")


def test_weights_alone_cannot_be_resumed_and_the_error_says_init(
    convert: Convert, train_tiny: Callable[..., Path], tmp_path: Path
) -> None:
    ours = convert(write(tmp_path / "theirs.pth", small_state()), *SMALL_MASK_RCNN)
    with pytest.raises(ValueError, match=rf"holds weights alone.*init={ours}"):
        train_tiny(f"resume={ours}", folder=tmp_path / "run")
