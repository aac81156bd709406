"""Write docs/coverage.md: which test shows which row of the feature lists. `python -m docs.coverage` at the root.

Rows of Celery's own features are marked at the tests that show them, `@pytest.mark.row("11.task_routes")`: the section and a
keyword. Those that must be shown are in tests/spec/must.py. Rows of the other list, with ids, stand in tests/spec/rows.py with
their tests, or with what they wait for.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from litetq import conf
from tests.spec import must
from tests.spec.rows import ROWS

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "coverage.md"
SECTIONS: Final = {
    "1": "application", "2": "tasks", "3": "calling", "4": "retry", "5": "canvas", "6": "results", "7": "states",
    "8": "workers", "9": "remote control", "10": "beat", "11": "routing and queues", "12": "signals", "13": "the command line",
    "14": "monitoring", "15": "logging", "16": "security", "20": "settings",
}  # fmt: skip


@functools.cache
def marked() -> dict[str, list[str]]:
    """Return the tests by the row that they are marked with."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef):
                for row in _rows_of(function):
                    found[row].append(f"{path.relative_to(ROOT).as_posix()}::{function.name}")
    return dict(found)


def _rows_of(function: ast.FunctionDef) -> Iterator[str]:
    for mark in function.decorator_list:
        if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Attribute) and mark.func.attr == "row":
            for argument in mark.args:
                if isinstance(argument, ast.Constant):
                    yield str(argument.value)


def untested() -> list[str]:
    """Return the rows of what must be that have neither a test nor a reason."""
    shown = marked().keys() | must.WHY_NOT.keys() | {f"20.{key}" for key in accepted()}
    return [row for row in must.rows() if row not in shown]


def accepted() -> dict[str, str]:
    """Return the settings that must be taken and have no effect here, with what is so instead."""
    return {
        key: conf.OPTIONS[key].meaning
        for key in must.SETTINGS
        if conf.OPTIONS[key].effect in (conf.ACCEPTED, conf.ADAPTER)
    }


def page() -> str:
    """Return the page."""
    rows = marked()
    lines = [
        "# Which test shows what",
        "",
        "<!-- Written by `python -m docs.coverage`. Do not edit. -->",
        "",
        "A row counts as shown when a real worker (or call) shows its effect. What is taken and has no effect is listed apart.",
        "",
        "## Celery's features",
    ]
    for number, title in SECTIONS.items():
        here = {row for row in rows if row.partition(".")[0] == number}
        first = [f"{number}.{row}" for row in must.MUST.get(number, ()) if f"{number}.{row}" in here]
        lines += ["", f"### {number} {title}", "", "| row | tests |", "|---|---|"]
        for row in [*first, *sorted(here.difference(first))]:
            lines.append(f"| {_cell(row.partition('.')[2])} | {_list(rows[row])} |")
    lines += ["", "### Without a test", ""]
    lines += [f"- {_cell(row)}" for row in untested()] or ["None."]
    lines += ["", "### Not as Celery has it", "", "| row | why |", "|---|---|"]
    lines += [f"| {_cell(row)} | {why} |" for row, why in must.WHY_NOT.items()]
    lines += ["", "### Accepted without effect", "", "| setting | what it is in Celery; what is so here |", "|---|---|"]
    lines += [f"| `{key}` | {_cell(meaning)} |" for key, meaning in accepted().items()]
    named = {row.removeprefix("20.") for row in rows if row.startswith("20.")} | accepted().keys()
    kinds = {
        "Further settings that litetq obeys, shown by tests that are not marked with them": conf.HONOURED,
        "Settings that this version does not look at": conf.LATER,
        "Further settings without effect": conf.ACCEPTED,
        "Settings of servers": conf.ADAPTER,
    }
    for heading, effect in kinds.items():
        keys = [key for key, option in conf.OPTIONS.items() if option.effect == effect and key not in named]
        lines += ["", f"### {heading}", "", ", ".join(f"`{key}`" for key in sorted(keys))]
    lines += ["", "## The other list", "", "| row | tests, or what it waits for |", "|---|---|"]
    for row, shown in ROWS.items():
        lines.append(f"| {row} | {shown if isinstance(shown, str) else _list(list(shown))} |")
    return "\n".join(lines) + "\n"


def _list(tests: list[str]) -> str:
    return "<br>".join(f"`{test.removeprefix('tests/')}`" for test in dict.fromkeys(tests))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
    sys.exit(0)
