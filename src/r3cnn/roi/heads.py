"""The RoI heads: one class for Mask R-CNN, cascades, HTC and R3-CNN, told apart by their loop schedule alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from r3cnn.ops.boxes import clip_boxes, decode_boxes
from r3cnn.ops.fusion import fuse_scores
from r3cnn.ops.sampling import BalancedSampler
from r3cnn.ranges import check_range
from r3cnn.roi.box_heads import BoxHead, BoxOutput
from r3cnn.roi.early_exit import LoopExit, StayInLoops
from r3cnn.roi.extractors import RoIExtractor
from r3cnn.roi.inference import DetectionSettings, SelectedBoxes, select_boxes, to_detections
from r3cnn.roi.loop_output import LoopOutput
from r3cnn.roi.losses import box_loss, class_loss, mask_loss, select_deltas
from r3cnn.roi.mask_branch import MaskBranch
from r3cnn.roi.mask_iou_heads import MaskSamples
from r3cnn.roi.training_rois import BatchTargets, Samples, sample_rois
from r3cnn.schedule import LoopSchedule, ScoreFusion
from r3cnn.structures import Detections, LoopObserver, LoopTrace, RoiRows, Rois


class RoIHeads(nn.Module):
    """Refines RoIs loop by loop and predicts boxes, classes and masks.

    Attributes:
        early_exit: Which RoIs go through which loops at inference; all through all of them unless something else is
            put here.

    Args:
        schedule: Which head runs in which loop, at which IoU threshold.
        num_classes: K, foreground classes.
        box_extractor: Pools RoIs for the box heads.
        box_head: Called once per head; every call must make new weights.
        mask_branch: Called with the schedule; predicts the masks.
        sampler: RoIs per image that are trained in each loop.
        crowd_iof: Part of a RoI, in (0, 1], that may lie in a crowd; others are neither positive nor negative.
        box_loss_beta: Where smooth-L1 turns from square to linear; 0 is L1.
        detection: Thresholds of inference.
        static_shapes: Keep empty RoI slots, so that shapes never depend on the data and training reads nothing from
            the device; ``None``: except on CPU, where leaving them out is faster and costs nothing.
    """

    def __init__(
        self,
        *,
        schedule: LoopSchedule,
        num_classes: int,
        box_extractor: RoIExtractor,
        box_head: Callable[[], BoxHead],
        mask_branch: Callable[[LoopSchedule], MaskBranch],
        sampler: BalancedSampler,
        crowd_iof: float,
        box_loss_beta: float,
        detection: DetectionSettings,
        static_shapes: bool | None = None,
    ) -> None:
        super().__init__()
        check_range("[1, inf)", num_classes=num_classes)
        check_range("(0, 1]", crowd_iof=crowd_iof)
        check_range("[0, inf)", box_loss_beta=box_loss_beta)
        self.schedule, self.num_classes = schedule, num_classes
        self.box_extractor = box_extractor
        self.delta_stds: Tensor
        self.register_buffer("delta_stds", torch.tensor(schedule.delta_stds), persistent=False)
        self.box_heads = nn.ModuleList(cast(nn.Module, box_head()) for _ in range(schedule.num_heads))
        self.mask_branch = mask_branch(schedule)
        self.sampler, self.crowd_iof, self.box_loss_beta = sampler, crowd_iof, box_loss_beta
        self.detection, self.static_shapes = detection, static_shapes
        self.early_exit: LoopExit = StayInLoops()

    def run_loops(
        self,
        features: Sequence[Tensor],
        rois: Rois,
        limits: Tensor,
        heads: Sequence[int],
        select: Callable[[int, Rois], Samples],
    ) -> Iterator[LoopOutput]:
        """Refine the RoIs once per loop: one loop is Mask R-CNN, one head per loop a cascade, one head for all R3-CNN.

        A loop runs when its output is asked for, so that what it needs can be given up before the next one.

        Args:
            features: Pyramid levels (B, C, H, W).
            rois: Proposals.
            limits: (B, 4) ``(width, height, width, height)`` of each image in pixels.
            heads: Head of each loop.
            select: Which RoIs loop t works on: sampled at its IoU threshold in training, all of them at inference.
        """
        for loop, head in enumerate(heads):
            samples = select(loop, rois)
            rows = self._rows(samples.rois)
            box = self.box_heads[head](self.box_extractor(features, rows))
            refined = self._refine(head, samples, rows, box, limits)
            yield LoopOutput(head, rois, samples, rows, box, refined)
            rois = refined

    def losses(
        self,
        features: Sequence[Tensor],
        rois: Rois,
        limits: Tensor,
        targets: BatchTargets,
        generator: torch.Generator | None,
        observe: LoopObserver | None = None,
    ) -> dict[str, Tensor]:
        """``loop{t}/cls``, ``loop{t}/box``, ``loop{t}/mask`` of each training loop t = 1, 2, …, and ``mask_iou``."""
        by_loop = self.losses_by_loop(features, rois, limits, targets, generator, observe)
        return {name: loss for losses in by_loop for name, loss in losses.items()}

    def losses_by_loop(
        self,
        features: Sequence[Tensor],
        rois: Rois,
        limits: Tensor,
        targets: BatchTargets,
        generator: torch.Generator | None,
        observe: LoopObserver | None = None,
    ) -> Iterator[dict[str, Tensor]]:
        """The same, loop by loop; no gradient goes from one loop to another one, as RoIs are detached between them."""

        def sample(loop: int, rois: Rois) -> Samples:
            return self.sample(loop, rois, targets, generator)

        traces: list[LoopTrace] = []
        for loop, output in enumerate(self.run_loops(features, rois, limits, self.schedule.heads, sample)):
            traces.append(output.trace)
            again = sample(loop, output.refined) if self.schedule.interleaved else output.samples
            yield self._loop_losses(features, loop, output, again.positives(), targets)
        if observe is not None:
            observe(traces)

    def _loop_losses(
        self, features: Sequence[Tensor], loop: int, output: LoopOutput, positives: Samples, targets: BatchTargets
    ) -> dict[str, Tensor]:
        losses = self._box_losses(output, targets)
        masks = self._train_masks(features, loop, positives, targets)
        losses["mask"] = mask_loss(masks.logits, masks.wanted, masks.rows.valid)
        is_last = loop + 1 == self.schedule.num_loops
        scored = self.mask_branch.iou_head.losses(masks, targets) if is_last else {}
        return {f"loop{loop + 1}/{name}": loss for name, loss in losses.items()} | scored

    def loss_weights(self) -> dict[str, float]:
        """Factor of each entry of ``losses`` in the total loss."""
        loops = enumerate(self.schedule.loss_weights, start=1)
        weights = {f"loop{loop}/{name}": weight for loop, weight in loops for name in ("cls", "box", "mask")}
        return weights | self.mask_branch.iou_head.loss_weights

    def sample(self, loop: int, rois: Rois, targets: BatchTargets, generator: torch.Generator | None = None) -> Samples:
        """RoIs that training loop ``loop`` (from 0) works on, at its own IoU threshold."""
        return sample_rois(
            rois,
            targets,
            iou_threshold=self.schedule.iou_thresholds[loop],
            crowd_iof=self.crowd_iof,
            num_classes=self.num_classes,
            sampler=self.sampler,
            generator=generator,
        )

    def detect(self, features: Sequence[Tensor], rois: Rois, limits: Tensor) -> list[Detections]:
        """Detections of each image after the last evaluation loop."""
        return self.conclude(features, self.inference_loops(features, rois, limits), limits)

    def detect_per_loop(self, features: Sequence[Tensor], rois: Rois, limits: Tensor) -> list[list[Detections]]:
        """Detections [loop][image]: what ``detect`` gives with 1, 2, … evaluation loops, from one run of the loops."""
        outputs = self.inference_loops(features, rois, limits)
        return [self.conclude(features, outputs[: loop + 1], limits) for loop in range(len(outputs))]

    def conclude(self, features: Sequence[Tensor], outputs: Sequence[LoopOutput], limits: Tensor) -> list[Detections]:
        """Detections of each image from the loops run so far: fused scores, the last boxes, fused masks."""
        probabilities, boxes = self.classify(outputs, limits, self.schedule.score_fusion)
        selected = self.select(probabilities, boxes, outputs[-1].samples.rois.valid)
        return self.detections(selected, *self.predict_masks(features, selected, outputs))

    def classify(self, outputs: Sequence[LoopOutput], limits: Tensor, rule: ScoreFusion) -> tuple[Tensor, Tensor]:
        """Fused probabilities (B, S, K + 1) and boxes (B, S, 4) or (B, S, K, 4) after the loops run so far."""
        last = outputs[-1]
        slots = last.samples.rois.valid
        probabilities = fuse_scores([output.box.logits for output in outputs], rule)
        boxes = clip_boxes(last.rows.scatter(self._class_boxes(last), slots), limits)
        return last.rows.scatter(probabilities, slots), boxes

    def select(self, probabilities: Tensor, boxes: Tensor, valid: Tensor) -> SelectedBoxes:
        """Threshold, NMS per class and the best boxes of each image; arguments as in `select_boxes`."""
        return select_boxes(probabilities, boxes, valid, self.detection, is_static=self.static_shapes)

    def detections(self, selected: SelectedBoxes, masks: Tensor, mask_scores: Tensor) -> list[Detections]:
        """Selected boxes with (B, D, M, M) masks and their (B, D) scores, image by image."""
        return to_detections(
            selected, masks, mask_scores, has_mask_scores=self.mask_branch.iou_head.has_scores, settings=self.detection
        )

    def inference_loops(self, features: Sequence[Tensor], rois: Rois, limits: Tensor) -> list[LoopOutput]:
        """All evaluation loops over all RoIs that do not leave early."""

        def loops(rois: Rois, heads: Sequence[int]) -> list[LoopOutput]:
            return list(self.run_loops(features, rois, limits, heads, lambda _, rois: Samples.unlabelled(rois)))

        return self.early_exit.run(loops, rois, self.schedule.eval_heads, self.delta_stds)

    def _rows(self, rois: Rois) -> RoiRows:
        static = self.static_shapes if self.static_shapes is not None else rois.boxes.device.type != "cpu"
        return rois.rows(keep_empty=static)

    @torch.no_grad()
    def _refine(self, head: int, samples: Samples, rows: RoiRows, box: BoxOutput, limits: Tensor) -> Rois:
        """Decoded and clipped boxes in the slots they came from; ground truth that was added is dropped."""
        best = box.logits[:, : self.num_classes].argmax(dim=1)
        deltas = select_deltas(box.deltas, best).float()
        boxes = rows.scatter(decode_boxes(rows.boxes, deltas, self.delta_stds[head]), samples.rois.valid)
        return Rois(clip_boxes(boxes, limits), samples.handed_on)

    def _class_boxes(self, output: LoopOutput) -> Tensor:
        """Decoded boxes (N, 4), or (N, K, 4) from class-specific deltas."""
        stds = self.delta_stds[output.head]
        deltas = output.box.deltas.float()
        if deltas.shape[1] == 4:
            return decode_boxes(output.rows.boxes, deltas, stds)
        return decode_boxes(output.rows.boxes[:, None], deltas.unflatten(1, (-1, 4)), stds)

    def _box_losses(self, output: LoopOutput, targets: BatchTargets) -> dict[str, Tensor]:
        samples, rows = output.samples, output.rows
        labels, positive = samples.labels.flatten()[rows.slot], samples.positive.flatten()[rows.slot]
        gt_boxes = targets.boxes_of(samples.gt).flatten(0, 1)[rows.slot]
        loss = box_loss(
            output.box,
            rows.boxes,
            gt_boxes,
            labels,
            positive=positive,
            valid=rows.valid,
            stds=self.delta_stds[output.head],
            beta=self.box_loss_beta,
        )
        return {"cls": class_loss(output.box.logits, labels, rows.valid), "box": loss}

    def _train_masks(
        self, features: Sequence[Tensor], loop: int, samples: Samples, targets: BatchTargets
    ) -> MaskSamples:
        chain = (*self.schedule.feedback_heads_before(loop), self.schedule.heads[loop])
        return self.mask_branch.train_on(features, self._rows(samples.rois), samples, targets, chain)

    def predict_masks(
        self, features: Sequence[Tensor], selected: SelectedBoxes, outputs: Sequence[LoopOutput]
    ) -> tuple[Tensor, Tensor]:
        """(B, D, M, M) probabilities and (B, D) scores of the masks after the loops run so far, zero in empty slots."""

        def predict(selected: SelectedBoxes, loops: int) -> tuple[Tensor, Tensor]:
            rows = self._rows(selected.rois)
            labels, scores = selected.labels.flatten()[rows.slot], selected.scores.flatten()[rows.slot]
            schedule = replace(self.schedule, eval_heads=self.schedule.eval_heads[:loops])
            masks = self.mask_branch.predict(features, rows, labels, scores, schedule)
            slots = selected.labels
            return rows.scatter(masks.probabilities, slots), rows.scatter(masks.scores, slots)

        return self.early_exit.masks(predict, selected, outputs)
