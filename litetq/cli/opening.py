"""Open what a command works on: the file of tasks that the line names, and the app."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from litetq.cli import console
from litetq.cli.commands import Invocation, usage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from litetq.app import LiteTQ

_SOURCE = "command line"


class Opened(NamedTuple):
    """The app, how a child process loads it again, and who named it."""

    app: LiteTQ
    reference: str | None  # "module:attribute"; None: the caller gave the app itself
    source: str


def open_app(invocation: Invocation, file: str | None, *, use_recorded: bool = True) -> Opened:
    """Return the app with its broker and results replaced by what the line says; the file itself is not created.

    A FILE replaces broker and results, `-b` the broker, `--result-backend` the results, for every app of this process
    and of the processes it starts: the environment carries it, since an app may be made by any module.
    """
    from litetq.address import parse

    if file is not None and invocation.broker is not None:
        usage(f"Both FILE ({file!r}) and -b ({invocation.broker!r}) say where the tasks are; give one.")
    text = file if file is not None else invocation.broker
    broker = None if text is None else parse(text).text
    results = broker if file is not None else None
    if invocation.result_backend is not None:
        results = parse(invocation.result_backend).text
    if broker is not None:
        os.environ["LITETQ_BROKER"] = broker
    if results is not None:
        os.environ["LITETQ_RESULT_BACKEND"] = results
    opened = _find(invocation, broker, use_recorded)
    if broker is not None:
        opened.app.override_broker(broker, _SOURCE)
    if results is not None:
        opened.app.override_results(results, _SOURCE)
    return opened


def _find(invocation: Invocation, broker: str | None, use_recorded: bool) -> Opened:
    if invocation.given_app is not None:
        return Opened(invocation.given_app, None, "the program")
    from litetq.cli.find import find_app

    database = database_of(broker) if use_recorded else None
    found = find_app(
        invocation.app,
        database=database,
        recorded=None if database is None else lambda: _recorded_app(database),
        notify=lambda line: console.say(f"litetq: {line}", sys.stderr),
    )
    return Opened(found.app, found.reference, found.source)


def database_of(broker: str | None) -> Path | None:
    """Return the file of tasks that exists already, without an app's own settings; None where there is none."""
    from litetq.address import parse

    text = broker or os.environ.get("LITETQ_BROKER") or os.environ.get("CELERY_BROKER_URL") or "litetq.sqlite"
    path = parse(text).path
    return Path(path) if path is not None and os.path.isfile(path) and os.path.getsize(path) else None


def _recorded_app(database: Path) -> Mapping[str, Any] | None:
    from litetq.engine import FileEngine

    engine = FileEngine(database)
    try:
        return engine.recorded_app()
    finally:
        engine.close()
