"""``r3cnn convert``: checkpoints of mmdetection and torchvision become ours, and ours those of mmdetection."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from omegaconf import DictConfig
from torch import Tensor

from r3cnn.cli.candidates import alternatives, chosen_experiment, network_shapes
from r3cnn.cli.configs import fill_classes, path_of, plain, settle_folders
from r3cnn.cli.fit_checks import ROWS, Source, check_fit, check_loops, num_classes_of
from r3cnn.cli.folder_lock import writing_file
from r3cnn.disk import whole_file
from r3cnn.interop import mmdetection, torchvision
from r3cnn.interop.foreign import read_foreign
from r3cnn.interop.image_norm import ImageNorm, to_rgb
from r3cnn.interop.mmdetection_meta import classes_in, exported, image_norm_of, layout_of, loops_of
from r3cnn.interop.report import Report
from r3cnn.interop.translation import Shape, check_finite, compare, shapes_of
from r3cnn.reporting.console import terminal
from r3cnn.run_files import write_json
from r3cnn.training.build import trusted_targets
from r3cnn.training.checkpoint import (
    CheckpointInfo,
    Preprocessing,
    build_model,
    build_shapes,
    load_checkpoint,
    save_weights,
)

log = logging.getLogger(__name__)
DIRECTIONS = ("from", "to")
COUNTER = ".num_batches_tracked"
STATE_OF_RUN = "no weights: state of the training run"
BESIDES = {"ema_state_dict": "the weights before averaging: state_dict holds the average, which mmdetection evaluates"}
FROM_DATA = "data.mean and data.std of the experiment"


def run(config: DictConfig) -> None:
    """Converts one checkpoint and accounts for every key."""
    given = {word: config[word] for word in DIRECTIONS if config[word] is not None}
    if len(given) != 1:
        raise ValueError(f"say either from=… or to=…, got from={config['from']} and to={config.to}")
    word, output, source = next(iter(given)), path_of(config, "output"), path_of(config, "input")
    if output.exists() and source.exists() and output.samefile(source):
        raise ValueError(f"output={output} is the input, which would be overwritten")
    path = Path(f"{output}.json") if config.report is None else path_of(config, "report")
    for option, file in (("output", output), ("report", path)):
        if file.is_dir():
            raise ValueError(f"{option}={file} is a folder: name a file, which may lie in it")
    output.parent.mkdir(parents=True, exist_ok=True)
    with writing_file(output):
        report = _import(config, output) if word == "from" else _export(config, output)
        write_json(report.to_dict(), path, indent=1)
    print_report(report)
    print(f"written to {output}, the account of every key to {path}")


def _import(config: DictConfig, output: Path) -> Report:
    settle_folders(config)
    fill_classes(config)
    network = network_shapes(config)
    source = _read_mmdet(config, network) if config["from"] == "mmdet" else _read_torchvision(config, network)
    model = plain(config.model)
    check_fit(source, network, str(config.input))
    check_loops(source, model, str(config.input))
    data = plain(config.data)
    classes = source.classes or tuple(map(str, cast(list[object], data["classes"])))
    norm, found_in = chosen_norm(config, source.norm)
    weights, norm = to_rgb(source.translation.weights, norm)
    check_finite(weights)
    ids = tuple(config.category_ids or torchvision.category_ids_of(classes))
    data = {**data, "classes": list(classes), "mean": list(norm.mean), "std": list(norm.std)}
    size = (int(config.data.image_size[0]), int(config.data.image_size[1]))
    info = CheckpointInfo(
        model, data, classes, ids, Preprocessing(norm.mean, norm.std, size, config.data.get("image_range"))
    )
    save_weights(output, info, completed(weights, config, network))
    translation = source.translation
    note = None if translation.unfilled else alternatives(source.shapes, network[ROWS][0] - 1, source.loops, model)
    counters = [name for name in network if name.endswith(COUNTER) and name not in weights]
    return Report(
        source=str(config.input),
        output=str(output),
        layout=source.layout,
        network=str(chosen_experiment()),
        used={key: name for name, key in translation.sources.items()},
        ignored={**translation.ignored, **{name: BESIDES.get(name, STATE_OF_RUN) for name in source.others}},
        unfilled={**translation.unfilled, **dict.fromkeys(counters, "counts updates, starts at 0")},
        classes=classes,
        category_ids=ids,
        preprocessing={"mean": norm.mean, "std": norm.std, "image_size": size, "found in": found_in},
        notes=(*translation.notes, *([note] if note else [])),
    )


def _read_mmdet(config: DictConfig, network: Mapping[str, Shape]) -> Source:
    checkpoint = read_foreign(Path(config.input))
    translation = mmdetection.translate(checkpoint.state, network)
    shapes = shapes_of(mmdetection.translate(checkpoint.state).weights)
    classes, num_classes = classes_in(checkpoint.meta), num_classes_of(shapes)
    if classes is not None and num_classes not in (None, len(classes)):
        note = f"the file names {len(classes)} classes and has weights for {num_classes}: data.classes counts"
        translation, classes = replace(translation, notes=(*translation.notes, note)), None
    layout, norm = layout_of(checkpoint.meta), image_norm_of(checkpoint)
    return Source(translation, layout, shapes, classes, norm, loops_of(checkpoint), checkpoint.others)


def _read_torchvision(config: DictConfig, network: Mapping[str, Shape]) -> Source:
    path, name = Path(config.input), str(config.input)
    others: tuple[str, ...] = ()
    if path.is_file():
        checkpoint = read_foreign(path)
        state, others = checkpoint.state, checkpoint.others
    else:
        state = torchvision.named_weights(name)
    eps = torchvision.norm_eps_of(path.name) if config.norm_eps is None else float(config.norm_eps)
    translation = torchvision.translate(state, network, cast(list[str], plain(config.data)["classes"]), eps)
    return Source(translation, "torchvision's Mask R-CNN", shapes_of(translation.weights), others=others)


def chosen_norm(config: DictConfig, stated: tuple[ImageNorm, str] | None) -> tuple[ImageNorm, str]:
    """The normalisation to convert with: options first, then what the file states, then the experiment's."""
    base, found_in = stated or (ImageNorm(tuple(config.data.mean), tuple(config.data.std), "rgb"), FROM_DATA)
    order = config.channel_order or base.order
    turned = -1 if order != base.order else 1
    norm = ImageNorm(tuple(config.mean or base.mean[::turned]), tuple(config.std or base.std[::turned]), order)
    options = [name for name in ("mean", "std", "channel_order") if config[name] is not None]
    return norm, ", ".join([*(f"{name}=" for name in options), found_in])


