"""The RoI heads: one class for Mask R-CNN, cascades, HTC and R3-CNN, told apart by their loop schedule alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from r3cnn.ops.boxes import clip_boxes, decode_boxes
from r3cnn.ops.fusion import fuse_scores
from r3cnn.ops.masks import mask_targets
from r3cnn.ops.sampling import BalancedSampler
from r3cnn.roi.box_heads import BoxHead, BoxOutput
from r3cnn.roi.extractors import RoIExtractor
from r3cnn.roi.inference import DetectionSettings, SelectedBoxes, select_boxes
from r3cnn.roi.losses import box_loss, class_loss, mask_loss, select_class, select_deltas
from r3cnn.roi.mask_heads import MaskHead
from r3cnn.roi.training_rois import BatchTargets, Samples, sample_rois
from r3cnn.schedule import LoopSchedule
from r3cnn.structures import Detections, RoiRows, Rois


class MaskHeadFactory(Protocol):
    """Builds one mask head."""

    def __call__(self, *, feedback: bool) -> MaskHead:
        """New weights at every call."""
        ...


@dataclass(frozen=True)
class LoopOutput:
    """What one loop saw and made of it.

    Attributes:
        head: Index of the head that ran.
        samples: RoIs that the loop saw, S slots per image; labelled in training.
        rows: The same RoIs as N rows, with empty slots left out where that is allowed.
        box: Class logits (N, K + 1) and deltas (N, 4) or (N, 4K) of the rows.
        refined: (B, S) RoIs that the next loop gets.
    """

    head: int
    samples: Samples
    rows: RoiRows
    box: BoxOutput
    refined: Rois


class RoIHeads(nn.Module):
    """Refines RoIs loop by loop and predicts boxes, classes and masks.

    Args:
        schedule: Which head runs in which loop, at which IoU threshold.
        num_classes: K, foreground classes.
        box_extractor: Pools RoIs for the box heads.
        mask_extractor: Pools RoIs for the mask heads.
        box_head: Called once per head; every call must make new weights.
        mask_head: Called once per head with ``feedback``; every call must make new weights.
        sampler: RoIs per image that are trained in each loop.
        box_loss_beta: Where smooth-L1 turns from square to linear; 0 is L1.
        mask_size: M, side of the mask targets.
        detection: Thresholds of inference.
        static_shapes: Keep empty RoI slots, so that shapes never depend on the data and nothing is read from the
            device; ``None``: except on CPU, where leaving them out is faster and costs nothing.
    """

    def __init__(
        self,
        *,
        schedule: LoopSchedule,
        num_classes: int,
        box_extractor: RoIExtractor,
        mask_extractor: RoIExtractor,
        box_head: Callable[[], BoxHead],
        mask_head: MaskHeadFactory,
        sampler: BalancedSampler,
        box_loss_beta: float,
        mask_size: int,
        detection: DetectionSettings,
        static_shapes: bool | None = None,
    ) -> None:
        super().__init__()
        self.schedule, self.num_classes = schedule, num_classes
        self.box_extractor, self.mask_extractor = box_extractor, mask_extractor
        heads = range(schedule.num_heads)
        self.delta_stds: Tensor
        self.register_buffer("delta_stds", torch.tensor(schedule.delta_stds), persistent=False)
        self.box_heads = nn.ModuleList(cast(nn.Module, box_head()) for _ in heads)
        has_feedback = [h in schedule.feedback_heads and schedule.mask_feedback != "off" for h in heads]
        self.mask_heads = nn.ModuleList(cast(nn.Module, mask_head(feedback=own)) for own in has_feedback)
        self.sampler, self.box_loss_beta, self.mask_size = sampler, box_loss_beta, mask_size
        self.detection, self.static_shapes = detection, static_shapes

    def run_loops(
        self,
        features: Sequence[Tensor],
        rois: Rois,
        limits: Tensor,
        heads: Sequence[int],
        select: Callable[[int, Rois], Samples],
    ) -> list[LoopOutput]:
        """Refine the RoIs once per loop: one loop is Mask R-CNN, one head per loop a cascade, one head for all R3-CNN.

        Args:
            features: Pyramid levels (B, C, H, W).
            rois: Proposals.
            limits: (B, 4) ``(width, height, width, height)`` of each image in pixels.
            heads: Head of each loop.
            select: Which RoIs loop t works on: sampled at its IoU threshold in training, all of them at inference.
        """
        outputs = []
        for loop, head in enumerate(heads):
            samples = select(loop, rois)
            rows = self._rows(samples.rois)
            box = self.box_heads[head](self.box_extractor(features, rows))
            rois = self._refine(head, samples, rows, box, limits)
            outputs.append(LoopOutput(head, samples, rows, box, rois))
        return outputs

    def losses(
        self,
        features: Sequence[Tensor],
        rois: Rois,
        limits: Tensor,
        targets: BatchTargets,
        generator: torch.Generator | None,
    ) -> dict[str, Tensor]:
        """``loop{t}/cls``, ``loop{t}/box`` and ``loop{t}/mask`` of each training loop t = 1, 2, …, not weighted."""

        def sample(loop: int, rois: Rois) -> Samples:
            return self.sample(loop, rois, targets, generator)

        losses: dict[str, Tensor] = {}
        for loop, output in enumerate(self.run_loops(features, rois, limits, self.schedule.heads, sample)):
            losses |= {f"loop{loop + 1}/{name}": value for name, value in self._box_losses(output, targets).items()}
            samples = sample(loop, output.refined) if self.schedule.interleaved else output.samples
            losses[f"loop{loop + 1}/mask"] = self._mask_loss(features, loop, samples.positives(), targets)
        return losses

    def sample(self, loop: int, rois: Rois, targets: BatchTargets, generator: torch.Generator | None = None) -> Samples:
        """RoIs that training loop ``loop`` (from 0) works on, at its own IoU threshold."""
        return sample_rois(
            rois,
            targets,
            iou_threshold=self.schedule.iou_thresholds[loop],
            num_classes=self.num_classes,
            sampler=self.sampler,
            generator=generator,
        )

    def detect(self, features: Sequence[Tensor], rois: Rois, limits: Tensor) -> list[Detections]:
        """Detections of each image after the last evaluation loop."""
        return self.conclude(features, self._inference_loops(features, rois, limits), limits)

    def detect_per_loop(self, features: Sequence[Tensor], rois: Rois, limits: Tensor) -> list[list[Detections]]:
        """Detections [loop][image]: what ``detect`` gives with 1, 2, … evaluation loops, from one run of the loops."""
        outputs = self._inference_loops(features, rois, limits)
        return [self.conclude(features, outputs[: loop + 1], limits) for loop in range(len(outputs))]

    def conclude(self, features: Sequence[Tensor], outputs: Sequence[LoopOutput], limits: Tensor) -> list[Detections]:
        """Detections of each image from the loops run so far: fused scores, the last boxes, fused masks."""
        last = outputs[-1]
        slots = last.samples.rois.valid
        probabilities = fuse_scores([output.box.logits for output in outputs], self.schedule.score_fusion)
        boxes = clip_boxes(last.rows.scatter(self._class_boxes(last), slots), limits)
        selected = select_boxes(last.rows.scatter(probabilities, slots), boxes, slots, self.detection)
        masks = self._mask_probabilities(features, selected, len(outputs))
        counts = selected.rois.valid.sum(dim=1).tolist()
        return [
            Detections(
                boxes[:n],
                scores[:n],
                labels[:n],
                mask[:n],
                scores[:n],
                mask_threshold=self.detection.mask_threshold,
            )
            for n, boxes, scores, labels, mask in zip(
                counts, selected.rois.boxes, selected.scores, selected.labels, masks, strict=True
            )
        ]

    def _inference_loops(self, features: Sequence[Tensor], rois: Rois, limits: Tensor) -> list[LoopOutput]:
        heads = self.schedule.eval_heads
        return self.run_loops(features, rois, limits, heads, lambda _, rois: Samples.unlabelled(rois))

    def _mask_head(self, head: int) -> MaskHead:
        return cast(MaskHead, self.mask_heads[head])

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

    def _mask_loss(self, features: Sequence[Tensor], loop: int, samples: Samples, targets: BatchTargets) -> Tensor:
        rows = self._rows(samples.rois)
        head = self.schedule.heads[loop]
        chain = (*self.schedule.feedback_heads_before(loop, training=True), head)
        state = self._mask_states(self.mask_extractor(features, rows), chain)[-1]
        with torch.no_grad():
            wanted = [
                mask_targets(masks, boxes, gt, self.mask_size)
                for masks, boxes, gt in zip(targets.masks, samples.rois.boxes, samples.gt, strict=True)
            ]
        goal = torch.stack(wanted).flatten(0, 1)[rows.slot]
        return mask_loss(self._mask_head(head).predict(state), goal, samples.labels.flatten()[rows.slot], rows.valid)

    def _mask_states(self, pooled: Tensor, chain: Sequence[int]) -> list[Tensor]:
        """Features of the mask heads of a chain, each fed with the one before it."""
        states: list[Tensor] = []
        for head in chain:
            states.append(self._mask_head(head).trunk(pooled, states[-1] if states else None))
        return states

    def _mask_probabilities(self, features: Sequence[Tensor], selected: SelectedBoxes, loops: int) -> Tensor:
        """(B, D, M, M) mean over the loops of the detected class's mask probability, zero in empty slots."""
        rows = self._rows(selected.rois)
        labels = selected.labels.flatten()[rows.slot]
        pooled = self.mask_extractor(features, rows)
        heads = self.schedule.eval_heads[:loops]
        if self.schedule.mask_feedback == "off":
            states = [self._mask_states(pooled, [head])[0] for head in heads]
        else:
            states = self._mask_states(pooled, heads)
        masks = [
            select_class(self._mask_head(head).predict(state), labels).float().sigmoid()
            for head, state in zip(heads, states, strict=True)
        ]
        return rows.scatter(torch.stack(masks).mean(dim=0), selected.labels)
