"""What the settings of all commands may hold that no constructor checks, or only once other work is done."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, cast

import msgspec
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from msgspec import Meta
from omegaconf import DictConfig, OmegaConf

from r3cnn.schedule import ScoreFusion

LARGEST_SEED = 2**32 - 1  # that numpy takes
LARGEST_COUNT = 10**6  # of what is done or allocated so many times
LARGEST_SIZE = 2**16  # of channels and grids; far above any network
MOST_RANKS = 2**14  # nodes, and devices of each
ABSENT = object()


class Kind(NamedTuple):
    """What a setting may hold.

    Attributes:
        hint: Its type for msgspec, with bounds.
        words: The same for a message.
    """

    hint: Any
    words: str


def whole(least: int, most: int | None = None) -> Kind:
    """A whole number."""
    bounds = f">= {least}" if most is None else f"in [{least}, {most}]"
    return Kind(Annotated[int, Meta(ge=least, le=most or sys.maxsize)], f"a whole number {bounds}")


def one_of(literal: Any) -> Kind:
    """One of the words of a ``Literal``."""
    return Kind(literal, f"one of {', '.join(literal.__args__)}")


def listed(kind: Kind, least: int = 0, most: int | None = None) -> Kind:
    """A list of so many of a kind."""
    count = "" if (least, most) == (0, None) else f"{least} " if least == most else f"at least {least} "
    return Kind(
        Annotated[list[kind.hint], Meta(min_length=least, max_length=most)],  # type: ignore[name-defined]
        f"a list of {count}entries, each {kind.words},",
    )


def optional(kind: Kind) -> Kind:
    """A kind, or null."""
    return Kind(kind.hint | None, f"{kind.words} or null")


COUNT, WHOLE, SIZE = whole(1), whole(0), whole(1, LARGEST_SIZE)
WORKERS = whole(0, 1024)
MODEST, MODEST_OR_NONE = whole(1, LARGEST_COUNT), whole(0, LARGEST_COUNT)
SWITCH = Kind(bool, "true or false")
TEXT = Kind(str, "a text")
TEXTS = Kind(str | list[str], "a name or a list of names")
GROUP = Kind(dict, "a group of settings")
FOLDER = Kind(str | int | float, "the path of a folder")
PLACES = Kind(str | list[str | int | float] | int | float, "a path or a list of paths")
SHARE = Kind(Annotated[float, Meta(ge=0, le=1)], "a number in [0, 1]")
POSITIVE_SHARE = Kind(Annotated[float, Meta(gt=0, le=1)], "a number in (0, 1]")
SECONDS = Kind(Annotated[float, Meta(ge=0, le=10**7)], "a number of seconds in [0, 10000000]")
BATCHES = Kind(
    Annotated[int, Meta(ge=1)] | Annotated[float, Meta(gt=0, le=1)],
    "a number of batches >= 1 or a share in (0, 1]",
)
BATCHES_OR_NONE = Kind(
    Annotated[int, Meta(ge=0)] | Annotated[float, Meta(ge=0, le=1)],
    "a number of batches >= 1 or a share in (0, 1], or 0 for none,",
)
PRECISION = Kind(  # those that convert the batch itself know nothing of ours
    Literal["32-true", "32", 32, "16-mixed", "16", 16, "bf16-mixed", "bf16"], "32-true, bf16-mixed or 16-mixed"
)
LIMIT = optional(whole(-1))  # -1 or null: none
IMAGE_SIZE = listed(SIZE, 2, 2)

EVERYWHERE = {
    "seed": whole(0, LARGEST_SEED),
    "trusted_packages": optional(TEXTS),
    "eval_loops": optional(whole(1, 1000)),
    "eval_heads": optional(listed(WHOLE, 1)),
    "compile": SWITCH,
    "device": Kind(str | int, "auto or a device, such as cuda:1,"),
    "overwrite": SWITCH,
    "recursive": SWITCH,
    "resume": optional(TEXT),
    "init": optional(TEXT),
    "init_classes": one_of(Literal["same", "fresh"]),
    "training_length": Kind(Annotated[float, Meta(gt=0, le=10**6)], "a factor above 0, such as 3,"),
    "eval_batch_size": optional(COUNT),
    "workers": optional(WORKERS),
    "num_classes": whole(0, LARGEST_SIZE),
    "class_agnostic": SWITCH,
    "channels": SIZE,
    "fc_channels": SIZE,
    "conv_widths": listed(SIZE, 2, 2),
    "num_mask_convs": whole(0, 100),
    "roi_size": whole(1, 1024),
    "mask_roi_size": whole(1, 1024),
    "mask_size": whole(1, 2048),
    "rois_per_image": SIZE,
    "roi_positive_fraction": POSITIVE_SHARE,
    "crowd_iof": POSITIVE_SHARE,
    "static_shapes": optional(SWITCH),
    "checkpointing": SWITCH,
    "data.batch_size": SIZE,
    "data.eval_batch_size": SIZE,
    "data.workers": WORKERS,
    "data.prepare.train": COUNT,
    "data.prepare.val": COUNT,
    "data.prepare.seed": WHOLE,
    "evaluation.backend": one_of(Literal["faster_coco_eval", "pycocotools"]),
    "evaluation.verify_backend": SWITCH,
    "evaluation.area_from": one_of(Literal["mask", "box"]),
    "evaluation.max_detections": MODEST,
    "evaluation.score_fusions": listed(one_of(ScoreFusion)),
    "evaluation.recall_at": listed(COUNT),
    "evaluation.save_loops": SWITCH,
    "evaluation.timeout_minutes": Kind(Annotated[float, Meta(ge=0.001, le=525600)], "a number in [0.001, 525600]"),
    "evaluation.tta": GROUP,
    "evaluation.tta.flip": SWITCH,
    "evaluation.tta.scales": listed(Kind(Annotated[float, Meta(gt=0, le=100)], "a number in (0, 100]"), 1),
    "trainer.enable_checkpointing": SWITCH,
    "trainer.enable_progress_bar": SWITCH,
    "trainer.precision": optional(PRECISION),
    "trainer.num_nodes": whole(1, MOST_RANKS),
    "trainer.accumulate_grad_batches": COUNT,
    "trainer.log_every_n_steps": COUNT,
    "trainer.num_sanity_val_steps": whole(-1),
    "trainer.check_val_every_n_epoch": optional(COUNT),
    "trainer.max_steps": LIMIT,
    "trainer.max_epochs": LIMIT,
    "trainer.min_steps": optional(WHOLE),
    "trainer.min_epochs": optional(WHOLE),
    "trainer.gradient_clip_val": optional(Kind(Annotated[float, Meta(ge=0)], "a number >= 0")),
    "trainer.limit_train_batches": BATCHES,
    "trainer.val_check_interval": BATCHES,
    "trainer.limit_val_batches": BATCHES_OR_NONE,
    "trainer.overfit_batches": BATCHES_OR_NONE,
    "launcher.parallel": COUNT,
    "launcher.ranks": optional(whole(1, MOST_RANKS)),
    "launcher.threads": optional(COUNT),
    "launcher.shown_lines": WHOLE,
    "launcher.grace_seconds": SECONDS,
    "launcher.poll_seconds": SECONDS,
    "launcher.result_seconds": SECONDS,
    "launcher.nodes": whole(1, MOST_RANKS),
    "launcher.tasks_per_node": whole(1, MOST_RANKS),
    "launcher.timeout_min": COUNT,
    "launcher.array_parallelism": COUNT,
    "launcher.signal_delay_s": WHOLE,
}
AXES_OF_BENCH = ("batch_size", "rois", "loops", "classes", "objects")
COUNTS_OF_BENCH = {
    **dict.fromkeys(("repetitions", "objects", "candidates", "masks", "classes"), MODEST),
    **dict.fromkeys(("detections", "limit", "batch_size", "epochs"), MODEST),
    **{"warmups": MODEST_OR_NONE, "workers": WORKERS, "seed": WHOLE},
}
CLOSED_GROUPS = ("", "launcher", "significance", "html", "html.pictures")
GROUPS_OF_BENCH = "sizes sizes.* sizes.*.memory sizes.*.scale sizes.*.scale.sweeps parts parts.* loops step_parts scale"
OF_COMMANDS: dict[str, dict[str, Kind]] = {
    "train": {"pictures": WHOLE},
    "evaluate": {"image_size": optional(IMAGE_SIZE), "pictures": WHOLE},
    "predict": {
        "image_size": optional(IMAGE_SIZE),
        "source": PLACES,
        "pictures": optional(WHOLE),
        "score_threshold": SHARE,
        "max_megapixels": optional(Kind(Annotated[float, Meta(gt=0)], "a number above 0")),
    },
    "export": {
        "format": one_of(Literal["onnx", "torch_export"]),
        "image_size": optional(IMAGE_SIZE),
        "batch_size": SIZE,
        "proposals": optional(whole(1, 10**5)),
        "detections": optional(MODEST),
    },
    "convert": {
        "from": optional(one_of(Literal["mmdet", "torchvision"])),
        "to": optional(one_of(Literal["mmdet"])),
        "category_ids": optional(listed(Kind(int | str, "a number or a text"), 1)),
        "channel_order": optional(one_of(Literal["rgb", "bgr"])),
        "norm_eps": optional(Kind(Annotated[float, Meta(gt=0, le=1)], "a number in (0, 1]")),
    },
    "params": {"format": one_of(Literal["table", "json"])},
    "data": {
        "part": one_of(Literal["check", "browse", "convert"]),
        "output_dir": FOLDER,
        "masks_as": GROUP,
        "max_lines": WHOLE,
        "split": one_of(Literal["train", "val"]),
        "count": COUNT,
        "epoch": WHOLE,
    },
    "analyze": {
        "part": one_of(Literal["rois", "errors", "speed"]),
        "curves": GROUP,
        "runs": optional(PLACES),
        "detections": optional(PLACES),
        "split": one_of(Literal["train", "val"]),
        "from_iou": Kind(Annotated[float, Meta(ge=0, lt=1)], "a number in [0, 1)"),
        "foreground_ious": listed(POSITIVE_SHARE, 1),
        "background_iou": POSITIVE_SHARE,
        "score_threshold": SHARE,
        "max_detections": optional(MODEST),
        "images": optional(COUNT),
        "repetitions": MODEST,
        "warmups": MODEST_OR_NONE,
        "clock": one_of(Literal["wall", "processor"]),
        "image_size": optional(IMAGE_SIZE),
    },
    "report": {
        "runs": optional(PLACES),
        "search": PLACES,
        "output_dir": FOLDER,
        "table": one_of(Literal["all", "table1", "table2", "table3", "table4"]),
        **dict.fromkeys(("significance", "html", "html.pictures"), GROUP),
        "significance.resamples": whole(0, 10**6),
        "significance.confidence": Kind(Annotated[float, Meta(gt=0, lt=1)], "a number in (0, 1)"),
        "significance.seed": WHOLE,
        "html.curve_points": whole(2),
        "html.detailed_runs": WHOLE,
        "html.pictures.images": WHOLE,
        "html.pictures.side": whole(1, 10**4),
        "html.pictures.quality": whole(1, 100),
        "html.pictures.total_mib": Kind(Annotated[float, Meta(gt=0, le=10**4)], "a number of MiB in (0, 10000]"),
    },
    "bench": {
        **dict.fromkeys(GROUPS_OF_BENCH.split(), GROUP),
        "format": one_of(Literal["table", "json"]),
        "precision": listed(one_of(Literal["fp32", "bf16"]), 1),
        "batch_sizes": listed(COUNT, 1),
        "systems": TEXTS,
        "loops.systems": listed(TEXT, 1),
        "loops.counts": listed(whole(1, 1000), 1),
        "step_parts.systems": listed(TEXT, 1),
        "scale.system": TEXT,
        **{f"parts.{part}.images": COUNT for part in ("coco_eval", "index", "memory")},
        **{f"parts.{part}.annotations": COUNT for part in ("index", "memory")},
        "parts.memory.epochs": whole(2),  # growth shows from the second one on
        "parts.*.image_size": IMAGE_SIZE,
        "parts.masks.large_image_size": IMAGE_SIZE,
        "sizes.*.scale.sweeps.image_size": listed(IMAGE_SIZE),
        **{f"sizes.*.scale.sweeps.{axis}": listed(COUNT) for axis in AXES_OF_BENCH},
        "sizes.*.memory.batch_size": COUNT,
        "sizes.*.scale.batch_size": COUNT,
        **{f"{place}.image_size": IMAGE_SIZE for place in ("sizes.*", "sizes.*.memory", "sizes.*.scale")},
        **{f"sizes.*.{name}": kind for name, kind in COUNTS_OF_BENCH.items()},
        **{f"parts.*.{name}": kind for name, kind in COUNTS_OF_BENCH.items()},
    },
}


def check_settings(config: DictConfig, command: str) -> None:
    """Refuses a setting of the wrong type or out of range, before anything is read or written.

    Raises:
        ValueError: With the key, its value and what is needed there.
    """
    for pattern, kind in (EVERYWHERE | OF_COMMANDS.get(command, {})).items():
        for key in _keys(config, pattern):
            value = OmegaConf.select(config, key, default=ABSENT)
            if value is ABSENT:
                continue
            content = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            try:
                msgspec.convert(content, kind.hint)
            except msgspec.ValidationError as error:
                raise ValueError(f"{key} is {content!r}: {kind.words} is needed") from error


def check_added(config: DictConfig, command: str) -> None:
    """Refuses a new key, ``+colour=red``, among settings that only this program reads, each by its name.

    Raises:
        ValueError: For one that stands in no configuration and that no ``${…}`` refers to.
    """
    overrides = OmegaConf.to_container(HydraConfig.get().overrides)  # not resolved: their ${…} are those of the job
    words, of_hydra = (cast("Mapping[str, list[str]]", overrides)[part] for part in ("task", "hydra"))
    for word in words:
        key = word.lstrip("+").partition("=")[0]
        group, _, name = key.rpartition(".")
        if group not in CLOSED_GROUPS:
            key = name = key.partition(".")[0]
        if not word.startswith("+") or OmegaConf.select(config, key) is None:
            continue
        texts = (OmegaConf.to_yaml(config), *words, *of_hydra)
        if not any(re.search(rf"\$\{{[^}}]*\b{re.escape(name)}\b", text) for text in texts):
            known = compose(command, [one for one in words if one != word and one[0] != "~"])
            if OmegaConf.select(known, key, default=ABSENT) is ABSENT:
                raise ValueError(f"{word.lstrip('+')}: nothing reads {key}")


def _keys(config: DictConfig, pattern: str) -> list[str]:
    """A key, or all that stand where it has a star."""
    group, star, rest = pattern.partition(".*")
    return [f"{group}.{name}{rest}" for name in config[group]] if star else [pattern]
