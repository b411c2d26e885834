"""Mutated settings of all commands: what each setting may hold is said here anew, independent of the program."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from trial import Case, Verdict


class Kind(NamedTuple):
    """Values of a kind of setting, as they are written on the command line, with blanks between."""

    valid: str
    invalid: str
    harmless: str = ""

    def but(self, valid: str, more: str = "") -> Kind:
        """The same with other examples of what works, and more of what does not."""
        invalid = [value for value in f"{self.invalid} {more}".split() if value not in valid.split()]
        harmless = [value for value in self.harmless.split() if value not in (*valid.split(), *invalid)]
        return Kind(valid, " ".join(invalid), " ".join(harmless))


HUGE = "1000000000000 " + "1" + 30 * "0"
NO_SCALAR = "nan [] {a:1} '${nowhere}' ''"
NO_NUMBER = f"abc true null [1] '\"3\"' -inf {NO_SCALAR}"
NO_WORD = "abc 3 null true []"
WHOLE = Kind("1", f"{NO_NUMBER} 2.5 inf -1", HUGE)
COUNT = WHOLE.but("16", "0")
SHARE = Kind("0.5 1", f"{NO_NUMBER} -0.1 1.5 inf", "0 1e-30")
PART = SHARE.but("0.5", "0")
POSITIVE = Kind("0.5 2", f"{NO_NUMBER} -1 0 inf", "1e-30 1e30")
NOT_NEGATIVE = Kind("0 1", f"{NO_NUMBER} -1 inf", "1e30")
SWITCH = Kind("true false", f"abc null 3 2.5 [true] '\"true\"' {NO_SCALAR}")
SIDES = Kind("[64,96]", "[] [64] [96,64] [0,0] [-64,96] [a,b] [64,96,128] [60000,60000] 64 abc ''", "[1,1]")
HEADS = Kind("[0] [0,0,0,0]", "[] [1] [-1] [0.5] 0 abc [a] [true]")
TRAIN: tuple[tuple[str, Kind], ...] = (
    ("class_agnostic checkpointing recursion.interleaved data.pin_memory data.train.keep_empty", SWITCH),
    ("trainer.detect_anomaly trainer.enable_progress_bar trainer.enable_checkpointing", SWITCH),
    ("evaluation.verify_backend evaluation.save_loops evaluation.tta.flip", SWITCH),
    ("static_shapes", SWITCH.but("true null")),
    ("compile", SWITCH.but("false")),
    ("overwrite", SWITCH.but("true", "false")),
    ("channels fc_channels rois_per_image rpn.sampler.count optimizer.base_images evaluation.max_detections", COUNT),
    ("rpn.train_proposals.per_level rpn.eval_proposals.per_image callbacks.preemption.every_n_steps", COUNT),
    ("logger.csv.flush_every roi_extractor.box.finest_scale model.roi_heads.detection.max_detections", COUNT),
    ("trainer.accumulate_grad_batches trainer.log_every_n_steps trainer.num_nodes launcher.parallel", COUNT.but("1")),
    ("trainer.check_val_every_n_epoch data.val.limit", COUNT.but("1 null")),
    ("launcher.ranks", COUNT.but("null")),
    ("data.train.limit", COUNT.but("4 null")),
    ("data.batch_size data.eval_batch_size", COUNT.but("2 3")),
    ("roi_size", COUNT.but("7 5")),
    ("mask_size", COUNT.but("28")),
    ("roi_extractor.mask.output_size", COUNT.but("14")),
    ("num_mask_convs data.train.min_side launcher.shown_lines", WHOLE),
    ("pictures data.workers callbacks.measurements.warm_up_steps lr_schedule.warmup_steps", WHOLE.but("0")),
    ("seed", WHOLE.but("0 7 4294967295", "4294967296")),
    ("data.flip augmentation.color.probability", SHARE),
    ("model.roi_heads.detection.score_threshold lr_schedule.warmup_share", SHARE.but("0.05 0.5")),
    ("roi_positive_fraction crowd_iof rpn.sampler.positive_fraction lr_schedule.factor lr_schedule.warmup_start", PART),
    ("rpn.eval_proposals.nms_threshold model.roi_heads.detection.nms_threshold", PART),
    ("model.roi_heads.detection.mask_threshold", SHARE.but("0.5", "0 0.4")),
    ("rpn.matcher.foreground", SHARE.but("0.7", "0 0.1")),
    ("rpn.matcher.background", SHARE.but("0.3 0", "0.9 1")),
    ("training_length", POSITIVE.but("1")),
    ("rpn.anchors.scale evaluation.timeout_minutes", POSITIVE.but("4 8.5")),
    ("optimizer.lr", POSITIVE.but("0.0001")),
    ("rpn.box_loss_beta model.roi_heads.box_loss_beta optimizer.factory.weight_decay", NOT_NEGATIVE),
    ("launcher.grace_seconds", NOT_NEGATIVE.but("0 300")),
    ("callbacks.progress.seconds_between_lines", Kind("0 30", f"{NO_NUMBER} -1", "inf")),
    ("rpn.matcher.low_quality", Kind("0.3 2", f"{NO_NUMBER} -1")),
    ("rpn.allowed_border", Kind("0 -1 10.5", f"{NO_NUMBER} inf")),
    ("data.max_overhang", Kind("0.1 1.5", f"{NO_NUMBER} -0.1")),
    ("data.max_megapixels", Kind("179 null", "abc true [] -1 0 nan ''")),
    ("data.image_size", SIDES),
    ("data.image_range", Kind("null [0,255]", "[] [5] [255,0] [a,b] 5 abc [0,inf] [0,nan]")),
    ("data.mean", Kind("[1,2,3]", "[] [1] 1 [a,b,c] null [nan,1,1] [inf,1,1] [1,2,3,4]")),
    ("data.std", Kind("[1,2,3]", "[] [1] 1 [a,b,c] [0,1,1] [-1,1,1] [inf,1,1] null")),
    ("data.classes", Kind("[circle,square,triangle]", "[] [circle] [a,b,c] [circle,circle,square] circle")),
    ("data.train.image_ids", Kind("null [1,2,3]", "[] [a] [99999] 3 [1.5] [true]")),
    ("data.on_bad_annotation", Kind("error skip", NO_WORD)),
    ("data.crowd", Kind("drop ignore", NO_WORD)),
    ("augmentation.color.hue", Kind("[0,0.1]", "[] [0] [0.1,0] [-1,1] 0.1 [a,b] null")),
    ("backward", Kind("at_once by_loop", NO_WORD)),
    ("init_classes", Kind("same", NO_WORD)),
    ("conv_widths", Kind("[8,4]", "'' [] [8] [8,4,2] [0,4] [-8,4] [a,b] 8 null abc")),
    ("backbone.depth", COUNT.but("10 18", "11")),
    ("backbone.norm", Kind("group_norm bn", NO_WORD)),
    ("backbone.frozen_stages", Kind("-1 2", "abc -2 5 1.5 true null [] '\"1\"'")),
    ("backbone.changed_layers", Kind("[2,3] []", "[0] [5] [a] 2 null [2,2] '' [true]")),
    ("backbone.weights", Kind("null", "3 true [] abc ResNet18_Weights.IMAGENET1K_V1")),
    ("recursion.heads", Kind("[0,0,0] [0,1,2]", "[] 0 [0,0] [0,2,0] [-1,0,0] [a,b,c] null [0,0,0,1]")),
    (
        "recursion.iou_thresholds",
        Kind("[0.5,0.6,0.7] [1,1,1]", "[] [0.5] [0,0.5,0.5] [0.5,0.6,1.1] [nan,0.5,0.5] abc [a,b,c]"),
    ),
    ("recursion.loss_weights", Kind("[1,0,2]", "[] [1] [-1,1,1] [inf,1,1] 1 [true,true,true]")),
    ("recursion.eval_heads", HEADS.but(HEADS.valid, "null")),
    (
        "recursion.delta_stds",
        Kind("[[0.1,0.1,0.2,0.2]]", "[] [0.1,0.1,0.2,0.2] [[0.1]] [[0,0,0,0]] [[a,b,c,d]] 0.1 [[inf,1,1,1]]"),
    ),
    ("recursion.feedback_heads", Kind("null [0]", "[1] [-1] 0 abc [a]")),
    ("recursion.mask_feedback", Kind("released trained 'off'", NO_WORD)),
    ("recursion.score_fusion", Kind("max last", NO_WORD)),
    ("recursion.mask_fusion", Kind("max mean_logits", NO_WORD)),
    (
        "roi_extractor.box.strides",
        Kind("[4,8,16,32]", "[-1] [] [0] abc 4 [4,a] null [4,8,16,32,64,128] [4.5] [32,16,8,4] [8,16,32]"),
    ),
    ("rpn.anchors.ratios", Kind("[1] [0.5,2]", "[] [0] [-1] [a] 1 null [nan] [inf]")),
    ("rpn.anchors.strides", Kind("[4,8,16,32,64]", "[] [4] [0,8,16,32,64] [4,8,16,32,64,128] abc [4,8,16,32,48]")),
    ("optimizer.factory.betas", Kind("[0.9,0.99]", "[] [0.9] [1,1] [-1,0.9] 0.9 [a,b] null [0.9,nan]")),
    ("lr_schedule.milestones", Kind("[0.5] []", "[0.9,0.1] [2] [-1] [a] 0.5 null [nan]")),
    ("lr_schedule.unit", Kind("fraction", f"{NO_WORD} steps")),
    ("trainer.max_steps", Kind("1", "0 -2 -1 1.5 abc true [] nan ''")),
    ("trainer.max_epochs", Kind("1 -1", "0 -2 1.5 abc true [] nan ''")),
    ("trainer.max_time", Kind("null '\"00:01:00:00\"'", "abc 5 true '\"1:00\"' [] -1")),
    ("trainer.gradient_clip_val", Kind("null 1 0.5", "abc -1 true [] nan ''")),
    ("trainer.val_check_interval", Kind("1", "0 -1 1.5 abc true [] nan ''")),
    ("trainer.limit_train_batches", Kind("1.0 1", "0 -1 1.5 abc true [] nan 0.0001")),
    ("trainer.limit_val_batches", Kind("1.0 1 0", "-1 1.5 abc true [] nan")),
    ("trainer.overfit_batches", Kind("0.0 1", "-1 1.5 abc true [] nan")),
    ("trainer.devices", Kind("1 auto", "0 -2 abc [] [-1] [0,0] true 1.5 null nan")),
    ("trainer.accelerator", Kind("cpu auto", NO_WORD)),
    ("trainer.strategy", Kind("auto", NO_WORD)),
    ("trainer.precision", Kind("32-true bf16-mixed", "abc 8 true [] 1.5")),
    ("trainer.profiler", Kind("null", "abc 3 [] true")),
    ("trainer.num_sanity_val_steps", Kind("0 1", "-2 abc 1.5 true [] nan")),
    ("trainer.deterministic", Kind("false", "abc 3 []")),
    ("trainer.fast_dev_run", Kind("false", "abc -1 1.5 []")),
    ("callbacks.best.monitor", Kind("val/mask_ap val/box_ap", "abc 3 [] true val/loop9/box_ap")),
    ("callbacks.best.mode", Kind("max", "min abc 3 null []")),
    ("callbacks.best.save_top_k", Kind("1 2 -1", "abc 1.5 true -2 null []")),
    ("callbacks.last.every_n_train_steps", Kind("1 50", "-1 abc 1.5 true [] nan")),
    ("callbacks.last.filename", Kind("last", "3 best [] true")),
    ("callbacks.rois.folder", Kind("", "null 3 [] true")),
    ("evaluation.backend", Kind("faster_coco_eval pycocotools", NO_WORD)),
    ("evaluation.area_from", Kind("mask box", NO_WORD)),
    ("evaluation.score_fusions", Kind("[] [max,last]", "abc [abc] [3] null 3")),
    ("evaluation.recall_at", Kind("[] [10,20]", "[0] [20,10] [a] 10 null [1.5] [10,10] [true]")),
    ("evaluation.tta.scales", Kind("[1.0] [1,0.5]", "[] [0] [-1] [a] 1 null [1,1] [nan] [inf]")),
)


def of_training(*starts: str) -> tuple[tuple[str, Kind], ...]:
    """Settings of a training run that other commands have too."""
    return tuple((key, kind) for keys, kind in TRAIN for key in keys.split() if key.startswith(starts))


INFERENCE = (
    ("eval_loops", COUNT.but("2 null")),
    ("eval_heads", HEADS.but(f"{HEADS.valid} null")),
    ("precision", Kind("float32 bf16", NO_WORD)),
    ("compile", SWITCH.but("false")),
    ("image_size", SIDES.but("[64,96] null")),
    ("trusted_packages", Kind("[] abc", "3 [3] {a:1} true")),
    ("checkpoint", Kind("", "nowhere.ckpt null '' [] true .")),
    ("early_exit.background_above early_exit.score_change early_exit.box_iou", SHARE),
)
BEST = "checkpoint={run}/checkpoints/best.ckpt output_dir={out}"
DRAWN = "experiment=demo data.root={shapes} data.prepare.train=8 data.prepare.val=3 output_dir={out}"
COMMANDS: Mapping[str, tuple[str, tuple[tuple[str, Kind], ...]]] = {
    "train": ("{tiny} output_dir={run_copy} overwrite=true", TRAIN),
    "params": (
        "experiment=demo",
        (*of_training("channels", "backbone.", "recursion.", "rpn."), ("format", Kind("table json", NO_WORD))),
    ),
    "evaluate": (
        f"{BEST} pictures=0 workers=0 trainer.accelerator=cpu early_exit=settled",
        (
            *INFERENCE,
            *of_training("evaluation.", "trainer.dev", "seed", "pictures"),
            ("trainer.limit_val_batches", Kind("1.0 1", "0 -1 1.5 abc true [] nan")),
            ("eval_batch_size", COUNT.but("2 null")),
            ("workers", WHOLE.but("0 null")),
        ),
    ),
    "predict": (
        f"{BEST} source={{image}} early_exit=settled",
        (
            *INFERENCE,
            *of_training("evaluation.tta"),
            ("source", Kind("", "null [] nowhere.png [nowhere.png]")),
            ("recursive", SWITCH),
            ("pictures", WHOLE.but("1 null")),
            ("image_range", Kind("null [0,255]", "[] [5] [255,0] [a,b] 5 abc [0,inf] [0,nan]")),
            ("max_megapixels", Kind("179 null", "abc true [] -1 0 nan ''")),
            ("score_threshold", SHARE),
            ("device", Kind("auto cpu", "abc 3 null [] cuda:99")),
        ),
    ),
    "export": (
        f"{BEST.split()[0]} output={{out}}/net.pt2 format=torch_export image_size=[64,96]",
        (
            ("format", Kind("", f"{NO_WORD} onnx")),
            ("image_size", Kind("", "[] [64] [0,0] [-64,96] [a,b] [64,96,128] 64 abc ''")),
            ("batch_size", COUNT.but("")),
            ("proposals detections eval_loops", COUNT.but("null")),
            ("eval_heads", HEADS.but("")),
            ("output", Kind("", "net.abc null '' []")),
            ("example", Kind("", "nowhere.png ''")),
        ),
    ),
    "convert": (
        "to=mmdet input={run}/checkpoints/best.ckpt output={out}/net.pth",
        (
            ("to", Kind("", NO_WORD)),
            ("from", Kind("", "abc mmdet 3 []")),
            ("input", Kind("", "nowhere.ckpt null ''")),
            ("trusted_packages", Kind("", "3 [3] {a:1} true")),
            ("output", Kind("", "null '' {run}")),
        ),
    ),
    "data check": (
        DRAWN,
        (
            *of_training("data.max_over", "data.workers", "data.image_size"),
            ("data.classes", Kind("", "[] circle [a,a]")),
            ("max_lines", WHOLE),
        ),
    ),
    "data browse": (
        DRAWN,
        (
            *of_training("data.flip", "data.workers"),
            ("count", COUNT.but("1")),
            ("epoch", WHOLE),
            ("split", Kind("train val", NO_WORD)),
        ),
    ),
    "data convert": (
        "images={masks}/images masks={masks}/masks output={out}/coco.json",
        (
            ("masks_as.layout", Kind("folders", NO_WORD)),
            ("masks_as.class_name", Kind("cell", "3 null [] '' true")),
            ("masks_as.threshold", Kind("null 1", "abc 1.5 -1 true [] '\"1\"'")),
            ("masks_as.background", Kind("[0] []", "0 [a] null abc [0.5] [true]")),
            ("masks_as.class_divisor", Kind("null", "0 -1 1000 abc 1.5 true")),
            ("masks_as.class_ids", Kind("{}", "[] 3 {1:2} {a:b} {1:a}")),
            ("masks_as.max_megapixels", Kind("179 null", "abc true [] -1 0 nan ''")),
            ("images", Kind("", "null nowhere")),
            ("output", Kind("", "null")),
        ),
    ),
    "analyze rois": (
        "runs=[{run}] output_dir={out}",
        (
            ("from_iou", SHARE.but("0.5 0", "1")),
            ("split", Kind("train val", NO_WORD)),
            ("runs", Kind("", "[] nowhere [nowhere] {a:1} 3 [{run},{run}]")),
        ),
    ),
    "analyze errors": (
        "run={run} output_dir={out}",
        (
            ("foreground_ious", Kind("[0.5] [0.5,0.75]", "[] [0.51] [0] [1.5] [a] 0.5 null [nan]")),
            ("background_iou", SHARE.but("0.1", "0 0.9 1")),
            ("score_threshold", SHARE),
            ("max_detections", COUNT.but("16 null")),
            ("run", Kind("", "null nowhere 3 []")),
        ),
    ),
    "analyze speed": (
        f"{BEST} images=1 repetitions=1 warmups=0",
        (
            ("images eval_batch_size", COUNT.but("1 null")),
            ("repetitions", COUNT.but("1")),
            ("warmups", WHOLE.but("0")),
            ("clock device", Kind("", NO_WORD)),
            ("image_size", SIDES.but("[64,96] null")),
            ("curves.loops", Kind("", "3 [3] [{eval_loops:0}] [{eval_loops:abc}] [{loops:1}] abc")),
            ("curves.all", Kind("", "[{precision:abc}] [{compile:3}] [{early_exit:3}] [{early_exit:{box_iou:1}}]")),
            ("evaluation.max_detections", COUNT.but("")),
        ),
    ),
    "report": (
        "runs=[{run}] output_dir={out} significance.resamples=10",
        (
            ("table", Kind("all table1", f"{NO_WORD} table9")),
            ("significance.resamples html.pictures.images", WHOLE.but("10 0")),
            ("significance.confidence", SHARE.but("0.95", "0 1")),
            ("significance.seed", WHOLE),
            ("html.curve_points", COUNT.but("2 400", "1")),
            ("html.pictures.side", COUNT.but("64")),
            ("html.pictures.quality", COUNT.but("1 100", "101")),
            ("html.pictures.total_mib", POSITIVE.but("4")),
            ("runs", Kind("", "[] nowhere {a:1} true")),
        ),
    ),
    "bench": (
        "part=masks parts.masks.masks=2 parts.masks.image_size=[32,32] parts.masks.large_image_size=[64,64] "
        "parts.masks.repetitions=1 parts.masks.warmups=0",
        (
            ("part size", Kind("", NO_WORD)),
            ("format", Kind("table json", NO_WORD)),
            ("precision", Kind("[fp32] [bf16]", "[] abc [abc] null fp32 [3]")),
            ("batch_sizes loops.counts", Kind("[1]", "[] [0] [a] 1 null [-1] [true]")),
            ("systems", Kind("all [htc]", "3 null [3]")),
            ("parts.masks.masks parts.masks.repetitions", COUNT.but("1")),
            ("parts.masks.image_size", Kind("[32,32]", "[] [32] [0,0] [a,b] 32 null [-1,32]")),
            ("parts.masks.warmups seed", WHOLE),
        ),
    ),
}
# Settings of train that are wrong as words, or together (with an ampersand between).
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
    model.fpn.out_channels=abc model.roi_heads.mask_branch.mask_size=7 trainer.precision=16-mixed&backward=by_loop
"""


