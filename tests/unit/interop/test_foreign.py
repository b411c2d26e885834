"""Files of other code bases, as they are found in the wild, and worse ones."""

from __future__ import annotations

import os
import random
import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from r3cnn.interop.foreign import Inert, read_foreign
from r3cnn.interop.mmdetection_meta import classes_in, exported, image_norm_of, layout_of

STATE = OrderedDict(weight=torch.arange(6.0).reshape(2, 3), count=torch.tensor(5))


class Harmful:
    """Pickles into a call that leaves a folder behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


class Stranger:
    """Of a class that is no bookkeeping."""


@pytest.fixture
def history_buffer(monkeypatch: pytest.MonkeyPatch) -> type:
    """A class that pickles like mmengine's, whose objects hold arrays and their own methods."""
    name = "mmengine.logging.history_buffer"
    module = ModuleType(name)
    exec("class HistoryBuffer:\n    def mean(self):\n        return 0\n", module.__dict__)
    for part in ("mmengine", "mmengine.logging"):
        monkeypatch.setitem(sys.modules, part, ModuleType(part))
    monkeypatch.setitem(sys.modules, name, module)
    return module.HistoryBuffer


def save(path: Path, content: object, **options: bool) -> Path:
    torch.save(content, path, **options)
    return path


def test_a_file_of_version_2_gives_weights_and_meta(tmp_path: Path) -> None:
    meta = {"mmdet_version": "2.3.0", "CLASSES": ("cat", "dog"), "config": "a = 1", "epoch": 12}
    path = save(tmp_path / "a.pth", {"meta": meta, "state_dict": STATE, "optimizer": {"state": {}, "param_groups": []}})
    found = read_foreign(path)
    assert torch.equal(found.state["weight"], STATE["weight"])
    assert found.others == ("optimizer",)
    assert classes_in(found.meta) == ("cat", "dog")
    assert layout_of(found.meta) == "mmdetection 2.x"


