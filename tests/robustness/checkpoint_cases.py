"""Damaged checkpoints: broken entries of a sound one, and broken bytes of its file."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from trial import Case, Verdict

WRONG = (None, True, 5, -1, "text", [], {}, [None], {"a": 1})
# Entries by path, with what is wrong there beside `WRONG`.
ENTRIES: dict[tuple[str, ...], tuple[object, ...]] = {
    ("r3cnn",): (),
    ("r3cnn", "format"): (),
    ("r3cnn", "model"): (),
    ("r3cnn", "data"): (),
    ("r3cnn", "classes"): (["a", "b"], ["circle", "circle", "square"], ["circle", "square", 3]),
    ("r3cnn", "category_ids"): ([1, 2], [1, 1, 2], [1, 2, True], [1, 2, 2.5], [1, 2, None], [1, 2, 3, 4]),
    ("r3cnn", "preprocessing"): (),
    ("r3cnn", "preprocessing", "mean"): ([1, 2], [1, 2, "3"], [1, 2, float("nan")]),
    ("r3cnn", "preprocessing", "std"): ([1, 2], [0, 1, 1], [1, 1, True], [1, 1, float("inf")]),
    ("r3cnn", "preprocessing", "image_size"): ([96, 64], [0, 9], [64], [64, "96"], [64.5, 96]),
    ("r3cnn", "model", "_target_"): ("os.system", "r3cnn.backbones.FPN", "r3cnn.nowhere.Net"),
    ("r3cnn", "model", "backbone"): (),
    ("r3cnn", "model", "backbone", "depth"): (11, 18, "10"),
    ("r3cnn", "model", "rpn"): (),
    ("r3cnn", "model", "rpn", "anchors", "ratios"): ([0], ["1"], [1.0]),
    ("r3cnn", "model", "roi_heads", "schedule"): (),
    ("r3cnn", "model", "roi_heads", "schedule", "heads"): ([0, 1, 2], [0, 5], ["0"]),
    ("r3cnn", "model", "roi_heads", "num_classes"): (2, 0, "3"),
    ("state_dict",): (),
}
STATE = (  # what only a resumed run needs
    ("optimizer_states",), ("lr_schedulers",), ("loops",), ("loops", "fit_loop"), ("callbacks",), ("global_step",),
    ("loops", "fit_loop", "epoch_progress"), ("loops", "fit_loop", "epoch_progress", "current"), ("epoch",),
    ("loops", "fit_loop", "epoch_loop.batch_progress"), ("loops", "fit_loop", "epoch_progress", "current", "processed"),
    ("r3cnn_run",), ("r3cnn_run", "order"), ("r3cnn_run", "order", "seed"), ("r3cnn_run", "batch_size"),
    ("r3cnn_run", "optimizer"), ("r3cnn_run", "earlier"), ("r3cnn_run", "epoch"),
)  # fmt: skip


def cases(
    number: int, seed: int, sound: Path, tiny: tuple[str, ...], places: Mapping[str, Path], folder: Path
) -> list[Case]:
    """A draw of damaged checkpoints.

    Args:
        number: How many.
        seed: Of the draw.
        sound: A checkpoint of a run that can be resumed.
        tiny: Settings of that run.
        places: Where things are.
        folder: Where the damaged ones are written.
    """
    out = f"output_dir={places['out']}"

    def words(kind: str, broken: Path) -> tuple[str, ...]:
        if kind == "state of the run":
            return ("train", *tiny, out, "trainer.max_steps=2", f"resume={broken}")
        return ("predict", f"source={places['image']}", out, f"checkpoint={broken}")

    content = torch.load(sound, weights_only=True)
    draw = random.Random(seed)
    changes: list[tuple[str, tuple[str, ...], Verdict, object]] = []
    for path, values in ENTRIES.items():
        verdict = Verdict.HARMLESS if path == ("r3cnn", "data") else Verdict.INVALID  # a data set that is not used
        changes += [("entries", path, verdict, value) for value in (*WRONG, KeyError, *values)]
    for path in STATE:
        if _reached(content, path):
            changes += [("state of the run", path, Verdict.HARMLESS, value) for value in (*WRONG, KeyError)]
    names = [name for name in content["state_dict"] if name.startswith("model.")]
    for name in draw.sample(names, 12):
        changes += [("weights", ("state_dict", name), Verdict.INVALID, one) for one in (KeyError, None, torch.zeros(3))]
    found = []
    for index, (kind, path, verdict, value) in enumerate(draw.sample(changes, min(number * 3 // 4, len(changes)))):
        broken = folder / f"entry{index}.ckpt"
        torch.save(_changed(content, path, value), broken)
        name = f"{'.'.join(path)} = {value if not isinstance(value, torch.Tensor) else 'zeros(3)'}"
        found.append(Case(name, f"{kind}: {verdict.value}", verdict, words(kind, broken), broken.name))
    data = sound.read_bytes()
    while len(found) < number:
        broken, damaged = folder / f"bytes{len(found)}.ckpt", bytearray(data)
        place = draw.randrange(len(data))
        verdict = draw.choice([Verdict.INVALID, Verdict.HARMLESS])
        if verdict is Verdict.INVALID:
            damaged = damaged[:place]
        else:
            damaged[place : place + 64] = draw.randbytes(64)
        broken.write_bytes(damaged)
        name = f"{'cut' if verdict is Verdict.INVALID else 'random bytes'} at {place}"
        use = words(draw.choice(["bytes", "state of the run"]), broken)
        found.append(Case(name, f"bytes: {verdict.value}", verdict, use, broken.name))
    return found


def _reached(content: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    for key in path:
        if not isinstance(content, Mapping) or key not in content:
            return False
        content = content[key]
    return True


def _changed(content: dict[str, Any], path: tuple[str, ...], value: object) -> dict[str, Any]:
    changed = copy.deepcopy(content)
    place = changed
    for key in path[:-1]:
        place = place[key]
    if value is KeyError:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return changed
