"""The contract of each verb, on a real file."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import apsw
import pytest

from litetq.message import SELF, Delivery, Disposition, Join, Kind, Link, Plan, Record
from litetq.store import REVOKED_MEMORY_S
from tests.factories import (
    Queue,
    assert_sound,
    chain,
    chord,
    error,
    failure,
    interrupt,
    message,
    outcome,
    plan,
    release,
    requeue,
    retry,
    success,
    value,
)


def ids(deliveries: list[Delivery]) -> list[str]:
    return [delivery.id for delivery in deliveries]


def limit_lane(queue: Queue, name: str, **columns: Any) -> None:
    """Set what a lane allows, as the verbs of control will."""
    for column, setting in columns.items():
        sql = f"UPDATE litetq_lane SET {column} = ?1 WHERE queue = ?2"
        queue.database.write(lambda tx, sql=sql, setting=setting: tx.execute(sql, (setting, name)).fetchall())  # type: ignore[misc]


# -- send and claim


def test_a_sent_task_arrives_as_it_was_sent(queue: Queue) -> None:
    sent = message(
        "a",
        name="tasks.add",
        body=b"[[1], {}]",
        content_type="application/x-own",
        queue="mail",
        priority=7,
        due_at=900.0,
        expires_at=2_000.0,
        retries=2,
        root_id="r",
        parent_id="p",
        headers='{"shadow": "s"}',
    )
    queue.send(sent)
    assert queue.claim_one() == Delivery(
        claim=1,
        seq=1,
        id="a",
        name="tasks.add",
        body=b"[[1], {}]",
        content_type="application/x-own",
        queue="mail",
        priority=7,
        retries=2,
        attempts=1,
        deliveries=0,
        eta=900.0,
        expires_at=2_000.0,
        root_id="r",
        parent_id="p",
        headers='{"shadow": "s"}',
        role=0,
        linked=0,
        input=None,
    )


@pytest.mark.row("11.priority")
def test_tasks_start_by_priority_and_then_in_the_order_of_commits(queue: Queue) -> None:
    for id, priority in [("a", 0), ("b", 9), ("c", 0), ("d", 9), ("e", 5)]:
        queue.send(message(id, priority=priority))
    assert ids(queue.claim(10)) == ["b", "d", "e", "a", "c"]


@pytest.mark.parametrize("size", [1, 2, 5, 12])
def test_the_order_holds_across_lanes_and_across_batches(queue: Queue, size: int) -> None:
    for place in range(12):
        queue.send(message(f"{place}", queue="abcbca"[place % 6], priority=place // 2 % 2))
    claimed = []
    while batch := queue.claim(size):
        claimed.append([(d.priority, int(d.id)) for d in batch])
    assert [len(batch) for batch in claimed[:-1]] == [size] * (len(claimed) - 1)
    flat = [pair for batch in claimed for pair in batch]
    assert flat == sorted(flat, key=lambda pair: (-pair[0], pair[1]))


def test_messages_of_one_plan_keep_their_order(queue: Queue) -> None:
    queue.send(plan(*(message(f"{n}", queue="ab"[n % 2]) for n in range(6))))
    assert ids(queue.claim(6)) == [f"{n}" for n in range(6)]


def test_a_worker_claims_from_its_own_queues_only(queue: Queue) -> None:
    queue.send(message("a", queue="mail"), message("b", queue="other"))
    assert ids(queue.claim(9, queues=frozenset({"other"}))) == ["b"]
    assert queue.state("a") == "QUEUED"


def test_no_more_than_what_is_free_is_claimed(queue: Queue) -> None:
    queue.send(*map(str, range(5)))
    assert len(queue.claim(3)) == 3
    assert queue.claim(0) == []
    assert len(queue.claim(3)) == 2


def test_claim_numbers_are_drawn_once_in_the_life_of_a_file(queue: Queue) -> None:
    queue.send(*map(str, range(4)))
    first = queue.claim(4)
    queue.settle(*map(release, first))
    again = queue.claim(4)
    queue.store.roster.leave(queue.worker, queue.now)
    queue.close()
    queue.worker = queue.add_worker()
    drawn = [d.claim for d in [*first, *again, *queue.claim(4)]]
    assert drawn == sorted(set(drawn))


def test_claim_numbers_grow_in_the_order_of_commits_whoever_draws_them(queue: Queue, tmp_path: Path) -> None:
    """Each process holds some in advance; of two results under one id the greater claim stays, so order matters."""
    other = Queue(queue.path, worker=queue.worker)
    queue.send(*map(str, range(3_000)))
    drawn = [who.claim_one().claim for who in [queue, queue, other, queue, other, other, queue]]
    drawn += [delivery.claim for delivery in queue.claim(1_500)]  # more than are held in advance
    drawn += [who.claim_one().claim for who in [other, queue]]
    assert drawn == sorted(set(drawn))
    other.close()


def test_a_claim_that_was_undone_gives_no_number_to_two(queue: Queue) -> None:
    """The transaction that sets the counter ahead is rolled back; another process then draws from where it was."""
    other = Queue(queue.path, worker=queue.worker)
    queue.send("a", "b", "c", "d")

    def fails(tx: Any) -> None:
        queue.store.claim_numbers.draw(tx, 1)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        queue.database.write(fails)
    drawn = [who.claim_one().claim for who in [queue, other, queue, other]]
    assert drawn == sorted(set(drawn))
    other.close()


def test_a_delayed_task_waits_until_it_is_due(queue: Queue) -> None:
    queue.send(message("a", due_at=queue.now + 60), message("b"))
    assert queue.state("a") == "SCHEDULED"
    taken = queue.take(5)
    assert (ids(taken.deliveries), taken.next_due_at) == (["b"], queue.now + 60)
    assert queue.store.probe(queue.now) == (False, queue.now + 60)
    queue.now += 60
    assert queue.store.probe(queue.now)[0]
    assert ids(queue.claim(5)) == ["a"]


def test_a_task_with_a_due_time_in_the_past_is_ready_at_once(queue: Queue) -> None:
    queue.send(message("a", due_at=queue.now - 1))
    assert queue.state("a") == "QUEUED"
    assert queue.claim_one().eta == queue.now - 1


def test_a_due_task_starts_in_its_own_place_of_the_order(queue: Queue) -> None:
    queue.send(message("early", due_at=queue.now + 1))
    queue.send("late")
    queue.now += 2
    assert ids(queue.claim(2)) == ["early", "late"]


@pytest.mark.row("3.task_id used again")
def test_one_id_may_be_sent_twice_and_the_last_claim_is_on_record(queue: Queue) -> None:
    queue.send("a")
    queue.send("a")
    first, second = queue.claim(2)
    assert queue.settle(success(second, "second")) == []
    assert queue.read("a").place == "CLAIMED"
    assert queue.settle(success(first, "first")) == []
    assert queue.read("a").result == value("second")


def test_an_id_that_was_finished_can_be_sent_again(queue: Queue) -> None:
    queue.send("a")
    queue.run(failure)
    queue.send("a")
    assert queue.state("a") == "QUEUED"
    queue.run()
    assert queue.state("a") == "SUCCESS"


@pytest.mark.parametrize("id", ["1", "ein Name", "日本語", "'; DROP TABLE litetq_task; --", "x" * 5_000, "a/b?c#d%e"])
def test_ids_chosen_by_the_caller_may_have_any_form(queue: Queue, id: str) -> None:
    queue.send(id)
    queue.run(lambda delivery: success(delivery, delivery.id))
    assert queue.read(id).result == value(id)
    assert queue.store.records.read_many([id, "unknown"]).keys() == {id}


def test_a_row_that_the_schema_refuses_leaves_nothing_of_its_plan(queue: Queue) -> None:
    with pytest.raises(apsw.ConstraintError):
        queue.send(plan("a", message("b", priority=256)))
    assert (queue.count("task"), queue.count("lane")) == (0, 0)
    queue.send("a")  # the lane that was rolled back is not remembered
    assert ids(queue.claim(5)) == ["a"]


def test_a_file_that_was_deleted_and_made_anew_has_lanes_of_its_own(queue: Queue) -> None:
    queue.send(message("a", queue="first"))
    queue.claim(1)
    queue.close()
    for path in queue.path.parent.glob("jobs.sqlite*"):
        path.unlink()
    other = Queue(queue.path)
    other.send(message("b", queue="second"))
    queue.send(message("c", queue="first"))
    other.close()
    queue.worker = queue.add_worker()
    assert [(d.id, d.queue) for d in queue.claim(5)] == [("b", "second"), ("c", "first")]


def test_a_link_that_is_named_twice_is_waited_for_once(queue: Queue) -> None:
    queue.send(plan("a", "b", links=[Link(0, 1, Kind.VALUE), Link(0, 1, Kind.VALUE)]))
    assert queue.run_all() == ["a", "b"]


# -- lanes


def test_a_paused_lane_gives_nothing_until_it_goes_on(queue: Queue) -> None:
    queue.send(message("a", queue="mail"), message("b", queue="other"))
    limit_lane(queue, "mail", paused=1)
    assert ids(queue.claim(5)) == ["b"]
    assert not queue.store.probe(queue.now)[0]
    limit_lane(queue, "mail", paused=0)
    assert ids(queue.claim(5)) == ["a"]


def test_a_closed_lane_says_when_it_opens(queue: Queue) -> None:
    queue.send(message("a", queue="mail"))
    limit_lane(queue, "mail", open_at=queue.now + 5)
    assert queue.take(5).next_due_at == queue.now + 5
    assert queue.store.probe(queue.now) == (False, queue.now + 5)
    queue.now += 5
    assert queue.store.probe(queue.now)[0]
    assert ids(queue.claim(5)) == ["a"]


def test_a_rate_limit_lets_one_start_in_each_interval(queue: Queue) -> None:
    queue.send(*(message(f"{n}", queue="mail") for n in range(3)))
    limit_lane(queue, "mail", interval=2.0)
    starts = []
    while queue.state("2") == "QUEUED":
        starts += [(queue.now, d.id) for d in queue.claim(5)]
        queue.now += 1
    assert starts == [(1_000.0, "0"), (1_002.0, "1"), (1_004.0, "2")]


def test_a_lane_at_its_limit_of_running_tasks_is_neither_claimed_nor_announced(queue: Queue) -> None:
    queue.send(*(message(f"{n}", queue="mail") for n in range(4)), message("other", queue="other"))
    limit_lane(queue, "mail", max_running=2)
    first, second, _ = queue.claim(5)
    assert (first.id, second.id) == ("0", "1")
    assert queue.claim(5) == []
    assert not queue.store.probe(queue.now)[0]
    assert ids(queue.take(5, success(first)).deliveries) == ["2"]


# -- settle


def test_a_success_is_on_record_with_all_that_belongs_to_it(queue: Queue) -> None:
    queue.send(message("a", name="tasks.add", root_id="r", parent_id="p", headers="{}", queue="mail"))
    queue.now += 5
    queue.run(lambda d: success(d, 4, started_at=1_001.0, runtime=2.5, children="[]"))
    assert queue.read("a") == Record(
        id="a",
        state="SUCCESS",
        place="DONE",
        result=b"4",
        children="[]",
        done_at=1_005.0,
        name="tasks.add",
        queue="mail",
        worker="w1@host",
        parent_id="p",
        root_id="r",
        headers="{}",
        body=b"[[], {}]",
        enqueued_at=1_000.0,
        started_at=1_001.0,
        runtime=2.5,
    )
    assert queue.count("task") == 0


def test_arguments_of_a_failure_stay_on_record_and_large_ones_of_a_success_do_not(queue: Queue) -> None:
    large = json.dumps([["x" * 10_000], {}]).encode()
    queue.send(message("good", body=large), message("bad", body=large))
    good, bad = queue.claim(2)
    queue.settle(success(good), failure(bad, traceback="Traceback"))
    assert queue.read("good").body is None
    assert (queue.read("bad").body, queue.read("bad").traceback) == (large, "Traceback")


@pytest.mark.parametrize(
    ("disposition", "state"),
    [
        (Disposition.COMPLETE, "SUCCESS"),
        (Disposition.FAIL, "FAILURE"),
        (Disposition.REVOKE, "REVOKED"),
        (Disposition.IGNORE, "IGNORED"),
    ],
)
def test_final_outcomes_end_the_task(queue: Queue, disposition: int, state: str) -> None:
    queue.send("a")
    queue.run(lambda d: outcome(d, disposition, state))
    assert queue.state("a") == state
    assert queue.claim(1) == []


def test_a_retry_is_due_later_and_counted(queue: Queue) -> None:
    queue.send("a")
    queue.run(lambda d: retry(d, due_at=queue.now + 10, traceback="Traceback"))
    record = queue.read("a")
    assert (record.state, record.place, record.due_at, record.retries) == ("RETRY", "SCHEDULED", queue.now + 10, 1)
    assert (record.result, record.traceback) == (error(), "Traceback")
    queue.now += 10
    again = queue.claim_one()
    assert (again.retries, again.attempts, again.deliveries) == (1, 2, 0)
    assert [(a["attempt"], a["outcome"], a["error"]) for a in queue.store.records.attempts_of("a")] == [
        (1, "RETRY", error())
    ]


def test_a_retry_without_delay_keeps_its_place_in_the_order(queue: Queue) -> None:
    queue.send("a", "b")
    queue.run(retry)
    assert ids(queue.claim(2)) == ["a", "b"]


def test_a_retry_may_replace_the_message(queue: Queue) -> None:
    queue.send("a")
    new = message("a", body=b"[[2], {}]", queue="slow", priority=3, retries=5, headers='{"x": 1}', expires_at=9_999.0)
    queue.run(lambda d: retry(d, message=new))
    again = queue.claim_one(queues=frozenset({"slow"}))
    assert (again.body, again.queue, again.priority, again.retries) == (b"[[2], {}]", "slow", 3, 5)
    assert (again.headers, again.expires_at) == ('{"x": 1}', 9_999.0)


def test_a_retry_may_bring_tasks_that_wait_for_its_end(queue: Queue) -> None:
    queue.send("a")
    queue.run(lambda d: retry(d, plan=plan("at once", "after", links=[Link(SELF, 1, Kind.AFTER)])))
    assert_sound(queue)
    assert queue.state("after") == "BLOCKED"
    assert queue.run_all() == ["a", "at once", "after"]


def test_released_work_was_never_begun(queue: Queue) -> None:
    queue.send("a", "b")
    queue.run(release)
    again = queue.claim_one()
    assert (again.id, again.attempts, again.deliveries, again.retries) == ("a", 1, 0, 0)
    assert queue.store.records.attempts_of("a") == []
    queue.settle(release(again, due_at=queue.now + 5))
    assert queue.state("a") == "SCHEDULED"


def test_work_that_a_stop_cuts_off_is_delivered_again_and_that_counts_against_nothing(queue: Queue) -> None:
    queue.send("a", "b")
    for times in range(10):  # more often than begun work may be lost
        delivery = queue.claim_one()
        assert (delivery.id, delivery.attempts, delivery.deliveries) == ("a", 1, times)
        queue.settle(interrupt(delivery))
    queue.settle(requeue(queue.claim_one()))
    assert queue.claim_one().deliveries == 11


def test_requeued_work_is_counted_and_rests_as_a_dead_letter_past_the_bound(db: Path) -> None:
    queue = Queue(db, redelivery_bound=2)
    queue.send(chain("a", "b"))
    for deliveries in (0, 1):
        delivery = queue.claim_one()
        assert delivery.deliveries == deliveries
        assert queue.settle(requeue(delivery)) == []
        assert queue.state("a") == "QUEUED"
    queue.run(requeue)
    assert queue.state("a") == "FAILURE"
    assert "redelivered 2 times" in (queue.read("a").reason or "")
    assert queue.rows("SELECT dead FROM litetq_result WHERE id = 'a'") == [(1,)]
    assert queue.state("b") == "FAILURE"
    assert [a["outcome"] for a in queue.store.records.attempts_of("a")] == ["REQUEUED"] * 3
    assert_sound(queue)
    queue.close()


FINAL = [success, failure, lambda d: outcome(d, Disposition.IGNORE, "IGNORED")]
OPEN = [retry, release, requeue, lambda d: outcome(d, Disposition.REPLACE, "PENDING", plan=plan("heir"))]
WITH_PLAN = [lambda d: success(d, plan=plan("follow-on")), lambda d: retry(d, plan=plan("follow-on"))]


@pytest.mark.parametrize("end", [*FINAL, *OPEN, *WITH_PLAN])
@pytest.mark.parametrize("how", ["rescued", "failed by rescue", "claimed by another", "settled before"])
def test_a_late_worker_loses_changes_nothing_and_is_told(queue: Queue, end: Any, how: str) -> None:
    queue.send(chain("a", "b"))
    late = queue.claim_one()
    if how == "settled before":
        queue.settle(success(late))
    else:
        queue.store.roster.rescue(queue.worker, frozenset([late.claim] if how == "failed by rescue" else []), queue.now)
        queue.worker = queue.add_worker()
        if how == "claimed by another":
            assert queue.claim_one().id == "a"
    queue.send("neighbour")
    neighbour = next(d for d in queue.claim(5) if d.id == "neighbour")
    before = queue.dump()
    taken = queue.take(0, end(late))
    assert taken.lost == [late.claim]
    assert queue.dump() == before
    assert queue.take(0, end(late), success(neighbour)).lost == [late.claim]
    assert queue.state("neighbour") == "SUCCESS"


@pytest.mark.parametrize("end", FINAL)
def test_a_late_worker_is_told_apart_from_its_neighbours_in_one_batch(queue: Queue, end: Any) -> None:
    queue.send("a", "b", "c")
    first, second, third = queue.claim(3)
    queue.store.roster.rescue(queue.worker, frozenset([second.claim]), queue.now)  # ends b under its own claim number
    queue.worker = queue.add_worker()
    first, third = queue.claim(2)
    before = queue.read("b")
    assert queue.settle(end(first), end(second), end(third)) == [second.claim]
    assert queue.read("b") == before


# -- replace


def replace_by(new: Plan) -> Any:
    return lambda delivery: outcome(delivery, Disposition.REPLACE, "PENDING", plan=new)


def test_a_replacement_takes_over_who_waits(queue: Queue) -> None:
    queue.send(chain("a", "b"))
    queue.run(replace_by(chain("x", "a")))
    assert_sound(queue)
    order = []
    for _ in range(3):
        delivery = queue.claim_one()
        order.append((delivery.id, delivery.input))
        queue.settle(success(delivery, f"from {delivery.id}"))
    assert order == [("x", None), ("a", (None, value("from x"))), ("b", (None, value("from a")))]


def test_a_replacement_inside_a_chord_fills_the_place_of_the_task(queue: Queue) -> None:
    queue.send(chord(["a", "b"], "body"))
    queue.run(replace_by(chord(["x", "y"], "a")))
    assert sorted(queue.run_all(lambda d: success(d, d.id))) == ["a", "b", "body", "x", "y"]


def test_a_replaced_body_leaves_no_values_behind(queue: Queue) -> None:
    queue.send(chord(["a"], "body"))
    queue.run()
    queue.run(replace_by(plan("body")))
    assert (queue.count("join"), queue.count("part")) == (0, 0)
    assert queue.claim_one().input is None


def test_errbacks_hear_of_a_failure_of_any_step_of_a_replacement(queue: Queue) -> None:
    queue.send(plan("a", "handler", links=[Link(0, 1, Kind.ERRBACK)]))
    queue.run(replace_by(chain("x", "y", "a")))
    queue.run()
    assert queue.run(failure) == "y"
    assert queue.state("a") == "FAILURE"
    assert queue.run() == "handler"


def test_errbacks_of_a_replaced_task_go_unneeded_when_all_its_steps_succeed(queue: Queue) -> None:
    queue.send(plan("a", "handler", links=[Link(0, 1, Kind.ERRBACK)]))
    queue.run(replace_by(chain("x", "y", "a")))
    assert queue.run_all() == ["x", "y", "a"]
    assert queue.store.records.read("handler") is None


def test_a_revoked_task_is_not_replaced(queue: Queue) -> None:
    queue.send(chain("a", "b"))
    delivery = queue.claim_one()
    queue.store.revoke(["a"], "enough", queue.now)
    assert queue.settle(replace_by(plan("a"))(delivery)) == []
    assert (queue.state("a"), queue.state("b")) == ("REVOKED", "FAILURE")


def test_a_replacement_that_was_revoked_before_it_came_ends_the_task(queue: Queue) -> None:
    queue.store.revoke(["heir"], "enough", queue.now)
    queue.send(chain("a", "b"))
    queue.run(replace_by(plan("heir")))
    assert [queue.state(id) for id in ("heir", "a", "b")] == ["REVOKED", "REVOKED", "FAILURE"]


def test_what_a_revoked_replacement_brought_for_the_task_ends_with_it(queue: Queue) -> None:
    queue.store.revoke(["heir"], "enough", queue.now)
    queue.send("a")
    links = [Link(SELF, 0, Kind.VALUE), Link(SELF, 1, Kind.ERRBACK)]
    queue.run(replace_by(plan("after", "errback", "heir", links=links)))
    assert [queue.state(id) for id in ("a", "after")] == ["REVOKED", "FAILURE"]
    assert queue.run_all() == ["errback"]
    assert_sound(queue)


def test_what_a_replacement_links_to_the_task_waits_for_the_heir(queue: Queue) -> None:
    queue.send("a")
    queue.run(replace_by(plan("after", "heir", links=[Link(SELF, 0, Kind.AFTER)])))
    assert queue.run_all() == ["heir", "after"]


# -- workflows


def test_a_chain_hands_each_value_to_the_next(queue: Queue) -> None:
    queue.send(chain("a", "b", "c"))
    assert [queue.state(id) for id in "abc"] == ["QUEUED", "BLOCKED", "BLOCKED"]
    inputs = []
    for _ in range(3):
        delivery = queue.claim_one()
        inputs.append(delivery.input)
        queue.settle(success(delivery, delivery.id, content_type="application/x-own"))
    assert inputs == [None, ("application/x-own", b'"a"'), ("application/x-own", b'"b"')]


def test_an_immutable_successor_gets_no_value(queue: Queue) -> None:
    queue.send(chain("a", "b", kind=Kind.AFTER))
    queue.run()
    assert queue.claim_one().input is None


def test_a_value_that_is_not_kept_still_reaches_the_successor(queue: Queue) -> None:
    queue.send(chain("a", "b"))
    queue.run(lambda d: outcome(d, Disposition.COMPLETE, "SUCCESS", value=b"7"))
    assert queue.read("a").result is None
    assert queue.claim_one().input == (None, b"7")


def test_no_value_at_all_reaches_the_successor_as_null(queue: Queue) -> None:
    queue.send(chain("a", "b"))
    queue.run(lambda d: outcome(d, Disposition.COMPLETE, "SUCCESS", content_type="application/x-own"))
    assert queue.claim_one().input == (None, b"null")


def test_a_task_waits_for_all_that_it_is_linked_to(queue: Queue) -> None:
    queue.send(plan("a", "b", "c", links=[Link(0, 2, Kind.AFTER), Link(1, 2, Kind.AFTER)]))
    queue.run()
    assert queue.state("c") == "BLOCKED"
    queue.run()
    assert queue.state("c") == "QUEUED"


def test_countdown_and_expiry_of_a_successor_begin_at_its_release(queue: Queue) -> None:
    queue.send(chain("a", message("b", delay=30.0, lifetime=60.0)))
    queue.now += 1_000
    queue.run()
    record = queue.read("b")
    assert (record.place, record.due_at) == ("SCHEDULED", queue.now + 30)
    queue.now += 30
    assert queue.claim_one().expires_at == queue.now + 30


def test_an_eta_of_a_successor_is_kept(queue: Queue) -> None:
    queue.send(chain("a", message("b", due_at=queue.now + 30)))
    queue.run()
    assert queue.state("b") == "SCHEDULED"
    queue.now += 30
    queue.run()


@pytest.mark.parametrize("end", [failure, lambda d: outcome(d, Disposition.IGNORE, "IGNORED", result=error("Ignore"))])
def test_a_failure_ends_all_that_waits_behind_it(queue: Queue, end: Any) -> None:
    queue.send(chain("a", "b", "c"))
    queue.run(end)
    for id in "bc":
        record = queue.read(id)
        assert (record.state, record.result) == ("FAILURE", queue.read("a").result)
        assert record.reason == "a task that it waited for failed"
    assert (queue.count("task"), queue.count("link")) == (0, 0)


def test_an_errback_runs_once_with_the_id_that_failed(queue: Queue) -> None:
    queue.send(plan("a", "b", "handler", links=[Link(0, 2, Kind.ERRBACK), Link(1, 2, Kind.ERRBACK)]))
    first, second = queue.claim(2)
    queue.settle(failure(first))
    queue.settle(failure(second))
    handler = queue.claim_one()
    assert (handler.id, handler.role, handler.input) == ("handler", 1, (None, b'{"id": "a"}'))
    queue.settle(success(handler))
    assert queue.claim(1) == []


def test_an_errback_goes_when_nothing_that_it_watches_can_fail_any_more(queue: Queue) -> None:
    queue.send(plan("a", "b", "handler", links=[Link(0, 2, Kind.ERRBACK), Link(1, 2, Kind.ERRBACK)]))
    queue.run()
    assert queue.state("handler") == "BLOCKED"
    queue.run()
    assert queue.store.records.read("handler") is None
    assert (queue.count("task"), queue.count("link")) == (0, 0)


def test_an_unneeded_errback_takes_along_the_whole_workflow_behind_it(queue: Queue) -> None:
    # a fails -> chord(handler, second handler) -> body -> last; a watchman watches the handler and another task.
    queue.send(
        plan(
            "a", "other", "handler", "second", "body", "last", "watchman",
            links=[
                Link(0, 2, Kind.ERRBACK), Link(0, 3, Kind.ERRBACK), Link(4, 5, Kind.VALUE),
                Link(2, 6, Kind.ERRBACK), Link(1, 6, Kind.ERRBACK),
            ],
            joins=[Join((2, 3), 4)],
        )
    )  # fmt: skip
    queue.run()
    assert [(queue.store.records.read(id) is None) for id in ("handler", "second", "body", "last")] == [True] * 4
    assert (queue.count("join"), queue.count("part")) == (0, 0)
    assert queue.state("watchman") == "BLOCKED"
    assert_sound(queue)
    assert queue.run(failure) == "other"
    assert queue.run() == "watchman"


def test_errbacks_of_a_task_that_failed_with_its_predecessor_do_not_run(queue: Queue) -> None:
    # As in Celery: a chain's errbacks are linked to each of its steps.
    queue.send(plan("a", "b", "handler", links=[Link(0, 1, Kind.VALUE), Link(1, 2, Kind.ERRBACK)]))
    queue.run(failure)
    assert queue.state("b") == "FAILURE"
    assert queue.store.records.read("handler") is None
    assert queue.count("task") == 0


def test_a_failed_errback_is_a_failure_and_nothing_more(queue: Queue) -> None:
    queue.send(plan("a", "handler", links=[Link(0, 1, Kind.ERRBACK)]))
    queue.run(failure)
    queue.run(failure)
    assert queue.state("handler") == "FAILURE"


def test_an_end_may_bring_tasks_of_its_own(queue: Queue) -> None:
    queue.send("a")
    queue.run(lambda d: success(d, 1, plan=plan("x", "y", links=[Link(SELF, 1, Kind.VALUE)])))
    assert [(d.id, d.input) for d in queue.claim(2)] == [("x", None), ("y", (None, b"1"))]


# -- joins


def test_a_chord_body_gets_the_values_in_the_order_of_its_members(queue: Queue) -> None:
    queue.send(chord(["a", "b", "c"], "body"))
    members = queue.claim(3)
    assert queue.settle(*(success(d, d.id) for d in reversed(members))) == []
    body = queue.claim_one()
    assert (body.id, body.input) == ("body", [(None, b'"a"'), (None, b'"b"'), (None, b'"c"')])
    assert queue.count("part") == 3
    queue.settle(success(body))
    assert (queue.count("join"), queue.count("part")) == (0, 0)


def test_a_chord_body_keeps_its_values_through_retry_release_and_rescue(queue: Queue) -> None:
    queue.send(chord(["a"], "body"))
    queue.run(lambda d: success(d, 1))
    for end in (retry, release, requeue):
        delivery = queue.claim_one()
        assert delivery.input == [(None, b"1")]
        queue.settle(end(delivery))
    queue.claim_one()
    queue.store.roster.rescue(queue.worker, frozenset(), queue.now)
    queue.worker = queue.add_worker()
    assert queue.claim_one().input == [(None, b"1")]


def test_values_of_a_chord_outlive_the_results_and_their_expiry(queue: Queue) -> None:
    queue.send(chord(["a", "b"], "body"))
    queue.run(lambda d: outcome(d, Disposition.COMPLETE, "SUCCESS", value=b"1"))
    queue.now += 1_000_000
    queue.store.records.prune(queue.now)
    assert queue.store.records.read("a") is None
    queue.run(lambda d: success(d, 2))
    assert queue.claim_one().input == [(None, b"1"), (None, b"2")]


def test_an_immutable_body_gets_no_values(queue: Queue) -> None:
    queue.send(chord(["a"], "body", immutable=True))
    queue.run()
    assert queue.claim_one().input is None


def test_nested_groups_hand_over_nested_lists(queue: Queue) -> None:
    queue.send(
        plan("a", "b", "c", "body", joins=[Join((0, -3, -4), 3), Join((1, 2), None), Join((), None)]),
    )
    first, *nested = queue.claim(3)
    queue.settle(*(success(d, d.id) for d in nested))
    assert queue.state("body") == "BLOCKED"
    queue.settle(success(first, first.id))
    assert queue.claim_one().input == [(None, b'"a"'), [(None, b'"b"'), (None, b'"c"')], []]


def test_a_chord_without_members_releases_its_body_at_once(queue: Queue) -> None:
    queue.send(chord([], "body"))
    assert queue.claim_one().input == []


def test_a_chord_of_nothing_but_empty_groups_releases_its_body_at_once(queue: Queue) -> None:
    queue.send(plan("body", joins=[Join((-3, -4), 0), Join((), None), Join((-5,), None), Join((), None)]))
    assert queue.claim_one().input == [[], [[]]]


def test_a_failed_member_fails_the_body_at_once_and_the_others_run_on(queue: Queue) -> None:
    queue.send(
        plan("a", "b", "body", "after", "handler", joins=[Join((0, 1), 2)],
             links=[Link(2, 3, Kind.VALUE), Link(2, 4, Kind.ERRBACK)])
    )  # fmt: skip
    assert queue.run(failure) == "a"
    cause = json.loads(queue.read("body").result or b"")
    assert (cause["exc_type"], cause["exc_message"]) == ("ChordError", ["Dependency a raised ValueError('no')"])
    assert (queue.state("body"), queue.state("after")) == ("FAILURE", "FAILURE")
    assert (queue.count("join"), queue.count("part")) == (0, 0)
    assert_sound(queue)
    assert queue.run() == "b"
    assert queue.run() == "handler"


@pytest.mark.parametrize("result", [b"\xff", b"[1]", b'{"x": 1}', None])
def test_a_failure_that_cannot_be_read_still_fails_the_body(queue: Queue, result: bytes | None) -> None:
    queue.send(chord(["a"], "body"))
    queue.run(lambda d: outcome(d, Disposition.FAIL, "FAILURE", result=result))
    assert json.loads(queue.read("body").result or b"")["exc_message"] == ["Dependency a raised an exception"]


def test_a_failure_in_a_nested_group_leaves_nothing_behind(queue: Queue) -> None:
    queue.send(plan("a", "b", "c", "d", "body", joins=[Join((-3, -4), 4), Join((0, 1), None), Join((2, 3), None)]))
    queue.run(failure)
    assert queue.state("body") == "FAILURE"
    assert_sound(queue)
    queue.run_all(failure)
    assert [queue.count(table) for table in ("task", "link", "join", "part")] == [0, 0, 0, 0]


def test_a_chord_inside_a_chord(queue: Queue) -> None:
    queue.send(plan("a", "b", "inner", "c", "outer", joins=[Join((0, 1), 2), Join((2, 3), 4)]))
    order = queue.run_all(lambda d: success(d, d.input and len(d.input)))
    assert order.index("outer") == 4
    assert queue.read("outer").result == b"2"


def test_the_inner_error_reaches_the_outer_body_as_it_is(queue: Queue) -> None:
    queue.send(plan("a", "inner", "outer", joins=[Join((0,), 1), Join((1,), 2)]))
    queue.run(failure)
    assert queue.read("outer").result == queue.read("inner").result


def test_an_errback_that_is_called_because_of_a_cut_keeps_what_waits_for_it(queue: Queue) -> None:
    links = [Link(0, 1, Kind.VALUE), Link(0, 2, Kind.VALUE), Link(4, 5, Kind.VALUE), Link(4, 6, Kind.VALUE)]
    errbacks = [Link(0, 4, Kind.ERRBACK), Link(3, 4, Kind.ERRBACK)]
    queue.send(plan("a", "x", "cut", "body", "e", "told", "too", links=links + errbacks, joins=[Join((2,), 3)]))
    queue.settle(success(queue.claim_one(), plan=plan()._replace(cuts=("cut", "e"))))
    assert queue.run_all() == ["x", "e", "told", "too"]
    assert_sound(queue)


# Purge concerns what waits for a worker, not what waits for another task.
@pytest.mark.parametrize(
    ("how", "whom"),
    [("purge", "first")]
    + [(how, whom) for how in ("revoke", "expire") for whom in ("first", "member", "body", "last")],
)
def test_a_workflow_that_is_cut_off_anywhere_leaves_nothing_behind(queue: Queue, how: str, whom: str) -> None:
    def made(id: str) -> Any:
        ends = queue.now + 10 if id == whom and how == "expire" else None
        return message(id, expires_at=ends, queue="doomed" if id == whom else "celery")

    queue.send(
        plan(
            made("first"), made("member"), made("other"), made("body"), made("last"), made("handler"),
            links=[Link(0, 1, Kind.VALUE), Link(0, 2, Kind.VALUE), Link(3, 4, Kind.VALUE)]
            + [Link(place, 5, Kind.ERRBACK) for place in range(5)],
            joins=[Join((1, 2), 3)],
        )
    )  # fmt: skip
    if how == "revoke":
        assert queue.store.revoke([whom], "enough", queue.now) == 1
    elif how == "expire":
        queue.now += 10
        assert queue.store.expire(queue.now) == 1
    else:
        assert queue.store.purge(["doomed"], queue.now) == 1
    assert queue.state(whom) == "REVOKED"
    assert_sound(queue)
    ran = queue.run_all()
    assert "handler" in ran
    assert whom not in ran
    assert all(queue.read(id).place == "DONE" for id in ("first", "member", "other", "body", "last", "handler"))
    assert [queue.count(table) for table in ("task", "link", "join", "part")] == [0, 0, 0, 0]


def test_a_chain_of_ten_thousand_that_fails_at_its_first_step_ends_within_a_second(queue: Queue) -> None:
    steps = 10_000
    handler = [Link(place, steps, Kind.ERRBACK) for place in range(steps)]
    whole = chain(*(f"{n}" for n in range(steps)), "handler")
    queue.send(whole._replace(links=(*whole.links[:-1], *handler)))
    delivery = queue.claim_one()
    began = time.thread_time()  # what others do on the machine does not count
    queue.settle(failure(delivery))
    took = time.thread_time() - began
    assert queue.state(f"{steps - 1}") == "FAILURE"
    assert queue.run() == "handler"
    assert queue.count("task") == 0
    assert took < 2.0  # measured 0.35 s


def test_a_member_of_a_chord_costs_the_same_however_large_it_is(db: Path) -> None:
    def statements(size: int) -> int:
        queue = Queue(db.with_name(f"{size}.sqlite"))
        queue.send(chord([f"{n}" for n in range(size)], "body"))
        *_, last_but_one, _ = queue.claim(size)
        seen = 0

        def count(*_: Any) -> bool:
            nonlocal seen
            seen += 1
            return True

        connection = queue.database._writer
        assert connection is not None
        connection.exec_trace = count
        queue.settle(success(last_but_one))
        connection.exec_trace = None
        queue.close()
        return seen

    assert statements(10) == statements(2_000)


# -- rescue


def test_a_dead_workers_tasks_come_back_or_end_as_their_kind_asks(queue: Queue) -> None:
    queue.store.roster.set_late(queue.worker, ["tasks.late"])
    queue.send("unbegun", "begun", message("late", name="tasks.late"), message("unbegun late", name="tasks.late"))
    claims = {d.id: d.claim for d in queue.claim(4)}
    rescued = queue.store.roster.rescue(queue.worker, frozenset([claims["begun"], claims["late"]]), queue.now)
    assert rescued is not None
    assert rescued == (["unbegun", "unbegun late"], ["late"], ["begun"], [])
    assert queue.store.roster.rescue(queue.worker, frozenset(), queue.now) is None
    failed = queue.read("begun")
    assert (failed.state, failed.reason, failed.worker) == ("FAILURE", "its worker was lost", "w1@host")
    assert json.loads(failed.result or b"")["exc_type"] == "WorkerLostError"
    queue.worker = queue.add_worker()
    again = {d.id: (d.attempts, d.deliveries) for d in queue.claim(4)}
    assert again == {"unbegun": (1, 0), "late": (2, 1), "unbegun late": (1, 0)}
    assert [a["outcome"] for a in queue.store.records.attempts_of("late")] == ["LOST"]


def test_where_nobody_knows_what_began_all_of_it_counts_as_begun(queue: Queue) -> None:
    queue.send("a")
    queue.claim(1)
    rescued = queue.store.roster.rescue(queue.worker, None, queue.now)
    assert rescued is not None and rescued.failed == ["a"]


def test_work_that_kills_its_workers_rests_as_a_dead_letter(db: Path) -> None:
    queue = Queue(db, redelivery_bound=2)
    queue.send(message("a", name="tasks.late"))
    dead: list[str] = []
    while not dead:
        queue.store.roster.set_late(queue.worker, ["tasks.late"])
        queue.claim_one()
        rescued = queue.store.roster.rescue(queue.worker, None, queue.now)
        assert rescued is not None
        dead = rescued.dead
        queue.worker = queue.add_worker()
    assert dead == ["a"]
    assert queue.rows("SELECT state, dead, attempts FROM litetq_result") == [("FAILURE", 1, 3)]
    queue.close()


def test_a_rescued_chain_goes_on_and_a_failed_one_runs_its_errbacks(queue: Queue) -> None:
    queue.send(plan("a", "b", "handler", links=[Link(0, 1, Kind.VALUE), Link(0, 2, Kind.ERRBACK)]))
    queue.claim(1)
    queue.store.roster.rescue(queue.worker, None, queue.now)
    queue.worker = queue.add_worker()
    assert queue.state("b") == "FAILURE"
    assert queue.run() == "handler"


def test_a_worker_that_leaves_gives_back_what_it_holds(queue: Queue) -> None:
    queue.send("a", "b")
    queue.claim(2)
    assert queue.rows(f"SELECT 1 FROM litetq_task WHERE state = 3 AND worker = {queue.worker}")
    assert queue.store.roster.leave(queue.worker, queue.now) == 2
    assert queue.store.roster.workers() == []
    queue.worker = queue.add_worker()
    assert [d.attempts for d in queue.claim(2)] == [1, 1]


def test_a_worker_declared_dead_hears_it_at_its_next_beat(queue: Queue) -> None:
    assert queue.store.roster.beat(queue.worker)
    assert queue.store.roster.workers()[0].beats == 1
    queue.store.roster.rescue(queue.worker, None, queue.now)
    assert not queue.store.roster.beat(queue.worker)
    assert queue.add_worker() > queue.worker


# -- promote, expire, prune


def test_promote_makes_due_tasks_ready_a_piece_at_a_time(queue: Queue) -> None:
    queue.send(*(message(f"{n}", due_at=queue.now + n) for n in range(1, 6)))
    queue.now += 4
    assert queue.store.promote(queue.now, limit=3) == 3
    assert queue.store.promote(queue.now, limit=3) == 1
    assert queue.store.records.counts() == {"QUEUED": 4, "SCHEDULED": 1, "BLOCKED": 0, "CLAIMED": 0, "DONE": 0}


def test_waiting_tasks_whose_time_is_over_end_as_revoked(queue: Queue) -> None:
    ends = queue.now + 10
    queue.send(
        message("held", expires_at=ends), message("ready", expires_at=ends),
        message("later", expires_at=ends, due_at=queue.now + 99), message("for ever"),
    )  # fmt: skip
    held = queue.claim_one()
    assert queue.store.expire(queue.now) == 0
    queue.now += 10
    assert queue.store.expire(queue.now, limit=1) == 1
    assert queue.store.expire(queue.now) == 1
    assert [queue.read(id).reason for id in ("ready", "later")] == ["expired", "expired"]
    assert queue.settle(success(held)) == []
    assert queue.run() == "for ever"


@pytest.mark.row("3.expires")
def test_an_expired_task_is_not_handed_out(queue: Queue) -> None:
    queue.send(message("a", expires_at=queue.now + 1), "b")
    queue.now += 1
    assert ids(queue.claim(5)) == ["b"]
    assert (queue.state("a"), queue.read("a").reason) == ("REVOKED", "expired")


@pytest.mark.row("6.result_expires")
def test_results_go_when_their_time_is_over_and_their_space_with_them(queue: Queue) -> None:
    for n in range(200):
        queue.send(message(f"{n}", body=b"x" * 4_000))
    queue.run_all(lambda d: retry(d) if d.retries == 0 else failure(d, result=b"y" * 4_000))
    queue.close()
    full = queue.path.stat().st_size
    assert queue.store.records.prune(queue.now + 86_399) == 0
    queue.now += 86_400
    removed = 0
    while piece := queue.store.records.prune(queue.now, limit=50):
        removed += piece
    assert removed == 400  # each with the attempt that was retried
    assert (queue.count("result"), queue.count("attempt")) == (0, 0)
    while queue.store.records.give_space_back(100):
        pass
    queue.close()
    assert queue.path.stat().st_size < full / 5


def test_results_without_expiry_stay_for_ever(db: Path) -> None:
    queue = Queue(db, result_expires=None)
    queue.send("a")
    queue.run(retry)
    queue.run()
    assert queue.store.records.prune(queue.now + 1e12) == 0
    assert queue.state("a") == "SUCCESS"
    queue.close()


# -- revoke, purge, forget


def test_revoke_ends_what_waits_and_spares_what_runs_until_its_attempt_ends(queue: Queue) -> None:
    queue.send("running", "ready", message("later", due_at=queue.now + 9))
    held = queue.claim_one()
    assert queue.store.revoke(["running", "ready", "later"], "enough", queue.now) == 2
    assert [queue.state(id) for id in ("running", "ready", "later")] == ["CLAIMED", "REVOKED", "REVOKED"]
    assert queue.read("ready").reason == "enough"
    assert queue.rows(f"SELECT revoked FROM litetq_task WHERE claim = {held.claim}") == [("enough",)]
    assert queue.settle(success(held)) == []
    assert queue.state("running") == "SUCCESS"


@pytest.mark.parametrize("end", [retry, release, requeue])
def test_a_revoked_task_gets_no_further_attempt(queue: Queue, end: Any) -> None:
    queue.send("a")
    held = queue.claim_one()
    queue.store.revoke(["a"], "enough", queue.now)
    assert queue.settle(end(held)) == []
    assert (queue.state("a"), queue.read("a").reason) == ("REVOKED", "enough")


def test_a_revoked_task_of_a_dead_worker_is_not_run_again(queue: Queue) -> None:
    queue.send("a")
    queue.claim(1)
    queue.store.revoke(["a"], "enough", queue.now)
    queue.store.roster.rescue(queue.worker, frozenset(), queue.now)
    queue.worker = queue.add_worker()
    assert queue.claim(1) == []
    assert queue.state("a") == "REVOKED"


def test_a_task_revoked_before_it_came_ends_when_it_comes(queue: Queue) -> None:
    assert queue.store.revoke(["a", "b"], "enough", queue.now) == 0
    queue.send("a")
    queue.send(chain("x", "b", "c"))
    assert [queue.state(id) for id in ("a", "b", "c", "x")] == ["REVOKED", "REVOKED", "FAILURE", "QUEUED"]


def test_an_unknown_id_stays_revoked_for_three_hours(queue: Queue) -> None:
    queue.store.revoke(["a"], "enough", queue.now)
    queue.now += REVOKED_MEMORY_S
    queue.send("a")
    assert queue.state("a") == "QUEUED"
    assert queue.store.records.prune(queue.now) == 1


def test_purge_removes_what_waits_in_the_named_queues(queue: Queue) -> None:
    queue.send(
        message("a", queue="mail"), message("b", queue="mail", due_at=queue.now + 9), message("c", queue="other")
    )
    queue.send(message("running", queue="mail", priority=9))
    queue.claim(1)
    assert queue.store.purge(["mail", "unknown"], queue.now) == 2
    assert [queue.store.records.read(id) for id in "ab"] == [None, None]
    assert (queue.state("c"), queue.state("running")) == ("QUEUED", "CLAIMED")
    assert queue.store.purge(None, queue.now) == 1


def test_forget_removes_finished_results_only(queue: Queue) -> None:
    queue.send("a", "b")
    queue.run(retry)
    queue.run()
    assert queue.store.records.forget(["a", "b", "unknown"]) == 1
    assert queue.store.records.read("a") is None
    assert queue.store.records.attempts_of("a") == []
    assert queue.state("b") == "QUEUED"


# -- state and results


def test_a_running_task_shows_its_progress(queue: Queue) -> None:
    queue.send("a")
    held = queue.claim_one()
    assert queue.store.update_state("a", "PROGRESS", b"50", None, queue.now, claim=held.claim)
    record = queue.read("a")
    assert (record.state, record.place, record.result) == ("PROGRESS", "CLAIMED", b"50")
    assert (record.worker, record.reason) == ("w1@host", "a worker holds it")
    queue.now += 1
    assert queue.store.update_state("a", "STARTED", None, None, queue.now, claim=held.claim, started=True)
    assert queue.read("a").started_at == queue.now


@pytest.mark.row("6.states never overwrite a terminal one")
def test_a_late_worker_cannot_change_a_state(queue: Queue) -> None:
    queue.send("a")
    late = queue.claim_one()
    queue.settle(release(late))
    assert not queue.store.update_state("a", "PROGRESS", b"50", None, queue.now, claim=late.claim)
    assert queue.read("a").state == "PENDING"
    queue.run()
    assert not queue.store.update_state("a", "PROGRESS", b"50", None, queue.now, claim=late.claim)
    assert queue.state("a") == "SUCCESS"


def test_a_program_may_set_the_state_of_an_id_that_the_file_does_not_know(queue: Queue) -> None:
    assert queue.store.update_state("a", "PROGRESS", b"50", None, queue.now)
    assert queue.read("a").state == "PROGRESS"
    assert queue.store.records.prune(queue.now + 86_400) == 1


def test_every_place_says_why_the_task_waits(queue: Queue) -> None:
    queue.send(chain(message("ready", priority=1), "blocked"))
    queue.send(message("scheduled", due_at=queue.now + 1), message("held", priority=9))
    queue.claim(1)
    assert {id: queue.read(id).reason for id in ("ready", "scheduled", "blocked", "held")} == {
        "ready": "waits for a free worker",
        "scheduled": "waits until it is due",
        "blocked": "waits for another task",
        "held": "a worker holds it",
    }
    assert queue.store.records.counts() == {"QUEUED": 1, "SCHEDULED": 1, "BLOCKED": 1, "CLAIMED": 1, "DONE": 0}
    assert queue.store.has_unfinished(queue.now)
    assert not queue.store.has_unfinished(queue.now, frozenset({"other"}))
    assert queue.store.records.read_many(["ready", "held", "unknown"]).keys() == {"ready", "held"}
    assert queue.store.records.read("unknown") is None


def test_a_record_written_by_id_yields_to_a_newer_claim(queue: Queue) -> None:
    queue.store.records.store_record(Record("a", "SUCCESS", "DONE", b"1", done_at=queue.now), None, claim=5)
    queue.store.records.store_record(Record("a", "FAILURE", "DONE", b"2", done_at=queue.now), None, claim=4)
    assert queue.read("a").result == b"1"
    queue.store.records.store_record(Record("a", "SUCCESS", "DONE", b"3", done_at=queue.now), None, claim=6)
    queue.store.records.store_record(Record("a", "CUSTOM", "DONE", b"4", done_at=queue.now), None)
    assert (queue.read("a").state, queue.read("a").result) == ("CUSTOM", b"4")


def test_every_end_leaves_a_row_for_the_other_result_backend(db: Path) -> None:
    queue = Queue(db, projection="redis://elsewhere")
    queue.send(chain("a", "b"))
    queue.send("c", "d", message("e", expires_at=queue.now))
    queue.store.revoke(["d"], "enough", queue.now)
    a, c = queue.claim(5)
    queue.settle(failure(a), success(c))
    rows = queue.store.records.outbox()
    assert [(target, record.id, record.state, claim) for _, target, record, _, claim in rows] == [
        ("redis://elsewhere", "d", "REVOKED", None),
        ("redis://elsewhere", "e", "REVOKED", 3),
        ("redis://elsewhere", "c", "SUCCESS", c.claim),
        ("redis://elsewhere", "a", "FAILURE", a.claim),
        ("redis://elsewhere", "b", "FAILURE", None),
    ]
    assert {expires_at for *_, expires_at, _ in rows} == {queue.now + 86_400}
    assert queue.settle(success(a)) == [a.claim]
    assert len(queue.store.records.outbox()) == 5
    queue.store.records.relayed(rows[2][0])
    assert [record.id for _, _, record, _, _ in queue.store.records.outbox()] == ["a", "b"]
    queue.close()


def test_facts_about_the_file_can_be_kept_and_changed(queue: Queue) -> None:
    assert queue.store.get_meta("app") is None
    queue.store.set_meta("app", "one")
    queue.store.set_meta("app", "two")
    assert queue.store.get_meta("app") == "two"


def test_the_schema_refuses_rows_in_impossible_states(queue: Queue) -> None:
    queue.send("a")
    for change in (
        "state = 7", "state = 3", "claim = 5", "state = 1, due_at = NULL", "state = 2", "blockers = 1", "priority = -1",
    ):  # fmt: skip
        with pytest.raises(apsw.ConstraintError):
            queue.database.write(lambda tx, change=change: tx.execute(f"UPDATE litetq_task SET {change}").fetchall())  # type: ignore[misc]


def test_the_file_is_an_ordinary_sqlite_file_for_other_programs(queue: Queue) -> None:
    queue.send("a")
    queue.close()  # while it is open here, nobody else in this process may open it
    with sqlite3.connect(queue.path) as connection:
        assert connection.execute("SELECT id FROM litetq_task").fetchall() == [("a",)]
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    connection.close()
