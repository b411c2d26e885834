"""How far float32 rounding may move a number.

Each tolerance is `HEADROOM` times what the original moved by when only its thread count or its convolution kernels
changed, as ``golden/noise.json`` recorded it. Every stage is fed with what was recorded before it, so that the noise
of one stage is all there is.
"""

from __future__ import annotations

import json

from recordings import COPY

NOISE = json.loads((COPY / "noise.json").read_text())
HEADROOM = 4
SAME_PROPOSALS = NOISE.pop("SAME PROPOSALS (read this first)")
REFERENCE_SIDE = 320  # pixels, the longest side of the images that the noise was recorded with


def own_chain(*keys: str) -> float:
    """Largest movement of arrays over the re-runs, every stage fed with what the one before it gave."""
    return max(run["arrays"][key]["max_abs_diff"] for run in NOISE.values() for key in keys if key in run["arrays"])


def same_proposals(key: str) -> float:
    """Largest movement of an array over the re-runs from the recorded proposals, in which no detections swapped."""
    runs = [run for run in SAME_PROPOSALS.values() if not any("det_labels" in k and v for k, v in run.items())]
    return max(
        run[f"same proposals: {key} max_abs_diff"] for run in runs if f"same proposals: {key} max_abs_diff" in run
    )


def relative(kind: str, *, only: str = "", without: str = "\0") -> float:
    """Largest relative movement of losses or gradient norms over the re-runs."""
    return max(
        value
        for run in NOISE.values()
        for key, value in run["train_given"][kind].items()
        if only in key and without not in key
    )


FEATURES = HEADROOM * own_chain(
    *(f"feat/{level}_sample" for level in ("c2", "c3", "c4", "c5", "p2", "p3", "p4", "p5", "p6"))
)
RPN_LOGITS = HEADROOM * own_chain(*(f"feat/rpn_cls{level}_sample" for level in range(5)))
RPN_DELTAS = HEADROOM * own_chain(*(f"feat/rpn_reg{level}_sample" for level in range(5)))
POOLED = HEADROOM * same_proposals("stage0_roifeat_sample")
LOGITS = HEADROOM * same_proposals("stage0_cls_logits_first32")
DELTAS = HEADROOM * same_proposals("stage0_bbox_pred")
MASK_LOGITS = HEADROOM * own_chain("train_given/mask_call0_sample")
MASKS = MASK_LOGITS / 4  # a probability moves by a quarter of what its logit moves, at most
MASK_IOU = HEADROOM * same_proposals("mask_iou_pred")
LOSS = HEADROOM * relative("loss_rel_diff", without="mask_iou")
MASK_IOU_LOSS = HEADROOM * relative("loss_rel_diff", only="mask_iou")
GRADIENT = HEADROOM * relative("grad_norm_rel_diff")


def refined(sizes: list[tuple[int, int]]) -> float:
    """Pixels, after one loop; the rounding of a coordinate grows with the image."""
    scale = max(1.0, max(max(size) for size in sizes) / REFERENCE_SIDE)
    return HEADROOM * own_chain("train_given/refined_after_stage0_img*") * scale
