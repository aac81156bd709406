"""The command line: `litetq worker`, `litetq report`, `litetq demo`.

This package turns words into calls and errors into one sentence and an exit code. It is a door: only `__init__`,
`__main__` and `LiteTQ.start` / `LiteTQ.worker_main` import it. Everything that costs time to import (click, rich, the
worker) is imported by the command that needs it.

Exit codes:

| code | name | meaning |
|---|---|---|
| 0 | OK | done; for a worker: stopped warmly, every task that had begun was settled |
| 1 | FAILED | it was asked correctly and could not be done (file in trouble, worker stopped cold) |
| 2 | USAGE | the question was wrong: unknown option or command, no such app, unusable setting or address |
| 69 | UNAVAILABLE | no worker answered |
| 73 | CANNOT_CREATE | the pid file belongs to a process that lives |
| 130 | INTERRUPTED | Ctrl-C where nothing had to be finished first |
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from litetq.app import LiteTQ

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
UNAVAILABLE: Final = 69
CANNOT_CREATE: Final = 73
INTERRUPTED: Final = 130


def main(argv: Sequence[str] | None = None, app: LiteTQ | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: The words after the program's name; None takes them from `sys.argv`.
        app: The app that the command works on, where the caller has it (`app.worker_main`); None finds it
            (`litetq.cli.find`).

    A mistake of the user ends as one sentence on stderr, never as a traceback or an exception.
    """
    if getattr(sys, "frozen", False):
        from litetq.child import freeze_support

        freeze_support()
    words = list(sys.argv[1:] if argv is None else argv)
    if app is None and not _patch_for(words):
        return FAILED
    if "--as-celery" in words and not _alias_celery():
        return USAGE
    from litetq.cli import commands
    from litetq.log import never_fail_to_print

    never_fail_to_print()
    return commands.run(words, app)


def _patch_for(words: Sequence[str]) -> bool:
    """Patch this process for a worker with greenlets; say why, and return False, where that cannot be done."""
    from litetq.cli import greenlets
    from litetq.exceptions import ImproperlyConfigured

    try:
        greenlets.patch_for(words)
    except ImproperlyConfigured as error:
        print(f"Error: {error}", file=sys.stderr)
        return False
    return True


def _alias_celery() -> bool:
    """Make `import celery` mean litetq; say why, and return False, where it is too late."""
    from litetq.compat import install
    from litetq.exceptions import ImproperlyConfigured

    try:
        install()
    except ImproperlyConfigured as error:
        print(f"Error: {error}", file=sys.stderr)
        return False
    return True
