from __future__ import annotations

import csv
import errno
import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import CompactHydraException, HydraException
from omegaconf import OmegaConf
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from r3cnn.cli.configs import config_folder, in_words_of_hydra, register_resolvers
from r3cnn.cli.errors import JobsFailed, keys_instead, message_for_user, report
from r3cnn.data.loading import read_image
from r3cnn.training.preemption import Preemption


def refusal_of(*overrides: str) -> HydraException:
    register_resolvers()
    with initialize_config_dir(str(config_folder()), version_base="1.3"), pytest.raises(HydraException) as refused:
        compose("train", overrides=in_words_of_hydra(overrides))
    return refused.value


def test_an_unknown_key_is_answered_with_those_that_there_are_and_the_closest() -> None:
    hint = keys_instead(refusal_of("optimizer.lrr=0.1"))
    assert hint is not None
    assert hint.startswith("optimizer has no key 'lrr'. There are _target_, ")
    assert hint.endswith(" Did you mean 'lr'?")


@pytest.mark.parametrize(
    ("override", "guess"),
    [
        ("optimiser=sgd", "'optimizer'"),
        ("experimant=demo", "'experiment'"),  # a group that is no key
        ("lr=0.1", "optimizer.lr"),
        ("batch_size=4", "data.batch_size"),
    ],
)
def test_an_unknown_key_at_the_top_is_one_of_the_configuration(override: str, guess: str) -> None:
    hint = keys_instead(refusal_of(override))
    assert hint is not None
    assert hint.startswith(f"the configuration has no key '{override.partition('=')[0]}'.")
    assert hint.endswith(f" Did you mean {guess}?")


@pytest.mark.parametrize("override", ["experiment=r3cnn_naif", "recursion.heads.7=0"])
def test_what_is_refused_for_another_reason_is_left_to_hydra(override: str) -> None:
    assert keys_instead(refusal_of(override)) is None


def test_an_error_of_the_command_itself_is_none_of_the_keys() -> None:
    assert keys_instead(ValueError("seed is -1")) is None


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("experiment=dmeo", "there is no experiment 'dmeo': there are .*Did you mean 'demo'"),
        ("logger=true", "there is no logger 'true': there are csv, "),
        ("scale=1.5", "there is no scale '1.5': there are "),
        ("seed", r"seed cannot be read \(missing EQUAL"),
        ("seed=[1", r"seed=\[1 cannot be read"),
        ("seed=1,2", r"seed=1,2: a sweep over these values needs -m; a list is seed=\[1,2\]"),
        ("recursion.heads.7=0", r"recursion.heads.7=0: recursion.heads\[7\]: list index out of range"),
        ("+seed=1", "An item is already at 'seed'"),
        ("~nothing", "'nothing' does not exist"),
    ],
)
def test_what_hydra_refuses_is_one_line_without_its_search_path_and_manual(override: str, expected: str) -> None:
    message = message_for_user(refusal_of(override))
    assert message is not None
    assert re.search(expected, message)
    assert "\n" not in message
    assert "hydra" not in message


def test_a_key_below_one_that_is_null_is_named() -> None:
    register_resolvers()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        message = message_for_user(caught(compose, "train", ["+hydra.sweeper.params.seed=1"]))
    assert message == "+hydra.sweeper.params.seed=1 cannot be set: no mapping stands above it"


def caught(function: object, *arguments: object) -> BaseException:
    try:
        function(*arguments)  # type: ignore[operator]
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_what_we_raise_is_for_the_user_and_what_happens_to_us_is_not() -> None:
    refused = caught(Preemption, "last.ckpt", 0)
    assert message_for_user(refused) == str(refused)
    assert (
        message_for_user(caught(OmegaConf.create({"key": "???"}).__getitem__, "key"))
        == "key is missing: key=… is needed"
    )
    assert message_for_user(caught(int, "x")) is None
    assert message_for_user(caught(Preemption)) is None  # a call that lacks its arguments


def test_a_package_that_a_library_asks_for_is_named_and_an_import_that_fails_is_a_fault_of_ours() -> None:
    def ask() -> None:
        raise ModuleNotFoundError("`DeviceStatsMonitor` cannot log CPU stats as `psutil` is not installed.")

    assert message_for_user(caught(ask)) == "`DeviceStatsMonitor` cannot log CPU stats as `psutil` is not installed."
    assert message_for_user(caught(importlib.import_module, "r3cnn.nowhere")) is None


class NoImages(Dataset[torch.Tensor]):
    """Images that are not there, or, where not even the name of one is known, a fault of ours."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> torch.Tensor:
        assert self.path is not None
        return read_image(self.path)


def test_what_a_process_that_loads_data_raises_is_shown_without_its_traceback(tmp_path: Path) -> None:
    error = caught(list, DataLoader(NoImages(tmp_path / "a.png"), num_workers=1))
    assert "Original Traceback" in str(error)
    assert (message_for_user(error) or "").startswith(f"{tmp_path}/a.png: ")
    assert message_for_user(caught(list, DataLoader(NoImages(None), num_workers=1))) is None


def test_a_file_of_the_user_is_named_with_the_reason(tmp_path: Path) -> None:
    assert message_for_user(caught(open, tmp_path / "a")) == f"{tmp_path}/a: No such file or directory"
    assert message_for_user(OSError(errno.ENOSPC, "No space left on device")) == "No space left on device"
    assert message_for_user(OSError(errno.EBADF, "Bad file descriptor")) is None


def test_a_mistake_is_a_line_with_status_2_and_a_fault_a_traceback_with_status_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("R3CNN_TRACEBACK", "0")
    ours, theirs = caught(int, "x"), caught(Preemption, "last.ckpt", 0)
    assert isinstance(ours, Exception)
    assert isinstance(theirs, Exception)
    assert report(theirs) == 2
    assert capsys.readouterr().err == f"r3cnn: {theirs}\n"
    assert report(ours) == 1
    assert "Traceback" in capsys.readouterr().err
    assert report(JobsFailed("1 of 2 jobs failed")) == 1
    assert capsys.readouterr().err == "r3cnn: 1 of 2 jobs failed\n"
    monkeypatch.setenv("R3CNN_TRACEBACK", "1")
    assert report(theirs) == 2
    assert "Traceback" in capsys.readouterr().err
    assert message_for_user(CompactHydraException("a\nb")) == "a\nb"


def test_a_file_that_finds_no_room_is_named_however_it_is_written(tmp_path: Path, small_files: None) -> None:
    path = tmp_path / "file"
    noise = torch.randint(256, (200, 200, 3), dtype=torch.uint8).numpy()

    def append() -> None:
        with path.open("a", newline="") as file:
            csv.writer(file).writerows([[number] for number in range(10**5)])

    writers = {
        "text": lambda: path.write_text("x" * 10**5),
        "csv": append,
        "yaml": lambda: OmegaConf.save(OmegaConf.create({"key": "x" * 10**5}), path),
        "picture": lambda: Image.fromarray(noise).save(path, format="png"),
        "array": lambda: np.save(path, noise),
    }
    messages = {name: message_for_user(caught(write)) for name, write in writers.items()}
    numpy = messages.pop("array") or ""  # which does not know why
    assert numpy.startswith(f"{path}.npy: {noise.size} requested and ")
    assert messages == dict.fromkeys(messages, f"{path}: File too large")
