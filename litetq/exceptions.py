"""Every error that litetq raises, under Celery's names, sorted by what the caller can do about it.

This room imports nothing of ours and nothing third-party. All errors have one root, `LiteTQError`; beside Celery's
hierarchy (which is kept, so `except CeleryError` catches what it catches there) stand three families:

- `ProgramError`: the program or a setting is wrong; fix it, trying again changes nothing.
- `StoreError`: the file is in trouble; the message says what to do, and `StoreBusy` is worth another try.
- `TaskEnded`: a task, or one attempt of it, ended in this way.

The tree ([P], [T]: also of the family `ProgramError`, `TaskEnded`):

    BaseException
     +-- SystemExit
     |    +-- WorkerShutdown                  warm shutdown
     |    +-- WorkerTerminate                 cold shutdown
     +-- Exception
          +-- LiteTQError
          |    +-- ProgramError
          |    +-- TaskEnded
          |    +-- CeleryError
          |    |    +-- ImproperlyConfigured  [P]
          |    |    +-- SecurityError         [P]
          |    |    +-- TaskPredicate         [T]
          |    |    |    +-- Retry, Ignore, Reject
          |    |    +-- TaskError
          |    |         +-- QueueNotFound, NotRegistered      [P], also KeyError
          |    |         +-- AlreadyRegistered, InvalidTaskError, IncompleteStream  [P]
          |    |         +-- MaxRetriesExceededError, TaskRevokedError, ChordError  [T]
          |    |         +-- NotOnRecord      its result, or what it needs to run again, has expired
          |    |         +-- TimeoutError     the wait ended, not the task
          |    +-- KombuError
          |    |    +-- OperationalError
          |    |    |    +-- StoreError
          |    |    |         +-- StoreBusy, StoreFull, StoreReadOnly, NotADatabase, StoreCorrupt,
          |    |    |             NewerSchema, RefusedFileSystem, OldSQLite
          |    |    +-- SerializationError    [P]
          |    |    |    +-- EncodeError, DecodeError
          |    |    +-- SerializerNotInstalled  [P]
          |    |         +-- ContentDisallowed
          |    +-- BackendError
          |    |    +-- BackendGetMetaError, BackendStoreError
          |    +-- SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError, Terminated  [T]
          +-- Warning
               +-- UserWarning
               |    +-- CeleryWarning
               |         +-- AlwaysEagerIgnored, DuplicateNodenameWarning, DuplicateTaskNameWarning,
               |             FixupWarning, NotConfigured, SecurityWarning
               +-- PendingDeprecationWarning -- CPendingDeprecationWarning
               +-- DeprecationWarning -- CDeprecationWarning

As in Celery, `OperationalError`, `BackendError` and the errors of a lost or stopped attempt are no `CeleryError`.
"""

from __future__ import annotations

from datetime import datetime
from numbers import Number
from typing import Any


class LiteTQError(Exception):
    """The root: `except LiteTQError` catches every error of litetq."""


class ProgramError(LiteTQError):
    """The program or a setting is wrong; trying again changes nothing."""


class TaskEnded(LiteTQError):
    """A task, or one attempt of it, ended in this way."""


class CeleryError(LiteTQError):
    """Celery's root: what `except CeleryError` catches there, it catches here."""


# -- the program is wrong ------------------------------------------------------------------------------------------


class ImproperlyConfigured(CeleryError, ProgramError):
    """A setting, a URL or an option cannot be used as it is."""


class SecurityError(CeleryError, ProgramError):
    """Something was refused because trusting it would be dangerous."""


class TaskError(CeleryError):
    """An error about a task."""


class QueueNotFound(KeyError, TaskError, ProgramError):
    """A task was routed to a queue that `task_queues` does not define."""


class NotRegistered(KeyError, TaskError, ProgramError):
    """No task of this name is registered in this app."""

    def __repr__(self) -> str:
        return f"Task of kind {self} never registered, please make sure it's imported."


class AlreadyRegistered(TaskError, ProgramError):
    """A task of this name is registered already."""


class IncompleteStream(TaskError, ProgramError):
    """The data ended too early."""


class InvalidTaskError(TaskError, ProgramError):
    """A message is not a well-formed task."""


class KombuError(LiteTQError):
    """The root of the errors that Celery takes from its messaging library."""


class SerializationError(KombuError, ProgramError):
    """A value could not be turned into bytes, or bytes into a value."""


class EncodeError(SerializationError):
    """A value cannot be encoded by the serializer asked for."""


class DecodeError(SerializationError):
    """Bytes are not what their content type says."""


