"""Reads checkpoint files so that nothing in them runs, costs more memory than their bytes, or is damaged unseen.

A checkpoint is a zip archive with one pickle and the bytes of every tensor. What both declare is compared with the file
before torch takes memory for it: sizes of tensors and entries, which functions the pickle calls, and the CRC-32 that
``torch.save`` writes for every entry, which torch itself does not look at.
"""

from __future__ import annotations

import math
import mmap
import pickle
import pickletools
import struct
import zipfile
import zlib
from _compat_pickle import IMPORT_MAPPING
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import IO, NamedTuple, cast

import torch
from torch.serialization import safe_globals

from r3cnn.disk import open_regular
from r3cnn.names import is_utf_8

SAVE_TENSORS = (
    "if you trust the file, open it where its own code is installed and save its tensors alone: "
    "torch.save({'state_dict': checkpoint['state_dict'], 'meta': {'CLASSES': …, 'config': …}}, …)"
)
FOREIGN = "checkpoints of mmdetection and torchvision go through `r3cnn convert` first"
# Of torch's reader for weights alone, whose own steps are the same: what else pickle knows could cost or run more.
OPCODES = frozenset(
    [
        *("PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "BINPERSID"),
        *("BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "NONE", "NEWTRUE", "NEWFALSE"),
        *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"),
        *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "APPEND", "APPENDS"),
        *("EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_SET"),
    ]
)
STORAGES = {8: ("Double", "Long"), 4: ("Float", "Int"), 2: ("Half", "BFloat16", "Short"), 1: ("Char", "Byte", "Bool")}
ITEM_BYTES = {f"torch.{name}Storage": size for size, names in STORAGES.items() for name in names}
MAX_PICKLE_BYTES = 1 << 26  # 0.1 to 1 MB in our own
MAX_STEPS = 2_000_000  # of the pickle; 12,000 for a network of 74 tensors, and a step may take 0.2 KB
MAX_OTHERS = 3  # newest checkpoints beside a damaged one that are looked through
MAX_DEPTH = 64  # of containers in containers
MAX_SHARING = 4  # times that the bytes of a file may stand in its tensors, as under two names
FREE_BYTES = 1 << 29  # that tensors may have whatever the file has: a constant one may repeat a single value
MAX_DIRECTORY_BYTES = 1 << 25
END_RECORD, END_RECORD_64 = struct.Struct("<4s8xL6x"), struct.Struct("<4s36xQ8x")
LOCATOR_BYTES = 20
LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of name and of further fields


class _Storage(NamedTuple):
    """What a tensor looks at: so many values."""

    length: int
    item_bytes: int


class _Dense(NamedTuple):
    """A tensor, of which only the size is known."""

    num_bytes: int


def read_archive(path: Path, *, mapped: bool = False, inert: Mapping[str, type] | None = None) -> object:
    """The content of a checkpoint, on the CPU.

    Args:
        path: Local file.
        mapped: Whether tensors stay on the disk until they are used.
        inert: Of files of other code bases, which may be of torch's format before zip as well: what takes the place of
            the objects that these names would make.

    Raises:
        FileNotFoundError: When there is no such file.
        ValueError: When it is damaged, holds anything but tensors and plain containers, or declares more than it has.
            With the newest whole checkpoint beside it, when it is damaged.
    """
    path = Path(path)
    if not path.exists():
        names = ", ".join(sorted(other.name for other in path.parent.glob("*.ckpt")))
        raise FileNotFoundError(f"no checkpoint at {path}" + (f"; there are {names}" if names else ""))
    try:
        _check_once(path, inert)
        with safe_globals([(kind, name) for name, kind in (inert or {}).items()]), path.open("rb") as file:
            if mapped and is_utf_8(path):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except _RefusalError as error:
        raise ValueError(f"{path} is refused: {error}") from error
    except Exception as error:  # what readers of pickles make of strange content has no bounds
        whole = next((f"; {other} is whole" for other in _newest_beside(path) if is_whole(other)), "")
        raise ValueError(f"{path} is damaged or no checkpoint: {_first_line(error)}{whole}") from error


def _newest_beside(path: Path) -> list[Path]:
    others = [other for other in path.parent.glob("*.ckpt") if other != path and other.is_file()]
    return sorted(others, key=lambda other: other.stat().st_mtime, reverse=True)[:MAX_OTHERS]


def is_whole(path: Path) -> bool:
    """Whether a file that is there is a checkpoint without damage."""
    try:
        _check_once(path, None)
    except OSError:
        raise
    except Exception:
        return False
    return True


def _check_once(path: Path, inert: Mapping[str, type] | None) -> None:
    """Looks through a file; the same one is looked through once in a process."""
    found = path.stat()
    _check_file(path, found.st_ino, found.st_size, found.st_mtime_ns, tuple((inert or {}).items()))


@lru_cache(maxsize=64)
def _check_file(path: Path, inode: int, size: int, modified: int, inert: tuple[tuple[str, type], ...]) -> None:
    with open_regular(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content[:2] == b"\x80\x02":
            if not inert:
                raise _RefusalError(f"it is of torch's format before zip; {FOREIGN}")
            sketch = _Sketch(cast("IO[bytes]", content), None, size, dict(inert))
            for _ in range(3):  # what torch says of itself
                sketch.read()
        else:
            _check_directory(content[-END_RECORD_64.size - LOCATOR_BYTES - END_RECORD.size :])
            with memoryview(content) as view, zipfile.ZipFile(file) as archive:
                _check_entries(archive, view)
                sketch = _sketch_of(archive, size, dict(inert))
        _check_content(sketch.read(), size)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


class _RefusalError(Exception):
    """What a file holds is more, or other, than reading it may cost or run."""


def _check_directory(end: bytes) -> None:
    """Limits the list of entries, of which `zipfile` makes an object each."""
    signature, size = END_RECORD.unpack(end[-END_RECORD.size :])
    if signature != b"PK\5\6":
        raise ValueError("it does not end as a zip archive does")
    signature, size_64 = END_RECORD_64.unpack(end[: END_RECORD_64.size].rjust(END_RECORD_64.size))
    if size > MAX_DIRECTORY_BYTES or (signature == b"PK\6\6" and size_64 > MAX_DIRECTORY_BYTES):
        raise _RefusalError("its list of entries is too long")


def _check_entries(archive: zipfile.ZipFile, content: memoryview) -> None:
    """Compares the bytes of every entry with their checksum, where both torch and `zipfile` find them."""
    entries = archive.infolist()
    if len({entry.filename for entry in entries}) < len(entries):
        raise _RefusalError("it has two entries of one name")
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise _RefusalError(f"its entry {entry.filename} is compressed, as torch never does")
        signature, name, further = LOCAL_HEADER.unpack_from(content, entry.header_offset)
        start = entry.header_offset + LOCAL_HEADER.size + name + further
        if signature != b"PK\3\4" or start + entry.file_size > len(content):
            raise ValueError(f"its entry {entry.filename} lies outside of it")
        if zlib.crc32(content[start : start + entry.file_size]) != entry.CRC:
            raise ValueError(f"the checksum of its entry {entry.filename} is wrong")


def _sketch_of(archive: zipfile.ZipFile, size: int, inert: Mapping[str, type]) -> _Sketch:
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError("it holds no data.pkl")
    if archive.getinfo(pickles[0]).file_size > MAX_PICKLE_BYTES:
        raise _RefusalError("its data.pkl is too large")
    folder = pickles[0].removesuffix("data.pkl") + "data/"
    held = {each.filename.removeprefix(folder): each.file_size for each in archive.infolist()}
    return _Sketch(BytesIO(archive.read(pickles[0])), held, size, inert)


class _Sketch(pickle.Unpickler):
    """Reads pickles with the size of every tensor in place of the tensor.

    Args:
        file: Where they stand, one after the other.
        held: Bytes of every storage by its key; None where they follow in the file.
        size: Bytes of the file.
        inert: Types of further objects, by their names.
    """

    def __init__(self, file: IO[bytes], held: Mapping[str, int] | None, size: int, inert: Mapping[str, type]) -> None:
        super().__init__(file, encoding="bytes")
        self._file, self._held, self._size, self._inert = file, held, size, inert
        self._declared: dict[object, int] = {}

    def read(self) -> object:
        """The content of the next pickle, once it is known that reading it costs little."""
        start = self._file.tell()
        for number, (opcode, argument, _) in enumerate(pickletools.genops(self._file)):
            if opcode.name not in OPCODES:
                raise _RefusalError(f"it is pickled with {opcode.name}, as torch never does")
            if number > MAX_STEPS or (opcode.name == "LONG_BINPUT" and int(str(argument)) > MAX_STEPS):
                raise _RefusalError("its data.pkl has too many steps")
        self._file.seek(start)
        return self.load()

    def find_class(self, module: str, name: str) -> object:
        """What stands for the few functions and types that checkpoints are made of."""
        full = f"{IMPORT_MAPPING.get(module, module)}.{name}"
        if full in FUNCTIONS:
            return FUNCTIONS[full]
        if full in self._inert:
            return self._inert[full]
        if full in ITEM_BYTES:
            return ITEM_BYTES[full]
        if full == "torch.Tensor" or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)):
            return 0  # to be named, not to be called: the type would make a tensor of any size
        raise _RefusalError(
            f"it names {full}, and making that object could run code; {SAVE_TENSORS if self._inert else FOREIGN}"
        )

    def persistent_load(self, reference: tuple[object, int, object, object, int]) -> _Storage:
        """The size of a storage, which must be in the file."""
        kind, item_bytes, key, _, count = reference[:5]
        if kind not in ("storage", b"storage") or type(count) is not int or type(item_bytes) is not int:
            raise ValueError(f"it refers to {kind!r}")
        self._declared[key] = max(count * item_bytes, self._declared.get(key, 0))
        held = self._size if self._held is None else self._held.get(str(key), 0)
        if count < 0 or self._declared[key] > held or (self._held is None and sum(self._declared.values()) > held):
            raise _RefusalError(f"it declares {count * item_bytes} bytes of data/{key}, and has fewer")
        return _Storage(count, item_bytes)


