"""Damaged checkpoints: broken entries of a sound one, and broken bytes of its file."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from trial import Case, Verdict

WRONG = (None, True, 5, -1, "text", [], {}, [None], {"a": 1}, KeyError)  # the last: without the entry
# Entries by path, with what is wrong there beside `WRONG`.
ENTRIES: dict[str, tuple[object, ...]] = {
    "r3cnn": (),
    "r3cnn/format": (),
    "r3cnn/model": (),
    "r3cnn/data": (),
    "r3cnn/classes": (["a", "b"], ["circle", "circle", "square"], ["circle", "square", 3]),
    "r3cnn/category_ids": ([1, 2], [1, 1, 2], [1, 2, True], [1, 2, 2.5], [1, 2, None], [1, 2, 3, 4]),
    "r3cnn/preprocessing": (),
    "r3cnn/preprocessing/mean": ([1, 2], [1, 2, "3"], [1, 2, float("nan")]),
    "r3cnn/preprocessing/std": ([1, 2], [0, 1, 1], [1, 1, True], [1, 1, float("inf")]),
    "r3cnn/preprocessing/image_size": ([96, 64], [0, 9], [64], [64, "96"], [64.5, 96], [64, 2**40]),
    "r3cnn/model/_target_": ("os.system", "r3cnn.backbones.FPN", "r3cnn.nowhere.Net"),
    "r3cnn/model/backbone": (),
    "r3cnn/model/backbone/depth": (11, 18, "10"),
    "r3cnn/model/rpn": (),
    "r3cnn/model/rpn/anchors/ratios": ([0], ["1"], [1.0]),
    "r3cnn/model/roi_heads/schedule": (),
    "r3cnn/model/roi_heads/schedule/heads": ([0, 1, 2], [0, 5], ["0"]),
    "r3cnn/model/roi_heads/num_classes": (2, 0, "3"),
    "state_dict": (),
}
# What only a resumed run needs.
STATE = """
    optimizer_states lr_schedulers loops loops/fit_loop callbacks global_step epoch loops/fit_loop/epoch_progress
    loops/fit_loop/epoch_progress/current loops/fit_loop/epoch_loop.batch_progress r3cnn_run r3cnn_run/order
    loops/fit_loop/epoch_progress/current/processed r3cnn_run/order/seed r3cnn_run/batch_size r3cnn_run/optimizer
    r3cnn_run/earlier r3cnn_run/epoch
"""
Change = tuple[str, Verdict, object]


def cases(number: int, seed: int, places: Mapping[str, Path], tiny: tuple[str, ...], folder: Path) -> Iterator[Case]:
    """A draw of damaged checkpoints, each of which lies there until the next one is asked for.

    Args:
        number: How many.
        seed: Of the draw.
        places: Where things are, among them a run that can be resumed.
        tiny: Settings of that run.
        folder: Where the damaged ones are written.
    """
    sound, broken, out = places["run"] / "checkpoints/last.ckpt", folder / "broken.ckpt", f"output_dir={places['out']}"
    resumed = ("train", *tiny, out, "trainer.max_steps=2", f"resume={broken}")
    used = ("predict", f"source={places['image']}", out, f"checkpoint={broken}")
    content, data, draw = torch.load(sound, weights_only=True), sound.read_bytes(), random.Random(seed)
    changes = _changes(content, draw)
    chosen = draw.sample(changes, min(number * 3 // 4, len(changes)))
    for path, verdict, value in chosen:
        torch.save(_changed(content, path, value), broken)
        kind = "state of the run" if path in STATE.split() else "weights" if "/model." in path else "entries"
        name = f"{path} = {'zeros(3)' if isinstance(value, torch.Tensor) else value}"
        words = resumed if path in STATE.split() else used
        yield Case(name, f"{kind}: {verdict.value}", verdict, words, broken.name)
    for _ in range(number - len(chosen)):
        place, is_cut, words = draw.randrange(len(data)), draw.random() < 0.5, draw.choice([used, resumed])
        broken.write_bytes(data[:place] + (b"" if is_cut else draw.randbytes(64) + data[place + 64 :]))
        verdict = Verdict.INVALID if is_cut else Verdict.HARMLESS
        name = f"{'cut' if is_cut else 'random bytes'} at {place} of {len(data)}, {words[0]}"
        yield Case(name, f"bytes: {verdict.value}", verdict, words, broken.name)
    broken.unlink(missing_ok=True)


def _changes(content: Mapping[str, Any], draw: random.Random) -> list[Change]:
    """All changes of entries by path, with what has to become of each; the data set of a checkpoint is not used."""
    changes: list[Change] = []
    for path, values in ENTRIES.items():
        verdict = Verdict.HARMLESS if path == "r3cnn/data" else Verdict.INVALID
        changes += [(path, verdict, value) for value in (*WRONG, *values)]
    changes += [(path, Verdict.HARMLESS, value) for path in STATE.split() for value in WRONG]
    weights = draw.sample([name for name in content["state_dict"] if name.startswith("model.")], 12)
    wrong = (KeyError, None, torch.zeros(3))
    return changes + [(f"state_dict/{name}", Verdict.INVALID, one) for name in weights for one in wrong]


def _changed(content: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    changed = copy.deepcopy(content)
    place, (*way, last) = changed, path.split("/")
    for key in way:
        place = place[key]
    if value is KeyError:
        del place[last]
    else:
        place[last] = value
    return changed
