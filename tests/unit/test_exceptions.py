"""The error tree: Celery's names, places and texts, and the three families by what a caller can do."""

from __future__ import annotations

import pickle
from datetime import datetime, timezone

import pytest

from litetq import exceptions as e

CELERYS = """
CeleryError CeleryWarning AlwaysEagerIgnored DuplicateNodenameWarning DuplicateTaskNameWarning FixupWarning NotConfigured
SecurityWarning TaskPredicate Retry Ignore Reject ImproperlyConfigured SecurityError TaskError QueueNotFound
IncompleteStream NotRegistered AlreadyRegistered TimeoutError MaxRetriesExceededError TaskRevokedError InvalidTaskError
ChordError SoftTimeLimitExceeded TimeLimitExceeded WorkerLostError Terminated WorkerShutdown WorkerTerminate BackendError
BackendGetMetaError BackendStoreError OperationalError ContentDisallowed EncodeError DecodeError SerializationError
""".split()
FILE_ERRORS = [
    e.StoreBusy,
    e.StoreFull,
    e.StoreReadOnly,
    e.NotADatabase,
    e.StoreCorrupt,
    e.NewerSchema,
    e.RefusedFileSystem,
    e.OldSQLite,
]
EVERY = sorted(
    {value for value in vars(e).values() if isinstance(value, type) and issubclass(value, BaseException)}, key=str
)


def again(error: BaseException) -> BaseException:
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, BaseException)
    return copy


@pytest.mark.parametrize("name", CELERYS)
def test_every_name_that_celery_promises_is_here(name: str) -> None:
    assert issubclass(getattr(e, name), BaseException)


def test_one_root_catches_every_error() -> None:
    strangers = [
        kind
        for kind in EVERY
        if not issubclass(kind, (e.LiteTQError, Warning, SystemExit)) and kind.__module__ == e.__name__
    ]
    assert strangers == []


@pytest.mark.parametrize(
    ("kind", "family"),
    [
        (e.ImproperlyConfigured, e.ProgramError),
        (e.NotRegistered, e.ProgramError),
        (e.EncodeError, e.ProgramError),
        (e.ContentDisallowed, e.ProgramError),
        (e.StoreBusy, e.StoreError),
        (e.Retry, e.TaskEnded),
        (e.TaskRevokedError, e.TaskEnded),
        (e.TimeLimitExceeded, e.TaskEnded),
        (e.WorkerLostError, e.TaskEnded),
    ],
)
def test_an_error_belongs_to_the_family_of_what_its_caller_can_do(
    kind: type[BaseException], family: type[BaseException]
) -> None:
    assert issubclass(kind, family)


@pytest.mark.parametrize("kind", [e.OperationalError, e.BackendError, e.SoftTimeLimitExceeded, e.EncodeError])
def test_except_celery_error_catches_no_more_than_in_celery(kind: type[BaseException]) -> None:
    assert not issubclass(kind, e.CeleryError)


@pytest.mark.parametrize("kind", [e.NotRegistered, e.QueueNotFound])
def test_an_unknown_name_is_a_key_error_too(kind: type[BaseException]) -> None:
    assert issubclass(kind, KeyError)
    assert str(kind("tasks.add")) == "'tasks.add'"


@pytest.mark.parametrize("kind", [e.WorkerShutdown, e.WorkerTerminate])
def test_a_shutdown_passes_every_except_exception(kind: type[BaseException]) -> None:
    assert issubclass(kind, SystemExit) and not issubclass(kind, Exception)


@pytest.mark.parametrize("kind", [kind for kind in EVERY if kind.__module__ == e.__name__])
def test_every_error_survives_pickling(kind: type[BaseException]) -> None:
    error = kind("one", "two")
    copy = again(error)
    assert (type(copy), str(copy), repr(copy), copy.args) == (kind, str(error), repr(error), error.args)