def _tensor(
    storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], requires_grad: bool, hooks: object
) -> _Dense:
    if not all(type(each) is int and each >= 0 for each in (offset, *size, *stride)) or len(size) > MAX_DEPTH or hooks:
        raise ValueError("it has a tensor of no size")
    count = math.prod(size)
    last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
    if count and last >= storage.length:
        raise _RefusalError(f"it declares a tensor of {size} in {storage.length} values")
    return _Dense(count * storage.item_bytes)


class _Ordered(OrderedDict[object, object]):
    """An ordered dictionary whose only attribute is that of a network's state."""

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, Mapping) or set(state) - {"_metadata"}:
            raise ValueError("it has a mapping with attributes")
        self.metadata = state


def _text_as_bytes(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ValueError(f"it has bytes in {encoding}")
    return text.encode(encoding)


FUNCTIONS: dict[str, Callable[..., object]] = {
    "collections.OrderedDict": _Ordered,
    "collections.Counter": Counter,
    "builtins.set": set,
    "_codecs.encode": _text_as_bytes,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda data, requires_grad, hooks: data,
    "torch.Size": tuple,
    "torch.device": lambda *names: names,
}


def _check_content(content: object, file_bytes: int) -> None:
    """Limits what walking through the content, copying or printing it costs: an object may stand in many places."""
    left = [(content, 0)]
    steps = num_bytes = 0
    while left:
        value, depth = left.pop()
        steps += 1
        if steps > MAX_STEPS or depth > MAX_DEPTH:
            raise _RefusalError("its containers stand in one another without end")
        if isinstance(value, _Dense):
            num_bytes += value.num_bytes
            if num_bytes > max(MAX_SHARING * file_bytes, FREE_BYTES):
                raise _RefusalError(f"its tensors have {num_bytes} bytes and more, over {MAX_SHARING} times its own")
        elif isinstance(value, Mapping):
            left += [(each, depth + 1) for pair in value.items() for each in pair]
            left += [(each, depth + 1) for each in vars(value).values()] if isinstance(value, _Ordered) else []
        elif isinstance(value, list | tuple | set):
            left += [(each, depth + 1) for each in value]
