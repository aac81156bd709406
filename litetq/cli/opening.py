"""Open what a command works on: the file of tasks that the line names, and the app.

A command that takes [FILE] before other words asks `named_file` which is which, and `open_file` for the file. It is the first
that is named by: FILE, `-b`, `-A`, `$LITETQ_BROKER`, `$CELERY_BROKER_URL`, `$LITETQ_APP`, `app` under `[tool.litetq]` in
pyproject.toml, and last litetq.sqlite in the working directory. An app is imported only where its name is what leads to the file.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn
from urllib.parse import quote

import click

from litetq import signals
from litetq.address import FILE_ENDINGS
from litetq.cli import console
from litetq.cli.commands import Invocation, preloaded, usage
from litetq.cli.text import visible
from litetq.exceptions import ImproperlyConfigured, LiteTQError, StoreCorrupt, StoreReadOnly

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from litetq.address import Address
    from litetq.app import LiteTQ

_SOURCE: Final = "command line"
_VARIABLES: Final = {"broker_url": "LITETQ_BROKER", "result_backend": "LITETQ_RESULT_BACKEND"}


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
    if file is not None and invocation.broker is not None:
        usage(f"Both FILE ({file!r}) and -b ({invocation.broker!r}) say where the tasks are; give one.")
    values = export(
        file if file is not None else invocation.broker,
        invocation.result_backend if invocation.result_backend is not None else file,
    )
    opened = _find(invocation, values.get("broker_url"), use_recorded)
    if values:
        opened.app.close()
        opened.app.conf.override(_SOURCE, **values)
    said = preloaded(invocation, opened.app)
    if said:
        signals.user_preload_options.send(sender=opened.app, app=opened.app, options=said)
    _read_settings(opened.app)
    return opened


def export(broker: str | None, result_backend: str | None) -> dict[str, str]:
    """Put what the line says into the environment, where all apps of this process and of those it starts find it.

    Returns the settings, as texts that mean the same in another working directory.
    """
    from litetq.address import parse

    said = {"broker_url": broker, "result_backend": result_backend}
    values = {key: lasting(parse(text)) for key, text in said.items() if text is not None}
    os.environ.update({_VARIABLES[key]: text for key, text in values.items()})
    return values


def _read_settings(app: LiteTQ) -> None:
    """Read the settings now, so that what is wrong with them ends as one sentence before anything is opened."""
    try:
        app.conf.finalize()
    except LiteTQError:
        raise
    except Exception as error:
        if isinstance(error, ImportError) and str(error).startswith("The configuration"):
            raise ImproperlyConfigured(str(error)) from error
        from litetq.cli.find import import_failed

        raise ImproperlyConfigured(import_failed(str(app.conf.config_source or "of the settings"), error)) from error


def lasting(address: Address) -> str:
    """Return the address as a text that means the same in another working directory."""
    if address.path is None:
        return address.text
    options = {"durability": address.durability, **address.options}
    query = "&".join(f"{name}={value}" for name, value in options.items() if value is not None)
    return f"sqlite:///{quote(address.path, safe='/:')}?{query}" if query else address.path


def _find(invocation: Invocation, broker: str | None, use_recorded: bool) -> Opened:
    if invocation.given_app is not None:
        return Opened(invocation.given_app, None, "the program")
    from litetq.cli.find import find_app

    database = database_of(broker) if use_recorded else None
    found = find_app(
        invocation.app,
        database=database,
        recorded=None if database is None else lambda: _recorded_app(database),
        notify=lambda line: None if invocation.quiet else console.say(f"litetq: {line}", sys.stderr),
    )
    return Opened(found.app, found.reference, found.source)


def database_of(broker: str | None) -> Path | None:
    """Return the file of tasks that exists already, without an app's own settings; None where there is none."""
    from litetq.address import parse

    text = broker or _broker_of_environment() or "litetq.sqlite"
    path = parse(text).path
    return Path(path) if path is not None and os.path.isfile(path) and os.path.getsize(path) else None


def _recorded_app(database: Path) -> Mapping[str, Any] | None:
    from litetq.engine import recorded_app

    try:
        record = recorded_app(database)
    except ValueError:
        record = {}  # no JSON: whoever wrote that is not trusted, and the check of the record says so
    return record if record is None or isinstance(record, dict) else {}


# -- commands that take a file -------------------------------------------------------------------------------------


def is_file(word: str) -> bool:
    """Say whether a word names a file of tasks: it exists, or contains a separator or `://`, or ends in .sqlite or .db."""
    separators = ["/", *filter(None, [os.sep, os.altsep])]
    return (
        os.path.isfile(word)
        or "://" in word
        or any(separator in word for separator in separators)
        or word.lower().endswith(FILE_ENDINGS)
    )


