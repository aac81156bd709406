"""The page that says which test shows what names tests that there are."""

from __future__ import annotations

import re

import pytest

from docs import coverage
from tests.conftest import ROOT
from tests.spec import must


def test_every_test_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"`([\w/]+\.py)::(\w+)`", coverage.PAGE.read_text(encoding="utf-8")))
    assert len(named) > 50
    missing = [
        f"{path}::{name}"
        for path, name in sorted(named)
        if f"def {name}(" not in (ROOT / "tests" / path).read_text(encoding="utf-8")
    ]
    assert not missing, "run `python -m docs.coverage` and commit the result"


def test_everything_that_must_be_is_shown_by_a_test_or_stands_with_a_reason() -> None:
    assert coverage.untested() == []
    twice = coverage.marked().keys() & must.WHY_NOT.keys()
    assert not twice, f"shown, and said not to be: {sorted(twice)}"


def test_a_row_without_a_test_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(must.MUST, "7", ("constants and sets", "a row that nobody shows"))
    assert coverage.untested() == ["7.a row that nobody shows"]
    assert "- 7.a row that nobody shows" in coverage.page()


def test_every_mark_names_a_section_and_a_keyword() -> None:
    assert all(
        re.fullmatch(r"\d+\..+", row) and row.partition(".")[0] in coverage.SECTIONS for row in coverage.marked()
    )
