"""What cannot work is refused before anything is launched or read, by key, value and what is expected."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from r3cnn.cli.configs import config_folder, register_resolvers
from r3cnn.cli.job_checks import _network, check_gpus, check_job, check_lengths
from r3cnn.roi.box_heads import BoxOutput


class ValuesHead(nn.Module):
    """A box head of a user's own that needs values to be built, and says something else than was asked for."""

    def __init__(self, in_channels: int, roi_size: int, num_classes: int, *, is_wrong: bool = False) -> None:
        super().__init__()
        self.rates = torch.linspace(0, 0.1, 2).tolist()
        self.logits = nn.Linear(in_channels * roi_size**2, num_classes + 1)
        self.deltas, self.is_wrong = nn.Linear(in_channels * roi_size**2, 4), is_wrong

    def forward(self, pooled: Tensor) -> BoxOutput:
        flat = pooled.flatten(1)
        return BoxOutput(None if self.is_wrong else self.logits(flat), self.deltas(flat))  # type: ignore[arg-type]


@pytest.fixture(scope="module", autouse=True)
def _hydra() -> Iterator[None]:
    register_resolvers()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        yield


def demo(*overrides: str) -> DictConfig:
    return compose("train", ["experiment=demo", "output_dir=somewhere", *overrides])


@pytest.fixture(scope="module")
def sound() -> DictConfig:
    """A configuration that passes, composed once."""
    return demo()


def test_a_run_that_can_work_passes_though_its_data_are_not_there_and_nothing_about_it_changes(tmp_path: Path) -> None:
    config = demo(f"data.root={tmp_path}/nowhere")
    before = str(config)
    check_job(config)
    assert str(config) == before
    assert list(tmp_path.iterdir()) == []


def test_a_head_of_the_users_own_that_needs_values_to_be_built_passes_and_one_that_fails_is_named() -> None:
    names = ("in_channels", "roi_size", "num_classes")
    config = demo()
    head = {"_target_": f"{__name__}.ValuesHead", "_partial_": True, **{key: config.box_head[key] for key in names}}
    OmegaConf.update(config, "model.roi_heads.box_head", head, merge=False)
    check_job(config)
    OmegaConf.update(config, "model.roi_heads.box_head.is_wrong", True, force_add=True)
    with pytest.raises(ValueError, match=r"^model\.roi_heads\.box_head: AttributeError: 'NoneType'"):
        check_job(config)


class OldSGD(torch.optim.SGD):
    """An optimizer that cannot take its first step."""

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        raise KeyError("momentum_buffer")


def test_an_optimizer_that_needs_the_loss_passes_and_one_that_fails_is_named() -> None:
    config = demo()
    config.optimizer.factory = {"_target_": "torch.optim.LBFGS", "_partial_": True}
    check_job(config)
    config.optimizer.factory = {"_target_": f"{__name__}.OldSGD", "_partial_": True}
    with pytest.raises(ValueError, match=r"^optimizer\.factory: KeyError: 'momentum_buffer'"):
        check_job(config)


