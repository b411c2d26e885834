"""The ledger's entries as files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from record_samples import make_record, write_record

from r3cnn.reporting.records import read_record
from r3cnn.run_files import RESULT


def change(folder: Path, key: str, value: object) -> None:
    content = json.loads((folder / RESULT).read_text())
    content[key] = value
    (folder / RESULT).write_text(json.dumps(content))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    record = make_record()
    assert read_record(write_record(tmp_path, record)) == record


def test_a_folder_without_a_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path.name} has no result.json"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", 2, r"result.json has format 2, this version of r3cnn reads 1"),
        ("seed", "0", r"result.json does not hold what a run writes: Expected `int`, got `str` - at `\$.seed`"),
        ("memory_kind", "disk", r"Invalid enum value 'disk' - at `\$.memory_kind`"),
        ("metrics", {"box": {}}, r"missing required field `mask` - at `\$.metrics`"),
        ("parameters", {"total": 3}, r"missing required field `trainable` - at `\$.parameters`"),
    ],
)
def test_a_wrong_value_is_named_with_its_file(key: str, value: object, message: str, tmp_path: Path) -> None:
    change(write_record(tmp_path, make_record()), key, value)
    with pytest.raises(ValueError, match=message):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"), [("{", "is not valid JSON"), ("[]", "does not hold what a run writes")]
)
def test_a_file_that_is_something_else_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / RESULT).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_record(tmp_path)


def test_a_number_that_json_does_not_know_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_record(tmp_path, replace(make_record(), checkpoint_mib=float("nan")))
    assert not [*tmp_path.iterdir()]
