"""Named moments inside the loops, for tests: `reached` does nothing unless somebody has put a function into `hook`.

A test that kills a process "after the claim" or holds a worker "before the settle" sets the hook in that process. The names
are listed here and nowhere else, so that a test cannot wait for a moment that no longer exists.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

MOMENTS: Final = frozenset(
    {
        "committing",  # the statements of a send or take are done, the commit is not
        "sent",  # a plan is committed, nobody has been woken
        "claimed",  # a take is committed, nothing of it has been started
        "settled",  # a take is committed, nobody has been woken
        "begun",  # the run file says that a task has begun, its code has not been entered (solo, threads)
        "ended",  # a task has ended, its outcome has not been handed over (solo, threads)
        "child.begun",  # the same two in a pool's child process
        "child.ended",
        "held",  # what is to be carried to another place is claimed, and nothing of it is there yet
        "rescued",  # a dead worker's claims are given back or ended
    }
)

hook: Callable[[str], None] | None = None


def reached(moment: str) -> None:
    """Call the hook, if a test has set one."""
    if hook is not None:
        assert moment in MOMENTS, moment
        hook(moment)