def test_classes_that_the_annotations_name_are_not_asked_for() -> None:
    files = ("data.train.images=a", "data.train.annotations=a.json", "data.val.images=b", "data.val.annotations=b.json")
    check_job(demo("data=custom", *files))
    check_job(demo("data=custom", *files, "num_classes=3"))
    with pytest.raises(ValueError, match="num_classes is 0: a whole number >= 1"):
        check_job(demo("data=custom", *files, "num_classes=0"))
    with pytest.raises(ValueError, match=r"data\.val\.annotations"):
        check_job(demo("data=custom", *files[:3]))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("recursion.iou_thresholds=[0.5,0.6]", "iou_thresholds has 2 entries, heads has 3: one per loop"),
        ("recursion.loss_weights=[1]", "loss_weights has 1 entries, heads has 3: one per loop"),
        ("recursion.iou_thresholds=[0.5,0.6,1.5]", r"iou_thresholds must be in \(0, 1\], got 1.5"),
        ("recursion.iou_thresholds=[0,0.6,0.7]", r"iou_thresholds must be in \(0, 1\], got 0.0"),
        ("recursion.iou_thresholds=[.nan,0.6,0.7]", r"iou_thresholds\[0\] is NaN: a number is needed"),
        ("recursion.heads=[0,2,0]", r"heads is \[0, 2, 0\]: heads must be numbered 0, 1, … without a gap"),
        ("recursion.heads=0", r"recursion.heads is 0: Sequence\[int\] is needed"),
        ("recursion.heads=[a,b,c]", r"recursion.heads\[0\] is 'a': Sequence\[int\] is needed"),
        ("recursion.eval_heads=[0,1]", r"eval_heads names head 1, but only heads \[0\] have weights"),
        ("recursion.delta_stds=[[0.1,0.1,0.2]]", "delta_stds needs four positive numbers per head"),
        ("trainer.devices=0", "trainer.devices is 0: auto, a number of devices >= 1"),
        ("trainer.devices=-2", "trainer.devices is -2: auto, a number of devices >= 1"),
        ("trainer.devices=[]", r"trainer.devices is \[\]: .* a list of their indices"),
        ("trainer.devices=[1,1]", r"trainer.devices is \[1, 1\]: .* a list of their indices"),
        ("trainer.devices=some", "trainer.devices is 'some': auto"),
        (f"trainer.devices={10**12}", f"trainer.devices is {10**12}: auto, a number of devices >= 1"),
        ("trainer.num_nodes=0", r"trainer.num_nodes is 0: a whole number in \[1, "),
        ("data.train.image_ids=[]", "data.train.image_ids is empty"),
        ("seed=-1", r"seed is -1: a whole number in \[0, 4294967295\]"),
        ("seed=0.5", "seed is 0.5: a whole number in"),
        ("trainer.max_steps=0", "trainer.max_steps is 0: a whole number >= 1 is needed, or -1"),
        ("trainer.max_steps=-5", "trainer.max_steps is -5: a whole number >= -1"),
        ("trainer.max_epochs=1.5", "trainer.max_epochs is 1.5: a whole number >= -1"),
        ("trainer.max_steps=-1", "trainer.max_steps is -1 and trainer.max_epochs is -1: the run would never end"),
        ("training_length=0", "training_length is 0: a factor above 0"),
        ("trainer.limit_val_batches=1.5", "trainer.limit_val_batches is 1.5: a number of batches >= 1 or a share"),
        ("data.batch_size=0", r"data.batch_size is 0: a whole number in \[1, "),
        ("data.flip=2", r"data.flip must be in \[0, 1\], got 2"),
        ("evaluation.max_detections=0", r"evaluation.max_detections is 0: a whole number in \[1, "),
        ("evaluation.score_fusions=[best]", r"evaluation.score_fusions is \['best'\]: .* one of mean_logits, "),
        ("evaluation.tta.scales=[]", r"evaluation.tta.scales is \[\]: a list of at least 1 "),
        ("rois_per_image=-3", r"rois_per_image is -3: a whole number in \[1, "),
        ("num_classes=7", "num_classes is 7: data.classes has 3 names"),
        ("optimizer.lr=0", r"optimizer.lr must be in \(0, inf\), got 0"),
        ("lr_schedule.milestones=[0.9,0.1]", "lr_schedule.milestones must be ascending"),
        ("model.roi_heads.detection.nms_threshold=0", r"nms_threshold must be in \(0, 1\], got 0"),
        ("backbone.depth=42", "depth must be one of .*, got 42"),
        ("trainer.precision=fp16", "trainer.precision is 'fp16': .*bf16-mixed"),
        ("trainer.max_time=2592000", "trainer.max_time is 2592000: DD:HH:MM:SS in quotes .* '12:00:00:00'"),
        ("trainer.max_time=00:00:00:00", "trainer.max_time is '00:00:00:00': more than no time is needed"),
        ("optimizer.factory.weight_decay=.inf", "optimizer.factory: its first step makes weights that are not finite"),
        ("trainer.precision=64-true", "trainer.precision is '64-true': 32-true, bf16-mixed or 16-mixed"),
        ("rpn.anchors.scale=1e30", r"rpn.anchors.scale must be in \[0.0001, 10000\], got 1e"),
        ("lr_schedule.milestones=[0.5,0.5]", "lr_schedule.milestones must be ascending"),
        ("trainer.max_time='1:00'", "trainer.max_time is '1:00': .*DD:HH:MM:SS"),
        ("trainer.check_val_every_n_epoch=0", "trainer.check_val_every_n_epoch is 0: a whole number >= 1"),
        ("trainer.num_sanity_val_steps=many", "trainer.num_sanity_val_steps is 'many': a whole number >= -1"),
        ("trainer.gradient_clip_val=much", "trainer.gradient_clip_val is 'much': a number >= 0"),
        ("trainer.profiler=simpel", "trainer.profiler is 'simpel': .*simple"),
        ("trainer.strategy=dpp", "trainer.strategy is 'dpp': did you mean ddp"),
        ("trainer.accelerator=gpuu", "trainer.accelerator is 'gpuu': did you mean gpu"),
        ("backward=by_lop", "backward must be one of .*, got 'by_lop'"),
        ("optimizer.factory.weight_decay=-1", "optimizer.factory: Invalid weight_decay"),
        ("callbacks.last.filename=best", "callbacks.best and callbacks.last would both write .*/best.ckpt"),
        ("callbacks.last.filename=../../last", r"callbacks.last.filename is '\.\./\.\./last': a name without a folder"),
        ("callbacks.best.mode=best", "callbacks.best: .*min, max but got best"),
        ("callbacks.last.every_n_train_steps=-1", "callbacks.last: .*every_n_train_steps=-1"),
        ("logger.csv.flush_every=0", r"logger.csv.flush_every must be in \[1, inf\), got 0"),
        ("callbacks.best.monitor=mask_ap", "callbacks.best.monitor is 'mask_ap', which nothing logs: .*val/mask_ap"),
        ("callbacks.best.monitor=val_loss", "which nothing logs: one such as val/mask_ap"),
        ("callbacks.best.monitor=val/loop4/box_ap", "which nothing logs: did you mean val/loop"),
        ("callbacks.best.monitor=val/class/disc/box_ap", "which nothing logs"),
        ("callbacks.best.mode=min", "callbacks.best.mode is min: val/mask_ap is better the other way, max"),
        ("callbacks.best.monitor=train/loop2/box", "callbacks.best.mode is max: .* the other way, min is needed"),
    ],
)
def test_what_cannot_work_is_refused_by_name_value_and_what_is_expected(
    sound: DictConfig, override: str, expected: str
) -> None:
    config = OmegaConf.merge(sound, OmegaConf.from_dotlist([override]))
    assert isinstance(config, DictConfig)
    with pytest.raises(ValueError, match=expected):
        check_job(config)


