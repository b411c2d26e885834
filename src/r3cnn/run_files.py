"""Every file that a run leaves: its name, how it is written, and how it is read.

Writing is all or nothing. What is read may be anybody's, such as a folder out of an archive: it is plain data, with
limits to its size and depth, from regular files that lie in the folder itself.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec
import yaml

from r3cnn.disk import open_regular, whole_file
from r3cnn.names import Id, file_name, metric_key, shortened

CONFIG, TRAINING_CONFIG = "config.yaml", "config_train.yaml"  # the latter once a training's folder is evaluated into
RESULT, METRICS, NUMBERS = "result.json", "metrics.json", "metrics.csv"
DETECTIONS, LOOP_DETECTIONS, IMAGE_IDS = "detections.json", "detections_loop{}.json", "image_ids.json"
ROIS, TRAINING_ROIS = "roi_statistics.json", "roi_statistics_train.json"
BOOTSTRAPS = "bootstraps.json"
LAST, BEST, EVALUATED = "last.ckpt", "best.ckpt", "evaluated.ckpt"
PICTURES, CHECKPOINTS, ERRORS = "pictures", "checkpoints", "errors"
CURVES, PREDICTIONS, LOOPS = "training_curves.png", "_predictions.png", "_loops.png"
ERROR_REPORT = "errors.json"
ERROR_PICTURES = ("errors.png", "precision_recall.png", "confusion_box.png", "confusion_mask.png")

MOST_BYTES = 32 * 2**20  # of what a run says about itself; an AP of 1,203 classes after five loops takes 2 MiB
MOST_CONFIG_BYTES, MOST_SLOWLY_READ = 4 * 2**20, 2**18
MOST_NUMBERS_BYTES = 128 * 2**20
MOST_DETECTIONS_BYTES = 2**30  # 5,000 images of COCO with 100 detections each take a quarter
DEEPEST = 64
LONGEST_SCALAR = 2**16  # characters; a YAML number of a million takes minutes
LONGEST_INTEGER = 19  # digits, as in 64 bits
Config = dict[str, object]
Kind = TypeVar("Kind")


def write_text(text: str, path: Path) -> None:
    """Writes a text file, whole or not at all."""
    with whole_file(path) as draft:
        draft.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(content: object, path: Path, indent: int | None = None) -> None:
    """Writes a JSON file, whole or not at all.

    Raises:
        ValueError: For a number that is not finite, which JSON does not know.
    """
    write_text(json.dumps(content, indent=indent, allow_nan=False) + "\n", path)


def in_json(setting: object) -> object:
    """A configuration, or a part of it, with the text of numbers that are not finite, as gradient_clip_val=inf is."""
    if isinstance(setting, Mapping):
        return {key: in_json(value) for key, value in setting.items()}
    if isinstance(setting, list):
        return [in_json(value) for value in setting]
    return str(setting) if isinstance(setting, float) and not math.isfinite(setting) else setting


def write_json_list(entries: Iterable[object], path: Path) -> None:
    """Writes a list as `write_json` does, one entry at a time: those of ``detections.json`` take a kilobyte each."""
    with whole_file(path) as draft, draft.open("w", encoding="utf-8") as file:
        for number, entry in enumerate(entries):
            file.write((", " if number else "[") + json.dumps(entry, allow_nan=False))
        file.write("]\n" if file.tell() else "[]\n")


def write_config(config: Mapping[str, object], path: Path) -> None:
    """Writes a resolved configuration; plain YAML, in which no ``${…}`` is left to mean anything."""
    write_text(yaml.dump(dict(config), Dumper=_PlainDumper, allow_unicode=True, sort_keys=False), path)


class _PlainDumper(yaml.SafeDumper):
    """Writes what occurs twice twice."""

    def ignore_aliases(self, data: object) -> bool:
        """All are ignored."""
        return True


def picture_file(folder: Path, image_id: Id, kind: str) -> Path:
    """Where the picture of an image is drawn; an id of the annotation file may be any text."""
    return folder / file_name(metric_key(str(image_id)), kind)


def own_file(folder: Path, name: str) -> Path:
    """A file of a run, once it is known to lie in the run's folder and to be no link out of it.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it lies elsewhere.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{path} leads out of the run's folder: copy the file into it")
    if not path.exists():
        raise FileNotFoundError(f"{folder} has no {name}")
    return path


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """All of a regular file; what is larger is refused before it is read, and `open_regular` says what else is."""
    with open_regular(path, most) as file:
        return file.read(most)


