"""Checkpoint files that declare what they do not have, name what they must not, or are damaged."""

from __future__ import annotations

import collections
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

Maker = Callable[[Path], object]
HUGE = 10**10
INFO = {
    "format": 2,
    "model": {},
    "data": {},
    "classes": ["a"],
    "category_ids": [1],
    "preprocessing": {"mean": [1.0, 1.0, 1.0], "std": [1.0, 1.0, 1.0], "image_size": [8, 8]},
}


class Named(str):
    """A function or class, ``module name``, that is not looked up when it is pickled."""


class Called:
    """A call of a function that is not made when it is pickled."""

    def __init__(self, function: str, *arguments: object, opcode: bytes = b"R", state: object = None) -> None:
        self.function, self.arguments, self.opcode, self.state = Named(function), arguments, opcode, state


class Stored:
    """A storage of so many values, whether or not the file has them."""

    def __init__(self, key: str, length: int, kind: str = "torch FloatStorage") -> None:
        self.key, self.length, self.kind = key, length, kind


class Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    """Writes the above."""

    def save(self, value: object, save_persistent_id: bool = True) -> None:
        if isinstance(value, Named):
            self.write(b"c" + value.replace(" ", "\n").encode() + b"\n")
        elif isinstance(value, Called):
            self.save(value.function)
            super().save(tuple(value.arguments))
            self.write(value.opcode)
            if value.state is not None:
                self.save(value.state)
                self.write(b"b")
        elif isinstance(value, Stored):
            super().save(("storage", Named(value.kind), value.key, "cpu", value.length))
            self.write(b"Q")
        else:
            super().save(value)

    def memoize(self, value: object) -> None:
        """Remembers nothing, so that what stands in this file twice is written twice."""


def pickled(content: object) -> bytes:
    file = io.BytesIO()
    Pickler(file, 2).dump(content)
    return file.getvalue()


def tensor(length: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, key: str = "0") -> Called:
    hooks = collections.OrderedDict[str, str]()
    return Called("torch._utils _rebuild_tensor_v2", Stored(key, length), offset, size, stride, False, hooks)


def write(path: Path, steps: bytes, *, storages: Mapping[str, bytes] | None = None, **options: Any) -> None:
    """An archive as torch writes it; with ``compressed`` or further entries it is not."""
    kind = zipfile.ZIP_DEFLATED if options.get("compressed") else zipfile.ZIP_STORED
    held = {"0": bytes(16)} if storages is None else storages
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("archive/data.pkl", steps)
        for key, content in held.items():
            archive.writestr(f"archive/data/{key}", content)
        for name, content in options.get(
            "further", {"archive/byteorder": b"little", "archive/version": b"3\n"}
        ).items():
            archive.writestr(name, content)


def holding(value: object, **options: Any) -> Maker:
    content = {"r3cnn": INFO, "state_dict": {"model.w": value}}
    return lambda path: write(path, pickled(content), **options)


def of_steps(steps: bytes, **options: Any) -> Maker:
    return lambda path: write(path, b"\x80\x02" + steps + b".", **options)


def whole(path: Path) -> bytes:
    torch.save({"r3cnn": INFO, "state_dict": {"model.w": torch.arange(1000.0)}}, path)
    return path.read_bytes()


def changed(change: Callable[[bytes], bytes]) -> Maker:
    return lambda path: path.write_bytes(change(whole(path)))


def flipped(at: bytes, further: int, bit: int = 1) -> Maker:
    """One bit of a whole file, at a place after the first occurrence of some bytes."""

    def flip(content: bytes) -> bytes:
        place = content.index(at) + further
        return content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]

    return changed(flip)


def doubled(levels: int) -> bytes:
    """A list of twice a list of twice …: as many steps as levels, and two to the power of them to walk."""
    steps = b"]q\x00"
    for level in range(1, levels):
        steps += b"](h%ch%ceq%c" % (level - 1, level - 1, level)
    return steps


def large_directory(path: Path) -> None:
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    directory = entry * 1_000_000
    path.write_bytes(b"PK\3\4" + directory + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0, 0, len(directory), 4, 0))


def fifo(path: Path) -> None:
    os.mkfifo(path)


