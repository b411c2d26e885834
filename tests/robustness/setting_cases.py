"""Mutated settings of all commands: what each setting may hold is said here anew, independent of the program."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trial import Case, Verdict

NEVER = ".nan {a:1} '${nowhere}'"  # what no setting of numbers, words or lists may hold


def without_null(values: str) -> str:
    """The values but null."""
    return " ".join(value for value in values.split() if value != "null")


@dataclass(frozen=True)
class Kind:
    """Values of a kind of setting, as they are written on the command line, with blanks between."""

    valid: str
    invalid: str
    harmless: str = ""

    def or_null(self) -> Kind:
        """The same for a setting that may be null."""
        return Kind(f"{self.valid} null", without_null(self.invalid), self.harmless)

    def but(self, valid: str) -> Kind:
        """The same with other examples of what works."""
        return Kind(valid, self.invalid, self.harmless)


HUGE = "1000000000000 " + "1" + 30 * "0"
NOT_A_NUMBER = f"abc true null [] [1] \"'3'\" '' {NEVER}"
NOT_WHOLE = f"{NOT_A_NUMBER} 2.5 .inf -1"
COUNT = Kind("2", f"{NOT_WHOLE} 0", HUGE)
WHOLE = Kind("1", NOT_WHOLE, HUGE)
SHARE = Kind("0.5 1", f"{NOT_A_NUMBER} -0.1 1.5 .inf -.inf", "0 1e-30")
POSITIVE = Kind("0.5 2", f"{NOT_A_NUMBER} -1 0 -.inf .inf", "1e-30 1e30")
SWITCH = Kind("true false", f"abc null 3 2.5 [] [true] '\"true\"' '' {NEVER}")
SIDES = Kind("[64,96]", "[] [64] [96,64] [0,0] [-64,96] [a,b] [64,96,128] 64 abc ''")
TRAIN = {
    "seed": Kind("0 7 4294967295", f"{NOT_WHOLE} 4294967296"),
    "overwrite": Kind("true", SWITCH.invalid),
    "training_length": POSITIVE.but("1"),
    "pictures": WHOLE.but("0"),
    "backward": Kind("at_once by_loop", "abc 3 null true []"),
    "compile": Kind("false", SWITCH.invalid),
    "init_classes": Kind("same", "abc 3 null []"),
    "class_agnostic": SWITCH,
    "channels": COUNT.but("16 32"),
    "fc_channels": COUNT.but("32"),
    "conv_widths": Kind("[8,4]", "'' [] [8] [8,4,2] [0,4] [-8,4] [a,b] 8 null abc"),
    "num_mask_convs": WHOLE,
    "roi_size": COUNT.but("7 5"),
    "mask_size": COUNT.but("28"),
    "rois_per_image": COUNT.but("16"),
    "roi_positive_fraction": Kind("0.25 1", f"{SHARE.invalid} 0"),
    "crowd_iof": Kind("0.5 1", f"{SHARE.invalid} 0"),
    "static_shapes": SWITCH.or_null(),
    "checkpointing": SWITCH,
    "backbone.depth": Kind("10 18", f"{NOT_WHOLE} 0 11 1000"),
    "backbone.norm": Kind("group_norm bn", "abc 3 null true [] ''"),
    "backbone.frozen_stages": Kind("-1 2", "abc -2 5 1.5 true null [] '\"1\"'"),
    "backbone.changed_layers": Kind("[2,3] []", "[0] [5] [a] 2 null [2,2] '' [true]"),
    "backbone.weights": Kind("null", "3 true [] abc ResNet18_Weights.IMAGENET1K_V1"),
    "recursion.heads": Kind("[0,0,0] [0,1,2]", "[] 0 [0,0] [0,2,0] [-1,0,0] [a,b,c] null"),
    "recursion.iou_thresholds": Kind(
        "[0.5,0.6,0.7] [1,1,1]",
        "[] [0.5] [0,0.5,0.5] [0.5,0.6,1.1] [.nan,0.5,0.5] abc [a,b,c]",
    ),
    "recursion.loss_weights": Kind("[1,0,2]", "[] [1] [-1,1,1] [.inf,1,1] 1 [true,true,true]"),
    "recursion.eval_heads": Kind("[0] [0,0,0,0]", "[] [1] [-1] [0.5] 0 abc null [true]"),
    "recursion.delta_stds": Kind(
        "[[0.1,0.1,0.2,0.2]]",
        "[] [0.1,0.1,0.2,0.2] [[0.1]] [[0,0,0,0]] [[a,b,c,d]] 0.1 [[.inf,1,1,1]]",
    ),
    "recursion.interleaved": SWITCH,
    "recursion.mask_feedback": Kind("released trained 'off'", "abc 3 null true []"),
    "recursion.feedback_heads": Kind("null [0]", "[1] [-1] 0 abc [a]"),
    "recursion.score_fusion": Kind("max last", "abc 3 null [max]"),
    "recursion.mask_fusion": Kind("max mean_logits", "abc 3 null [max]"),
    "roi_extractor.box.strides": Kind(
        "[4,8,16,32]",
        "[-1] [] [0] abc 4 [4,a] null [4,8,16,32,64,128] [4.5] [32,16,8,4]",
    ),
    "roi_extractor.box.finest_scale": COUNT.but("56"),
    "roi_extractor.mask.output_size": COUNT.but("14"),
    "rpn.anchors.scale": POSITIVE.but("4 8.5"),
    "rpn.anchors.ratios": Kind("[1] [0.5,2]", "[] [0] [-1] [a] 1 null [.nan] [.inf]"),
    "rpn.anchors.strides": Kind("[4,8,16,32,64]", "[] [4] [0,8,16,32,64] [4,8,16,32,64,128] abc [4,8,16,32,48]"),
    "rpn.matcher.foreground": Kind("0.7", f"{SHARE.invalid} 0 0.1"),
    "rpn.matcher.background": Kind("0.3 0", f"{SHARE.invalid} 0.9"),
    "rpn.matcher.low_quality": Kind("0.3 2", f"{NOT_A_NUMBER} -1"),
    "rpn.sampler.count": COUNT.but("16"),
    "rpn.sampler.positive_fraction": Kind("0.5", f"{SHARE.invalid} 0"),
    "rpn.allowed_border": Kind("0 -1 10.5", f"{NOT_A_NUMBER} .inf"),
    "rpn.box_loss_beta": Kind("0 1", f"{NOT_A_NUMBER} -1 .inf"),
    "rpn.train_proposals.per_level": COUNT.but("20"),
    "rpn.eval_proposals.per_image": COUNT.but("16"),
    "rpn.eval_proposals.nms_threshold": Kind("0.7", f"{SHARE.invalid} 0"),
    "model.roi_heads.box_loss_beta": Kind("0 1", f"{NOT_A_NUMBER} -1 .inf"),
    "model.roi_heads.detection.score_threshold": SHARE.but("0.05 0"),
    "model.roi_heads.detection.nms_threshold": Kind("0.5", f"{SHARE.invalid} 0"),
    "model.roi_heads.detection.max_detections": COUNT.but("5"),
    "model.roi_heads.detection.mask_threshold": Kind("0.5", f"{SHARE.invalid} 0.4"),
    "optimizer.lr": POSITIVE.but("0.0001"),
    "optimizer.base_images": COUNT.but("16"),
    "optimizer.factory.betas": Kind("[0.9,0.99]", "[] [0.9] [1,1] [-1,0.9] 0.9 [a,b] null"),
    "optimizer.factory.weight_decay": Kind("0 0.1", f"{NOT_A_NUMBER} -1"),
    "lr_schedule.milestones": Kind("[0.5] []", "[0.9,0.1] [2] [-1] [a] 0.5 null [.nan]"),
    "lr_schedule.unit": Kind("fraction", "abc 3 null [] steps"),
    "lr_schedule.factor": Kind("0.1 1", f"{SHARE.invalid} 0"),
    "lr_schedule.warmup_steps": WHOLE.but("0 5"),
    "lr_schedule.warmup_start": Kind("0.1", f"{SHARE.invalid} 0"),
    "lr_schedule.warmup_share": SHARE.but("0 0.5"),
    "data.batch_size": Kind("2 3", COUNT.invalid, COUNT.harmless),
    "data.eval_batch_size": Kind("1 2", COUNT.invalid, COUNT.harmless),
    "data.image_size": Kind(SIDES.valid, f"{SIDES.invalid} [1,1.5]", "[1,1]"),
    "data.workers": Kind("0", NOT_WHOLE, HUGE),
    "data.flip": SHARE,
    "data.on_bad_annotation": Kind("error skip", "abc 3 null true []"),
    "data.max_overhang": Kind("0.1 1.5", f"{NOT_A_NUMBER} -0.1"),
    "data.crowd": Kind("drop ignore", "abc 3 null true []"),
    "data.pin_memory": SWITCH,
    "data.image_range": Kind("null [0,255]", "[] [5] [255,0] [a,b] 5 abc [0,.inf] [0,.nan]"),
    "data.max_megapixels": Kind("179 null", "abc true [] -1 0 .nan ''"),
    "data.mean": Kind("[1,2,3]", "[] [1] 1 [a,b,c] null [.nan,1,1] [.inf,1,1] [1,2,3,4]"),
    "data.std": Kind("[1,2,3]", "[] [1] 1 [a,b,c] [0,1,1] [-1,1,1] [.inf,1,1] null"),
    "data.classes": Kind("[circle,square,triangle]", "[] [circle] [a,b,c] [circle,circle,square] circle"),
    "data.train.keep_empty": SWITCH,
    "data.train.min_side": WHOLE.but("1"),
    "data.train.limit": COUNT.but("4").or_null(),
    "data.train.image_ids": Kind("null [1,2,3]", "[] [a] [99999] 3 [1.5] [true]"),
    "data.val.limit": COUNT.or_null(),
    "augmentation.color.probability": SHARE.but("0.5"),
    "augmentation.color.hue": Kind("[0,0.1]", "[] [0] [0.1,0] [-1,1] 0.1 [a,b] null"),
    "trainer.max_steps": Kind("1", "0 -2 -1 1.5 abc true [] .nan ''"),
    "trainer.max_epochs": Kind("1 -1", "0 -2 1.5 abc true [] .nan ''"),
    "trainer.max_time": Kind("null '\"00:01:00:00\"'", "abc 5 true '\"1:00\"' [] -1"),
    "trainer.accumulate_grad_batches": COUNT.but("1 2"),
    "trainer.gradient_clip_val": Kind("null 1 0.5", "abc -1 true [] .nan ''"),
    "trainer.val_check_interval": Kind("1", "0 -1 1.5 abc true [] .nan ''"),
    "trainer.check_val_every_n_epoch": COUNT.but("1").or_null(),
    "trainer.limit_train_batches": Kind("1.0 1", "0 -1 1.5 abc true [] .nan 0.0001"),
    "trainer.limit_val_batches": Kind("1.0 1 0", "-1 1.5 abc true [] .nan"),
    "trainer.overfit_batches": Kind("0.0 1", "-1 1.5 abc true [] .nan"),
    "trainer.log_every_n_steps": COUNT.but("1"),
    "trainer.num_nodes": Kind("1", COUNT.invalid),
    "trainer.devices": Kind("1 auto", "0 -2 abc [] [-1] [0,0] true 1.5 null .nan"),
    "trainer.accelerator": Kind("cpu auto", "abc 3 null [] true"),
    "trainer.strategy": Kind("auto", "abc 3 null [] true"),
    "trainer.precision": Kind("32-true bf16-mixed", "abc 8 true [] 1.5"),
    "trainer.profiler": Kind("null", "abc 3 [] true"),
    "trainer.detect_anomaly": SWITCH,
    "trainer.num_sanity_val_steps": Kind("0 1", "-2 abc 1.5 true [] .nan"),
    "trainer.enable_progress_bar": SWITCH,
    "trainer.enable_checkpointing": SWITCH,
    "trainer.deterministic": Kind("false", "abc 3 []"),
    "trainer.fast_dev_run": Kind("false", "abc -1 1.5 []"),
    "callbacks.best.monitor": Kind("val/mask_ap val/box_ap", "abc 3 [] true val/loop9/box_ap"),
    "callbacks.best.mode": Kind("max", "min abc 3 null []"),
    "callbacks.best.save_top_k": Kind("1 2 -1", "abc 1.5 true -2 null []"),
    "callbacks.last.every_n_train_steps": Kind("1 50", "-1 abc 1.5 true [] .nan"),
    "callbacks.last.filename": Kind("last", "3 best [] true"),
    "callbacks.rois.folder": Kind("", "null 3 [] true"),
    "callbacks.preemption.every_n_steps": COUNT.but("10"),
    "callbacks.progress.seconds_between_lines": Kind("0 30", f"{NOT_A_NUMBER} -1"),
    "callbacks.measurements.warm_up_steps": WHOLE.but("0"),
    "logger.csv.flush_every": COUNT.but("20"),
    "evaluation.backend": Kind("faster_coco_eval pycocotools", "abc 3 null []"),
    "evaluation.verify_backend": SWITCH,
    "evaluation.area_from": Kind("mask box", "abc 3 null []"),
    "evaluation.max_detections": COUNT.but("10"),
    "evaluation.score_fusions": Kind("[] [max,last]", "abc [abc] [3] null 3"),
    "evaluation.recall_at": Kind("[] [10,20]", "[0] [20,10] [a] 10 null [1.5] [10,10] [true]"),
    "evaluation.save_loops": SWITCH,
    "evaluation.timeout_minutes": POSITIVE.but("10"),
    "evaluation.tta.scales": Kind("[1.0] [1,0.5]", "[] [0] [-1] [a] 1 null [1,1] [.nan] [.inf]"),
    "evaluation.tta.flip": SWITCH,
    "launcher.parallel": COUNT.but("1"),
    "launcher.ranks": COUNT.but("null"),
    "launcher.grace_seconds": Kind("300 0", f"{NOT_A_NUMBER} -1"),
    "launcher.shown_lines": WHOLE.but("15"),
}
NETWORK = {key: TRAIN[key] for key in TRAIN if key.split(".")[0] in ("channels", "backbone", "recursion", "rpn")}
INFERENCE = {
    "eval_loops": COUNT.or_null(),
    "eval_heads": Kind("null [0] [0,0,0,0]", "[] [1] [-1] abc 0 [a] [true] [0.5]"),
    "precision": Kind("float32 bf16", "abc 3 null []"),
    "compile": Kind("false", SWITCH.invalid),
    "image_size": Kind(f"{SIDES.valid} null", SIDES.invalid),
    "trusted_packages": Kind("[] abc", "3 [3] {a:1} true"),
    "checkpoint": Kind("", "nowhere.ckpt null '' [] true ."),
}
EXIT = {f"early_exit.{name}": SHARE for name in ("background_above", "score_change", "box_iou")}
COMMANDS: Mapping[str, tuple[str, Mapping[str, Kind]]] = {
    "train": ("", TRAIN),
    "params": ("experiment=demo", {**NETWORK, "format": Kind("table json", "abc 3 null []")}),
    "evaluate": (
        "checkpoint={run}/checkpoints/best.ckpt pictures=0 workers=0 trainer.accelerator=cpu early_exit=settled "
        "output_dir={out}",
        {
            **INFERENCE,
            **EXIT,
            **{key: TRAIN[key] for key in TRAIN if key.startswith(("evaluation.", "trainer.limit_val", "trainer.dev"))},
            "eval_batch_size": COUNT.or_null(),
            "workers": Kind("0 null", without_null(NOT_WHOLE)),
            "pictures": WHOLE.but("0"),
            "seed": TRAIN["seed"],
        },
    ),
    "predict": (
        "checkpoint={run}/checkpoints/best.ckpt source={image} early_exit=settled output_dir={out}",
        {
            **INFERENCE,
            **EXIT,
            "source": Kind("", "null [] nowhere.png [nowhere.png]"),
            "recursive": SWITCH,
            "pictures": WHOLE.or_null(),
            "image_range": TRAIN["data.image_range"],
            "max_megapixels": TRAIN["data.max_megapixels"],
            "score_threshold": SHARE,
            "device": Kind("auto cpu", "abc 3 null [] cuda:99"),
            "evaluation.tta.scales": TRAIN["evaluation.tta.scales"],
            "evaluation.tta.flip": SWITCH,
        },
    ),
    "export": (
        "checkpoint={run}/checkpoints/best.ckpt output={out}/net.pt2 format=torch_export image_size=[64,96]",
        {
            "format": Kind("", "abc 3 null [] onnx"),
            "image_size": Kind("", "[] [64] [0,0] [-64,96] [a,b] [64,96,128] 64 abc ''"),
            "batch_size": Kind("", COUNT.invalid),
            "proposals": Kind("", COUNT.or_null().invalid),
            "detections": Kind("", COUNT.or_null().invalid),
            "eval_loops": Kind("", COUNT.or_null().invalid),
            "eval_heads": Kind("", INFERENCE["eval_heads"].invalid),
            "output": Kind("", "net.abc null '' []"),
            "example": Kind("", "nowhere.png ''"),
        },
    ),
    "convert": (
        "to=mmdet input={run}/checkpoints/best.ckpt output={out}/net.pth",
        {
            "to": Kind("", "abc 3 null [] true"),
            "from": Kind("", "abc mmdet 3 []"),
            "input": Kind("", "nowhere.ckpt null ''"),
            "trusted_packages": Kind("", INFERENCE["trusted_packages"].invalid),
            "output": Kind("", "null '' {run}"),
        },
    ),
    "data check": (
        "experiment=demo data.root={shapes} data.prepare.train=8 data.prepare.val=3 output_dir={out}",
        {
            "max_lines": WHOLE,
            "data.max_overhang": TRAIN["data.max_overhang"],
            "data.workers": Kind("0", NOT_WHOLE),
            "data.image_size": SIDES,
            "data.classes": Kind("", "[] circle [a,a]"),
        },
    ),
    "data browse": (
        "experiment=demo data.root={shapes} data.prepare.train=8 data.prepare.val=3 output_dir={out}",
        {
            "count": COUNT.but("1"),
            "epoch": WHOLE,
            "split": Kind("train val", "abc 3 null []"),
            "data.flip": TRAIN["data.flip"],
            "data.workers": Kind("0", NOT_WHOLE),
        },
    ),
    "data convert": (
        "images={masks}/images masks={masks}/masks output={out}/coco.json",
        {
            "masks_as.layout": Kind("folders", "abc 3 null []"),
            "masks_as.class_name": Kind("cell", "3 null [] '' true"),
            "masks_as.threshold": Kind("null 1", "abc 1.5 -1 true [] '\"1\"'"),
            "masks_as.background": Kind("[0] []", "0 [a] null abc [0.5] [true]"),
            "masks_as.class_divisor": Kind("null", "0 -1 1000 abc 1.5 true"),
            "masks_as.class_ids": Kind("{}", "[] 3 {1:2} {a:b} {1:a}"),
            "masks_as.max_megapixels": TRAIN["data.max_megapixels"],
            "images": Kind("", "null nowhere"),
            "output": Kind("", "null"),
        },
    ),
    "analyze rois": (
        "runs=[{run}] output_dir={out}",
        {
            "from_iou": Kind("0.5 0", f"{SHARE.invalid} 1"),
            "split": Kind("train val", "abc 3 null []"),
            "runs": Kind("", "[] nowhere [nowhere] {a:1} 3 [{run},{run}]"),
        },
    ),
    "analyze errors": (
        "run={run} output_dir={out}",
        {
            "foreground_ious": Kind("[0.5] [0.5,0.75]", "[] [0.51] [0] [1.5] [a] 0.5 null [.nan]"),
            "background_iou": Kind("0.1", f"{SHARE.invalid} 0 0.9"),
            "score_threshold": SHARE,
            "max_detections": COUNT.or_null(),
            "run": Kind("", "null nowhere 3 []"),
        },
    ),
    "analyze speed": (
        "checkpoint={run}/checkpoints/best.ckpt output_dir={out} images=1 repetitions=1 warmups=0",
        {
            "images": Kind("", COUNT.or_null().invalid),
            "repetitions": Kind("", COUNT.invalid),
            "warmups": Kind("", NOT_WHOLE),
            "clock": Kind("", "abc 3 null []"),
            "image_size": Kind("", SIDES.invalid),
            "eval_batch_size": Kind("", COUNT.or_null().invalid),
            "device": Kind("", "abc null 3 []"),
            "curves.loops": Kind("", "3 [3] [{eval_loops:0}] [{eval_loops:abc}] [{loops:1}] abc"),
            "curves.all": Kind("", "[{precision:abc}] [{compile:3}] [{early_exit:3}] [{early_exit:{box_iou:1}}]"),
            "evaluation.max_detections": Kind("", COUNT.invalid),
        },
    ),
    "report": (
        "runs=[{run}] output_dir={out} significance.resamples=10",
        {
            "table": Kind("all table1", "abc table9 3 null []"),
            "significance.resamples": WHOLE.but("10 0"),
            "significance.confidence": Kind("0.95", f"{SHARE.invalid} 0 1"),
            "significance.seed": WHOLE,
            "html.curve_points": Kind("2 400", f"{COUNT.invalid} 1"),
            "html.pictures.images": WHOLE.but("0 1"),
            "html.pictures.side": COUNT.but("64"),
            "html.pictures.quality": Kind("1 100", f"{COUNT.invalid} 101"),
            "html.pictures.total_mib": POSITIVE.but("4"),
            "runs": Kind("", "[] nowhere {a:1} true"),
        },
    ),
    "bench": (
        "part=masks parts.masks.masks=2 parts.masks.image_size=[32,32] parts.masks.large_image_size=[64,64] "
        "parts.masks.repetitions=1 parts.masks.warmups=0",
        {
            "part": Kind("", "abc 3 null []"),
            "format": Kind("table json", "abc 3 null []"),
            "size": Kind("tiny", "abc 3 null []"),
            "precision": Kind("[fp32] [bf16]", "[] abc [abc] null fp32 [3]"),
            "batch_sizes": Kind("[1]", "[] [0] [a] 1 null [-1] [true]"),
            "systems": Kind("all [htc]", "3 null [3]"),
            "loops.counts": Kind("[1]", "[] [0] [a] 1 null"),
            "parts.masks.masks": COUNT.but("2"),
            "parts.masks.image_size": Kind("[32,32]", "[] [32] [0,0] [a,b] 32 null [-1,32]"),
            "parts.masks.repetitions": COUNT.but("1"),
            "parts.masks.warmups": WHOLE.but("0"),
            "seed": WHOLE.but("1"),
        },
    ),
}
# Settings that are wrong as words, or together.
OF_WORDS = """
    backbone=resnet51 trainer=fast experiment=demoo optimizer=adam data=coc callbacks=all scale=large chanels=16
    trainer.max_step=3 data.batchsize=3 rpn.anchor.scale=4 model.roi_heads.detections.x=1 recursion.head=[0]
    +model.backbone.colour=red +backbone.colour=red +rpn.matcher.best=1 +trainer.steps=3 +optimizer.factory.speed=2
    +data.train.colour=red +callbacks.best.colour=red ~backbone.depth ~rpn.anchors.scale ~recursion.heads
    ~data.train.images ~optimizer.lr backbone._target_=r3cnn.backbones.FPN backbone._target_=nowhere.Net
    backbone._target_=math.pi rpn.anchors._target_=r3cnn.ops.matching.Matcher
    optimizer.factory._target_=torch.nn.Linear rpn=null backbone=null rpn.anchors=null rpn.anchors=4 rpn.matcher=abc
    model.fpn=null model.fpn=3 model.roi_heads.sampler=null model.roi_heads.detection=null optimizer.factory=null
    data.train=null augmentation.scaling=null augmentation.color=3 callbacks.best=3 logger.csv=3 mask_roi_size=10
    mask_size=14 box_head.roi_size=5 mask_head.in_channels=8 num_classes=2 box_head.num_classes=2
    mask_head.num_classes=2 box_head.in_channels=8 rpn.crowd_iof=0 backbone_plugin=dcnn box_head=abc
    mask_iou_head=abc resume=nowhere.ckpt init=nowhere.ckpt data.root='' output_dir='' model.fpn.out_channels=0
    model.fpn.out_channels=abc model.roi_heads.mask_branch.mask_size=7
