"""The values that travel between the program and an engine, and the four protocols of the seam.

All are named tuples: immutable, cheap to make on the hot path (0.4 us against 1.6 us for a frozen dataclass of as many
fields), and already in the shape that SQL bindings and the pipes to child processes want. Bodies are bytes here: this room
knows no serializer and no function.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, Protocol

JSON: Final = "application/json"
# A header, and none on the wire: exchange and routing key that a call has named, for a broker.
ROUTE: Final = "litetq_route"

# `random` of the user may be seeded the same in two processes; ids must differ all the same.
_random = random.Random(os.urandom(16))
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _random.seed(os.urandom(16)))


def uuid() -> str:
    """Return a new task id: a time-ordered UUID (version 7, RFC 9562), so that rows made together lie together.

    Results keyed by random UUIDs settle eight times slower at a million rows (docs/architecture.md, measured facts).
    """
    ms, rest = divmod(time.time_ns(), 1_000_000)
    # rand_a carries the fraction of the millisecond, so ids of one process sort by time to about 250 ns.
    bits = ms << 80 | 0x7000_0000_0000_0000_0000 | (rest * 4096 // 1_000_000) << 64 | 1 << 63 | _random.getrandbits(62)
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class Message(NamedTuple):
    """One task to be enqueued, with all fields of Celery's protocol 2 that are not derived.

    `headers` is a JSON object (text) of the less common fields, None when all have their defaults. Its keys are
    Celery's header names: shadow, timelimit [hard, soft], argsrepr, kwargsrepr, origin, ignore_result,
    replaced_task_nesting, stamped_headers, stamps, reply_to, correlation_id; `group` and `group_index`; custom ones lie
    together under "headers".
    """

    id: str
    name: str
    body: bytes  # encoded [args, kwargs]
    content_type: str | None = None  # None is JSON
    queue: str = "celery"
    priority: int = 0  # 0..255, higher first
    due_at: float | None = None  # UTC seconds; None is now
    expires_at: float | None = None  # UTC seconds; None is never
    retries: int = 0
    root_id: str | None = None  # None: the task itself
    parent_id: str | None = None
    headers: str | None = None
    delay: float | None = None  # of a blocked task: seconds from its release until it is due
    lifetime: float | None = None  # of a blocked task: seconds from its release until it expires


class Kind:
    """Why a link leads from one task to another (column `litetq_link.kind`)."""

    VALUE: Final = 1  # after success; the value is prepended to the arguments
    AFTER: Final = 2  # after success; the value is not passed (immutable signature)
    ERRBACK: Final = 3  # after failure; the failure is the argument


class Link(NamedTuple):
    """`target` waits for `source`; both are places in `Plan.messages`, or SELF."""

    source: int
    target: int
    kind: int


class Join(NamedTuple):
    """A chord: `body` waits for all `members`, whose values become its first argument, in this order.

    A member is a place in `Plan.messages`, or `-2 - n` for the values of the n-th join of the plan (a nested group).
    `body` is a place too, or None for a nested group, which hands its values to the join that lists it. In an outcome's
    plan, SELF adds the members, which are places, to the chord of the task that the outcome ends (`add_to_chord`).
    """

    members: tuple[int, ...]
    body: int | None
    immutable: bool = False


SELF: Final = -1  # in a link of an outcome's plan: the task that the outcome ends


class Plan(NamedTuple):
    """What one call wants enqueued, whole or not at all. Targets of links and bodies of joins are stored BLOCKED."""

    messages: tuple[Message, ...]
    links: tuple[Link, ...] = ()
    joins: tuple[Join, ...] = ()
    if_new: bool = False  # of one message: not enqueued where the engine knows its id, whatever became of that task
    cuts: tuple[str, ...] = ()  # in an outcome's plan: ids of tasks that wait for the task, and no longer shall


class Role:
    """How a delivery is to be called (column `litetq_task.role`)."""

    TASK: Final = 0
    ERRBACK: Final = 1  # `input` holds the failure; the task's own signature decides the calling style


class Linked:
    """What hangs on a task (column `litetq_task.linked`)."""

    NOTHING: Final = 0
    ROWS: Final = 1  # rows of other tables: links, a join, parts; perhaps a follower as well
    FOLLOWER: Final = 2  # only the follower that its own row names: most steps of a chain


class Delivery(NamedTuple):
    """One claimed task, as the file hands it to a worker. Losing the claim number means losing the right to settle."""

    claim: int  # the number this claim drew; never used again in this file
    seq: int  # commit number of the task: its place in the file and in the order
    id: str
    name: str
    body: bytes
    content_type: str | None
    queue: str
    priority: int
    retries: int  # Celery's counter, 0 at first
    attempts: int  # times begun, this one included
    deliveries: int  # how often begun work came back
    eta: float | None  # the due time it had, UTC seconds
    expires_at: float | None
    root_id: str | None
    parent_id: str | None
    headers: str | None
    role: int
    linked: int  # Linked: where it is true, the task's end has more to do
    input: Any = None  # None, or (content_type, bytes) of a predecessor, or a list of such for a chord body


class Outcome(NamedTuple):
    """How one attempt ended. The engine commits it whole, or reports the claim as lost.

    `plan` is what the task decided at its end (retry, replace, add_to_chord, new callbacks); it is committed with the end.
    """

    claim: int
    seq: int
    id: str
    disposition: int
    state: str  # the Celery state to record
    result: bytes | None = None  # encoded value or exception; None: keep no value
    content_type: str | None = None
    traceback: str | None = None
    children: str | None = None  # JSON, as AsyncResult.as_tuple of each child
    started_at: float | None = None  # UTC seconds
    runtime: float | None = None  # seconds
    due_at: float | None = None  # for RETRY and RELEASE: when the next attempt may start
    # For RETRY: what replaces body, headers, queue, priority, expires_at; None: unchanged.
    message: Message | None = None
    plan: Plan | None = None
    linked: int = 0  # from the delivery
    value: bytes | None = None  # what successors get when `result` is not kept (ignore_result)
    dead: str | None = None  # why this failure rests as a dead letter; None: it is none


class Disposition:
    """What settle does with a claim."""

    COMPLETE: Final = 0  # finished; successors are released with the value
    FAIL: Final = 1  # finished; the failure runs through what waits
    RETRY: Final = 2  # this attempt ended, the next one is due at due_at
    RELEASE: Final = 3  # never begun: back to its place, the attempt unspent
    INTERRUPT: Final = 8  # cut off by a soft stop: as RELEASE, but whoever gets it next is told that it had begun
    REQUEUE: Final = 4  # begun and given back (Reject(requeue=True), redelivery): the attempt stays spent
    REPLACE: Final = 5  # the plan's last message takes over id, links and place in its chord
    REVOKE: Final = 6  # finished as REVOKED; for what waits it is a failure
    IGNORE: Final = 7  # finished; readers see PENDING, the record says ignored; for what waits it is a failure


class Record(NamedTuple):
    """What the file knows of one task, finished or not."""

    id: str
    state: str  # Celery's name
    place: str  # QUEUED, SCHEDULED, BLOCKED, CLAIMED or DONE
    result: bytes | None = None
    content_type: str | None = None
    traceback: str | None = None
    children: str | None = None
    done_at: float | None = None
    name: str | None = None
    queue: str | None = None
    worker: str | None = None
    retries: int = 0
    parent_id: str | None = None
    root_id: str | None = None
    headers: str | None = None
    body: bytes | None = None
    body_type: str | None = None
    enqueued_at: float | None = None
    started_at: float | None = None
    due_at: float | None = None
    runtime: float | None = None
    reason: str | None = None  # plain words: why it waits, or why it ended so


SAVED: Final = "GROUP"  # the state of the record of a saved group
_SAVED_ID: Final = "group:"


def saved_id(group: str | None) -> str:
    """Return the id of the record that keeps a group: groups have ids of their own, which are no tasks'."""
    return f"{_SAVED_ID}{group}"


