"""What a task can be, as Celery names it and as the file keeps it.

Two vocabularies meet here. *Celery states* are what users read (`AsyncResult.state`). *Row states* say where a task stands
in the file; only rows that are not yet finished have one. `TRANSITIONS` is the whole list of legal moves; the store's
statements name the state that they leave, and a test holds the two lists (and `docs/states.md`) together.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

PENDING: Final = "PENDING"  # waiting, or unknown to the file
RECEIVED: Final = "RECEIVED"  # used in events only
STARTED: Final = "STARTED"  # running; recorded only with track_started
SUCCESS: Final = "SUCCESS"
FAILURE: Final = "FAILURE"
REVOKED: Final = "REVOKED"
REJECTED: Final = "REJECTED"  # used in events only
RETRY: Final = "RETRY"  # an attempt ended and another one is due
IGNORED: Final = "IGNORED"  # used inside an outcome; readers see PENDING, as in Celery

READY_STATES: Final = frozenset({SUCCESS, FAILURE, REVOKED})
UNREADY_STATES: Final = frozenset({PENDING, RECEIVED, STARTED, REJECTED, RETRY})
EXCEPTION_STATES: Final = frozenset({RETRY, FAILURE, REVOKED})
PROPAGATE_STATES: Final = frozenset({FAILURE, REVOKED})
ALL_STATES: Final = READY_STATES | UNREADY_STATES - {REJECTED}  # as Celery's


class Row(IntEnum):
    """Where an unfinished task stands in the file (column `litetq_task.state`)."""

    READY = 0  # may start now: the only rows in the ready index
    SCHEDULED = 1  # waits for due_at (eta, countdown, retry delay)
    BLOCKED = 2  # waits for another task (a successor in a workflow)
    CLAIMED = 3  # a worker holds it, under a claim number


# (from, to): who may cause it. None on the left is "not in the file", on the right "finished: a result row".
TRANSITIONS: Final[dict[tuple[Row | None, Row | None], str]] = {
    (None, Row.READY): "send; retry of what failed",
    (None, Row.SCHEDULED): "send; retry of what failed",
    (None, Row.BLOCKED): "send; retry of what failed",
    (None, None): "send of a task revoked before it came",
    (Row.SCHEDULED, Row.READY): "promote",
    (Row.READY, Row.CLAIMED): "claim",
    (Row.BLOCKED, Row.READY): "settle of the last task it waited for",
    (Row.BLOCKED, Row.SCHEDULED): "settle of the last task it waited for, with an eta ahead",
    (Row.BLOCKED, Row.CLAIMED): "settle of the last task it waited for, by a worker with nothing else to claim",
    (Row.CLAIMED, Row.READY): "settle as release or as retry without delay; rescue",
    (Row.CLAIMED, Row.SCHEDULED): "settle as retry with a delay",
    (Row.CLAIMED, None): "settle; rescue",
    (Row.READY, None): "expire; revoke; purge",
    (Row.SCHEDULED, None): "expire; revoke; purge",
    (Row.BLOCKED, None): "failure of a task it waited for; expire; revoke; purge",
}

PRECEDENCE: Final = (SUCCESS, FAILURE, None, REVOKED, STARTED, RECEIVED, REJECTED, RETRY, PENDING)
_RANK: Final = {name: rank for rank, name in enumerate(PRECEDENCE)}


def precedence(name: str) -> int:
    """Return the rank of a state, 0 is the highest; unknown (custom) states share one rank."""
    return _RANK.get(name, _RANK[None])


class state(str):
    """A state name that compares by precedence, as `celery.states.state` does."""

    __slots__ = ()

    def __gt__(self, other: str) -> bool:
        return precedence(self) < precedence(other)

    def __ge__(self, other: str) -> bool:
        return precedence(self) <= precedence(other)

    def __lt__(self, other: str) -> bool:
        return precedence(self) > precedence(other)

    def __le__(self, other: str) -> bool:
        return precedence(self) >= precedence(other)
