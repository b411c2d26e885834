"""Errors as a user sees them: a line about a mistake of theirs, a traceback of a mistake of ours."""

from __future__ import annotations

import difflib
import dis
import errno
import io
import linecache
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import hydra
import yaml
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

import r3cnn
from r3cnn.cli.configs import config_folder
from r3cnn.cli.ranks import is_first_on_node, is_one_of_several, rank_in
from r3cnn.names import visible_lines

USER_ERROR, OUR_ERROR = 2, 1  # exit statuses
SHOW_TRACEBACKS = "R3CNN_TRACEBACK"
HYDRA_FULL_ERROR = "HYDRA_FULL_ERROR"
PACKAGES = tuple(str(Path(str(package.__file__)).parent) + os.sep for package in (r3cnn, hydra))
# Raised on purpose as well, but for whoever calls a function wrongly.
OF_PROGRAMMERS = (AssertionError, AttributeError, LookupError, NotImplementedError, TypeError)
OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
# How torch hands on an error of a process that loads data: the last statement of its traceback, and what it said.
IN_A_WORKER = re.compile(
    r'\ACaught .*^  File "([^"]+)", line (\d+), in [^\n]*\n.*?^[\w.]+: (.*)\Z', re.DOTALL | re.MULTILINE
)
OF_A_LOST_RANK = re.compile(r"\bgloo\b|NCCL|ProcessGroup|TCPStore|Connection (closed|reset) by peer")
OF_OUTPUT_DIR = ("hydra.run.dir", "hydra.sweep.dir")  # Hydra's keys that it is copied to
SAID = "r3cnn/said"  # in the store that the ranks of a run share: somebody has named a mistake of the user's


class JobsFailed(HydraException):
    """Jobs of a sweep have failed, each of which has said why."""


def prefer_lines_to_tracebacks() -> None:
    """Keeps Hydra from reporting errors in its own way; ``HYDRA_FULL_ERROR=1`` asks for our tracebacks instead.

    The processes that this one starts inherit both variables and find that already decided.
    """
    os.environ.setdefault(SHOW_TRACEBACKS, os.environ.get(HYDRA_FULL_ERROR, "0"))
    os.environ[HYDRA_FULL_ERROR] = "1"


def report(error: Exception) -> int:
    """Says on stderr what has ended the command; of several ranks that find the same mistake, one does.

    Returns:
        The exit status.
    """
    message = message_for_user(error)
    is_first = _is_first_to_say(message is not None)
    if is_first and message is None and OF_A_LOST_RANK.search(str(error)):
        print(f"r3cnn: rank {rank_in(os.environ)} has lost another rank, which says why or was killed", file=sys.stderr)
        return OUR_ERROR
    if os.environ.get(SHOW_TRACEBACKS, "0") not in ("", "0") or (message is None and is_first):
        traceback.print_exception(error)
    if message is not None and is_first:
        print(f"r3cnn: {visible_lines(message)}", file=sys.stderr)
    return OUR_ERROR if (message is None and is_first) or isinstance(error, JobsFailed) else USER_ERROR


def message_for_user(error: BaseException) -> str | None:
    """What a user needs to know, in a line or two; None for an error that is ours.

    A message for the user is what a ``raise`` statement of ours or Hydra's says, here or in a process that loads data.
    An exception out of any other statement is a fault of ours, unless it speaks of the user's configuration or files.
    """
    if isinstance(error, HydraException):
        return keys_instead(error) or _of_hydra(error)
    if isinstance(error, OmegaConfBaseException):
        return _of_omegaconf(error)
    if isinstance(error, yaml.YAMLError):
        return " ".join(str(error).split())
    if isinstance(error, OF_PROGRAMMERS):
        return _of_an_override(error)
    if (found := IN_A_WORKER.search(str(error))) is not None:
        file, line, message = found.groups()
        return message.strip() if _is_raise(file, int(line)) else None
    is_raised = error.__traceback__ is not None and _is_raised_by_us(error.__traceback__)
    if isinstance(error, OSError) and not (is_raised and error.errno is None):
        return _of_a_file(error)
    if is_raised:
        return str(error)
    return _of_lightning(error)


def _of_a_file(error: OSError) -> str | None:
    """What is wrong with which file; a full disk is noticed by a write, which does not know the file's name."""
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    if not names and (error.errno is None or error.errno in OF_THE_DISK):
        names = _open_files(error)[:1]
    if not names and error.errno not in OF_THE_DISK:
        return None
    is_of_hydra = any(frame.f_code.co_name == "run_job" for frame, _ in traceback.walk_tb(error.__traceback__))
    told = ": ".join([*([" -> ".join(names)] if names else []), error.strerror or str(error)])
    return f"output_dir={told}: a folder is needed" if is_of_hydra else told  # which is all that Hydra makes


