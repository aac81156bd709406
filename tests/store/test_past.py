"""Failed workflows run again: only what failed, under the old ids, with the values that are there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from litetq.database import migrations
from litetq.exceptions import NotOnRecord
from litetq.message import SELF, Delivery, Disposition, Join, Kind, Link, Outcome
from tests.factories import (
    Queue,
    assert_sound,
    chain,
    chord,
    failure,
    message,
    outcome,
    plan,
    retry,
    success,
    value,
)

PAST = ("past_task", "past_link", "past_join", "past_part")


def failing(*ids: str) -> Callable[[Delivery], Outcome]:
    """Return an end by which these fail, and the others give their id as their value."""
    return lambda delivery: failure(delivery) if delivery.id in ids else success(delivery, delivery.id)


def kept(queue: Queue) -> int:
    return sum(map(queue.count, PAST))


def run_again(queue: Queue, *ids: str) -> int:
    count = queue.store.run_again(ids, queue.now)
    assert_sound(queue)
    return count


def test_a_chain_goes_on_from_the_step_that_failed_with_the_value_of_the_one_before(queue: Queue) -> None:
    queue.send(chain("a", "b", "c", "d"))
    assert queue.run_all(failing("b")) == ["a", "b"]
    assert run_again(queue, "d") == 3
    assert [queue.state(id) for id in "abcd"] == ["SUCCESS", "QUEUED", "BLOCKED", "BLOCKED"]
    again = queue.claim_one()
    assert (again.id, again.input, again.retries, again.attempts) == ("b", (None, value("a")), 0, 2)
    queue.settle(success(again, "B"))
    assert queue.run_all() == ["c", "d"] and kept(queue) == 0
    assert [past["outcome"] for past in queue.store.records.attempts_of("b")] == ["FAILURE"]


@pytest.mark.parametrize("id", ["a", "b", "c", "d"])
def test_any_failed_task_of_a_workflow_brings_all_of_them_back(queue: Queue, id: str) -> None:
    queue.send(chain("a", "b", "c", "d"))
    queue.run_all(failing("a"))
    assert run_again(queue, id) == 4
    assert queue.run_all() == ["a", "b", "c", "d"]


def test_a_second_call_does_nothing(queue: Queue) -> None:
    queue.send(chain("a", "b"))
    queue.run_all(failing("a"))
    assert [run_again(queue, "b"), run_again(queue, "b"), run_again(queue, "a", "b")] == [2, 0, 0]
    queue.run_all()
    assert run_again(queue, "a", "b") == 0 == run_again(queue, "unknown")


def test_of_many_calls_at_once_one_does_it(queue: Queue) -> None:
    queue.send(chord([f"{n}" for n in range(50)], "body"))
    queue.run_all(failing("7", "8"))
    counts: list[int] = []
    start = threading.Barrier(4)

    def call() -> None:
        other = Queue(queue.path, worker=queue.worker)
        start.wait()
        counts.append(other.store.run_again(["body"], queue.now))
        other.close()

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counts) == [0, 0, 0, 3]
    assert queue.run_all() == ["7", "8", "body"]


def test_a_chord_goes_on_from_the_values_that_are_there(queue: Queue) -> None:
    queue.send(chord(["a", "b", "c"], "body"))
    a, b, c = queue.claim(3)
    queue.settle(success(a, 1), failure(b))
    assert queue.state("body") == "FAILURE"
    assert run_again(queue, "body") == 2, "c runs on meanwhile"
    assert queue.run_all(lambda d: success(d, 2)) == ["b"] and queue.state("body") == "BLOCKED"
    queue.settle(success(c, 3))
    body = queue.claim_one()
    assert body.input == [(None, b"1"), (None, b"2"), (None, b"3")]
    queue.settle(success(body))
    assert kept(queue) == 0


def test_members_that_succeed_after_the_failure_keep_their_values_for_another_try(queue: Queue) -> None:
    nested = plan("a", "b", "c", "body", joins=[Join((0, -3), 3), Join((1, 2), None)])
    queue.send(nested)
    a, b, c = queue.claim(3)
    queue.settle(failure(a))
    queue.settle(success(b, 2), success(c, 3, value=b"33"))
    assert run_again(queue, "a") == 2
    queue.settle(success(queue.claim_one(), 1))
    assert queue.claim_one().input == [(None, b"1"), [(None, b"2"), (None, b"33")]]


def test_a_body_that_failed_by_itself_gets_the_values_again(queue: Queue) -> None:
    queue.send(plan("a", "b", "body", "after", links=[Link(2, 3, Kind.VALUE)], joins=[Join((0, 1), 2)]))
    queue.run_all(failing("body"))
    assert run_again(queue, "after") == 2
    body = queue.claim_one()
    assert body.input == [(None, value("a")), (None, value("b"))]
    queue.settle(success(body, "x"))
    assert queue.claim_one().input == (None, value("x")) and queue.count("part") == queue.count("join") == 0


def test_what_was_revoked_while_it_waited_gets_the_value_that_came_meanwhile(queue: Queue) -> None:
    queue.send(chain("a", "b", "c"))
    a = queue.claim_one()
    queue.store.revoke(["b"], "enough", queue.now)
    assert [queue.state(id) for id in "bc"] == ["REVOKED", "FAILURE"]
    queue.settle(success(a, 5))
    assert run_again(queue, "c") == 2
    b = queue.claim_one()
    assert (b.id, b.input) == ("b", (None, b"5"))


def test_what_was_revoked_while_the_task_before_it_runs_waits_for_it_again(queue: Queue) -> None:
    queue.send(chain("a", "b"))
    a = queue.claim_one()
    queue.store.revoke(["b"], "enough", queue.now)
    assert run_again(queue, "b") == 1 and queue.state("b") == "BLOCKED"
    queue.settle(success(a, 5))
    assert queue.claim_one().input == (None, b"5")


def test_a_revoked_body_is_called_when_its_members_are_ready(queue: Queue) -> None:
    queue.send(chord(["a", "b"], "body"))
    a, b = queue.claim(2)
    queue.store.revoke(["body"], "enough", queue.now)
    queue.settle(success(a, 1))
    assert run_again(queue, "body") == 1 and queue.state("body") == "BLOCKED"
    queue.settle(success(b, 2))
    assert queue.claim_one().input == [(None, b"1"), (None, b"2")]


def test_expired_and_purged_and_ignored_members_run_again_without_their_expiry(queue: Queue) -> None:
    queue.send(chord([message("late", expires_at=queue.now + 5), "ignored", message("purged", queue="other")], "body"))
    queue.settle(outcome(queue.claim(2, queues=frozenset({"celery"}))[1], Disposition.IGNORE, "IGNORED"))
    queue.store.roster.leave(queue.worker, queue.now)
    queue.worker = queue.add_worker()
    queue.now += 10
    queue.store.expire(queue.now)
    queue.store.purge(["other"], queue.now)
    assert [queue.state(id) for id in ("late", "ignored", "purged")] == ["REVOKED", "IGNORED", "REVOKED"]
    assert run_again(queue, "body") == 4
    assert queue.run_all() == ["late", "ignored", "purged", "body"] and kept(queue) == 0


def test_an_errback_is_called_for_each_failure_and_takes_its_followers_along(queue: Queue) -> None:
    links = [Link(0, 1, Kind.VALUE), Link(0, 2, Kind.ERRBACK), Link(1, 2, Kind.ERRBACK), Link(2, 3, Kind.VALUE)]
    queue.send(plan("a", "b", "errback", "told", links=links))
    assert queue.run_all(failing("a")) == ["a", "errback", "told"]
    assert run_again(queue, "b") == 2
    assert queue.run_all(failing("b")) == ["a", "b", "errback", "told"]
    assert run_again(queue, "b") == 1
    assert queue.run_all() == ["b"]
    assert queue.count("task") == queue.count("link") == kept(queue) == 0
    assert queue.state("errback") == "SUCCESS", "that it ran is still on record"


def test_an_errback_that_was_not_needed_is_there_when_it_is(queue: Queue) -> None:
    queue.send(plan("a", "b", "of b", links=[Link(0, 1, Kind.VALUE), Link(1, 2, Kind.ERRBACK)]))
    assert queue.run_all(failing("a")) == ["a"]
    run_again(queue, "b")
    assert queue.run_all(failing("b")) == ["a", "b", "of b"]


def test_an_errback_that_is_still_to_run_is_not_waited_for(queue: Queue) -> None:
    queue.send(plan("a", "errback", links=[Link(0, 1, Kind.ERRBACK)]))
    a = queue.claim_one()
    queue.settle(failure(a))
    assert run_again(queue, "a") == 1
    assert queue.run_all(failing("a")) == ["a", "errback", "errback"]


def test_an_errback_that_failed_runs_again_alone(queue: Queue) -> None:
    queue.send(plan("a", "errback", links=[Link(0, 1, Kind.ERRBACK)]))
    queue.run_all(failing("a", "errback"))
    assert run_again(queue, "errback") == 1
    errback = queue.claim_one()
    assert (errback.id, errback.role, errback.input) == ("errback", 1, (None, b'{"id": "a"}'))
    assert queue.state("a") == "FAILURE"
    queue.settle(success(errback))
    assert run_again(queue, "a") == 1


def test_a_plain_task_runs_again_under_its_id(queue: Queue) -> None:
    queue.send(message("a", body=b'[["x"], {}]' + b" " * 1000, priority=3), "b")
    queue.run_all(lambda d: retry(d) if d.id == "a" and not d.retries else failure(d))
    assert run_again(queue, "a", "b") == 2
    a, b = queue.claim(2)
    assert (a.id, a.body, a.priority, a.retries, a.attempts, a.deliveries) == (
        "a",
        b'[["x"], {}]' + b" " * 1000,
        3,
        0,
        3,
        0,
    )
    queue.settle(success(a), success(b))
    assert queue.state("a") == "SUCCESS"
    assert [past["outcome"] for past in queue.store.records.attempts_of("a")] == ["RETRY", "FAILURE"]


def test_a_dead_letter_can_be_run_again_and_has_all_its_deliveries(queue: Queue) -> None:
    queue.send(chain("a", "b"))
    for _ in range(6):
        delivery = queue.claim_one()
        queue.settle(outcome(delivery, Disposition.REQUEUE, "REJECTED"))
    assert queue.store.records.dead_letters()[0].id == "a"
    assert run_again(queue, "a") == 2
    assert queue.claim_one().deliveries == 0 and not queue.store.records.dead_letters()


def test_a_member_that_replaces_itself_after_the_failure_is_still_a_member(queue: Queue) -> None:
    queue.send(chord(["a", "b"], "body"))
    a, b = queue.claim(2)
    queue.settle(failure(a))
    queue.settle(outcome(b, Disposition.REPLACE, "PENDING", plan=chain("step", "b")))
    assert run_again(queue, "a") == 2
    assert queue.run_all(lambda d: success(d, d.id)) == ["a", "step", "b", "body"]


def test_what_a_task_brought_with_its_failure_is_left_alone(queue: Queue) -> None:
    queue.send("a")
    queue.settle(failure(queue.claim_one(), plan=plan("further", links=[Link(SELF, 0, Kind.ERRBACK)])))
    assert queue.run_all() == ["further"]
    assert run_again(queue, "a") == 1


def test_an_errback_of_an_errback_waits_for_the_next_call_of_that_one(queue: Queue) -> None:
    errbacks = [Link(0, 1, Kind.ERRBACK), Link(1, 2, Kind.ERRBACK), Link(2, 3, Kind.VALUE)]
    queue.send(plan("a", "errback", "of errback", "told", links=errbacks))
    assert queue.run_all(failing("a")) == ["a", "errback"]
    assert run_again(queue, "a") == 1
    assert queue.run_all(failing("a", "errback")) == ["a", "errback", "of errback", "told"]
    assert run_again(queue, "a", "errback") == 2
    assert sorted(queue.run_all()) == ["a", "errback"]
    assert queue.count("task") == queue.count("link") == kept(queue) == 0


def test_what_an_errback_brought_with_its_failure_waits_for_its_next_end(queue: Queue) -> None:
    queue.send(plan("a", "errback", links=[Link(0, 1, Kind.ERRBACK)]))
    queue.settle(failure(queue.claim_one()))
    brought = plan("further", "of errback", links=[Link(SELF, 0, Kind.VALUE), Link(SELF, 1, Kind.ERRBACK)])
    queue.settle(failure(queue.claim_one(), plan=brought))
    assert queue.run_all() == ["of errback"] and queue.state("further") == "FAILURE"
    assert run_again(queue, "further") == 2
    assert queue.run_all() == ["errback", "further"] and queue.count("task") == 0


def test_nothing_of_an_errback_that_is_not_needed_is_kept_without_what_it_leads_to(queue: Queue) -> None:
    steps = [Link(0, 1, Kind.ERRBACK), Link(1, 2, Kind.VALUE), Link(2, 3, Kind.VALUE)]
    queue.send(
        plan("a", "errback", "told", "last", "of both", links=[*steps, *(Link(n, 4, Kind.ERRBACK) for n in (1, 3))])
    )
    queue.store.revoke(["told"], "enough", queue.now)
    queue.run_all()
    assert queue.count("task") == 0
    assert_sound(queue)


def test_two_failures_that_belong_to_two_workflows_are_two_matters(queue: Queue) -> None:
    for name in "xy":
        queue.send(chain(f"{name}1", f"{name}2"))
    queue.run_all(failing("x1", "y1"))
    assert run_again(queue, "x2") == 2
    assert [queue.state(id) for id in ("x1", "y1")] == ["QUEUED", "FAILURE"]


def test_nothing_is_kept_of_what_succeeds_or_has_nothing_around_it(queue: Queue) -> None:
    queue.send(plan("a", "b", "errback", links=[Link(0, 1, Kind.VALUE), Link(1, 2, Kind.ERRBACK)]))
    queue.send(chord(["c", "d"], "body"))
    queue.send("plain")
    queue.run_all(failing("plain"))
    assert kept(queue) == 0


def test_what_is_kept_goes_with_the_results(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "jobs.sqlite", failure_expires=100.0)
    queue.send(plan("a", "b", "c", "d", "body", "last", "errback",
                    links=[Link(4, 5, Kind.VALUE), Link(4, 6, Kind.ERRBACK)],
                    joins=[Join((0, 1, -3), 4), Join((2, 3), None)]))  # fmt: skip
    queue.run_all(failing("a", "c"))
    assert kept(queue) > 8
    queue.now += 99
    queue.store.records.prune(queue.now)
    assert kept(queue) > 8
    queue.now += 2
    queue.store.records.prune(queue.now)
    assert kept(queue) == 0
    assert run_again(queue, "body") == 0
    queue.close()


def test_what_needs_something_that_is_gone_is_refused_and_left_as_it_is(queue: Queue) -> None:
    queue.send(chord(["a", "b"], "body"))
    queue.run_all(failing("a", "b"))
    queue.store.records.forget(["b"])
    before = queue.dump()
    with pytest.raises(NotOnRecord, match="Task body cannot be run again"):
        run_again(queue, "body")
    assert queue.dump() == before
    queue.store.records.forget(["a", "body"])
    assert kept(queue) == 0


def test_a_task_whose_id_was_sent_again_is_left_alone_while_that_one_waits(queue: Queue) -> None:
    queue.send(chain("a", "b"))
    queue.run_all(failing("a"))
    queue.send("a")
    assert run_again(queue, "a") == 0


def test_a_chain_of_thousands_comes_back_whole(queue: Queue) -> None:
    queue.send(chain(*(f"{n}" for n in range(3_000))))
    queue.run_all(failing("1"))
    assert run_again(queue, "2999") == 2_999
    assert len(queue.run_all()) == 2_999 and kept(queue) == 0


def test_a_file_of_the_third_schema_gets_the_tables_and_keeps_its_workflows(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    old = apsw.Connection(str(path))
    for number, script in migrations():
        if number <= 3:
            old.execute(script)
    old.execute("INSERT INTO litetq_meta (key, value) VALUES ('schema', '3')")
    old.execute("INSERT INTO litetq_lane (id, queue) VALUES (1, 'celery')")
    old.execute(
        "INSERT INTO litetq_task (seq, id, name, state, lane, priority, body, retries, attempts, deliveries, linked, blockers,"
        " enqueued_at) VALUES (1, 'a', 'task', 0, 1, 0, x'5b5b5d2c7b7d5d', 0, 0, 0, 1, 0, 1),"
        " (2, 'b', 'task', 2, 1, 0, x'5b5b5d2c7b7d5d', 0, 0, 0, 0, 1, 1)"
    )
    old.execute("INSERT INTO litetq_link (source, target, kind) VALUES (1, 2, 1)")
    old.close()
    assert [number for number, _ in migrations()][3] == 4
    queue = Queue(path, worker=1)
    queue.run_all(failing("a"))
    assert run_again(queue, "b") == 2 and queue.run_all() == ["a", "b"]
    queue.close()
