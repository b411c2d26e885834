"""``r3cnn analyze speed``: AP against time of a trained network under the optional modes of inference."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from r3cnn.batch import Batch
from r3cnn.benchmarks.harness import Turns, machine, quartiles, take_turns
from r3cnn.cli.configs import Config, path_of, plain
from r3cnn.cli.evaluate import data_for, on_this_machine
from r3cnn.cli.folder_lock import writing_below
from r3cnn.cli.parts import build_data, build_metric
from r3cnn.cli.terminal import left_out_on_error
from r3cnn.detector import RCNN
from r3cnn.evaluation.coco_ap import CocoAP
from r3cnn.inference_modes import InferenceModes, compile_network, device_of
from r3cnn.ops.images import normalize_images
from r3cnn.run_files import write_json
from r3cnn.schedule import LoopSchedule, eval_heads
from r3cnn.structures import Detections
from r3cnn.training.build import build, trusted_targets
from r3cnn.training.checkpoint import restore_model

FOLDER, PICTURE, REPORT = "outputs/speed", "speed.png", "speed.json"
KEYS = ("eval_loops", "early_exit", "precision", "compile")
PLAIN = "as trained"
MODES, EARLY_EXIT = "r3cnn.inference_modes.InferenceModes", "r3cnn.roi.early_exit.EarlyExit"
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
Detect = Callable[["Setting", Batch], list[Detections]]


@dataclass(frozen=True)
class Setting:
    """One way to run the network.

    Attributes:
        curve: Which curve it is a point of.
        label: What tells it from the other points of the curve.
        eval_heads: Head of each loop.
        modes: Early exit, precision, compilation.
    """

    curve: str
    label: str
    eval_heads: tuple[int, ...]
    modes: InferenceModes

    @property
    def name(self) -> str:
        """Curve and label."""
        return f"{self.curve}, {self.label}"


def analyze_speed(config: DictConfig) -> None:
    """Scores and times every setting, writes ``speed.json`` and a picture, prints a table.

    Raises:
        ValueError: Without a checkpoint, or for a setting that makes no sense.
    """
    from r3cnn.reporting.speed import draw_speed, print_speed

    if config.checkpoint is None:
        raise ValueError(
            "checkpoint is empty: name one of `r3cnn train`, such as checkpoint=outputs/demo/checkpoints/best.ckpt"
        )
    output_dir = Path(config.output_dir or FOLDER)
    with writing_below(output_dir):
        report = measured(config)
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
    detect = detector(model.to(device), settings, data.mean, data.std)
    metrics = [build_metric(plain(config.evaluation), data) for _ in settings]
    batches = (batch.to(device) for batch in data.val_dataloader())
    take = partial(
        take_turns,
        repetitions=config.repetitions,
        warmups=config.warmups,
        device=device,
        clock=CLOCKS[config.clock],
    )
    return {
        "checkpoint": str(config.checkpoint),
        "images": len(data.val_set),
        "repetitions": config.repetitions,
        "clock": config.clock,
        "machine": machine(device),
        "points": measure(detect, settings, batches, metrics, take),
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


def detector(model: RCNN, settings: Sequence[Setting], mean: Sequence[float], std: Sequence[float]) -> Detect:
    """Finds the objects in a batch that lies on the device, in a setting; compiles a copy if a setting needs one."""
    compiled = model
    if any(setting.modes.compile for setting in settings):
        shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        compiled = copy.deepcopy(model, shared)
        compile_network(compiled)

    def detect(setting: Setting, batch: Batch) -> list[Detections]:
        pixels = normalize_images(batch.images, batch.canvas, mean, std)
        network = compiled if setting.modes.compile else model
        network.set_eval_heads(setting.eval_heads)
        replace(setting.modes, compile=False).apply(network)  # compiled once is enough
        with torch.inference_mode():
            return network.detect(pixels, batch.sizes)

    return detect


def measure(
    detect: Detect,
    settings: Sequence[Setting],
    batches: Iterable[Batch],
    metrics: Sequence[CocoAP],
    take: Callable[[dict[str, Callable[[], float]]], Turns],
) -> list[Config]:
    """AP and time of every setting, as in ``speed.json``; all of them take turns at every batch.

    Each has ``seconds_per_image``, the ``ratio`` of its time to that of the first setting with the quartiles
    ``ratio_low`` and ``ratio_high``, and the figures of boxes and masks after the last loop.

    Args:
        detect: Runs the network.
        settings: The first one is what the others' times are compared with.
        batches: Images on the device.
        metrics: One for each setting.
        take: Times calls in turns.
    """
    for metric in metrics:
        metric.start()
    seconds: list[list[float]] = [[] for _ in settings]
    for batch in batches:
        found: dict[str, list[Detections]] = {}

        def run(setting: Setting, batch: Batch = batch, found: dict[str, list[Detections]] = found) -> float:
            found[setting.name] = detect(setting, batch)
            return float(sum(map(len, found[setting.name])))

        turns = take({setting.name: partial(run, setting) for setting in settings})
        for setting, own, metric in zip(settings, seconds, metrics, strict=True):
            own.append(turns.median(setting.name) / len(batch))
            metric.update(batch, [found[setting.name]])
    points = []
    for setting, own, metric in zip(settings, seconds, metrics, strict=True):
        result = metric.compute().metrics
        low, middle, high = quartiles([mine / first for mine, first in zip(own, seconds[0], strict=True)])
        times = {"seconds_per_image": statistics.median(own), "ratio": middle, "ratio_low": low, "ratio_high": high}
        aps = {"box": result["box"], "mask": result["mask"]}
        points.append({"curve": setting.curve, "label": setting.label, **times, **aps})
    return points
