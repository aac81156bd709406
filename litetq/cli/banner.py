"""What a worker shows when it starts: who it is, which app, which file, which queues, which tasks."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from litetq.log import visible

_LETTERS = (
    r" _ _ _       _         ",
    r"| (_) |_ ___| |_ __ _  ",
    r"| | |  _/ -_)  _/ _` | ",
    r"|_|_|\__\___|\__\__, | ",
    r"                   |_| ",
)


class Facts(NamedTuple):
    """The content of the banner, all of it ready to be shown (passwords masked)."""

    hostname: str
    version: str
    app: str
    transport: str
    results: str
    concurrency: int
    pool: str
    events: bool
    queues: Sequence[str]
    tasks: Sequence[str]


def banner(facts: Facts, *, colour: bool) -> str:
    """Return the text, with Celery's fields in Celery's order."""
    events = "ON" if facts.events else "OFF (enable -E to monitor tasks in this worker)"
    lines = [
        "",
        *(_paint(line, colour) for line in _LETTERS),
        "",
        f" -------------- {facts.hostname} v{facts.version} (litetq)",
        f" {platform.platform()} {datetime.now().strftime('%Y-%m-%d %H:%M:%S')}",
        "",
        " [config]",
        f" .> app:         {facts.app}",
        f" .> transport:   {facts.transport}",
        f" .> results:     {facts.results}",
        f" .> concurrency: {facts.concurrency} ({facts.pool})",
        f" .> task events: {events}",
        "",
        " [queues]",
        *(f" .> {name:<16} exchange={name}(direct) key={name}" for name in map(visible, facts.queues)),
        "",
        " [tasks]",
        *(f"  . {name}" for name in map(visible, facts.tasks)),
        "",
    ]
    return "\n".join(lines)


def _paint(line: str, colour: bool) -> str:
    return f"\x1b[1;34m{line}\x1b[0m" if colour else line