def test_a_file_of_version_3_is_read_past_its_history_without_running_anything(
    tmp_path: Path, history_buffer: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = history_buffer()
    history._log_history, history._count_history = np.array([0.5, 0.25]), np.ones(2, dtype=np.int64)
    history._statistics_methods = {"mean": history_buffer.mean}
    hub = {"log_scalars": OrderedDict(loss=history), "runtime_info": {"lr": np.float64(0.02)}, "resumed_keys": {}}
    meta = {
        "mmengine_version": "0.7.4",
        "cfg": "a = 1",
        "dataset_meta": {"CLASSES": ("cat", "dog"), "PALETTE": [(1, 2, 3)]},
    }
    path = save(tmp_path / "a.pth", {"meta": meta, "state_dict": STATE, "message_hub": hub, "ema_state_dict": STATE})
    monkeypatch.delitem(sys.modules, "mmengine.logging.history_buffer")
    found = read_foreign(path)
    assert torch.equal(found.state["weight"], STATE["weight"])
    assert found.others == ("message_hub", "ema_state_dict")
    assert classes_in(found.meta) == ("cat", "dog")
    assert layout_of(found.meta) == "mmdetection 3.x"


def test_a_getattr_in_the_pickle_looks_nothing_up(tmp_path: Path) -> None:
    class Sly:
        def __reduce__(self) -> tuple[object, tuple[object, str]]:
            return getattr, (torch.Tensor, "tolist")

    path = save(tmp_path / "a.pth", {"state_dict": STATE, "meta": {"CLASSES": Sly()}})
    assert isinstance(read_foreign(path).meta["CLASSES"], Inert)
    assert classes_in(read_foreign(path).meta) is None


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_pickle_that_would_run_code_is_refused_by_name_and_runs_nothing(tmp_path: Path, is_zip: bool) -> None:
    content = {"state_dict": STATE, "meta": {"hook": Harmful(tmp_path / "trace")}}
    path = save(tmp_path / "a.pth", content, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(ValueError, match=r"refused: it names (posix|nt)\.mkdir.*could run code"):
        read_foreign(path)
    assert not (tmp_path / "trace").exists()


def test_an_unknown_class_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth", {"state_dict": STATE, "meta": {"config": Stranger()}})
    with pytest.raises(ValueError, match=r"test_foreign\.Stranger.*save its tensors alone"):
        read_foreign(path)


def test_files_from_before_torch_1_6_are_read(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth", {"state_dict": STATE, "meta": {}}, _use_new_zipfile_serialization=False)
    assert torch.equal(read_foreign(path).state["weight"], STATE["weight"])


@pytest.mark.parametrize(
    "content", [STATE, {"state_dict": STATE}, {"state_dict": STATE, "meta": None}, {"model": STATE}]
)
def test_meta_may_be_missing(tmp_path: Path, content: object) -> None:
    found = read_foreign(save(tmp_path / "a.pth", content))
    assert list(found.state) == ["weight", "count"]
    assert found.meta == {}
    assert image_norm_of(found) is None


def test_the_prefix_of_data_parallel_training_is_dropped_where_all_have_it(tmp_path: Path) -> None:
    parallel = {f"module.{key}": value for key, value in STATE.items()}
    assert list(read_foreign(save(tmp_path / "a.pth", parallel)).state) == ["weight", "count"]
    mixed = {**parallel, "weight": STATE["weight"]}
    assert "module.weight" in read_foreign(save(tmp_path / "b.pth", mixed)).state


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list"),
        ({"r3cnn": {}, "state_dict": STATE}, "checkpoint of r3cnn already"),
        ({"state_dict": {"weight": [1.0]}}, "no tensors: weight"),
        ({"state_dict": {}}, "there are nothing"),
        ({"epoch": 3}, "no tensors: epoch"),
    ],
)
def test_files_without_weights_are_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_foreign(save(tmp_path / "a.pth", content))


@pytest.mark.parametrize("content", [b"<!DOCTYPE html>", b"", b"PK\x03\x04 cut short"])
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.pth is damaged or no checkpoint"):
        read_foreign(tmp_path / "a.pth")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("is_zip", [True, False])
def test_any_damage_is_either_harmless_or_an_error_that_names_the_file(tmp_path: Path, is_zip: bool) -> None:
    meta = {"CLASSES": ("cat", "dog"), "config": "a = 1", "epoch": 12}
    whole = save(tmp_path / "a.pth", {"meta": meta, "state_dict": STATE}, _use_new_zipfile_serialization=is_zip)
    content, chance = whole.read_bytes(), random.Random(0)
    cuts = [content[: chance.randrange(len(content))] for _ in range(100)]
    flips = []
    for _ in range(400):
        flipped = bytearray(content)
        for _ in range(chance.randint(1, 3)):
            flipped[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        flips.append(bytes(flipped))
    messages = []
    for damaged in [*cuts, *flips]:
        whole.write_bytes(damaged)
        try:
            read_foreign(whole)
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 150
    assert [message for message in messages if str(whole) not in message] == []


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"input=.*absent\.pth"):
        read_foreign(tmp_path / "absent.pth")


def test_one_class_written_without_a_comma_is_one_class() -> None:
    assert classes_in({"CLASSES": ("balloon")}) == ("balloon",)
    assert classes_in({"CLASSES": ()}) is None


def test_what_is_exported_reads_back(tmp_path: Path) -> None:
    content = exported(STATE, ["cat", "dog"], (1.5, 2, 3), (4, 5, 6))
    found = read_foreign(save(tmp_path / "a.pth", content))
    norm = image_norm_of(found)
    assert classes_in(found.meta) == ("cat", "dog")
    assert norm is not None
    assert (norm[0].mean, norm[0].std, norm[0].order) == ((1.5, 2, 3), (4, 5, 6), "rgb")
    for text in (found.meta["config"], found.meta["cfg"]):
        compile(str(text), "their configuration", "exec")
