"""What README and guide show is what happens: their snippets are run, their links lead somewhere.

The convention, visible in the pages themselves:

- a block whose first line is a comment with a file name (`# tasks.py`) is written to that file;
- a `python` block with `>>>` is a session: its output must be as shown;
- in a `console` block each line that begins with `$` is run, and its output must be as shown; where none is shown, anything
  will do. The exit code must be 0, unless a line shown begins with `Error:`; then it must not be;
- `...` in output stands for anything;
- any other `python` block must be valid Python; blocks of other kinds (`sh`, `text`) are only shown.

Each page has a directory of its own, in which its blocks are done from top to bottom.
"""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import ROOT, RunPython

RUN = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("from-*.md")),
    *sorted((ROOT / "docs" / "guide").glob("*.md")),
]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SECONDS = 30.0  # for one command; far more than any needs

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"# ([\w./-]+\.\w+)\n")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")

_SESSION = """
import doctest, sys
test = doctest.DocTestParser().get_doctest(sys.argv[1], {"__name__": "__main__"}, sys.argv[2], None, 0)
failed = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed
sys.exit(1 if failed else 0)
"""


class Block(NamedTuple):
    kind: str
    text: str
    line: int  # of the page


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        yield Block(found[1], found[2], text.count("\n", 0, found.start()) + 1)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.system
@pytest.mark.parametrize("page", RUN, ids=name)
def test_what_a_page_shows_is_what_happens(page: Path, tmp_path: Path, run_python: RunPython) -> None:
    for block in blocks_of(page):
        place = f"{name(page)}, line {block.line}"
        named = _NAMED.match(block.text)
        if block.kind == "python":
            check_python(block, place, named is None, run_python)
        if named is not None:
            path = tmp_path / named[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.kind == "console":
            for command, expected in commands_of(block.text):
                check_command(command, expected, place, run_python)


def check_python(block: Block, place: str, is_unnamed: bool, run_python: RunPython) -> None:
    if is_unnamed and ">>> " in block.text:
        session = run_python(_SESSION, block.text, place)
        output, errors = session.communicate(timeout=SECONDS)
        assert session.returncode == 0, f"{place}:\n{output}{errors}"
    else:
        ast.parse(block.text, place)


def commands_of(text: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a console block with the output shown for it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        yield command, expected


def check_command(command: str, expected: str, place: str, run_python: RunPython) -> None:
    words = shlex.split(command)
    environment: dict[str, str] = {}
    while "=" in words[0]:
        variable, _, environment[variable] = words.pop(0).partition("=")
    program = {"litetq": ["-m", "litetq"], "python": []}[words[0]]
    first, *rest = [*program, *words[1:]]
    what = first if first.startswith("-") else Path(first)
    environment |= {"COLUMNS": "100", "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
    process = run_python(what, *rest, env=environment, stderr=subprocess.STDOUT)  # as a terminal shows it
    output, _ = process.communicate(timeout=SECONDS)
    shown = f"{place}: $ {command}\nexit code {process.returncode}\n{output}"
    is_error = any(line.startswith("Error:") for line in expected.splitlines())
    assert (process.returncode != 0) == is_error, shown
    assert not expected or is_as_shown(expected, output), f"{shown}\n-- but the page shows --\n{expected}"


def is_as_shown(expected: str, output: str) -> bool:
    def plain(text: str) -> str:
        return "\n".join(line.rstrip() for line in text.strip().splitlines())

    pattern = ".*".join(re.escape(part) for part in plain(expected).split("..."))
    return re.fullmatch(pattern, plain(output), re.DOTALL) is not None


def test_both_readmes_show_the_same_code() -> None:
    """So the Chinese page needs no run of its own."""
    english, chinese = (list(blocks_of(ROOT / page)) for page in ("README.md", "README.zh-CN.md"))
    assert [(block.kind, block.text) for block in chinese] == [(block.kind, block.text) for block in english]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in _LINK.findall(re.sub(r"```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"{name(page)} links to {target}, which does not exist"
        if anchor:
            assert anchor in anchors_of(place), f"{name(page)} links to {target}: no such heading"


def anchors_of(page: Path) -> set[str]:
    """Return what the headings of a page are called in links, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_of_the_guide_is_listed() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    listed = {(ROOT / "docs" / target).resolve() for target in _LINK.findall(index)}
    missing = [name(page) for page in PAGES if "guide" in page.parts and page not in listed]
    assert not missing, f"docs/README.md does not list {', '.join(missing)}"


def test_the_check_of_output_can_fail() -> None:
    assert is_as_shown("a\n...\nz", "a\nb\nc\nz\n")
    assert not is_as_shown("a\n...\nz", "a\nb\nc\ny\n")
