"""Trained networks as files that run without this project: ONNX, or a program of ``torch.export``.

Both hold the whole way from pixels to detections with the loops unrolled and all sizes fixed, and a description beside
it: classes, sizes, thresholds, version.
"""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from r3cnn.detector import RCNN
from r3cnn.interop.exported_detector import ExportedDetector, FixedSizes
from r3cnn.interop.suppression import Suppression, suppress, suppress_as_operator

Program = Callable[[Tensor, Tensor], dict[str, Tensor]]
"""What `ExportedDetector.forward` is."""
Description = Mapping[str, object]
"""Plain containers, written as JSON."""

DESCRIPTION = "r3cnn.json"  # in a file of torch.export; in ONNX every entry has a key of its own
INPUTS = ("images", "sizes")
OUTPUTS = ("boxes", "scores", "labels", "masks", "mask_scores", "valid")
OPSET = 20  # RoiAlign as ours is there from 16 on, DeformConv from 19
HARMLESS_WARNINGS = (
    "ONNX export for RoIAlign with a non-zero sampling_ratio",  # says it of -1, which is ONNX's 0: adaptive
    ".*create_unbacked_symint. is deprecated",  # torchvision's business
)


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        suffix: How its names end.
        packages: What must be installed beside torch.
        suppress: Non-maximum suppression that it has an operator for.
        write: Traces a detector with example inputs into a file with a description.
        load: The program in a file.
    """

    suffix: str
    packages: tuple[str, ...]
    suppress: Suppression
    write: Callable[[nn.Module, tuple[Tensor, Tensor], Path, Description], None]
    load: Callable[[Path], Program]


def export(
    model: RCNN,
    sizes: FixedSizes,
    name: str,
    path: Path,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    description: Description,
) -> None:
    """Writes a network to a file.

    Args:
        model: The network, on the CPU.
        sizes: The sizes that it has from then on.
        name: One of ``FORMATS``.
        path: The file.
        mean: Mean of each RGB channel, in [0, 255].
        std: Standard deviation of each RGB channel.
        description: What is written beside the network.

    Raises:
        ValueError: For an unknown format, a file of another format, or a network that cannot be exported.
        ImportError: If a package is missing.
    """
    format_ = checked_format(name, path)
    detector = ExportedDetector(model, sizes, mean=mean, std=std, suppress=format_.suppress).eval()
    images = torch.zeros(sizes.batch, 3, *sizes.image, dtype=torch.uint8)
    example = (images, torch.tensor([sizes.image] * sizes.batch))
    with warnings.catch_warnings(), torch.no_grad():
        for message in HARMLESS_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        format_.write(detector, example, path, description)


def checked_format(name: str, path: Path) -> Format:
    """The format of that name.

    Raises:
        ValueError: If there is none, or ``path`` does not end as its files do.
        ImportError: If a package is missing.
    """
    if name not in FORMATS:
        raise ValueError(f"format must be one of {tuple(FORMATS)}, got {name!r}")
    found = FORMATS[name]
    if path.suffix != found.suffix:
        raise ValueError(f"output={path} must end with {found.suffix} for format={name}")
    missing = [package for package in found.packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ImportError(f"format={name} needs {', '.join(missing)}: pip install 'r3cnn[export]'")
    return found


def _traced(detector: nn.Module, example: tuple[Tensor, Tensor]) -> torch.export.ExportedProgram:
    try:
        return torch.export.export(detector, example)
    except RuntimeError as error:  # torch's errors about this have no other class in common
        raise ValueError(
            "this network cannot be exported: a part of it looks at values to decide what to do, or makes shapes of "
            f"them: {error}"
        ) from error


def _write_onnx(detector: nn.Module, example: tuple[Tensor, Tensor], path: Path, description: Description) -> None:
    from r3cnn.interop.onnx_operators import simplify, translations

    traced = _traced(detector, example)
    try:
        program = torch.onnx.export(
            traced,
            dynamo=True,
            opset_version=OPSET,
            input_names=INPUTS,
            output_names=OUTPUTS,
            custom_translation_table=translations(),
            optimize=False,  # its rewriter takes longer than all the rest, and runtimes fuse by themselves
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        raise ValueError(
            f"this network cannot become ONNX: {_first_cause(error)}; format=torch_export takes every operator of torch"
        ) from error
    if program is None:
        raise ValueError("torch.onnx.export gave no program")
    simplify(program)
    program.model.metadata_props.update({key: json.dumps(value) for key, value in description.items()})
    program.save(path, external_data=False)


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _load_onnx(path: Path) -> Program:
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)  # errors
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def program(images: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        values = session.run(OUTPUTS, dict(zip(INPUTS, (images.numpy(), sizes.numpy()), strict=True)))
        return {name: torch.from_numpy(value) for name, value in zip(OUTPUTS, values, strict=True)}

    return program


def _write_torch(detector: nn.Module, example: tuple[Tensor, Tensor], path: Path, description: Description) -> None:
    torch.export.save(_traced(detector, example), path, extra_files={DESCRIPTION: json.dumps(description)})


def _load_torch(path: Path) -> Program:
    module = torch.export.load(path).module()

    def program(images: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            return module(images, sizes)

    return program


FORMATS = {
    "onnx": Format(".onnx", ("onnx", "onnxscript", "onnxruntime"), suppress_as_operator, _write_onnx, _load_onnx),
    "torch_export": Format(".pt2", (), suppress, _write_torch, _load_torch),
}
