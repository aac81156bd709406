"""The page about replaceable parts keeps what it says: nine of them, an example of about twenty lines for each, that runs."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "guide" / "extending.md").read_text(encoding="utf-8")
PARTS = (
    "Pools", "Serializers", "Compression", "Logging", "Schedulers", "Consumers", "Producers", "Autoscalers", "Transports",
)  # fmt: skip
LINES = 40  # of one example, with imports and empty lines


@pytest.mark.parametrize("part", PARTS)
def test_each_of_the_nine_parts_has_an_example_of_about_twenty_lines(part: str) -> None:
    """That they run is shown by tests/docs/test_snippets.py."""
    section = re.search(rf"^## {part}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section is not None, f"there is no section about {part}"
    examples = re.findall(r"^```python\n(# \S+\.py\n.*?)^```", section[1], re.MULTILINE | re.DOTALL)
    assert examples
    assert all(len(example.splitlines()) <= LINES for example in examples)
    assert "```console\n$ " in section[1] or ">>> " in section[1]  # something is done with it


def test_the_table_leads_to_each_of_them() -> None:
    assert re.findall(r"^\| \[\w+\]\(#(\w+)\)", PAGE, re.MULTILINE) == [part.lower() for part in PARTS]