def _open_files(error: OSError) -> list[str]:
    """Files that the statements of a traceback had at hand, the innermost first."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    streams = [value for frame in reversed(frames) for value in frame.f_locals.values() if isinstance(value, io.IOBase)]
    names = [getattr(stream, "name", None) for stream in streams]
    return [os.fspath(name) for name in names if isinstance(name, str | os.PathLike)]


def _is_raised_by_us(trace: TracebackType) -> bool:
    """Whether the innermost statement of a traceback is a ``raise`` in this package or in Hydra."""
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return code.co_filename.startswith(PACKAGES) and dis.opname[code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"


def _is_raise(file: str, line: int) -> bool:
    return file.startswith(PACKAGES) and linecache.getline(file, line).lstrip().startswith("raise ")


def _of_lightning(error: BaseException) -> str | None:
    """What Lightning says of settings that it refuses; it is not imported for those that it had no part in.

    A failed import knows the module's name; Lightning, which only says that a package is missing, gives none.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    is_refusal = "MisconfigurationException" in names or (isinstance(error, ImportError) and error.name is None)
    return " ".join(str(error).split()) if is_refusal else None


def _of_omegaconf(error: OmegaConfBaseException) -> str:
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} is missing: {error.full_key}=… is needed"
    text, key = str(error).splitlines()[0], str(error.full_key or "")
    if key in OF_OUTPUT_DIR:
        return f"output_dir: the path of a folder is needed ({text})"
    return f"{key}: {text}" if key and key not in text else text


def _of_an_override(error: BaseException) -> str | None:
    """The setting that OmegaConf fails to apply for Hydra, such as a key below one that is null."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "_apply_overrides_to_config" and "override" in frame.f_locals:
            return f"{frame.f_locals['override'].input_line} cannot be set: no mapping stands above it"
    return None


def _of_hydra(error: HydraException) -> str:
    """Hydra's messages without its search path, its manual and its line breaks."""
    lines = str(error).splitlines()
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        known = ", ".join(error.options)
        return f"there is no {group} {name!r}: there are {known}.{_guess(name, error.options)}"
    if isinstance(error, OverrideParseException):
        reason = next(line for line in lines if not line.startswith(("Error parsing", "See https")))
        return (
            f"{error.override} cannot be read ({reason}): settings are key=value or key=[value,value]; a text with "
            "blanks, commas or brackets stands in quotes of its own, \"key='a, b'\""
        )
    if lines and lines[0].startswith("Ambiguous value for argument"):
        key, _, value = lines[0].split("'", 1)[1].removesuffix("'").partition("=")
        return f"{key}={value}: a sweep over these values needs -m; a list is {key}=[{value}]"
    if not isinstance(error, ConfigCompositionException):  # our own, such as the list of jobs that cannot run
        return str(error)
    if isinstance(error.__cause__, OmegaConfBaseException):
        lines = [f"{lines[0]}:", _of_omegaconf(error.__cause__)]
    return " ".join(line.strip() for line in lines if line.strip())


def keys_instead(error: BaseException) -> str | None:
    """A sentence with the keys beside the one that a setting names in vain; None if ``error`` has another reason."""
    reason = error.__cause__ if isinstance(error, ConfigCompositionException) else None
    if not isinstance(reason, OmegaConfBaseException) or not isinstance(reason.parent_node, DictConfig):
        return None
    known = sorted(str(key) for key in reason.parent_node)
    if reason.key is None or str(reason.key) in known:
        return None
    name, place = str(reason.key), str(reason.full_key).rpartition(".")[0]
    guess = _guess(name, known)
    if not place:  # a group such as experiment is no key, and who leaves out its group means the key in it
        groups = [path.name for path in config_folder().iterdir() if path.is_dir()]
        deeper = " or ".join(_keys_called(name, reason.parent_node))
        guess = f" Did you mean {deeper}?" if deeper else _guess(name, [*known, *groups])
    return f"{place or 'the configuration'} has no key {name!r}. There are {', '.join(known)}.{guess}"


def _keys_called(name: str, config: DictConfig) -> Iterator[str]:
    """The whole keys that end in a name, such as ``optimizer.lr``."""
    groups = {
        str(key): node for key in config if key != "hydra" and isinstance(node := config._get_node(key), DictConfig)
    }
    for key, group in groups.items():
        if not group._is_none() and not group._is_interpolation():
            yield from (f"{key}.{rest}" for rest in ([name] if name in group else _keys_called(name, group)))


def _guess(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _is_first_to_say(is_of_user: bool) -> bool:
    """Whether this rank is to report its error: no other one has named a mistake of the user's.

    Ranks that have met ask each other, since a mistake may be in the images of one rank alone, of which the others only
    notice that it has gone. Before, all of them do the same thing, and one on each node speaks.
    """
    distributed = sys.modules.get("torch.distributed")
    if not is_one_of_several(os.environ) or distributed is None:
        return True
    if not (distributed.is_available() and distributed.is_initialized()):
        return not is_of_user or is_first_on_node(os.environ)
    try:
        others = distributed.distributed_c10d._get_default_store().add(SAID, int(is_of_user)) - int(is_of_user)
    except RuntimeError:  # the first rank, which keeps the store, has ended; it had its say
        return not is_of_user
    return others == 0