def cases(number: int, seed: int, places: Mapping[str, Path], tiny: tuple[str, ...]) -> list[Case]:
    """A draw of all mutations, one in five of them valid.

    Args:
        number: How many.
        seed: Of the draw.
        places: What stands in braces in the settings above.
        tiny: Settings of a run that takes a CPU a second.
    """
    draw = random.Random(seed)
    found = list(_all_cases(places, tiny))
    shares = {Verdict.VALID: number // 5, Verdict.HARMLESS: number // 20}
    shares[Verdict.INVALID] = number - sum(shares.values())
    chosen = []
    for verdict, count in shares.items():
        some = [case for case in found if case.verdict is verdict]
        chosen += draw.sample(some, min(count, len(some)))
    return chosen


def _all_cases(places: Mapping[str, Path], tiny: tuple[str, ...]) -> Iterator[Case]:
    for command, (given, settings) in COMMANDS.items():
        changes = [
            (key, f"{key}={value}", verdict)
            for keys, kind in settings
            for key in keys.split()
            for verdict in Verdict
            for value in getattr(kind, verdict.value).split()
        ]
        if command == "train":
            changes += [("", word, Verdict.INVALID) for word in OF_WORDS.split()]
        for key, change, verdict in changes:
            text = f"{command} {given.replace('{tiny}', ' '.join(tiny))} {change.replace('&', ' ')}"
            for name, path in places.items():
                text = text.replace(f"{{{name}}}", str(path))
            named = "" if verdict is Verdict.VALID else key.split(".")[-1]
            yield Case(f"{command} {change}", f"{command.split()[0]}: {verdict.value}", verdict,
                       tuple(text.split()), named)  # fmt: skip
