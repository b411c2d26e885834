from __future__ import annotations

import logging
import multiprocessing
import os
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from coco_records import annotation, image

from r3cnn.data import reading
from r3cnn.data.checks import AnnotationError
from r3cnn.data.index_cache import Stored, load_or_make, name_of

CLASSES = ("dog", "cat")


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A cache folder that small files are kept in as well."""
    monkeypatch.setattr(reading, "SMALLEST_KEPT", 0)
    return tmp_path / "kept"


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def read(file, kept, on_bad_annotation="error", classes=CLASSES):
    return reading.read_annotations(file, classes, on_bad_annotation, index_cache=kept)


def count_builds(monkeypatch):
    built = []
    original = reading.read_index

    def counted(file, classes, **settings):
        built.append(file)
        return original(file, classes, **settings)

    monkeypatch.setattr(reading, "read_index", counted)
    return built


def assert_same(first, second):
    for name in reading.ARRAYS:
        assert np.array_equal(getattr(first, name), getattr(second, name)), name
    assert [first.objects(i).segments for i in range(len(first))] == [
        second.objects(i).segments for i in range(len(second))
    ]
    for name in ("category_ids", "file_ids", "rejected", "left_out", "notes"):
        assert getattr(first, name) == getattr(second, name), name


def test_a_kept_index_is_the_one_that_was_read(write_coco, kept, monkeypatch):
    crowd = annotation(3, iscrowd=1, segmentation={"size": [60, 80], "counts": [0, 4800]})
    images = [image("one", file_name="1.png"), image("two", file_name="2.png")]
    records = [annotation(1), annotation(2, image_id="two", category_id=3), crowd]
    file = write_coco(images, [{**one, "image_id": "two" if one["image_id"] == "two" else "one"} for one in records])
    built = count_builds(monkeypatch)
    plain = reading.read_annotations(file, CLASSES)
    first, second = read(file, kept), read(file, kept)
    assert_same(first, plain)
    assert_same(second, plain)
    assert len(built) == 2  # one without the cache, one with it
    assert second.file == file


def test_a_copy_under_another_name_shares_the_index_and_changed_content_does_not(write_coco, kept, monkeypatch):
    file = write_coco([image()], [annotation(1)])
    copy = write_coco([image()], [annotation(1)], name="copy.json")
    built = count_builds(monkeypatch)
    read(file, kept)
    assert read(copy, kept).file == copy
    assert len(built) == 1
    stat = file.stat()
    file.write_text(file.read_text().replace("10.0", "11.0"))
    assert file.stat().st_size == stat.st_size  # a change that neither size nor, perhaps, time would tell
    assert read(file, kept).objects(0).boxes[0, 0] == 11
    assert len(built) == 2


def test_other_classes_or_other_checks_make_an_index_of_their_own(write_coco, kept, monkeypatch):
    file = write_coco([image()], [annotation(1)])
    assert read(file, kept).labels.tolist() == [0]
    assert read(file, kept, classes=("cat", "dog")).labels.tolist() == [1]
    assert len(entries(kept)) == 2
    reading.read_annotations(file, CLASSES, max_overhang=0.5, index_cache=kept)
    assert len(entries(kept)) == 3
    monkeypatch.setattr(reading, "_digest_of_code", lambda: "changed")
    read(file, kept)
    assert len(entries(kept)) == 4


@pytest.mark.parametrize("library", ["numpy", "pycocotools"])
def test_another_version_of_a_library_makes_an_index_of_its_own(write_coco, kept, monkeypatch, library):
    file = write_coco([image()], [annotation(1)])
    read(file, kept)
    read(file, kept)
    assert len(entries(kept)) == 1
    monkeypatch.setattr(reading, "version", lambda name: "99" if name == library else version(name))
    read(file, kept)
    assert len(entries(kept)) == 2


def test_entries_that_nobody_used_for_a_month_are_dropped_when_one_is_made(tmp_path):
    def make() -> Stored:
        return Stored({}, {})

    unused, used, fresh = (tmp_path / name_of(name) for name in ("unused", "used", "fresh"))
    (tmp_path / "somebodys").mkdir()
    for place in (unused, used):
        load_or_make(tmp_path, place.name, make)
    for place in (unused / "facts.json", used / "facts.json"):
        os.utime(place, (time.time() - 31 * 24 * 3600,) * 2)
    load_or_make(tmp_path, used.name, make)
    assert unused.exists()  # nothing new was made
    load_or_make(tmp_path, fresh.name, make)
    assert entries(tmp_path) == sorted([used, fresh, tmp_path / "somebodys"])


def test_the_code_that_an_index_depends_on_is_all_that_reading_imports_of_this_package():
    folder = Path(reading.__file__).parent
    needed, pending = set(), ["reading.py"]
    while pending:
        module = pending.pop()
        if module not in needed:
            needed.add(module)
            imported = [
                line.split()[1] for line in (folder / module).read_text().splitlines() if "from r3cnn.data." in line
            ]
            pending += [f"{name.rsplit('.', 1)[1]}.py" for name in imported]
    assert needed - {"index_cache.py"} == set(reading.CODE)


def test_bad_records_are_told_from_a_kept_index_as_well(write_coco, kept, caplog):
    file = write_coco([image()], [annotation(1), annotation(2, category_id=9)])
    for _ in range(2):
        with pytest.raises(AnnotationError, match="annotation 2 has unknown category_id 9"):
            read(file, kept)
        with caplog.at_level(logging.WARNING):
            assert read(file, kept, "skip").rejected.annotations == (1,)
        assert caplog.text.count("left out 1 bad records") == 1
        caplog.clear()
    assert len(entries(kept)) == 1


def damaged(entry: Path, damage: str) -> None:
    boxes = entry / "boxes.npy"
    if damage == "facts":
        (entry / "facts.json").write_text('{"lengths"')
    elif damage == "array":
        boxes.write_bytes(boxes.read_bytes()[:-5])
    elif damage == "pipe":
        boxes.unlink()
        os.mkfifo(boxes)
    else:
        (entry / "labels.npy").unlink()


@pytest.mark.parametrize("damage", ["facts", "array", "missing", "pipe"])
def test_a_broken_entry_is_made_anew_with_one_line(write_coco, kept, caplog, damage):
    file = write_coco([image()], [annotation(1)])
    plain = read(file, kept)
    damaged(*entries(kept), damage)
    with caplog.at_level(logging.WARNING):
        assert_same(read(file, kept), plain)
    assert caplog.text.count("is broken and made anew") == 1
    caplog.clear()
    assert_same(read(file, kept), plain)
    assert caplog.text == ""


def test_a_flipped_bit_anywhere_in_an_entry_is_noticed(write_coco, kept, monkeypatch):
    file = write_coco([image()], [annotation(1)])
    plain = read(file, kept)
    (entry,) = entries(kept)
    built, random = count_builds(monkeypatch), np.random.default_rng(0)
    files = sorted(entry.iterdir())
    for number in range(60):
        target = files[number % len(files)]
        content = bytearray(target.read_bytes())
        content[random.integers(len(content))] ^= 1 << random.integers(8)
        target.write_bytes(content)
        assert_same(read(file, kept), plain)
        assert len(built) == number + 1, target


def test_an_entry_of_another_file_under_its_name_is_made_anew(write_coco, kept):
    files = [write_coco([image()], [annotation(1, category_id=one)], name=f"{one}.json") for one in (3, 7)]
    expected, places = [], []
    for file in files:
        expected.append(read(file, kept))
        places += [place for place in entries(kept) if place not in places]
    for name in ("labels.npy", ""):  # a file of it, and all of it
        one, other, spare = places[0] / name, places[1] / name, kept / "spare"
        for source, target in ((one, spare), (other, one), (spare, other)):
            source.rename(target)
        for file, plain in zip(files, expected, strict=True):
            assert_same(read(file, kept), plain)


def test_what_a_killed_process_left_of_an_entry_is_removed(tmp_path):
    name, other = name_of("this"), name_of("other")
    drafts = [tmp_path / f".{name}-abc", tmp_path / f".{other}-abc", tmp_path / f".{other}-new"]
    for draft in drafts:
        draft.mkdir()
        (draft / "numbers.npy").write_bytes(b"half")
    os.utime(drafts[1], (time.time() - 2 * 24 * 3600,) * 2)
    load_or_make(tmp_path, name, lambda: Stored({}, {}))
    assert [draft.exists() for draft in drafts] == [False, False, True]  # the last one may still be written


def test_where_nothing_can_be_written_the_index_is_read_every_time(write_coco, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(reading, "SMALLEST_KEPT", 0)
    file = write_coco([image()], [annotation(1)])
    (tmp_path / "taken").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        assert len(read(file, tmp_path / "taken").labels) == 1
    assert "cannot be kept" in caplog.text


def test_small_files_are_not_kept(write_coco, tmp_path):
    read(write_coco([image()], [annotation(1)]), tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_large_arrays_are_mapped_from_the_file_and_not_writable(tmp_path):
    array = np.arange(100_000)
    found = load_or_make(tmp_path, "entry", lambda: Stored({"numbers": array}, {})).arrays["numbers"]
    assert isinstance(found.base, np.memmap)
    assert not found.flags.writeable
    assert np.array_equal(found, array)


def make_slowly(folder: Path, log: Path) -> None:
    def make() -> Stored:
        with log.open("a") as stream:
            stream.write("made\n")
        time.sleep(0.5)
        return Stored({"numbers": np.arange(5000)}, {"whole": True})

    stored = load_or_make(folder, "entry", make)
    assert stored.facts == {"whole": True}
    assert stored.arrays["numbers"].sum() == 5000 * 4999 // 2


def test_of_several_processes_one_makes_the_entry_and_the_others_wait_for_it(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=make_slowly, args=(tmp_path, tmp_path / "log")) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert (tmp_path / "log").read_text() == "made\n"


def test_a_process_that_dies_while_it_makes_an_entry_leaves_nothing_and_blocks_nobody(tmp_path):
    def die() -> Stored:
        os._exit(7)

    process = multiprocessing.get_context("fork").Process(target=load_or_make, args=(tmp_path, "entry", die))
    process.start()
    process.join()
    assert process.exitcode == 7
    assert load_or_make(tmp_path, "entry", lambda: Stored({}, {"made": 2})).facts == {"made": 2}
    assert load_or_make(tmp_path, "entry", die).facts == {"made": 2}


def test_names_keep_their_parts_apart():
    assert name_of("ab", "c") != name_of("a", "bc")
