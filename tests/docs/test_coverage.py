"""The page that says which test shows what names tests that there are."""

from __future__ import annotations

import re

from docs import coverage
from tests.conftest import ROOT


def test_every_test_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"`([\w/]+\.py)::(\w+)`", coverage.PAGE.read_text(encoding="utf-8")))
    assert len(named) > 50
    missing = [
        f"{path}::{name}"
        for path, name in sorted(named)
        if f"def {name}(" not in (ROOT / "tests" / path).read_text(encoding="utf-8")
    ]
    assert not missing, "run `python -m docs.coverage` and commit the result"


def test_every_mark_names_a_section_and_a_keyword() -> None:
    assert all(
        re.fullmatch(r"\d+\..+", row) and row.partition(".")[0] in coverage.SECTIONS for row in coverage.marked()
    )
