"""Rules that spell the names of weights in two ways."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

FIELDS = {
    "head": r"\d+",
    "n": r"\d+",
    "block": r"layer\d\.\d+",
    "leaf": "weight|bias",
    "rest": r"(?:conv1|bn1|layer\d)\..+",
}


@dataclass(frozen=True)
class Rule:
    """Two spellings of the same names.

    Attributes:
        theirs: With ``{field}`` for each of `FIELDS`; what stands in ``[…]`` is there in some of their networks only.
        ours: With the same fields, but for a head that only they count.
    """

    theirs: str
    ours: str

    @cached_property
    def their_pattern(self) -> re.Pattern[str]:
        """Matches their names, with and without the optional part."""
        return re.compile(_pattern(self.theirs))

    @cached_property
    def our_pattern(self) -> re.Pattern[str]:
        """Matches our names."""
        return re.compile(_pattern(self.ours))

    def our_name(self, key: str) -> str | None:
        """Our name of one of theirs; None if the rule is of other names. Without an index, it is head 0."""
        match = self.their_pattern.fullmatch(key)
        if match is None:
            return None
        return self.ours.format(
            **{"head": "0", **{field: value for field, value in match.groupdict().items() if value}}
        )

    def their_name(self, fields: Mapping[str, str], *, full: bool) -> str:
        """Their name for the fields of one of ours, in full or without the optional part."""
        template = self.theirs.replace("[", "").replace("]", "") if full else re.sub(r"\[.*?\]", "", self.theirs)
        return template.format(**fields)


def _pattern(template: str) -> str:
    pattern = re.escape(template).replace(r"\[", "(?:").replace(r"\]", ")?")
    for field, expression in FIELDS.items():
        pattern = pattern.replace(rf"\{{{field}\}}", f"(?P<{field}>{expression})")
    return pattern


def leaves(theirs: str, ours: str) -> Rule:
    """The rule for the weight and the bias of a layer."""
    return Rule(theirs + ".{leaf}", ours + ".{leaf}")