def declared_64(path: Path) -> None:
    """An entry whose size stands in a further field, and is more than the file."""
    write(path, pickled({"r3cnn": INFO, "state_dict": {}}))
    content = path.read_bytes()
    place = content.index(b"PK\1\2")
    path.write_bytes(content[: place + 20] + struct.pack("<LL", 2**31, 2**31) + content[place + 28 :])


HOSTILE: dict[str, Maker] = {
    # Sizes of tensors.
    "a tensor larger than its storage": holding(tensor(4, (HUGE,), (1,))),
    "a tensor of two sides larger than its storage": holding(tensor(4, (10**5, 10**5), (10**5, 1))),
    "a tensor that starts behind its storage": holding(tensor(4, (4,), (1,), HUGE)),
    "a tensor that repeats one value": holding(tensor(4, (HUGE,), (0,))),
    "a tensor that repeats one row": holding(tensor(4, (HUGE, 4), (0, 1))),
    "a tensor of overlapping rows": holding(tensor(4, (2, 10**9), (1, 0))),
    "a tensor of a negative side": holding(tensor(4, (-4,), (1,))),
    "a tensor of a negative stride": holding(tensor(4, (4,), (-1,))),
    "a tensor of a huge stride": holding(tensor(4, (2,), (2**62,))),
    "a tensor of sides that overflow": holding(tensor(4, (2**33, 2**33), (2**33, 1))),
    "a tensor of true sides": holding(tensor(4, (True,), (True,))),
    "a tensor of 100 sides": holding(tensor(4, (1,) * 100, (1,) * 100)),
    "a tensor of fewer strides": holding(tensor(4, (2, 2), (1,))),
    "a storage larger than its entry": holding(tensor(HUGE, (4,), (1,))),
    "a storage of a negative size": holding(tensor(-1, (0,), (1,))),
    "a storage that is not there": holding(tensor(4, (4,), (1,), key="7")),
    "a storage of another folder": holding(tensor(4, (4,), (1,), key="../data.pkl")),
    "two sizes of one storage": holding([tensor(4, (4,), (1,)), tensor(HUGE, (HUGE,), (1,))]),
    "a storage of no type": holding(Called("torch._utils _rebuild_tensor_v2", "text", 0, (1,), (1,), False, {})),
    "thousands of tensors in one storage": holding(
        [tensor(2**20, (2**20,), (1,)) for _ in range(3000)], storages={"0": bytes(2**22)}
    ),
    # Functions of torch's list for weights alone that take memory for what they are told.
    "bytearray of 5 GB": holding(Called("__builtin__ bytearray", 5 * 10**9)),
    "set of a long range": holding(Called("__builtin__ set", Called("__builtin__ range", HUGE))),
    "torch.Tensor of 40 GB": holding(Called("torch Tensor", HUGE)),
    "torch.Tensor as a new object": holding(Called("torch Tensor", HUGE, opcode=b"\x81")),
    "torch.FloatTensor of 40 GB": holding(Called("torch FloatTensor", HUGE)),
    "torch.FloatStorage of 40 GB": holding(Called("torch FloatStorage", HUGE)),
    "torch.UntypedStorage of 10 GB": holding(Called("torch.storage UntypedStorage", HUGE)),
    "TypedStorage of 40 GB": holding(Called("torch.storage TypedStorage", HUGE)),
    "a parameter as a new object": holding(Called("torch.nn.parameter Parameter", opcode=b"\x81")),
    "a sparse tensor": holding(
        Called("torch._utils _rebuild_sparse_tensor", Named("torch sparse_coo"), (0, 0, (HUGE,), False))
    ),
    "a quantised tensor": holding(
        Called("torch._utils _rebuild_qtensor", Stored("0", 4), 0, (HUGE,), (1,), (0,), False, {})
    ),
    "a nested tensor": holding(Called("torch._utils _rebuild_nested_tensor", tensor(4, (4,), (1,)), 1, 1, 1)),
    "a tensor without storage": holding(
        Called("torch._utils _rebuild_meta_tensor_no_storage", Named("torch float32"), (HUGE,), (1,), False)
    ),
    "a tensor of a subclass": holding(Called("torch._utils _rebuild_wrapper_subclass", Named("torch Tensor"), 1)),
    "a tensor of numpy": holding(
        Called("torch._utils _rebuild_device_tensor_from_numpy", [0] * 4, Named("torch float32"), "cpu", False)
    ),
    "a tensor of any type": holding(
        Called("torch._tensor _rebuild_from_type_v2", Named("torch Tensor"), Named("torch Tensor"), (HUGE,), {})
    ),
    "a tensor of the newest kind": holding(
        Called("torch._utils _rebuild_tensor_v3", Stored("0", 4), 0, (HUGE,), (1,), False, {}, Named("torch float8"))
    ),
    "bytes in a strange encoding": holding(Called("_codecs encode", "a" * 100, "zip")),
    # Steps of the pickle.
    "a place in the memo of 2^31": of_steps(b"]r\xff\xff\xff\x7f"),
    "a text longer than the file": of_steps(b"X\xff\xff\xff\x7f"),
    "a number of 2 GB": of_steps(b"\x8b\xff\xff\xff\x7f"),
    "bytes of 2^60": of_steps(b"\x8e" + struct.pack("<Q", 2**60)),
    "a bytearray of 2^60": of_steps(b"\x96" + struct.pack("<Q", 2**60)),
    "a frame of 2^60": of_steps(b"\x95" + struct.pack("<Q", 2**60) + b"N"),
    "a global from the stack": of_steps(b"\x8c\x02os\x8c\x06system\x93"),
    "an instance": of_steps(b"(ios\nsystem\n"),
    "an extension": of_steps(b"\x82\x01"),
    "lists of lists without end": of_steps(b"]" * 200_000 + b"a" * 199_999),
    "one list 2^60 times": of_steps(doubled(60)),
    "a list in itself": of_steps(b"]q\x00h\x00a"),
    "three million sets": of_steps(b"(" + b"\x8f" * 3_000_000 + b"t"),
    "four million mappings": of_steps(b"(" + b"}" * 4_000_000 + b"t"),
    "half a pickle": of_steps(b"}(X\x05\x00\x00\x00r3c"),
    "no pickle": lambda path: write(path, b"hello"),
    "a mapping with attributes": holding(Called("collections OrderedDict", state={"items": 5})),
    # Entries of the archive.
    "a compressed pickle of 256 MB": lambda path: write(path, b"\x80\x02" + b"]" * 2**28, compressed=True),
    "a compressed storage": holding(tensor(4, (4,), (1,)), storages={"0": bytes(2**28)}, compressed=True),
    "a size of 2 GB in the directory": declared_64,
    "the same entry twice": holding(tensor(4, (4,), (1,)), further={"archive/data/0": bytes(16)}),
    "a directory of a million entries": large_directory,
    "two pickles": holding(1, further={"other/data.pkl": pickled({})}),
    "no pickle in the archive": lambda path: zipfile.ZipFile(path, "w").close(),
    "a program of TorchScript": holding(1, further={"archive/constants.pkl": pickled(1), "archive/code/a.py": b"1"}),
    # Damage.
    "half a file": changed(lambda content: content[: len(content) // 2]),
    "a file without its end": changed(lambda content: content[:-1]),
    "a file with something behind it": changed(lambda content: content + b"\0" * 100),
    "an empty file": lambda path: path.write_bytes(b""),
    "zeros": changed(lambda content: bytes(len(content))),
    "a flipped bit in a weight": flipped(struct.pack("<f", 999.0), 0),
    "a flipped bit in a weight's sign": flipped(struct.pack("<f", 500.0), 3, 128),
    "a flipped bit in the pickle": flipped(b"model.w", 0),
    "a flipped bit in a checksum": flipped(b"PK\1\2", 16),
    "a page of zeros": changed(lambda content: content[:2000] + bytes(1000) + content[3000:]),
    "swapped values": changed(
        lambda content: content.replace(struct.pack("<2f", 7.0, 8.0), struct.pack("<2f", 8.0, 7.0))
    ),
    # What is no file.
    "a folder": lambda path: path.mkdir(),
    "a named pipe": fifo,
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    # Code.
    **{
        f"a call of {name}": holding(Called(" ".join(name.rsplit(".", 1)), "touch ran"))
        for name in (
            *("os.system", "posix.system", "subprocess.Popen", "builtins.eval", "builtins.exec", "builtins.getattr"),
            *("builtins.open", "shutil.rmtree", "runpy.run_path", "importlib.import_module", "pty.spawn"),
            *("torch.load", "torch.hub.load", "torch.jit.load", "torch.serialization.load", "numpy.fromfile"),
            *("webbrowser.open", "urllib.request.urlopen", "socket.create_connection", "functools.partial"),
        )
    },
}