@pytest.mark.parametrize(
    "monitor",
    ["val/box_ap50", "val/loop3/mask_ap", "val/class/circle/mask_ap", "train/loss", "train/loop1/roi_balance"],
)
def test_everything_that_a_run_logs_may_be_monitored(sound: DictConfig, monitor: str) -> None:
    mode = "min" if monitor == "train/loss" else "max"
    check_job(OmegaConf.merge(sound, {"callbacks": {"best": {"monitor": monitor, "mode": mode}}}))


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        ("+trainer.callbacks=abc", "trainer.callbacks is 'abc': callbacks.NAME and logger.NAME alone"),
        ("+trainer.plugins=[]", r"trainer.plugins is \[\]: "),
        ("+evaluation.tta.colour=red", "evaluation.tta.colour: views_of has no such argument; there are scales, flip"),
    ],
)
def test_what_is_added_where_nothing_reads_it_is_refused(added: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        check_job(demo(added))


def test_what_a_callback_of_the_users_own_may_log_is_not_refused() -> None:
    own = "+callbacks.own._target_=lightning.pytorch.callbacks.LearningRateMonitor"
    check_job(demo("callbacks.best.monitor=lr-AdamW", own))


@pytest.mark.parametrize(
    ("kind", "instead"),
    [
        ("BatchSizeFinder", "data.batch_size"),
        ("LearningRateFinder", "optimizer.lr"),
        ("GradientAccumulationScheduler", "trainer.accumulate_grad_batches"),
        ("StochasticWeightAveraging", "callbacks=ema"),
    ],
)
def test_callbacks_that_change_what_a_run_rests_on_are_refused_with_the_setting_to_use(kind: str, instead: str) -> None:
    needed = {"Gradient": ["+callbacks.own.scheduling={0:2}"], "Stochast": ["+callbacks.own.swa_lrs=0.01"]}
    own = [f"+callbacks.own._target_=lightning.pytorch.callbacks.{kind}", *needed.get(kind[:8], [])]
    with pytest.raises(ValueError, match=rf"callbacks\.own: a {kind} .*: use {instead}"):
        check_job(demo(*own))


def test_early_stopping_by_ap_needs_a_validation() -> None:
    with pytest.raises(ValueError, match=r"callbacks\.early_stopping\.monitor is 'val/mask_ap', but .* no validation"):
        check_job(demo("callbacks=early_stopping", "trainer.limit_val_batches=0"))


def test_an_interval_longer_than_an_epoch_is_refused_before_the_pictures_are_drawn(tmp_path: Path) -> None:
    per_epoch = ("trainer.check_val_every_n_epoch=1", f"data.root={tmp_path}/nowhere")  # 400 images, 4 per step
    check_lengths(demo(*per_epoch, "trainer.val_check_interval=100"))
    check_lengths(demo("trainer.check_val_every_n_epoch=null", "trainer.val_check_interval=500"))
    with pytest.raises(ValueError, match=r"trainer\.val_check_interval is 101, an epoch has 100 batches"):
        check_lengths(demo(*per_epoch, "trainer.val_check_interval=101"))
    with pytest.raises(
        ValueError, match=r"trainer\.limit_train_batches is 0.005 of 100 batches, which is none: .*=1 uses one"
    ):
        check_lengths(demo(*per_epoch, "trainer.val_check_interval=1.0", "trainer.limit_train_batches=0.005"))


def test_an_interval_is_compared_with_the_images_that_are_there(shapes_root: Path) -> None:
    there = (f"data.root={shapes_root}", "data.prepare.train=40", "data.prepare.val=20", "data.train.limit=12")
    with pytest.raises(ValueError, match=r"trainer\.val_check_interval is 9, an epoch has [3-5] batches"):
        check_lengths(demo(*there, "trainer.check_val_every_n_epoch=1", "trainer.val_check_interval=9"))


def test_a_share_of_the_validation_images_that_is_none_is_refused(shapes_root: Path) -> None:
    there = (f"data.root={shapes_root}", "data.prepare.train=40", "data.prepare.val=20", "data.val.limit=2")
    with pytest.raises(ValueError, match=r"trainer\.limit_val_batches is 0.1 of [12] batches, which is none"):
        check_lengths(demo(*there, "trainer.limit_val_batches=0.1"))
    check_lengths(demo(*there, "trainer.limit_val_batches=0"))


@pytest.mark.parametrize(("devices", "is_fine"), [("auto", True), ("2", True), ("[0,1]", True), ("3", False)])
def test_more_gpus_than_there_are_here_are_refused(
    monkeypatch: pytest.MonkeyPatch, sound: DictConfig, devices: str, is_fine: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    config = OmegaConf.merge(sound, OmegaConf.from_dotlist(["trainer.accelerator=gpu", f"trainer.devices={devices}"]))
    with nullcontext() if is_fine else pytest.raises(ValueError, match="devices is 3: 3 GPUs are needed, there are 2"):
        check_gpus(config)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match=r"trainer\.accelerator is gpu .* there are 0 here"):
        check_gpus(config)


def test_training_images_are_needed_and_validation_images_are_not() -> None:
    check_job(demo("data.val=null"))
    with pytest.raises(ValueError, match=r"data\.train is null: images to learn from are needed"):
        check_job(demo("data.train=null"))


def test_a_check_builds_a_network_once_for_all_jobs_that_share_it_and_says_and_writes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    folder = f"output_dir={tmp_path}/out"
    loggers = ("logger=csv_tensorboard", "trainer.precision=16-mixed", "trainer.profiler=pytorch")
    check_job(demo(folder, "seed=1", *loggers))
    before = _network.cache_info().misses
    check_job(demo(folder, "seed=2", *loggers))
    assert _network.cache_info().misses == before
    assert list(tmp_path.iterdir()) == []
    assert (caplog.records, list(recwarn)) == ([], [])


def test_a_plug_in_for_blocks_is_refused_where_the_backbone_has_none() -> None:
    with pytest.raises(ValueError, match=r"deform_block.*TimmBackbone: backbone_plugin=none"):
        check_job(demo("backbone=timm", "backbone.pretrained=false", "backbone_plugin=dcn"))


def train(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """`r3cnn train` in a process of its own, whose current folder is ``folder``."""
    command = [sys.executable, "-m", "r3cnn", "train", *overrides, f"data.root={folder}/data", "output_dir=out"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("experiment=r3cnn_naif",), "r3cnn_naif"),
        (("experiment=demo", "trainer.max_step=3"), "trainer has no key 'max_step'"),
        (("experiment=demo", "trainer.devices=0"), "trainer.devices is 0"),
        (("-m", "experiment=demo", "seed=0,-1"), "seed is -1"),
        (("-m", "experiment=demo,r3cnn_naif"), "r3cnn_naif"),
        (("sweep=table2", "scale=demo", "trainer.max_steps=0"), "trainer.max_steps is 0"),
    ],
)
def test_the_command_refuses_before_it_draws_reads_or_trains_anything(
    tmp_path: Path, overrides: tuple[str, ...], expected: str
) -> None:
    ended = train(tmp_path, *overrides)
    assert ended.returncode != 0
    assert expected in ended.stderr
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left <= {"config.yaml", "hydra.yaml", "overrides.yaml", "train.log", "multirun.yaml"}
    assert not list(tmp_path.rglob("*.ckpt"))
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
@pytest.mark.parametrize("full_error", ["0", "1"])
def test_an_unknown_key_is_explained_whether_or_not_hydra_shows_its_full_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_error: str
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", full_error)
    ended = train(tmp_path, "experiment=demo", "trainer.max_step=3")
    assert ended.returncode != 0
    assert "trainer has no key 'max_step'" in ended.stderr
    assert "Did you mean 'max_steps'?" in ended.stderr