"""


def cases(number: int, seed: int, tiny: tuple[str, ...], places: Mapping[str, Path]) -> list[Case]:
    """A draw of all mutations, one in five of them valid.

    Args:
        number: How many.
        seed: Of the draw.
        tiny: Settings of a run that takes a CPU a second.
        places: What stands in braces in the settings above.
    """

    def case(command: str, words: Sequence[str], key: str, value: str, verdict: Verdict) -> Case:
        given = tuple(_placed(word, places) for word in (*words, f"{key}={value}" if key else value))
        named = "" if verdict is Verdict.VALID else key.split(".")[-1]
        return Case(f"{command} {given[-1]}", f"{command.split()[0]}: {verdict.value}", verdict,
                    (*command.split(), *given), named)  # fmt: skip

    found: dict[Verdict, list[Case]] = {verdict: [] for verdict in Verdict}
    training = (*tiny, "output_dir={run_copy}", "overwrite=true")
    for command, (given, settings) in COMMANDS.items():
        words = training if command == "train" else given.split()
        for key, kind in settings.items():
            for verdict in Verdict:
                for value in getattr(kind, verdict.value).split():
                    found[verdict].append(case(command, words, key, value, verdict))
    found[Verdict.INVALID] += [case("train", training, "", word, Verdict.INVALID) for word in OF_WORDS.split()]
    draw = random.Random(seed)
    shares = {Verdict.VALID: number // 5, Verdict.HARMLESS: number // 20}
    shares[Verdict.INVALID] = number - sum(shares.values())
    chosen = [draw.sample(found[verdict], min(count, len(found[verdict]))) for verdict, count in shares.items()]
    return [one for some in chosen for one in some]


def _placed(word: str, places: Mapping[str, Path]) -> str:
    for name, path in places.items():
        word = word.replace(f"{{{name}}}", str(path))
    return word
