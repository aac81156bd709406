"""Tasks that decide themselves how a worker runs them: what their strategy keeps, ends, passes on and forgets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, Task, chain
from litetq.exceptions import Reject
from litetq.strategies import Message, default
from tests.waiting import eventually


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    app = LiteTQ("strategies", broker=db)
    yield app
    app.close()


class Keeps(Task[..., Any]):
    """Keeps what comes, until the test asks for it."""

    abstract = True

    def Strategy(self, task: Any, app: LiteTQ, consumer: Any) -> Callable[..., None]:
        self.kept: list[Message] = []
        self.consumer = consumer

        def handler(message: Message, body: Any, ack: Any, reject: Any, callbacks: Any, **_: Any) -> None:
            self.kept.append(message)

        return handler

    def work(self, do: Callable[[list[Message]], None], *, ack: bool = True) -> threading.Event:
        """Have a function called with all that is kept; the event is set when it has returned."""
        kept, self.kept = self.kept, []
        returned = threading.Event()

        def acknowledge(*_: Any) -> None:
            for message in kept if ack else ():
                message.ack()

        self.consumer.pool.apply_async(do, (kept,), accept_callback=acknowledge, callback=lambda value: returned.set())
        return returned


def record(app: LiteTQ, id: str) -> Any:
    found = app.engine.read(id)
    assert found is not None
    return found


def come(task: Any, count: int) -> None:
    eventually(lambda: len(getattr(task, "kept", ())) == count or None)


def test_what_is_stored_for_a_message_is_the_end_of_its_task_and_starts_what_waits_for_it(app: LiteTQ) -> None:
    counts: Any = app.task(base=Keeps, name="counts")(lambda number: None)
    double = app.task(name="double")(lambda number: 2 * number)

    def add_one(messages: list[Message]) -> None:
        for message in messages:
            app.backend.mark_as_done(message.delivery.id, message.payload[0][0] + 1)

    with app.run_embedded(1):
        first, last = counts.delay(1), chain(counts.s(20), double.s()).delay()
        come(counts, 2)
        assert first.state == "PENDING"
        counts.work(add_one)
        assert first.get(timeout=30) == 2
        assert last.get(timeout=30) == 42


def test_a_failure_that_is_stored_is_the_end_too(app: LiteTQ) -> None:
    counts: Any = app.task(base=Keeps, name="counts")(lambda: None)

    def fail(messages: list[Message]) -> None:
        for message in messages:
            app.backend.mark_as_failure(message.delivery.id, ValueError("not today"))

    with app.run_embedded(1):
        result = counts.delay()
        come(counts, 1)
        counts.work(fail)
        with pytest.raises(ValueError, match="not today"):
            result.get(timeout=30)


def test_what_is_acknowledged_without_a_result_ends_and_shows_none_as_in_celery(app: LiteTQ) -> None:
    counts: Any = app.task(base=Keeps, name="counts")(lambda: None)
    with app.run_embedded(1):
        result = counts.delay()
        come(counts, 1)
        counts.work(lambda messages: None)
        eventually(lambda: record(app, result.id).place == "DONE" or None)
        assert record(app, result.id).reason == "ignored"
        assert result.state == "PENDING"


def test_what_is_kept_when_the_worker_stops_goes_back_as_it_was(app: LiteTQ) -> None:
    counts: Any = app.task(base=Keeps, name="counts")(lambda: None)
    with app.run_embedded(1):
        result = counts.delay()
        come(counts, 1)
    assert record(app, result.id).place == "QUEUED"
    called = counts.work(lambda messages: None)  # too late: its messages have gone back
    with app.run_embedded(1):
        come(counts, 1)
        assert counts.kept[0].delivery.attempts == 1
        assert not called.is_set()


def test_kept_messages_take_no_place_in_the_pool(app: LiteTQ) -> None:
    counts: Any = app.task(base=Keeps, name="counts")(lambda number: None)
    double = app.task(name="double")(lambda number: 2 * number)
    with app.run_embedded(1):
        for number in range(20):
            counts.delay(number)
        come(counts, 20)
        assert double.delay(4).get(timeout=30) == 8


def test_what_is_acknowledged_late_and_left_alone_comes_again(app: LiteTQ) -> None:
    counts: Any = app.task(base=Keeps, name="counts", acks_late=True)(lambda: None)

    def raise_at_once(messages: list[Message]) -> None:
        raise OSError("the database is away")

    with app.run_embedded(1):
        result = counts.delay()
        come(counts, 1)
        counts.work(raise_at_once, ack=False)
    assert record(app, result.id).place == "QUEUED"
    with app.run_embedded(1):
        come(counts, 1)
        assert counts.kept[0].delivery.deliveries == 1
        assert counts.kept[0].delivery_info["redelivered"]


def test_a_message_is_rejected_or_requeued(app: LiteTQ) -> None:
    seen: list[int] = []

    def once_more(task: Any, app: LiteTQ, consumer: Any) -> Callable[..., None]:
        def handler(message: Message, body: Any, ack: Any, reject: Any, callbacks: Any) -> None:
            seen.append(1)
            reject(requeue=len(seen) == 1)

        return handler

    task = app.task(name="never", Strategy=staticmethod(once_more))(lambda: None)
    with app.run_embedded(1):
        with pytest.raises(Reject):
            task.delay().get(timeout=30)
    assert len(seen) == 2


def test_a_strategy_may_pass_a_message_on_to_the_pool(app: LiteTQ) -> None:
    def some(task: Any, app: LiteTQ, consumer: Any) -> Callable[..., None]:
        as_usual = default(task, app, consumer)

        def handler(message: Message, body: Any, ack: Any, reject: Any, callbacks: Any) -> None:
            if message.payload[0][0] > 0:
                as_usual(message, body, ack, reject, callbacks)
            else:
                ack()

        return handler

    double = app.task(name="double", Strategy=staticmethod(some))(lambda number: 2 * number)
    with app.run_embedded(2):
        dropped, kept = double.delay(0), double.delay(4)
        assert kept.get(timeout=30) == 8
        eventually(lambda: record(app, dropped.id).reason == "ignored" or None)


def test_a_strategy_that_raises_fails_its_task(app: LiteTQ) -> None:
    def broken(task: Any, app: LiteTQ, consumer: Any) -> Callable[..., None]:
        def handler(*_: Any) -> None:
            raise LookupError("no such customer")

        return handler

    task = app.task(name="broken", Strategy=staticmethod(broken))(lambda: None)
    with app.run_embedded(1):
        with pytest.raises(LookupError, match="no such customer"):
            task.delay().get(timeout=30)


def test_timers_of_a_strategy_call_in_the_thread_of_its_handlers(app: LiteTQ) -> None:
    threads: set[int] = set()
    called = threading.Event()

    def timed(task: Any, app: LiteTQ, consumer: Any) -> Callable[..., None]:
        def tick() -> None:
            threads.add(threading.get_ident())
            called.set()

        def handler(message: Message, body: Any, ack: Any, reject: Any, callbacks: Any) -> None:
            threads.add(threading.get_ident())
            consumer.timer.call_repeatedly(0.01, tick)
            ack()

        return handler

    task = app.task(name="timed", Strategy=staticmethod(timed))(lambda: None)
    with app.run_embedded(1):
        task.delay()
        assert called.wait(30)
    assert len(threads) == 1
