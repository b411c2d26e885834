from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from r3cnn.names import LONGEST_LABEL, file_name, metric_key, shortened, visible, visible_lines

ANY_TEXT = st.text(st.characters(exclude_categories=()))  # halves of surrogate pairs included


def test_what_acts_on_a_terminal_is_shown_as_python_writes_it() -> None:
    assert visible("a\nb\x1b[31m\ud83d\u202e\u2028\x00") == r"a\nb\x1b[31m\ud83d\u202e\u2028\x00"
    assert [visible(f"cat{blank}") for blank in "\u200b\u2060\ufeff"] == [r"cat\u200b", r"cat\u2060", r"cat\ufeff"]
    assert visible("猫 قط ñ 🐈‍⬛ \\n") == "猫 قط ñ 🐈‍⬛ \\n"
    assert visible_lines("a\tb\n\x07") == "a       b\n\\x07"


@given(ANY_TEXT)
def test_what_is_shown_can_be_written_in_utf_8_and_is_one_line(name: str) -> None:
    shown = visible(name)
    assert shown.encode().decode() == shown
    assert len(shown.splitlines()) <= 1


@given(ANY_TEXT)
def test_a_shortened_name_has_at_most_so_many_characters(name: str) -> None:
    assert len(shortened(name)) <= LONGEST_LABEL
    assert len(shortened("x" * 100 + name, 11)) == 11


def test_a_long_name_is_cut_in_its_middle() -> None:
    assert shortened("cat of the first floor", 9) == "cat o…oor"


@given(ANY_TEXT, ANY_TEXT)
def test_different_names_have_different_keys_without_a_slash(one: str, other: str) -> None:
    assert (metric_key(one) == metric_key(other)) == (one == other)
    assert "/" not in metric_key(one)
    metric_key(one).encode()


def test_the_key_of_an_ordinary_name_is_the_name() -> None:
    assert [metric_key(name) for name in ("traffic light", "猫", "a_b-c.d")] == ["traffic light", "猫", "a_b-c.d"]
    assert metric_key("a/b 5%") == "a%2Fb 5%25"


def test_a_file_that_is_named_after_another_one_has_a_name_that_a_file_system_takes() -> None:
    assert file_name("cat.jpg", ".png") == "cat.jpg.png"
    assert file_name("M\udcfcller", ".png") == "M\udcfcller.png"
    long = [file_name(f"{'猫' * 83}{number}", ".png") for number in range(20)]
    assert len({*long}) == len(long)
    assert all(len(name.encode()) <= 255 and name.startswith("猫" * 78) for name in long[:2])