@pytest.mark.slow
def test_seeds_multiply_the_rows_of_a_table_and_every_job_is_checked(tmp_path: Path) -> None:
    ended = train(tmp_path, "-m", "sweep=table2", "scale=demo", "seed=0,1,2", "trainer.max_steps=0")
    assert ended.returncode != 0
    refused = [line for line in ended.stderr.splitlines() if "trainer.max_steps is 0" in line]
    assert len(refused) == 2 * 3
    for row in ("mask_rcnn", "r3cnn_naive_5_eval_loops"):
        assert sum(f"experiment={row} " in line for line in refused) == 3


@pytest.mark.slow
def test_an_experiment_with_a_sweep_in_it_does_not_silently_run_one_job(tmp_path: Path) -> None:
    folder = tmp_path / "conf/experiment"
    folder.mkdir(parents=True)
    sweep = "hydra:\n  sweeper:\n    params:\n      seed: 0,1\n"
    (folder / "mine.yaml").write_text("# @package _global_\ndefaults:\n  - demo\n  - _self_\n" + sweep)
    mine = ("experiment=mine", "hydra.searchpath=[file://conf]", "trainer.max_steps=0")
    ended = train(tmp_path, *mine)
    assert "hydra.sweeper.params is {'seed': '0,1'}, but this is a single run" in ended.stderr
    assert train(tmp_path, "-m", *mine).stderr.count("trainer.max_steps is 0") == 2