def completed(
    weights: Mapping[str, Tensor], config: DictConfig, network: Sequence[str] | Mapping[str, Shape]
) -> dict[str, Tensor]:
    """All tensors of the network in its order, in float32; what the source lacks starts as in a new run."""
    missing = [name for name in network if name not in weights]
    fresh: Mapping[str, Tensor] = {name: torch.zeros((), dtype=torch.int64) for name in missing}
    if any(not name.endswith(COUNTER) for name in missing):
        log.warning("%d tensors keep their initial values: train before you evaluate", len(missing))
        torch.manual_seed(config.seed)
        fresh = build_model(plain(config.model), trusted=None).state_dict()
    values = {name: weights.get(name, fresh.get(name, torch.empty(0))) for name in network}
    return {name: value.float().contiguous() if value.is_floating_point() else value for name, value in values.items()}


def _export(config: DictConfig, output: Path) -> Report:
    info, weights = load_checkpoint(Path(config.input))
    model = build_shapes(info.model, trusted_targets(config.trusted_packages))
    fit = compare(shapes_of(weights), shapes_of(model.state_dict()))
    if fit.distance:
        raise ValueError("\n- ".join([f"the weights in {config.input} do not fit their configuration:", *fit.lines()]))
    schedule = model.schedule
    cascade = schedule.interleaved or schedule.num_loops > 1 or schedule.num_heads > 1
    state = mmdetection.to_mmdetection(weights, cascade=cascade)
    preprocessing = info.preprocessing
    with whole_file(output) as draft:
        torch.save(exported(state, info.classes, preprocessing.mean, preprocessing.std), draft)
    names = {id(tensor): name for name, tensor in weights.items()}
    return Report(
        source=str(config.input),
        output=str(output),
        layout="mmdetection 2.x and 3.x",
        network="a cascade" if cascade else "a standard RoI head",
        used={names[id(tensor)]: key for key, tensor in state.items()},
        ignored={},
        unfilled={},
        classes=info.classes,
        category_ids=info.category_ids,
        preprocessing={"mean": preprocessing.mean, "std": preprocessing.std, "image_size": preprocessing.image_size},
    )


def print_report(report: Report) -> None:
    """Prints how many keys were used, and every reason for which one was not."""
    from rich.table import Table

    table = Table("keys", "number", "reason", "such as", title=f"{report.layout}: {report.network}")
    table.add_row("used", str(len(report.used)), "", next(iter(report.used), ""))
    for what, reason, count, example in report.reasons():
        table.add_row(what, str(count), reason, example)
    console = terminal()
    console.print(table)
    for note in report.notes:
        console.print(f"note: {note}")
    image = ", ".join(f"{name} {value}" for name, value in report.preprocessing.items())
    console.print(f"images: RGB, {image}\nclasses: {len(report.classes)}")
