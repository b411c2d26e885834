"""Broken annotation files: what each field may hold is said here anew, independent of the reader."""

from __future__ import annotations

import copy
import json
import math
import random
from typing import Any

from trial import Case, Verdict

RUNS = {"size": [60, 80], "counts": [100, 50, 4650]}
SQUARE = [[10.0, 20.0, 30.0, 20.0, 30.0, 40.0, 10.0, 40.0]]
SOUND: dict[str, list[dict[str, Any]]] = {
    "images": [{"id": one, "file_name": f"{one}.png", "height": 60, "width": 80} for one in (1, 2)],
    "annotations": [
        {"id": one, "image_id": 1 + one % 2, "category_id": 3, "iscrowd": 0, "area": 400.0, "bbox": [10, 20, 20.0, 20],
         "segmentation": SQUARE if one < 4 else RUNS}
        for one in (1, 2, 3, 4)
    ],
    "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
}  # fmt: skip
NAN, INF, LONG = math.nan, math.inf, 10**400
NO_NUMBER = (True, False, None, "1", "", [], {}, [1], NAN, INF, -INF, LONG)
NO_ID = (True, False, None, 1.5, "", [], {}, [1], NAN, INF)
# (part, field): values that are sound, and values that are not.
FIELDS: dict[tuple[str, str], tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    ("images", "id"): ((1, 1.0), (*NO_ID, 2)),
    ("images", "file_name"): (("1.png", "a/ä 1.png"), (True, None, 1, 1.5, "", [], {}, "a\0b")),
    ("images", "height"): ((60, 60.0), (*NO_NUMBER, 0, -60, 60.5, 2**40)),
    ("images", "width"): ((80, 80.0), (*NO_NUMBER, 0, -80, 80.5, 2**40)),
    ("annotations", "id"): ((1, 99, 1.0, "a"), (*NO_ID, 2)),
    ("annotations", "image_id"): ((1, 2, 2.0), (*NO_ID, 3, "1", -1)),
    ("annotations", "category_id"): ((3, 7, 7.0), (*NO_ID, 1, "3", -3)),
    ("annotations", "iscrowd"): ((0, 1, None, True, False), (2, -1, "0", "", [], {}, NAN, 0.5)),
    ("annotations", "area"): ((0, 1.5, None), (True, False, "1", [], {}, NAN, INF, -1, LONG)),
    ("annotations", "bbox"): (
        ([10, 20, 20, 20], [0.0, 0.0, 80.0, 60.0]),
        (
            True, "box", 5, [], {}, [1, 2, 3], [1, 2, 3, 4, 5], [[1, 2, 3, 4]],
            *([10, 20, value, 20] for value in (*NO_NUMBER, 0, -5, 1e9)),
            *([value, 20, 20, 20] for value in (*NO_NUMBER, 1e9, -1e9)),
        ),
    ),
    ("annotations", "segmentation"): (
        (SQUARE, RUNS, [*SQUARE, [1, 1, 9, 1, 9, 9]]),
        (
            True, "mask", 5, None, [], {}, [[]], [5], [[1, 2, 3, 4, 5]], [[1, 2]], SQUARE[0], [SQUARE],
            *([[10, 20, 30, 20, 30, value]] for value in (*NO_NUMBER, 1e9)),
            *([*SQUARE, [10, 20, 30, 20, 30, value]] for value in (True, "1", None, NAN)),
            *({"size": size, "counts": [4800]} for size in ([80, 60], [60], "ab", None, [60, True], [60, 80, 1], 5)),
            *({"size": [60, 80], "counts": one}
              for one in ([4801], [-1, 4801], [4800.0], [True, 4799], ["4800"], [], None, 5, "", "~~~", "ÿ", [LONG])),
        ),
    ),
    ("categories", "id"): ((3, 3.0), (*NO_ID, 7)),
    ("categories", "name"): (("cat",), (True, None, 5, [], {}, "", "dog", "bird")),
}  # fmt: skip
REQUIRED = [place for place in FIELDS if place[1] not in ("iscrowd", "area", "bbox") and place != ("annotations", "id")]
WHOLE = json.dumps(SOUND)
TEXTS = {
    Verdict.INVALID: [
        "", " ", "null", "5", "[]", "{}", '"text"', "{", "[" * 100_000, WHOLE + "}", WHOLE + WHOLE, "\0" * 50,
        WHOLE.replace(":", "", 1), WHOLE.replace('"', "'", 2), "\x89PNG\r\n\x1a\n", "<html></html>",
        *(WHOLE[: len(WHOLE) * share // 20] for share in range(1, 20)),
        *(json.dumps({**SOUND, part: one}) for part in SOUND for one in (None, 5, "a", {}, [None], [5], [[]], [True])),
        *(json.dumps({name: SOUND[name] for name in SOUND if name != part}) for part in SOUND),
        json.dumps({**SOUND, "images": []}), json.dumps({**SOUND, "categories": []}),
    ],
    Verdict.VALID: [
        WHOLE, "\n\t " + WHOLE + "\n", json.dumps(SOUND, indent=3), json.dumps({**SOUND, "info": {}, "licenses": None}),
        json.dumps(dict(reversed(SOUND.items()))), json.dumps({"type": [1, {"a": None}], **SOUND}),
    ],
}  # fmt: skip


def cases(number: int, seed: int) -> list[tuple[Case, bytes]]:
    """A draw of broken files, some of them sound, and the bytes of each."""
    found: list[tuple[Case, bytes]] = []

    def add(kind: str, name: str, verdict: Verdict, content: object) -> None:
        data = content if isinstance(content, bytes) else str(content).encode("utf-8", "surrogatepass")
        found.append((Case(name, f"{kind}: {verdict.value}", verdict, ()), data))

    for (part, field), choices in FIELDS.items():
        for verdict, values in zip((Verdict.VALID, Verdict.INVALID), choices, strict=True):
            for value in values:
                add(part, f"{part}[0].{field} = {str(value)[:60]!r}", verdict, _changed(part, field, value))
    for part, field in REQUIRED:
        add(part, f"{part}[0] without {field}", Verdict.INVALID, _changed(part, field))
    for verdict, texts in TEXTS.items():
        for text in texts:
            add("text", f"text {text[:40]!r}… of {len(text)}", verdict, text)
    draw = random.Random(seed)
    chosen = draw.sample(found, min(number, len(found)))
    while len(chosen) < number:  # damage at random places, of which nobody knows in advance what it does
        data, place = bytearray(WHOLE.encode()), draw.randrange(len(WHOLE))
        data[place : place + draw.randrange(4)] = draw.randbytes(draw.randrange(4))
        chosen.append((Case(f"bytes at {place}", "bytes: harmless", Verdict.HARMLESS, ()), bytes(data)))
    return chosen


def _changed(part: str, field: str, *value: object) -> str:
    content = copy.deepcopy(SOUND)
    content[part][0].pop(field)
    content[part][0] |= dict.fromkeys((field,), *value) if value else {}
    return json.dumps(content)