def saved_group(id: str) -> str | None:
    """Return the group that the record of this id keeps; None where it is a task's."""
    return id[len(_SAVED_ID) :] if id.startswith(_SAVED_ID) else None


class Waiting(NamedTuple):
    """A task that waits for others, as the file keeps it."""

    seq: int
    id: str
    name: str
    body: bytes
    content_type: str | None
    queue: str
    priority: int
    headers: str | None
    delay: float | None
    lifetime: float | None
    role: int


class Hanging(NamedTuple):
    """All that waits behind one task, directly or not. Numbers are `litetq_task.seq` and `litetq_join.id`."""

    tasks: dict[int, Waiting]
    links: dict[int, list[tuple[int, int]]]  # source -> (target, Kind), in the order in which they were made
    joins: dict[int, tuple[int | None, int | None, int]]  # -> (body, outer join, size)
    member_of: dict[int, int]  # task -> join


class Taken(NamedTuple):
    """What `Deliveries.take` brought: new work, and the claims whose outcome came too late."""

    deliveries: list[Delivery]
    lost: list[int]  # claim numbers
    next_due_at: float | None  # UTC seconds: when something scheduled comes due; None: nothing
    refused: list[tuple[Delivery, str]] = []  # what came too late and ended as REVOKED instead, with the reason
    more: bool = False  # whether something may be READY that was not taken, for this worker or another


class Sender(Protocol):
    def send(self, plan: Plan, *, durability: str | None = None) -> bool:
        """Commit the plan, then wake a worker. When this returns, all of it is in the file.

        Returns False where nothing was enqueued, because the id was known (`Plan.if_new`).

        Raises OperationalError when the file cannot be written within its deadline; then nothing of it is.
        """


class Watch(Protocol):
    """One waiter for changes of results: announce, look, and only then wait."""

    def announce(self) -> None: ...

    def wait(self, timeout: float | None) -> bool:
        """Return True when something may have changed since `announce`, False after `timeout` seconds."""

    def __enter__(self) -> Watch: ...

    def __exit__(self, *exc: object) -> None: ...


class Results(Protocol):
    def read(self, id: str) -> Record | None:
        """Return what is known of a task, or None when the file does not know this id."""

    def read_many(self, ids: Sequence[str]) -> dict[str, Record]: ...

    def watch(self, ids: Sequence[str] | None = None) -> Watch:
        """Return a waiter for the ends of these tasks; it may wake for others, too, and with None does for all."""

    def forget(self, ids: Iterable[str]) -> int:
        """Remove finished results; return how many there were."""

    def store_record(self, record: Record, expires_at: float | None) -> None:
        """Record a state by id, guarded by no claim (Celery's `backend.store_result`)."""


class Deliveries(Protocol):
    def take(self, free: int, outcomes: Sequence[Outcome] = ()) -> Taken:
        """Settle the outcomes and claim up to `free` tasks, in one transaction."""


class ControlBus(Protocol):
    def revoke(self, ids: Sequence[str], reason: str = "revoked") -> int:
        """End what has not begun as REVOKED, remember ids not seen yet; return how many rows ended."""

    def purge(self, queues: Sequence[str] | None = None) -> int:
        """Remove waiting tasks; return how many."""