class SerializerNotInstalled(KombuError, ProgramError):
    """No serializer of this name is registered, or the package it needs is missing."""


class ContentDisallowed(SerializerNotInstalled):
    """Bytes of a content type that `accept_content` does not list were left undecoded."""


# -- the file is in trouble ----------------------------------------------------------------------------------------


class OperationalError(KombuError):
    """Sending failed because the place to send to could not be used; trying again later may help."""


class StoreError(OperationalError):
    """The file could not be used.

    The text has three parts, which are attributes too: what was `attempted`, what was `found` instead, and the `advice`
    what to do. Where `found` or `advice` is left out, the class says it. `path` is the file; more facts become
    attributes by keyword (`StoreBusy(..., waited=30.0)`).
    """

    found_else = "the file could not be used"
    advice_else = "check the path, and the disk that it lies on"

    def __init__(
        self, attempted: str, found: str | None = None, advice: str | None = None, path: str | None = None, **facts: Any
    ) -> None:
        self.attempted = attempted
        self.found = found or self.found_else
        self.advice = advice or self.advice_else
        self.path = path
        self.__dict__.update(facts)
        super().__init__(attempted, self.found, self.advice, path)

    def __str__(self) -> str:
        return f"{self.attempted}: {self.found}; {self.advice}"


class StoreBusy(StoreError):
    """Others held the write lock for the whole time this caller was willing to wait (`waited`, seconds)."""

    found_else = "another process held the write lock for the whole wait"
    advice_else = "try again, or raise litetq_busy_timeout; `litetq doctor` names who holds the lock"
    waited: float | None = None


class StoreFull(StoreError):
    """The disk, a quota or the maximum size of the file is used up; nothing was written."""

    found_else = "the disk is full"
    advice_else = "free some space and try again; nothing that was in the file is lost"


class StoreReadOnly(StoreError):
    """The file or its folder may not be written by this user."""

    found_else = "the file or its folder is read-only"
    advice_else = "let this user write the file and its folder, or choose another place"


class NotADatabase(StoreError):
    """The file is something else than a SQLite database; it was left alone."""

    found_else = "the file is not a SQLite database"
    advice_else = "give the path of another file; this one was left as it is"


class StoreCorrupt(StoreError):
    """SQLite found pages that contradict each other."""

    found_else = "the database is damaged"
    advice_else = "stop all workers, copy the file with its -wal file, then run `litetq doctor`"


class NewerSchema(StoreError):
    """The file was written by a newer litetq (`version` in the file, `supported` here)."""

    found_else = "the file was written by a newer litetq"
    advice_else = "upgrade litetq here, or use another file"
    version: int | None = None
    supported: int | None = None


class RefusedFileSystem(StoreError):
    """The file lies on a file system (`kind`) whose locks cannot be trusted between processes."""

    found_else = "this file system cannot lock a file reliably"
    advice_else = "put the file on a local disk"
    kind: str | None = None


class OldSQLite(StoreError):
    """The SQLite library (`version`) is older than the oldest one without a known corruption bug (`needed`)."""

    found_else = "the SQLite library is too old"
    advice_else = "upgrade it: pip install -U apsw"
    version: str | None = None
    needed: str | None = None


class BackendError(LiteTQError):
    """A result could not be read or written."""


class BackendGetMetaError(BackendError):
    """The result of task `task_id` could not be read."""

    def __init__(self, *args: object, task_id: str = "", **_: object) -> None:
        self.task_id = task_id
        super().__init__(*args)

    def __repr__(self) -> str:
        return f"{super().__repr__()} task_id:{self.task_id}"


class BackendStoreError(BackendError):
    """The result of task `task_id` with this `state` could not be written."""

    def __init__(self, *args: object, state: str = "", task_id: str = "", **_: object) -> None:
        self.state = state
        self.task_id = task_id
        super().__init__(*args)

    def __repr__(self) -> str:
        return f"{super().__repr__()} state:{self.state} task_id:{self.task_id}"


# -- the task ended ------------------------------------------------------------------------------------------------


class TaskPredicate(CeleryError, TaskEnded):
    """Raised by a task to say how its attempt ends, not that something failed."""


def _safe_repr(exc: BaseException) -> str:
    try:
        return repr(exc)
    except Exception:  # a user's broken __repr__ must not replace the retry
        return f"<{type(exc).__qualname__}>"


