"""Who may import whom (the design's layers), read from the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "r3cnn"
MODULES = sorted(SOURCE.rglob("*.py"))

BASE = {"structures", "schedule", "names", "disk", "ranges", "run_files"}
MODEL = BASE | {"ops", "layers", "backbones", "rpn", "roi"}
RUNNING = MODEL | {"archive", "end_signals", "detector", "inference_modes", "batch", "interop", "data", "evaluation"}
# Package -> what it may import of ours, itself included.
ALLOWED = {
    "structures": BASE,
    "schedule": BASE,
    "names": {"names"},
    "disk": {"disk"},
    "ranges": {"ranges"},
    "run_files": {"structures", "names", "disk", "run_files"},
    "archive": {"disk", "names", "archive"},
    "batch": {"structures", "batch"},
    "process_memory": {"process_memory"},
    "end_signals": {"end_signals"},
    "ops": BASE | {"ops"},
    "layers": BASE | {"ops", "layers"},
    "backbones": BASE | {"ops", "layers", "backbones"},
    "rpn": BASE | {"ops", "layers", "rpn"},
    "roi": BASE | {"ops", "layers", "roi"},
    "detector": MODEL | {"detector"},
    "inference_modes": MODEL | {"detector", "inference_modes"},
    "interop": MODEL | {"archive", "detector", "interop"},
    "data": BASE | {"end_signals", "ops", "batch", "data"},
    "evaluation": BASE | {"ops", "batch", "data", "evaluation"},  # one reader of annotation files
    "reporting": BASE | {"data", "evaluation", "reporting"},  # annotation files, codes of masks, types of results
    "training": RUNNING | {"process_memory", "training"},
    "benchmarks": RUNNING | {"process_memory", "benchmarks"},
    "cli": RUNNING | {"training", "reporting", "benchmarks", "cli"},
    "__init__": {"training"},  # `from r3cnn import Predictor`, on demand
    "__main__": {"cli"},
}
# Library -> where it may be imported at all, and whether only inside functions.
LIBRARIES = {
    "hydra": ({"cli"}, False),
    "omegaconf": ({"cli"}, False),
    "lightning": ({"training", "data/datamodule.py", "cli"}, False),
    "wandb": ({"training", "reporting"}, True),
    "matplotlib": ({"reporting", "cli"}, True),
    "timm": ({"backbones"}, True),
    "submitit": ({"cli"}, True),
    "onnxruntime": ({"interop"}, True),
    "onnxscript": ({"interop/onnx_operators.py"}, False),  # which is itself imported lazily
}


def package_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> list[tuple[str, int]]:
    """Dotted names of everything that is imported, with the line."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # `from r3cnn import structures` names a module of ours; `from r3cnn.ops import boxes` is ops either way.
            names = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "r3cnn" else [node.module]
            found += [(name, node.lineno) for name in names]
    return found


def lines_run_on_import(tree: ast.Module) -> set[int]:
    """Lines of import statements that run when the module is imported."""
    lines: set[int] = set()
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            lines.add(node.lineno)
        pending += ast.iter_child_nodes(node)
    return lines


def test_every_package_has_its_place_in_the_layers() -> None:
    assert {package_of(path) for path in MODULES} <= ALLOWED.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_imports_only_from_its_own_layer_and_those_below(path: Path) -> None:
    allowed = ALLOWED[package_of(path)]
    wrong = [
        f"line {line}: {name}"
        for name, line in imports(ast.parse(path.read_text()))
        if name.startswith("r3cnn.") and name.split(".")[1] not in {*allowed, "__version__"}
    ]
    assert wrong == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_optional_libraries_are_imported_only_where_they_belong(path: Path) -> None:
    tree = ast.parse(path.read_text())
    at_import = lines_run_on_import(tree)
    place = path.relative_to(SOURCE).as_posix()
    wrong = []
    for name, line in imports(tree):
        places, is_lazy = LIBRARIES.get(name.split(".")[0], ({package_of(path)}, False))
        if not {place, package_of(path)} & places or (is_lazy and line in at_import):
            wrong.append(f"line {line}: {name}")
    assert wrong == []


def test_no_relative_import_hides_from_these_tests() -> None:
    relative = [
        f"{path.relative_to(SOURCE)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == []
