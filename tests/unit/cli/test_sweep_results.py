"""What a sweeper is told of a finished job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from r3cnn.cli.sweep import mask_ap


def test_the_mask_ap_of_a_job_is_that_of_its_record(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"metrics": {"mask": {"ap": 0.25}}}))
    assert mask_ap(path) == 0.25
    path.write_text(json.dumps({"metrics": {"mask": {"ap": None}}}))
    assert mask_ap(path) == 0.0


@pytest.mark.parametrize("content", ["{}", "[]", "{", '{"metrics": null}'])
def test_a_record_of_another_version_counts_as_zero_and_breaks_no_search(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "result.json"
    path.write_text(content)
    assert mask_ap(path) == 0.0
    assert f"{path} has no mask AP" in caplog.text
