"""Words for people: what tasks say, made harmless; spans of time, sizes, tables; and the same as JSON.

Names, arguments and results come from whoever sends tasks. They pass through `visible` before they reach a terminal, so that
control characters and escape sequences in them are seen and not obeyed.
"""

from __future__ import annotations

import json
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any, Final, NamedTuple

from litetq.log import has_colour
from litetq.log import visible as visible
from litetq.log import visible_lines as visible_lines

_STYLES: Final = {
    "bold": "1",
    "dim": "2",
    "SUCCESS": "32",
    "FAILURE": "31",
    "DEAD": "31",
    "REVOKED": "33",
    "RETRY": "33",
    "RUNNING": "36",
    "good": "32",
    "warning": "33",
    "bad": "31",
}
_ON_TOP: Final = ("Mn", "Me")  # what a terminal draws on the letter before it
_SPANS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


class Paper(NamedTuple):
    """What is written on: a terminal has a width, and colours unless they are unwanted; a pipe has neither."""

    colour: bool
    width: int | None  # in columns; None: lines are never cut

    def paint(self, text: str, style: str) -> str:
        code = _STYLES.get(style)
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and code and text else text


def paper(*, no_color: bool = False) -> Paper:
    """Return what stdout is."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    return Paper(has_colour(sys.stdout, False if no_color else None), width)


def columns(text: str) -> int:
    """Return how many columns of a terminal a text takes: two for a Chinese, Japanese or Korean letter, none for an accent."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.category(c) in _ON_TOP else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def cut(text: str, width: int | None) -> str:
    """Return the text, or as much of it as fits into `width` columns with an ellipsis behind it."""
    if width is None or columns(text) <= width:
        return text
    kept = ""
    for letter in text:
        if columns(kept + letter) > max(0, width - 1):
            break
        kept += letter
    return f"{kept}…"


def table(rows: Sequence[Sequence[str]], paper: Paper, *, styles: Sequence[Sequence[str]] = ()) -> list[str]:
    """Return lines with aligned columns; the first row is the heading. On a terminal the last column is cut to fit.

    Args:
        rows: the cells, made `visible` where they come from tasks.
        styles: names of styles by row (the heading left out) and column; "" is none.
    """
    widths = [max(columns(row[place]) for row in rows) for place in range(len(rows[0]))]
    room = None if paper.width is None else max(8, paper.width - sum(widths[:-1]) - 2 * (len(widths) - 1))
    lines = []
    for number, row in enumerate(rows):
        cells = []
        for place, cell in enumerate(row):
            is_last = place == len(row) - 1
            text = cut(cell, room) if is_last else cell
            style = "bold" if number == 0 else styles[number - 1][place] if number <= len(styles) else ""
            padding = "" if is_last else " " * (widths[place] - columns(cell))
            cells.append(paper.paint(text, style) + padding)
        lines.append("  ".join(cells).rstrip())
    return lines


def span(seconds: float) -> str:
    """Return a span in its two largest units: 1 d 4 h."""
    left = max(0, round(seconds))
    parts: list[tuple[int, str]] = []
    for size, unit in _SPANS:
        count, left = divmod(left, size)
        if count or parts:
            parts.append((count, unit))
    return " ".join(f"{count} {unit}" for count, unit in parts[:2] if count) or "0 s"


def ago(seconds: float | None, now: float) -> str:
    """Return a point in time (UTC seconds) as people say it: 5 min ago, in 2 h."""
    if seconds is None:
        return "-"
    return f"in {span(seconds - now)}" if seconds > now + 0.5 else f"{span(now - seconds)} ago"


def runtime(seconds: float | None) -> str:
    """Return how long something took, to three digits: 0.012 s, 3.21 s, 2 min 5 s."""
    if seconds is None:
        return "-"
    return f"{seconds:.3f} s" if seconds < 1 else f"{seconds:.2f} s" if seconds < 60 else span(seconds)


def size(count: float) -> str:
    """Return a number of bytes: 512 B, 1.5 KiB, 3.2 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its word: 1 task, 1,200 tasks."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def iso(seconds: float | None) -> str | None:
    """Return a point in time (UTC seconds) in ISO 8601, None for None."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")


def as_json(value: Any) -> str:
    """Return a value as one line of JSON in plain ASCII: safe on every terminal and in every encoding."""
    return json.dumps(value, default=str)


def listed(words: Iterable[str], most: int = 10) -> str:
    """Return words with commas, and how many more there are than `most`."""
    words = list(words)
    rest = len(words) - most
    return ", ".join(words[:most]) + (f" and {rest:,} more" if rest > 0 else "")
