"""Words for people: spans, sizes, tables, and text that cannot do anything to a terminal."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litetq.cli.text import Paper, ago, as_json, columns, counted, cut, iso, listed, runtime, size, span, table, visible

PIPE = Paper(colour=False, width=None)


@given(st.text())
def test_what_is_visible_is_printable_on_one_line_and_says_what_was_there(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable() and "\x1b" not in shown and len(shown.splitlines()) <= 1
    if text.isprintable():
        assert shown == text
    assert as_json(text).isascii() and json.loads(as_json(text)) == text


def test_control_characters_marks_of_direction_and_invisible_letters_are_escapes() -> None:
    assert visible("a\x1b[31m\r\n\x07\x9b\u202e\u200b\ud800\u2028") == r"a\x1b[31m\r\n\x07\x9b\u202e\u200b\ud800\u2028"
    assert visible("Zürich 中文 ☃") == "Zürich 中文 ☃"


@given(st.text(), st.integers(1, 30))
def test_a_cut_text_fits(text: str, width: int) -> None:
    short = cut(text, width)
    assert columns(short) <= width and (short == text or short.endswith("…"))
    assert cut(text, None) == text


def test_wide_letters_take_two_columns_and_marks_on_letters_none() -> None:
    assert columns("ab") == 2 and columns("中文") == 4 and columns(unicodedata.normalize("NFD", "é")) == 1


def test_columns_of_a_table_stand_below_each_other_whatever_the_letters() -> None:
    rows = [("NAME", "N"), ("中文", "1"), ("abc", "22")]
    assert table(rows, PIPE) == ["NAME  N", "中文  1", "abc   22"]
    coloured = table(rows, Paper(colour=True, width=80), styles=[("FAILURE", ""), ("", "")])
    assert coloured[1] == "\x1b[31m中文\x1b[0m  1" and coloured[2] == "abc   22"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (3605, "1 h"),
        (90_000, "1 d 1 h"),
        (-5, "0 s"),
    ],
)
def test_spans_are_said_in_their_two_largest_units(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_points_sizes_and_counts() -> None:
    assert (ago(100.0, 160.0), ago(160.0, 100.0), ago(None, 1.0)) == ("1 min ago", "in 1 min", "-")
    assert (runtime(0.0123), runtime(3.217), runtime(125), runtime(None)) == ("0.012 s", "3.22 s", "2 min 5 s", "-")
    assert (size(512), size(1536), size(3 * 2**40)) == ("512 B", "1.5 KiB", "3.0 TiB")
    assert (counted(1, "task"), counted(1200, "task"), counted(0, "entry", "entries")) == (
        "1 task",
        "1,200 tasks",
        "0 entries",
    )
    assert iso(0.0) == "1970-01-01T00:00:00.000+00:00" and iso(None) is None
    assert (listed(["a", "b"]), listed("abc", most=2)) == ("a, b", "a, b and 1 more")
