"""Every setting of every command takes what its message asks for, and refuses all else."""

from __future__ import annotations

import math
import re

from omegaconf import OmegaConf

from r3cnn.cli.errors import USER_ERROR, report
from r3cnn.cli.settings import EVERYWHERE, OF_COMMANDS, check_settings

INTERVAL = re.compile(r"a (?:whole )?number (?:of \w+ )?in ([\[(])(\S+), (\S+)([\])])")
NO_NUMBER = (math.nan, "3", True, None, [], {})
NO_TEXT = (3, True, None, [], {})
# Promises that are no interval, no list and no choice: what they take, and what they refuse.
OTHERS = {
    "true or false": ((True, False), ("true", 1, None, [])),
    "a text": (("abc",), NO_TEXT),
    "a name or a list of names": (("abc", ["a", "b"], []), (3, [3], True, {})),
    "a path or a list of paths": (("a", 1, ["a", 2.5]), (True, {}, [[]], None)),
    "a group of settings": (({}, {"a": {}}), (3, "abc", True, None, [])),
    "the path of a folder": (("a", 1, 2.5), (None, True, [], {})),
    "auto or a device, such as cuda:1": (("auto", "cpu", 0), (True, None, 1.5, [])),
    "a number or a text": ((1, "a"), (True, None, 1.5, [])),
    "a factor above 0, such as 3": ((0.5, 3), (*NO_NUMBER, 0, -1, math.inf)),
    "a number above 0": ((0.5, 3), (*NO_NUMBER, 0, -1)),
    "a number >= 0": ((0, 0.5, math.inf), (*NO_NUMBER, -1)),
    "a number of batches >= 1 or a share in (0, 1]": ((1, 7, 0.5), (*NO_NUMBER, 0, 0.0, -1, 1.5)),
    "a number of batches >= 1 or a share in (0, 1], or 0 for none": ((0, 7, 0.5), (*NO_NUMBER, -1, 1.5)),
    "32-true, bf16-mixed or 16-mixed": (("bf16-mixed", 32), ("64-true", "16-true", "bf16-true", 8, True, [])),
}


def examples(promise: str) -> tuple[list[object], list[object]]:
    """Values that a promise takes, and values that it refuses."""
    promise = promise.removesuffix(",")
    if promise.endswith(" or null"):
        taken, refused = examples(promise.removesuffix(" or null"))
        return [*taken, None], [value for value in refused if value is not None]
    if found := re.fullmatch(r"a list of (at least )?(\d*) ?entries, each (.*)", promise):
        taken, refused = examples(found[3])
        count, is_exact = int(found[2] or 1), bool(found[2] and not found[1])
        wrong_lengths = [[], *([taken[:1] * (count + 1)] if is_exact else [])] if found[2] else []
        return [[one] * count for one in taken], [*([one] * count for one in refused), *wrong_lengths, "abc", None, {}]
    if promise.startswith("one of "):
        return [*promise.removeprefix("one of ").split(", ")], ["nothing", *NO_TEXT]
    if found := re.fullmatch(r"a whole number >= (\S+)", promise):
        return [int(found[1]), int(found[1]) + 1], [int(found[1]) - 1, 2.5, math.inf, *NO_NUMBER]
    if found := INTERVAL.fullmatch(promise):
        is_whole, convert = "whole" in promise, int if "whole" in promise else float
        least, most = convert(found[2]), convert(found[3])
        ends = [(least, found[1] == "["), (most, found[4] == "]")]
        taken = [end for end, is_taken in ends if is_taken] + ([] if is_whole else [(least + most) / 2])
        refused = [end for end, is_taken in ends if not is_taken] + [least - 1, most + 1, math.inf, *NO_NUMBER]
        return taken, refused + ([0.5] if is_whole else [])
    taken, refused = OTHERS[promise]
    return [*taken], [*refused]


def refusal(command: str, key: str, value: object) -> ValueError | None:
    config = OmegaConf.create({"sizes": {"one": {}}, "parts": {"one": {}}})
    OmegaConf.update(config, key, value, merge=False, force_add=True)
    try:
        check_settings(config, command)
    except ValueError as error:
        return error
    return None


SETTINGS = [
    (command, pattern.replace("*", "one"), kind.words)
    for command, settings in (("train", EVERYWHERE), *OF_COMMANDS.items())
    for pattern, kind in settings.items()
]


def test_every_setting_takes_what_its_message_asks_for_and_refuses_all_else_with_status_2(capsys) -> None:
    faults = []
    for command, key, promise in SETTINGS:
        taken, refused = examples(promise)
        faults += [f"{key}={value} is refused" for value in taken if refusal(command, key, value)]
        for value in refused:
            error = refusal(command, key, value)
            if error is None:
                faults.append(f"{key}={value} is taken")
            elif report(error) != USER_ERROR or capsys.readouterr().err.count("\n") != 1:
                faults.append(f"{key}={value} ends otherwise")
            elif not str(error).startswith(f"{key} is {value!r}: {promise.removesuffix(',')}"):
                faults.append(str(error))
    assert faults == []
