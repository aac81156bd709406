"""A worker that has found nothing looks again before it sleeps, and sees whatever came since."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from litetq import clock
from litetq.engine import FileEngine, Seat
from litetq.message import Plan
from tests.factories import chain, message, success
from tests.waiting import eventually


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FileEngine]:
    engine = FileEngine(tmp_path / "jobs.sqlite")
    yield engine
    engine.close()


@pytest.fixture
def seat(engine: FileEngine) -> Iterator[Seat]:
    seat = engine.seat("w1@host")
    yield seat
    seat.leave()


def send(engine: FileEngine, id: str) -> None:
    engine.send(Plan((message(id),)))


def in_another_process(engine: FileEngine) -> None:
    other = FileEngine(engine.path)
    send(other, "b")
    other.close()


COMES: dict[str, Callable[[FileEngine], object]] = {
    "sent here": lambda engine: send(engine, "b"),
    "sent elsewhere": in_another_process,
    "sent after the file was closed": lambda engine: (engine.database.close(), send(engine, "b")),
}


@pytest.mark.parametrize("how", COMES)
def test_a_look_finds_what_came_after_a_claim_that_left_nothing(engine: FileEngine, seat: Seat, how: str) -> None:
    send(engine, "a")
    (delivery,) = seat.take(5).deliveries
    assert not seat.probe()[0]
    COMES[how](engine)
    assert seat.probe()[0]
    assert [each.id for each in seat.take(5, [success(delivery)]).deliveries] == ["b"]
    assert not seat.probe()[0]


def test_a_look_finds_what_has_become_due(engine: FileEngine, seat: Seat, monkeypatch: pytest.MonkeyPatch) -> None:
    due_at = clock.now() + 60
    engine.send(Plan((message("later", due_at=due_at),)))
    assert seat.take(5).next_due_at == due_at
    assert seat.probe() == (False, due_at)
    monkeypatch.setattr(clock, "now", lambda: due_at)
    assert seat.probe()[0]


def test_a_look_finds_what_a_claim_had_no_room_for(engine: FileEngine, seat: Seat) -> None:
    for id in ("a", "b"):
        send(engine, id)
    seat.take(1)
    assert seat.probe()[0]


def test_a_look_finds_what_another_thread_wrote_in_the_same_transaction_after_the_claim(
    engine: FileEngine, seat: Seat
) -> None:
    """Threads that come while a commit is under way are committed together, each after the one before it."""
    send(engine, "a")
    database, taken = engine.database, []
    with database._lock:
        claims = threading.Thread(target=lambda: taken.append(seat.take(5)))
        claims.start()
        eventually(lambda: len(database._pending) == 1)
        sends = threading.Thread(target=lambda: send(engine, "b"))
        sends.start()
        eventually(lambda: len(database._pending) == 2)
    claims.join()
    sends.join()
    assert [each.id for each in taken[0].deliveries] == ["a"]
    assert seat.probe()[0]


def test_a_look_after_a_step_that_was_handed_over_finds_what_came_since(engine: FileEngine, seat: Seat) -> None:
    engine.send(chain("a", "b", "c"))
    (first,) = seat.take(2).deliveries
    (second,) = seat.take(2, [success(first)]).deliveries
    assert not seat.probe()[0]
    send(engine, "other")
    assert seat.probe()[0]
    assert [each.id for each in seat.take(2, [success(second)]).deliveries] == ["c", "other"]
