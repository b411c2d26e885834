"""What Hydra leaves out when it refuses an unknown key: the keys that there are."""

from __future__ import annotations

import difflib

from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException


def keys_instead(error: BaseException) -> str | None:
    """A sentence with the keys beside the one that a setting names in vain; None if ``error`` has another reason.

    Args:
        error: What ended the command; Hydra's own error is its context.
    """
    refusal: BaseException | None = error
    while refusal is not None and not isinstance(refusal, ConfigCompositionException):
        refusal = refusal.__context__
    reason = refusal.__cause__ if refusal is not None else None
    if not isinstance(reason, OmegaConfBaseException) or not isinstance(reason.parent_node, DictConfig):
        return None
    known = sorted(str(key) for key in reason.parent_node)
    if reason.key is None or str(reason.key) in known:
        return None
    place = str(reason.full_key).rpartition(".")[0] or "the configuration"
    close = difflib.get_close_matches(str(reason.key), known, n=1)
    guess = f" Did you mean {close[0]!r}?" if close else ""
    return f"r3cnn: {place} has no key {str(reason.key)!r}. There are {', '.join(known)}.{guess}"
