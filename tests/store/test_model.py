"""Whatever sequence of verbs is played, the file agrees with a small model of what it is meant to do."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from litetq.message import Delivery, Disposition, Join, Kind, Link, Message, Outcome, Plan
from tests.factories import Queue, assert_sound, chain, error, failure, outcome, release, requeue, retry, success, value
from tests.store.model import CLAIMED, READY, Model, Task

LATE = "tasks.late"
BOUND = 2
QUEUES = ("a", "b")


@st.composite
def plans(draw: st.DrawFn, *, timed: bool = True) -> Plan:
    """Single tasks, and workflows of every shape that a canvas can take: links, joins, joins in joins, errbacks.

    Each message may have times of its own, or only one of them, if they are not `timed`.
    """
    count = draw(st.integers(1, 5))
    links: list[Link] = []
    joins: list[Join] = []
    for place in range(1, count):
        how = draw(st.sampled_from(["alone", "link", "link", "links", "join", "nested"]))
        before = st.integers(0, place - 1)
        if how == "link":
            links.append(Link(draw(before), place, draw(st.sampled_from([Kind.VALUE, Kind.AFTER]))))
        elif how == "links":
            links += [Link(source, place, Kind.AFTER) for source in draw(st.sets(before, min_size=1))]
        elif how == "join":
            joins.append(Join(tuple(sorted(draw(st.sets(before)))), place))
        elif how == "nested":
            members = sorted(draw(st.sets(before)))
            cut = draw(st.integers(0, len(members)))
            at = len(joins)
            outer = (*members[:cut], -2 - (at + 1))
            inner: tuple[int, ...] = tuple(members[cut:])
            joins.append(Join(outer, place))
            if draw(st.booleans()):
                joins += [Join((*inner, -2 - (at + 2)), None), Join((), None)]
            else:
                joins.append(Join(inner, None))
    errbacks: list[int] = []
    for _ in range(draw(st.integers(0, 2))):
        watched = draw(st.sets(st.sampled_from([*range(count - len(errbacks)), *errbacks]), min_size=1))
        links += [Link(source, count, Kind.ERRBACK) for source in watched]
        errbacks.append(count)
        count += 1
    if bool(errbacks) and draw(st.booleans()):
        joins.append(Join(tuple(errbacks), count))
        count += 1
    elif bool(errbacks) and draw(st.booleans()):
        links.append(Link(errbacks[-1], count, Kind.VALUE))
        count += 1
    blocked = {link.target for link in links} | {join.body for join in joins}
    has_times = [timed] * count
    if not timed:
        has_times[draw(st.integers(0, count - 1))] = True
    made = [draw(messages(place in blocked, timed=has_times[place])) for place in range(count)]
    return Plan(tuple(made), tuple(links), tuple(joins))


@st.composite
def messages(draw: st.DrawFn, blocked: bool, *, timed: bool = True) -> Message:
    soon = st.none() | st.none() | st.integers(0, 20).map(float) if timed else st.none()
    return Message(
        id="",  # given when it is sent
        name=draw(st.sampled_from(["tasks.early", LATE])),
        body=b"[[], {}]",
        queue=draw(st.sampled_from(QUEUES)),
        priority=draw(st.integers(0, 2)),
        due_at=draw(soon),
        expires_at=draw(soon),
        delay=draw(soon) if blocked else None,
        lifetime=draw(soon) if blocked else None,
    )


ENDS = ["success", "success", "success", "failure", "ignore", "retry", "retry later", "release", "requeue", "replace"]


class StoreAgainstModel(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="litetq-model-"))
        self.queue = Queue(self.folder / "jobs.sqlite", redelivery_bound=BOUND)
        self.queue.store.roster.set_late(self.queue.worker, [LATE])
        self.model = Model(BOUND)
        self.held: list[Delivery] = []
        self.stale: list[Outcome] = []
        self.claims: set[int] = set()
        self.sent = 0

    def teardown(self) -> None:
        self.queue.close()
        shutil.rmtree(self.folder)

    # -- rules

    def numbered(self, plan: Plan, ids: list[str] | None = None) -> Plan:
        """Give the messages ids, and times that count from now."""
        now, made = self.queue.now, []
        for place, m in enumerate(plan.messages):
            self.sent += 1
            made.append(
                m._replace(
                    id=ids[place] if ids else f"id-{self.sent}",
                    due_at=None if m.due_at is None else now + m.due_at,
                    expires_at=None if m.expires_at is None else now + m.expires_at,
                )
            )
        return plan._replace(messages=tuple(made))

    @rule(plan=plans())
    def send(self, plan: Plan) -> None:
        self.send_now(self.numbered(plan))

    @rule(message=messages(blocked=False), which=st.integers(1, 30))
    def send_a_known_or_future_id(self, message: Message, which: int) -> None:
        self.send_now(self.numbered(Plan((message,)), [f"id-{which}"]))

    def send_now(self, plan: Plan) -> None:
        self.model.send(plan, self.queue.now)
        self.queue.send(plan)

    @rule(seconds=st.integers(1, 15))
    def time_passes(self, seconds: int) -> None:
        self.queue.now += seconds

    @rule(free=st.integers(1, 6), queues=st.none() | st.sampled_from(QUEUES))
    def claim(self, free: int, queues: str | None) -> None:
        only = None if queues is None else frozenset({queues})
        expected = self.model.claim(self.queue.worker, free, self.queue.now, only)
        found, _ = self.queue.store.probe(self.queue.now, only)
        claimed = self.queue.claim(free, queues=only)
        assert found or not claimed
        self.check_claimed(claimed, expected)
        self.held += claimed

    def check_claimed(self, claimed: list[Delivery], expected: list[Task]) -> None:
        assert [(d.claim, d.seq, d.id) for d in claimed] == [(t.claim, t.seq, t.message.id) for t in expected]
        for delivery, task in zip(claimed, expected, strict=True):
            assert delivery.claim not in self.claims
            self.claims.add(delivery.claim)
            seen = (delivery.role, delivery.attempts, delivery.retries, delivery.deliveries, delivery.eta)
            assert seen == (task.role, task.attempts, task.retries, task.deliveries, task.due_at)
            if task.join is not None:
                assert delivery.input == self.model.values_of(task.join)
            elif task.role:
                assert json.loads(delivery.input[1])["id"] in self.model.results
            else:
                assert delivery.input == task.input

    @precondition(lambda self: self.held)
    @rule(data=st.data(), ends=st.lists(st.sampled_from(ENDS), min_size=1, max_size=4), late=st.booleans())
    def settle(self, data: st.DataObject, ends: list[str], late: bool) -> None:
        outcomes = self.end_some(data, ends)
        stale = self.stale[-1:] if late else []
        assert self.queue.settle(*outcomes, *stale) == [o.claim for o in stale]
        self.stale += outcomes

    def work(self, data: st.DataObject, queues: str | None) -> None:
        """End what is held, and claim, in one transaction, as a worker does."""
        only = None if queues is None else frozenset({queues})
        free = data.draw(st.integers(1, 4))
        before = self.ready()
        count = len(self.held)
        ends = data.draw(st.lists(st.sampled_from(["success"] * 20 + ENDS), min_size=count, max_size=count))
        outcomes = self.end_some(data, ends)
        expected = self.model.claim(self.queue.worker, free, self.queue.now, only)
        taken = self.queue.take(free, *outcomes, queues=only)
        assert taken.lost == []
        assert taken.more or not self.ready() - before  # others are woken for what nobody has seen yet
        self.check_claimed(taken.deliveries, expected)
        self.held += taken.deliveries

    def ready(self) -> set[int]:
        return {t.seq for t in self.model.tasks.values() if t.state == READY}

    def end_some(self, data: st.DataObject, ends: list[str]) -> list[Outcome]:
        """End some of what is held, in the model, and return with which outcomes; the store settles plain ones first."""
        outcomes = []
        for end in ends[: len(self.held)]:
            delivery = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
            outcomes.append(self.end_one(delivery, end, data))
        return outcomes

    def end_one(self, delivery: Delivery, end: str, data: st.DataObject) -> Outcome:
        model, now, task = self.model, self.queue.now, self.model.tasks[delivery.seq]
        if end == "success":
            model.complete(task, value(delivery.claim), now)
            return success(delivery, delivery.claim)
        if end == "failure":
            model.complete(task, b"", now, state="FAILURE")
            return failure(delivery)
        if end == "ignore":
            model.complete(task, b"", now, state="IGNORED")
            return outcome(delivery, Disposition.IGNORE, "IGNORED", result=error("Ignore"))
        if end.startswith("retry"):
            due_at = now + 5 if end == "retry later" else None
            model.retry(task, due_at, now)
            return retry(delivery, due_at=due_at)
        if end == "replace":
            steps = [f"{delivery.id}-{self.sent}-{n}" for n in range(data.draw(st.integers(0, 2)))]
            plan = self.numbered(chain(*steps, delivery.id), [*steps, delivery.id])
            model.replace(task, plan, now)
            return outcome(delivery, Disposition.REPLACE, "PENDING", plan=plan)
        if task.revoked is not None:
            model.end(task, "REVOKED", now)
        elif end == "release":
            model.release(task)
        else:
            model.redeliver(task, now)
        return release(delivery) if end == "release" else requeue(delivery)

    @rule(which=st.integers(1, 30))
    def revoke(self, which: int) -> None:
        id = f"id-{which}"
        ended = self.model.revoke(id, "enough", self.queue.now)
        assert self.queue.store.revoke([id], "enough", self.queue.now) == ended

    @rule()
    def expire(self) -> None:
        assert self.queue.store.expire(self.queue.now) == self.model.expire(self.queue.now)

    @rule()
    def promote(self) -> None:
        assert self.queue.store.promote(self.queue.now) == self.model.promote(self.queue.now)

    @rule(queue=st.sampled_from(QUEUES))
    def purge(self, queue: str) -> None:
        assert self.queue.store.purge([queue], self.queue.now) == self.model.purge(frozenset({queue}), self.queue.now)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def the_worker_dies(self, data: st.DataObject) -> None:
        begun = data.draw(st.sets(st.sampled_from([d.claim for d in self.held])))
        expected = self.model.rescue(self.queue.worker, begun, LATE, self.queue.now)
        assert self.queue.store.roster.rescue(self.queue.worker, frozenset(begun), self.queue.now) == expected
        self.stale += [success(delivery) for delivery in self.held]
        self.held = []
        self.queue.worker = self.queue.add_worker()
        self.queue.store.roster.set_late(self.queue.worker, [LATE])

    @rule()
    def the_file_is_opened_again(self) -> None:
        self.queue.close()
        self.model.next_claim = self.queue.rows("SELECT value + 1 FROM litetq_counter")[0][0]  # set ahead

    @precondition(lambda self: self.stale)
    @rule()
    def all_late_workers_lose(self) -> None:
        assert self.queue.settle(*self.stale) == [o.claim for o in sorted(self.stale, key=lambda o: not is_plain(o))]

    # -- what must be true after each

    @invariant()
    def the_file_agrees_with_the_model(self) -> None:
        columns = (
            "seq, id, state, priority, attempts, retries, deliveries, due_at, expires_at, claim, worker, role, revoked"
        )
        assert self.queue.rows(f"SELECT {columns} FROM litetq_task ORDER BY seq") == [
            (
                t.seq, t.message.id, t.state, t.message.priority, t.attempts, t.retries, t.deliveries, t.due_at, t.expires_at,
                t.claim, t.worker, t.role, t.revoked,
            )
            for t in sorted(self.model.tasks.values(), key=lambda t: t.seq)
        ]  # fmt: skip
        assert set(self.queue.rows("SELECT source, target, kind FROM litetq_any_link")) == self.model.links
        assert {row[0] for row in self.queue.rows("SELECT id FROM litetq_join")} == self.model.joins.keys()
        results = {
            id: (state, claim) for id, state, claim in self.queue.rows("SELECT id, state, claim FROM litetq_result")
        }
        assert results == self.model.results
        assert {d.seq for d in self.held} == {t.seq for t in self.model.tasks.values() if t.state == CLAIMED}

    @invariant()
    def nothing_hangs_in_the_air(self) -> None:
        assert_sound(self.queue)


def is_plain(o: Outcome) -> bool:
    """The store settles such outcomes first, all together."""
    final = (Disposition.COMPLETE, Disposition.FAIL, Disposition.REVOKE, Disposition.IGNORE)
    return o.disposition in final and not o.linked and o.plan is None


def play(examples: int, steps: int) -> None:
    quiet: list[Any] = list(HealthCheck)
    run_state_machine_as_test(
        StoreAgainstModel,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, database=None, suppress_health_check=quiet
        ),
    )


def test_the_file_does_what_the_model_says() -> None:
    play(examples=100, steps=25)


@given(st.data())
@settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_a_worker_that_settles_and_claims_at_once_gets_what_the_model_says(data: st.DataObject) -> None:
    """Tasks that are handed over, and those that cannot be, because others come first or nobody here may run them."""
    machine = StoreAgainstModel()
    machine.begin()
    try:
        queues = data.draw(st.sampled_from([None, None, *QUEUES]))
        for plan in data.draw(st.lists(plans(timed=False), min_size=1, max_size=3)):
            machine.send_now(machine.numbered(plan))
        for _ in range(8):
            machine.work(data, queues)
            machine.the_file_agrees_with_the_model()
            machine.nothing_hangs_in_the_air()
    finally:
        machine.teardown()


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("part", range(4))  # side by side
def test_the_file_does_what_the_model_says_for_long(part: int) -> None:
    play(examples=300, steps=50)