def named_file(invocation: Invocation, words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Go to `--workdir`, and return the FILE that the words begin with, None where they do not, and the other words."""
    invocation.enter()
    if words and is_file(words[0]):
        return words[0], list(words[1:])
    return None, list(words)


def named_task(invocation: Invocation, words: Sequence[str], id: str | None) -> tuple[str | None, str]:
    """Return FILE, None where the words do not begin with it, and the one ID that they name; `id` is what --id said."""
    file, ids = named_file(invocation, words)
    if id is not None:
        ids.append(id)
    if len(ids) != 1:
        usage("Which task? Give its id." if not ids else f"Give one id; found {len(ids)}: {', '.join(ids)}.")
    return file, ids[0]


def unknown_task(app: LiteTQ, id: str, *more: str) -> NoReturn:
    """End the command with exit code 1: neither the file nor the place of results knows a task of this id."""
    where = app.broker_address.path or app.engine.results_shown
    why = f"No task {visible(id)} is known to {where}: it was never sent there, or its result has expired"
    raise click.ClickException(f"{'; '.join([why, *more])}.")


def open_file(invocation: Invocation, file: str | None, *, even_sick: bool = False) -> LiteTQ:
    """Return an app that stands at the file of tasks and knows no task, unless an app had to say where the file is.

    The file exists and is one of litetq's; another program's database is not touched.

    Args:
        even_sick: a file that is damaged, or that this user may not use, is let through, for who looks what is wrong with it.
    """
    if file is not None and invocation.broker is not None:
        usage(
            f"Both FILE ({file!r}) and -b ({invocation.broker!r}) say where the tasks are; give one. "
            "(An id that looks like a file is given with --id.)"
        )
    named = file or invocation.broker
    if named is None and (invocation.given_app is not None or invocation.app is not None):
        app = open_app(invocation, None).app
    else:
        named = named or _broker_of_environment()
        app = _app_named_elsewhere(invocation) if named is None else _app_of(named)
    try:
        check_is_ours(app)
    except (StoreCorrupt, StoreReadOnly):
        if not even_sick:
            raise
    return app


def _broker_of_environment() -> str | None:
    return os.environ.get("LITETQ_BROKER") or os.environ.get("CELERY_BROKER_URL")


def broker_named(invocation: Invocation, file: str | None) -> str | None:
    """Return the address of a broker that the line, or else the environment, names; None where it is a file, or nothing."""
    from litetq.address import is_of_broker, parse

    text = file or invocation.broker or _broker_of_environment()
    if not text or (file is not None and invocation.broker is not None):
        return None  # of two places on the line neither counts: `open_file` refuses them
    address = parse(text)
    return text if address.path is None and is_of_broker(address.scheme) else None


def open_broker(invocation: Invocation, address: str) -> LiteTQ:
    """Return an app that stands at a broker and knows no task: for what is asked of workers, no code is needed."""
    from litetq.app import LiteTQ

    app = LiteTQ("litetq", set_as_current=False)
    said = {} if invocation.result_backend is None else {"result_backend": invocation.result_backend}
    app.conf.override(_SOURCE, broker_url=address, **said)
    return app


def _app_of(file: str) -> LiteTQ:
    from litetq.app import LiteTQ

    app = LiteTQ("litetq", set_as_current=False)
    app.conf.override(_SOURCE, broker_url=file, result_backend=file)  # above the environment
    return app


def _app_named_elsewhere(invocation: Invocation) -> LiteTQ:
    from litetq.cli.find import names_app

    if names_app(Path.cwd()):
        return open_app(invocation, None).app
    if not os.path.isfile("litetq.sqlite"):
        usage(
            "Which file? Give it as the first argument (litetq status jobs.sqlite), or with -b, -A or $LITETQ_BROKER."
        )
    return _app_of("litetq.sqlite")


def check_is_ours(app: LiteTQ) -> None:
    """Refuse a file that is missing, and another program's database; nothing is made or changed."""
    from litetq.address import mask
    from litetq.database import peek

    address = app.broker_address
    if address.path is None:
        usage(f"The tasks are at {mask(address.text)}, which is no file; this command looks into a file of tasks.")
    if not os.path.isfile(address.path):
        usage(f"There is no file {address.path!r}; give the file that the tasks were sent to.")
    if peek(address.path, "SELECT value FROM litetq_meta WHERE key = 'schema'") is None:
        usage(f"{address.path} is a database without tasks of litetq in it; nothing was changed. Give another file.")