# -- Celery's texts


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (e.Retry(), "Retry at None"),
        (e.Retry(when=180), "Retry in 180s"),
        (e.Retry(exc=ValueError("boom"), when=3), "Retry in 3s: ValueError('boom')"),
        (e.Retry(exc="text", when=3), "Retry in 3s: text"),
        (e.Retry("later", ValueError("boom")), "later"),
        (
            e.Retry(when=datetime(2030, 1, 2, tzinfo=timezone.utc)),
            "Retry at 2030-01-02 00:00:00+00:00",
        ),
        (e.SoftTimeLimitExceeded(1), "SoftTimeLimitExceeded(1,)"),
        (e.TimeLimitExceeded(1), "TimeLimitExceeded(1,)"),
        (e.Reject("no", requeue=True), "('no', True)"),
    ],
)
def test_the_text_is_celerys(error: BaseException, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (e.Reject("no", requeue=True), "reject requeue=True: no"),
        (e.NotRegistered("t"), "Task of kind 't' never registered, please make sure it's imported."),
        (e.BackendGetMetaError("a", task_id="t"), "BackendGetMetaError('a') task_id:t"),
        (e.BackendStoreError("a", state="S", task_id="t"), "BackendStoreError('a') state:S task_id:t"),
    ],
)
def test_the_repr_is_celerys(error: BaseException, text: str) -> None:
    assert repr(error) == text


def test_a_retry_carries_the_decision_through_pickling_but_not_the_signature() -> None:
    error = e.Retry("m", ValueError("boom"), 3, is_eager=True, sig={"task": "t"})
    error.due_at, error.replacement = 12.5, ("message",)
    copy = again(error)
    assert isinstance(copy, e.Retry)
    assert (copy.due_at, copy.replacement, copy.is_eager, copy.when, copy.excs) == (
        *(12.5, ("message",), True, 3),
        "ValueError('boom')",
    )
    assert copy.sig is None and repr(copy.exc) == "ValueError('boom')"


def test_a_cause_whose_repr_is_broken_does_not_break_the_retry() -> None:
    class Broken(Exception):
        def __repr__(self) -> str:
            raise RuntimeError

    assert "Broken" in str(e.Retry(exc=Broken(), when=1))


def test_exhausted_retries_keep_the_arguments_of_the_task() -> None:
    copy = again(e.MaxRetriesExceededError("no more", task_args=(1,), task_kwargs={"a": 2}))
    assert isinstance(copy, e.MaxRetriesExceededError)
    assert (copy.task_args, copy.task_kwargs, str(copy)) == ((1,), {"a": 2}, "no more")
    assert e.MaxRetriesExceededError().task_args == [] and e.MaxRetriesExceededError().task_kwargs == {}


# -- trouble with the file


@pytest.mark.parametrize("kind", FILE_ERRORS)
def test_trouble_with_the_file_is_what_celery_calls_operational_error(kind: type[e.StoreError]) -> None:
    assert issubclass(kind, e.OperationalError)


@pytest.mark.parametrize("kind", FILE_ERRORS)
def test_trouble_with_the_file_says_what_was_tried_what_was_found_and_what_to_do(kind: type[e.StoreError]) -> None:
    own = kind("enqueueing 3 tasks", path="/x/jobs.sqlite")
    assert str(own) == f"enqueueing 3 tasks: {own.found}; {own.advice}"
    assert own.found != e.StoreError.found_else and own.advice != e.StoreError.advice_else
    told = kind("a", "b", "c")
    assert str(told) == "a: b; c"


def test_facts_about_the_file_are_attributes_and_survive_pickling() -> None:
    copy = again(e.NewerSchema("opening", path="/x", version=9, supported=3))
    assert isinstance(copy, e.NewerSchema)
    assert (copy.path, copy.version, copy.supported) == ("/x", 9, 3)
    busy = e.StoreBusy("settling", waited=30.0)
    assert busy.waited == 30.0 and e.StoreBusy("settling").waited is None
