"""How many tasks a worker runs at a time where it follows the work (`--autoscale`): the rule, and the seam for another one.

A class of one's own is named by the setting `worker_autoscaler`, and needs what `Autoscaler` has: it is made with the number of
seconds that a pool stays as large as it is, and asked twice a second how large it should be.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from litetq.exceptions import ImproperlyConfigured

CELERYS: Final = "celery.worker.autoscale:Autoscaler"  # means the one below


class Load(NamedTuple):
    """What a worker has to do."""

    size: int  # tasks that it runs at a time
    held: int  # tasks that it has
    more: Callable[[], bool]  # whether more waits in its queues: one read of the file
    at: float  # monotonic seconds
    largest: int
    smallest: int


class Autoscaler:
    """Grows while more waits than fits, at most twofold a time; shrinks to what is used when the pool was not full for a while.

    Args:
        keepalive: seconds without being full before a pool shrinks.
    """

    def __init__(self, keepalive: float) -> None:
        self.keepalive = keepalive
        self._full_at = 0.0

    def wanted(self, load: Load) -> int:
        """Return how many tasks should run at a time; the worker keeps that between its bounds."""
        if load.held >= load.size:
            self._full_at = load.at
            return 2 * load.size if load.size < load.largest and load.more() else load.size
        return load.held if load.at - self._full_at > self.keepalive else load.size


def make(named: Any, keepalive: float) -> Autoscaler:
    """Return the autoscaler of a class, or of its `module:Class`; ImproperlyConfigured when there is none."""
    kind = named
    if isinstance(named, str):
        if named.replace(":", ".") == CELERYS.replace(":", "."):
            kind = Autoscaler
        else:
            module, _, name = named.rpartition(":" if ":" in named else ".")
            try:
                kind = pkgutil.resolve_name(f"{module}:{name}" if module else name)
            except (ImportError, AttributeError, ValueError) as error:
                raise ImproperlyConfigured(
                    f"worker_autoscaler={named!r}: it cannot be imported: {error}; give a class as module:Class"
                ) from error
    if not (isinstance(kind, type) and callable(getattr(kind, "wanted", None))):
        raise ImproperlyConfigured(
            f"worker_autoscaler={named!r}: an autoscaler is a class with a method wanted(load), like litetq.autoscale.Autoscaler"
        )
    made: Autoscaler = kind(keepalive)
    return made
