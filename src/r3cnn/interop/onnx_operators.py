# mypy: disable-error-code="type-var,return-value,arg-type,assignment,index"
# (onnxscript types the operators for its own compiler; here they are called on the values of a trace.)
"""Operators of ONNX for those of torch that its exporter does not know, or not for our shapes.

Imported only by those who have onnxscript.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from onnxscript import BOOL, FLOAT, optimizer
from onnxscript import opset18 as op

ONNX_BOOL = 9


def non_max_suppression(boxes: FLOAT, scores: FLOAT, iou_threshold: float, score_threshold: float, limit: int) -> BOOL:
    """`suppression.suppress_as_operator`: ``NonMaxSuppression`` knows groups and rows, as batches and classes."""
    found = op.NonMaxSuppression(boxes, scores, limit, iou_threshold, score_threshold)  # (kept, 3): group, row, box
    ones = op.Expand(1.0, op.Shape(found, end=1))
    return op.Cast(op.ScatterND(op.ConstantOfShape(op.Shape(scores)), found, ones), to=ONNX_BOOL)


def attention(
    query: FLOAT,
    key: FLOAT,
    value: FLOAT,
    attn_mask: FLOAT | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> FLOAT:
    """``scaled_dot_product_attention`` of tensors of any rank; the exporter's own takes four dimensions only.

    Raises:
        NotImplementedError: For what no network of ours asks for.
    """
    if is_causal or enable_gqa or dropout_p:
        raise NotImplementedError("attention that is causal, grouped or has dropout cannot be exported to ONNX")
    axes = list(range(len(key.shape)))
    energy = op.MatMul(query, op.Transpose(key, perm=[*axes[:-2], axes[-1], axes[-2]]))
    energy = op.Mul(energy, query.shape[-1] ** -0.5 if scale is None else scale)
    if attn_mask is not None:
        energy = op.Add(energy, attn_mask)
    return op.MatMul(op.Softmax(energy, axis=-1), value)


def translations() -> dict[Callable[..., object], Callable[..., object]]:
    """Operator of torch -> what stands for it."""
    return {
        torch.ops.r3cnn.suppress.default: non_max_suppression,
        torch.ops.aten.scaled_dot_product_attention.default: attention,
    }


def simplify(program: torch.onnx.ONNXProgram) -> None:
    """Replaces what does not depend on the input by its value, in place."""
    optimizer.fold_constants(program.model)
    optimizer.remove_unused_nodes(program.model)
