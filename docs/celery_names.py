"""The page docs/celery-names.md: what becomes, under the alias, of each name that programs take from Celery.

The names are those of celery-names.txt: what 43 packages and 33 applications import, or Celery's documentation offers them. What is
said of a name is written here by hand; tests/compat/test_names.py looks whether it is so.
"""

from __future__ import annotations

import importlib
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple

NAMES: Final = Path(__file__).resolve().parent / "celery-names.txt"

_NO_MESSAGES: Final = "a worker of a file claims rows; it reads no messages, and has no connection to keep"
_NO_STORE: Final = (
    "results are in the file, or where `result_backend` says; a package may bring another place (entry point "
    "`celery.result_backends`)"
)
_NO_PRIVATE: Final = "an inner part of Celery's tracer; attempts are run by `litetq.execution`"
_NO_NODES: Final = "`litetq multi` starts and stops workers; what it is made of is not offered"

# Why a name is not there: of a module, or of a name in it.
MISSING: Final[dict[str, str]] = {
    "celery.app.trace:_signal_internal_error": _NO_PRIVATE,
    "celery.app.trace:report_internal_error": _NO_PRIVATE,
    "celery.app.trace:send_postrun": _NO_PRIVATE,
    "celery.app.trace:send_prerun": _NO_PRIVATE,
    "celery.app.trace:send_success": _NO_PRIVATE,
    "celery.app.trace:successful_requests": _NO_PRIVATE,
    "celery.app.trace:traceback_clear": _NO_PRIVATE,
    "celery.apps.multi": _NO_NODES,
    "celery.backends.asynchronous": _NO_STORE,
    "celery.backends.cache": _NO_STORE,
    "celery.backends.database": _NO_STORE,
    "celery.backends.database.models": _NO_STORE,
    "celery.backends.database.session": _NO_STORE,
    "celery.backends.filesystem": _NO_STORE,
    "celery.backends.redis": _NO_STORE,
    "celery.backends.rpc": _NO_STORE,
    "celery.contrib.migrate": "`litetq migrate` moves tasks; there is no function for it",
    "celery.worker.components:Hub": _NO_MESSAGES,
    "celery.worker.components:Pool": "a step of yours that names it in `requires` starts when the pool runs, as all do",
    "celery.worker.consumer.gossip": _NO_MESSAGES,
    "celery.worker.consumer.mingle": _NO_MESSAGES,
    "celery.worker.heartbeat": _NO_MESSAGES,
    "celery.worker.loops": _NO_MESSAGES,
    "celery.worker.pidbox": _NO_MESSAGES,
}

# What a name that is there does not do, or does otherwise.
LESS: Final[dict[str, str]] = {
    "celery.app.trace:reset_worker_optimizations": "does nothing: a worker patches nothing that could be put back",
    "celery.concurrency.prefork:process_destructor": "is called in each child, for tools that wrap it; does nothing itself",
    "celery.concurrency.prefork:process_initializer": "is called in each child, for tools that wrap it; does nothing itself",
    "celery.worker.strategy:hybrid_to_proto2": "turns what it is given; messages of protocol 1 reach no strategy",
    "celery.worker.strategy:proto1_to_proto2": "turns what it is given; messages of protocol 1 reach no strategy",
    "celery.bootsteps:Blueprint": "starts and stops steps of yours; the worker's own parts are not in one",
    "celery.bootsteps:ConsumerStep": "is refused with a sentence when a worker starts: a file has no messages but tasks",
    "celery.backends.base:Backend": "a copy of each end; nobody calls its `on_chord_part_return`, `apply_chord`, `process_cleanup`",
    "celery.concurrency.base:BasePool": "litetq's own shape of a pool",
    "celery.concurrency.prefork:TaskPool": "litetq's own pool of processes",
    "celery.worker.consumer:Consumer": "is the worker, the sender of `worker_ready`; `worker_consumer` puts no other in its place",
    "celery.worker.consumer.consumer:Consumer": "is the worker, the sender of `worker_ready`",
    "celery.worker.request:Request": "is told of failures and hard time limits; not of soft ones, nor of successes",
    "celery.platforms:close_open_fds": "closes them; not while a file of tasks is open, whose locks would go",
    "celery.utils:noop": "does nothing, as in Celery",
    "celery.utils.functional:noop": "does nothing, as in Celery",
    "celery.app.amqp:AMQP": "queues and routes; it makes and sends no messages",
}


class Name(NamedTuple):
    tier: int
    module: str
    name: str

    @property
    def path(self) -> str:
        return f"{self.module}:{self.name}"


def names() -> list[Name]:
    """Return the names, by module."""
    lines = NAMES.read_text(encoding="utf-8").splitlines()
    found = (line.split() for line in lines if line and not line.startswith("#"))
    return sorted((Name(int(tier), module, name) for tier, module, name in found), key=lambda name: name[1:])


def why_missing(name: Name) -> str | None:
    """Return the reason that is written down for a name that is not there."""
    return MISSING.get(name.path) or MISSING.get(name.module)


def resolve(name: Name) -> Any:
    """Return what `from module import name` gives; raises ImportError where it is not there."""
    module = importlib.import_module(name.module)
    return getattr(module, name.name) if hasattr(module, name.name) else importlib.import_module(".".join(name[1:]))


def page() -> str:
    """Return the page."""
    rows = [_row(module, list(group)) for module, group in groupby(names(), key=lambda name: name.module)]
    counts = [sum(counted) for counted in zip(*(row.counts for row in rows), strict=True)]
    lines = [
        "# Names of Celery",
        "",
        "<!-- Written by `python -m docs.generate` from docs/celery_names.py. Do not edit. -->",
        "",
        "What 43 packages and 33 applications import from Celery, and what becomes of it under [the alias](from-celery.md):",
        f"{counts[0]} names in all, of which {counts[1]} are there, {counts[2]} among them with less than in Celery or otherwise.",
        "Every other name below `celery` that is not there raises `ModuleNotFoundError` or `ImportError`.",
        "",
        "| module | there | beside | missing |",
        "|---|---|---|---|",
        *(row.line for row in rows),
    ]
    return "\n".join(lines) + "\n"


class _Row(NamedTuple):
    line: str
    counts: tuple[int, int, int]


def _row(module: str, group: list[Name]) -> _Row:
    there, beside, missing = [], [], []
    for name in group:
        if why_missing(name) is None:
            there.append(f"`{name.name}`")
            if name.path in LESS:
                beside.append(f"`{name.name}`: {LESS[name.path]}")
        else:
            missing.append(name)
    reasons = [
        f"{', '.join(f'`{name.name}`' for name in same)}: {why}"
        for why, same in groupby(missing, key=lambda name: why_missing(name) or "")
    ]
    cells = (f"`{module}`", " ".join(there), "; ".join(beside), "; ".join(reasons))
    line = "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    return _Row(line, (len(group), len(there), len(beside)))