def read_json(path: Path, kind: type[Kind], most: int = MOST_BYTES) -> Kind:
    """Content of a JSON file.

    Args:
        path: A regular file.
        kind: What it must hold, as `msgspec.convert` understands it; strictly, so that no text stands for a number.
        most: Bytes that it may have.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is something else, or holds something else.
    """
    return decoded(read_bytes(path, most), kind, path)


def decoded(text: bytes, kind: type[Kind], path: Path) -> Kind:
    """Likewise of what has been read from ``path``."""
    try:
        # An even number of backslashes before "ud", as in codes of masks, is no escape of half a surrogate pair.
        if not any(len(found[0]) % 2 for found in re.finditer(rb"\\+u[dD]", text)):
            return msgspec.json.decode(text, type=kind)
        # Names of files may hold halves of surrogate pairs, which only Python's parser takes.
        content = json.loads(text, parse_int=_modest, parse_float=_finite, parse_constant=_finite)
        return msgspec.convert(content, kind)
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply") from None
    except msgspec.ValidationError as error:
        raise ValueError(f"{path} does not hold what a run writes: {error}") from error
    except ValueError as error:  # msgspec's own among them
        raise ValueError(f"{path} is not valid JSON: {error}") from error


def _modest(digits: str) -> int:
    if len(digits) > LONGEST_INTEGER:
        raise ValueError(f"it holds an integer of {len(digits)} digits")
    return int(digits)


def _finite(number: str) -> float:
    if not math.isfinite(value := float(number)):
        raise ValueError(f"it holds {shortened(number)}, which is not finite")
    return value


def read_config(path: Path) -> Config:
    """What a run wrote as its ``config.yaml``: strings are text, since everything in the file was resolved.

    Anchors, aliases and tags are refused: a few hundred bytes of them stand for gigabytes.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no YAML file, or holds no mapping.
    """
    text = read_bytes(path, MOST_CONFIG_BYTES)
    has_surrogates = b"\\ud" in text.lower()  # which names of files may hold, and the loader in C does not know
    loader: type[yaml.SafeLoader | yaml.CSafeLoader] = yaml.SafeLoader if has_surrogates else yaml.CSafeLoader
    try:
        if has_surrogates and len(text) > MOST_SLOWLY_READ:
            raise ValueError(f"it has {len(text):,} bytes and halves of surrogate pairs")
        _check_plain(text, loader)
        content = yaml.load(text, loader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        reason = shortened(" ".join(str(error).split()), 200)
        raise ValueError(f"{path} is no configuration of a run: {reason}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no configuration of a run: a mapping is needed, got a {type(content).__name__}")
    return {str(key): value for key, value in content.items()}


def _check_plain(text: bytes, loader: type[yaml.SafeLoader | yaml.CSafeLoader]) -> None:
    """Lets only nested mappings, lists and scalars of a modest size pass."""
    depth = 0
    for event in yaml.parse(text, loader):
        line = event.start_mark.line + 1
        if getattr(event, "anchor", None) is not None:
            raise ValueError(f"line {line} has an anchor or alias, which no run writes")
        if getattr(event, "tag", None) is not None:
            raise ValueError(f"line {line} has a tag, which no run writes")
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > LONGEST_SCALAR:
            raise ValueError(f"line {line} has a value of {len(event.value):,} characters")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"line {line} is nested too deeply")


def mapping_at(config: Mapping[str, object], *keys: str) -> Mapping[str, object]:
    """A mapping in a configuration.

    Raises:
        ValueError: If there is none.
    """
    value: object = config
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping):
        raise ValueError(f"the configuration has no {'.'.join(keys)}: it is none of a train or evaluate run")
    return value
