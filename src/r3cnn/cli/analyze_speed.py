"""``r3cnn analyze speed``: AP against time of a trained network under the optional modes of inference."""

from __future__ import annotations

import copy
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from r3cnn.benchmarks.harness import machine
from r3cnn.benchmarks.mode_curves import Setting, Subject, Timing, measure
from r3cnn.cli.configs import Config, path_of, plain
from r3cnn.cli.evaluate import data_for, on_this_machine
from r3cnn.cli.folder_lock import writing_below
from r3cnn.cli.parts import build_data, build_metric
from r3cnn.cli.terminal import left_out_on_error
from r3cnn.data.datamodule import CocoDataModule
from r3cnn.detector import RCNN
from r3cnn.inference_modes import InferenceModes, compile_network, device_of
from r3cnn.run_files import write_json
from r3cnn.schedule import LoopSchedule, eval_heads
from r3cnn.training.build import build, trusted_targets
from r3cnn.training.checkpoint import restore_model

FOLDER, PICTURE, REPORT = "outputs/speed", "speed.png", "speed.json"
KEYS = ("eval_loops", "early_exit", "precision", "compile")
PLAIN = "as trained"
MODES, EARLY_EXIT = "r3cnn.inference_modes.InferenceModes", "r3cnn.roi.early_exit.EarlyExit"


def analyze_speed(config: DictConfig) -> None:
    """Scores and times every setting, writes ``speed.json`` and a picture, prints a table.

    Raises:
        ValueError: Without a checkpoint, or for a setting that makes no sense.
    """
    from r3cnn.reporting.speed_figures import draw_speed
    from r3cnn.reporting.speed_tables import print_speed

    if config.checkpoint is None:
        raise ValueError(
            "checkpoint is empty: name one of `r3cnn train`, such as checkpoint=outputs/demo/checkpoints/best.ckpt"
        )
    report = measured(config)
    output_dir = Path(config.output_dir or FOLDER)
    with writing_below(output_dir):
        write_json(report, output_dir / REPORT, indent=1)
        print_speed(output_dir / REPORT)
        with left_out_on_error(PICTURE):
            draw_speed(output_dir / REPORT, output_dir / PICTURE)
    print(f"written to {output_dir}")


def measured(config: DictConfig) -> Config:
    """Content of ``speed.json``."""
    model, info = restore_model(path_of(config, "checkpoint"), config.trusted_packages)
    settings = settings_of(config.curves, model.schedule)
    data_config = data_for(info, on_this_machine(info.data), config)
    if config.images is not None and data_config["val"] is not None:
        data_config["val"] = {**plain(data_config["val"]), "limit": config.images}
    data = build_data(data_config, trusted_targets(config.trusted_packages))
    device = device_of(config.device)
    subject = subject_of(model.to(device), settings, data)
    timing = Timing(config.repetitions, config.warmups, config.clock, device)
    metrics = [build_metric(plain(config.evaluation), data) for _ in settings]
    points = measure(subject, settings, data.val_dataloader(), metrics, timing)
    return {
        "checkpoint": str(config.checkpoint),
        "images": len(data.val_set),
        "repetitions": timing.repetitions,
        "clock": timing.clock,
        "machine": machine(device),
        "points": points,
    }


def settings_of(curves: DictConfig, schedule: LoopSchedule) -> list[Setting]:
    """The network as it was trained, which the others are compared with, and then every point of every curve.

    Raises:
        ValueError: For a curve that is no list of settings, or an unknown key or value in one of them.
    """
    found = [Setting(PLAIN, f"{len(schedule.eval_heads)} loops", tuple(schedule.eval_heads), InferenceModes())]
    for curve, points in ((str(curve), points) for curve, points in curves.items()):
        if not OmegaConf.is_list(points) or not all(OmegaConf.is_dict(point) for point in points):
            raise ValueError(f"curves.{curve} must be a list of settings, got {points!r}")
        found += [setting_of(curve, point, schedule) for point in points]
    names = [setting.name for setting in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"curves has two settings of one name: {twice[0]}")
    return found


def setting_of(curve: str, point: DictConfig, schedule: LoopSchedule) -> Setting:
    """One point of a curve.

    Raises:
        ValueError: If it makes no sense.
    """
    unknown = sorted(set(map(str, point)) - set(KEYS))
    if unknown:
        raise ValueError(f"curves.{curve} has {unknown[0]!r}: a setting may have {', '.join(KEYS)}")
    settings = plain(point)
    settings.pop("eval_loops", None)
    thresholds = plain(settings.pop("early_exit", None) or {})
    if thresholds:
        settings["early_exit"] = {"_target_": EARLY_EXIT, **thresholds}
    modes = build({"_target_": MODES, **settings}, InferenceModes, f"curves.{curve}")
    try:
        heads = eval_heads(point.get("eval_loops"), None, schedule)
    except ValueError as error:
        raise ValueError(f"curves.{curve}: {error}") from error
    label = "/".join(map(str, thresholds.values())) or f"{len(heads)} loops"
    return Setting(curve, label, tuple(heads), modes)


def subject_of(model: RCNN, settings: list[Setting], data: CocoDataModule) -> Subject:
    """The network, and a compiled copy with the same weights if a setting needs one."""
    compiled = model
    if any(setting.modes.compile for setting in settings):
        shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        compiled = copy.deepcopy(model, shared)
        compile_network(compiled)
    return Subject(model, compiled, tuple(data.mean), tuple(data.std))
