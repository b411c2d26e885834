"""Codes of masks that memory has no room for."""

import pickle
import resource
from collections.abc import Iterator

import pytest

from r3cnn.evaluation.rle import EncodedMasks, FileText, TextStore

COUNTS = (b"0123", b"", b"456789")


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may have more than 12 bytes, as where a disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def stored(store: TextStore) -> EncodedMasks:
    masks = EncodedMasks.of(COUNTS, (1, 0, 2))
    masks.move_to(store)
    return masks


def test_texts_that_memory_has_no_room_for_are_read_from_a_file_and_copied_as_texts() -> None:
    store = TextStore(room=12)
    kept = [stored(store) for _ in range(3)]
    assert [type(masks.text) for masks in kept] == [bytes, FileText, FileText]
    for masks in kept:
        masks.move_to(store)  # it is where it is
        assert masks.counts == COUNTS
        assert masks.counts_of([2, 0]) == (COUNTS[2], COUNTS[0])
        assert pickle.loads(pickle.dumps(masks)).text == b"".join(COUNTS)


@pytest.mark.usefixtures("small_files")
def test_texts_that_no_file_has_room_for_either_stay_in_memory() -> None:
    store = TextStore(room=0)
    kept = [stored(store) for _ in range(2)]
    assert [type(masks.text) for masks in kept] == [FileText, bytes]
    assert [masks.counts for masks in kept] == [COUNTS] * 2