class Retry(TaskPredicate):
    """This attempt ended and another one is due.

    Args:
        message: what `str()` says; by default "Retry in 180s: <cause>".
        exc: the cause, an exception or its text.
        when: seconds from the attempt's end, or a point in time.
        sig: the signature that an eager retry runs.

    `due_at` (UTC seconds) and `replacement` (the message of the next attempt, None: unchanged) are ours: they carry the
    decision of `Task.retry` to the end of the attempt, where it is committed. As in Celery, `sig` is not pickled.
    """

    due_at: float | None = None
    replacement: Any = None

    def __init__(
        self,
        message: str | None = None,
        exc: BaseException | str | None = None,
        when: float | datetime | None = None,
        is_eager: bool = False,
        sig: Any = None,
    ) -> None:
        self.message = message
        self.exc: BaseException | None
        self.excs: str | None
        if isinstance(exc, str):
            self.exc, self.excs = None, exc
        else:
            self.exc, self.excs = exc, None if exc is None else _safe_repr(exc)
        self.when = when
        self.is_eager = is_eager
        self.sig = sig
        super().__init__(message, exc, when)

    def humanize(self) -> str:
        """Return when the next attempt is due, in words."""
        return f"in {self.when}s" if isinstance(self.when, Number) else f"at {self.when}"

    def __str__(self) -> str:
        if self.message:
            return str(self.message)
        return f"Retry {self.humanize()}: {self.excs}" if self.excs else f"Retry {self.humanize()}"

    def __reduce__(self) -> tuple[Any, ...]:
        facts = {name: value for name, value in self.__dict__.items() if name not in ("message", "exc", "when", "sig")}
        return type(self), (self.message, self.exc or self.excs, self.when), facts


RetryTaskError = Retry


class Ignore(TaskPredicate):
    """The attempt ends without a state."""


class Reject(TaskPredicate):
    """The attempt ends without an acknowledgement; with `requeue` the task goes back to its queue."""

    def __init__(self, reason: object = None, requeue: bool = False) -> None:
        self.reason = reason
        self.requeue = requeue
        super().__init__(reason, requeue)

    def __repr__(self) -> str:
        return f"reject requeue={self.requeue}: {self.reason}"


class TimeoutError(TaskError):
    """The wait for a task ended before the task did."""


class MaxRetriesExceededError(TaskError, TaskEnded):
    """The task used up its retries; `task_args` and `task_kwargs` are those of its last attempt."""

    def __init__(self, *args: object, task_args: Any = None, task_kwargs: Any = None) -> None:
        self.task_args = [] if task_args is None else task_args
        self.task_kwargs = {} if task_kwargs is None else task_kwargs
        super().__init__(*args)


class TaskRevokedError(TaskError, TaskEnded):
    """The task was revoked, terminated, or expired; there is no result."""


class NotOnRecord(TaskError):
    """A task that was asked for is not, or no longer, in the file, or what it needs to run again is not."""


class ChordError(TaskError, TaskEnded):
    """A member of the chord failed, so its body does not run."""


class SoftTimeLimitExceeded(TaskEnded):
    """The soft time limit passed; a task may catch this and clean up until the hard limit."""

    def __str__(self) -> str:
        return f"SoftTimeLimitExceeded{self.args}"


class TimeLimitExceeded(TaskEnded):
    """The hard time limit passed and the attempt was stopped."""

    def __str__(self) -> str:
        return f"TimeLimitExceeded{self.args}"


class WorkerLostError(TaskEnded):
    """The process that ran the task died."""


class Terminated(TaskEnded):
    """The process that ran the task was ended on request."""


# -- the worker ends -----------------------------------------------------------------------------------------------


class WorkerTerminate(SystemExit):
    """The worker is to stop at once."""


SystemTerminate = WorkerTerminate


class WorkerShutdown(SystemExit):
    """The worker is to stop after what it runs."""


# -- warnings ------------------------------------------------------------------------------------------------------


class CeleryWarning(UserWarning):
    """The root of the warnings."""


class AlwaysEagerIgnored(CeleryWarning):
    """`send_task` has no function to run, so it sends in spite of `task_always_eager`."""


class DuplicateNodenameWarning(CeleryWarning):
    """Two workers have the same name."""


class DuplicateTaskNameWarning(CeleryWarning):
    """Two functions were registered under the same task name; the first one stays."""


class FixupWarning(CeleryWarning):
    """A framework that seems to be in use could not be set up."""


class NotConfigured(CeleryWarning):
    """No configuration module was found."""


class SecurityWarning(CeleryWarning):
    """Something may be a risk."""


class CPendingDeprecationWarning(PendingDeprecationWarning):
    """A name of Celery's that will be deprecated."""


class CDeprecationWarning(DeprecationWarning):
    """A name of Celery's that is deprecated."""
