"""Whatever befalls workflows, one thing after another, nothing hangs in the air, and all that waits comes to an end.

Where `test_model.py` compares each step with a model, this plays what the model does not know: tasks that bring and cut what
waits for them, replacements by whole workflows, errbacks of errbacks, and failed ones that run again, over and over.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from litetq.exceptions import NotOnRecord
from litetq.message import SELF, Delivery, Disposition, Join, Kind, Link, Message, Outcome, Plan
from tests.factories import (
    Queue,
    assert_sound,
    error,
    failure,
    interrupt,
    message,
    outcome,
    release,
    requeue,
    retry,
    success,
)

AFTER_SUCCESS = (Kind.VALUE, Kind.VALUE, Kind.AFTER)
KINDS = (Kind.VALUE, Kind.AFTER, Kind.ERRBACK)
STEPS = ("settle",) * 14 + ("send", "again") * 3 + ("revoke", "time") * 2 + ("forbid", "expire", "purge", "rescue")
ENDS = (
    ("success",) * 7 + ("replace", "failure") * 2
    + ("brings", "fails and brings", "retries and brings", "extends", "ignored", "retry", "later", "release", "requeue", "interrupt")
)  # fmt: skip


class Play:
    def __init__(self, queue: Queue, seed: int) -> None:
        self.queue = queue
        self.draw = random.Random(seed)
        self.ids = (f"t{n}" for n in range(10_000))
        self.held: list[Delivery] = []

    # -- workflows

    def workflow(self, size: int = 6) -> Plan:
        """Return tasks that wait for each other; errbacks of them, each with steps of its own; and errbacks of those."""
        draw = self.draw
        count = draw.randint(1, size)
        links: list[Link] = []
        joins: list[Join] = []
        for place in range(1, count):
            how = draw.choice(("alone", "link", "link", "links", "join", "nested"))
            some = sorted(draw.sample(range(place), draw.randint(1, place)))
            cut = draw.randint(0, len(some))
            if how == "link":
                links.append(Link(some[0], place, draw.choice(AFTER_SUCCESS)))
            elif how == "links":
                links += [Link(source, place, Kind.AFTER) for source in some]
            elif how == "join":
                joins.append(Join(tuple(some[cut:]), place))
            elif how == "nested":
                joins += [Join((*some[:cut], -3 - len(joins)), place), Join(tuple(some[cut:]), None)]
        watchable = [list(range(count))]
        for _ in range(draw.choice((0, 0, 1, 2, 3))):
            watched = draw.choice(watchable)
            steps = [count]
            links += [Link(place, count, Kind.ERRBACK) for place in draw.sample(watched, min(len(watched), 2))]
            while draw.random() < 0.4:
                links.append(Link(steps[-1], steps[-1] + 1, draw.choice(AFTER_SUCCESS)))
                steps.append(steps[-1] + 1)
            count += len(steps)
            watchable.append(steps)
        return Plan(tuple(self.message() for _ in range(count)), tuple(links), tuple(joins))

    def message(self) -> Message:
        times = [self.queue.now + self.draw.randint(0, 20) if self.draw.random() < 0.1 else None for _ in range(2)]
        return message(
            next(self.ids),
            name=self.draw.choice(("tasks.work", "tasks.late")),
            queue=self.draw.choice("ab"),
            due_at=times[0],
            expires_at=times[1],
        )

    def brought(self, delivery: Delivery) -> Plan:
        """Return a workflow that a task brings at its end, and what it takes off that waits for it."""
        plan = self.workflow(3)
        waiting = {link.target for link in plan.links} | {join.body for join in plan.joins}
        free = [place for place in range(len(plan.messages)) if place not in waiting]
        behind = self.queue.rows(
            "SELECT id FROM litetq_task WHERE seq IN (SELECT target FROM litetq_any_link WHERE source = ?1) ORDER BY seq",
            delivery.seq,
        )
        return plan._replace(
            links=(*plan.links, *(Link(SELF, place, self.draw.choice(KINDS)) for place in free)),
            cuts=tuple(id for (id,) in behind if self.draw.random() < 0.3),
        )

    def replacement(self, id: str) -> Plan:
        """Return a workflow whose last message has this id; what it links to the task stands before that."""
        plan = self.workflow(3)
        blocked_by = {link.target for link in plan.links} | {join.body for join in plan.joins}
        used = {link.source for link in plan.links} | {member for join in plan.joins for member in join.members}
        heir = next((place for place in range(len(plan.messages)) if place not in used), None)
        if heir is None or any(link.target == heir and link.kind == Kind.ERRBACK for link in plan.links):
            return Plan((message(id),))
        order = [place for place in range(len(plan.messages)) if place != heir] + [heir]
        to = {old: new for new, old in enumerate(order)} | {None: None}
        messages = [plan.messages[old] for old in order]
        callbacks = [to[place] for place in used - blocked_by if place >= 0 and not self.leads_to(plan, place, heir)]
        return Plan(
            (*messages[:-1], messages[-1]._replace(id=id)),
            (
                *(Link(to[link.source], to[link.target], link.kind) for link in plan.links),
                *(Link(SELF, place, self.draw.choice(KINDS)) for place in callbacks),
            ),
            tuple(Join(tuple(to.get(m, m) for m in join.members), to[join.body]) for join in plan.joins),
        )

    def leads_to(self, plan: Plan, place: int, end: int) -> bool:
        """Return whether the end may wait for this place; of a plan with joins it may."""
        reached = {place}
        for link in plan.links:  # made in the order of their targets
            reached |= {link.target} if link.source in reached else set()
        return bool(plan.joins) or end in reached

    # -- steps

    def settle(self) -> None:
        self.draw.shuffle(self.held)
        ending, self.held = self.held[:3], self.held[3:]
        outcomes = [self.end(delivery) for delivery in ending]
        queues = self.draw.choice((None, None, frozenset("a")))
        self.held += self.queue.take(self.draw.randint(0, 4), *outcomes, queues=queues).deliveries

    def end(self, delivery: Delivery) -> Outcome:
        how = self.draw.choice(ENDS)
        simple: dict[str, Any] = {"success": success, "failure": failure, "retry": retry, "release": release,
                                  "requeue": requeue, "interrupt": interrupt}  # fmt: skip
        if how in simple:
            made: Outcome = simple[how](delivery)
            return made
        if how == "brings":
            return success(delivery, plan=self.brought(delivery))
        if how == "fails and brings":
            return failure(delivery, plan=self.brought(delivery))
        if how == "retries and brings":
            return retry(delivery, plan=self.brought(delivery))
        if how == "later":
            return retry(delivery, due_at=self.queue.now + 5)
        if how == "ignored":
            return outcome(delivery, Disposition.IGNORE, "IGNORED", result=error("Ignore"))
        if how == "replace":
            return outcome(delivery, Disposition.REPLACE, "PENDING", plan=self.replacement(delivery.id))
        further = Plan((self.message(),), (), (Join((0,), SELF),))
        return success(delivery, plan=further)

    def step(self, how: str) -> None:
        queue, now, known = self.queue, self.queue.now, self.known()
        if how == "settle":
            self.settle()
        elif how == "send":
            queue.send(self.workflow())
        elif how == "revoke" and known:
            queue.store.revoke(self.draw.sample(known, 1), "enough", now)
        elif how == "forbid":
            queue.store.revoke([f"t{int(next(self.ids)[1:]) + 2}"], "enough", now)
        elif how == "expire":
            queue.store.expire(now)
        elif how == "purge":
            queue.store.purge(["a"], now)
        elif how == "time":
            queue.now += self.draw.randint(1, 12)
            queue.store.promote(queue.now)
        elif how == "again":
            self.run_again(1 + self.draw.randrange(3))
        elif how == "rescue":
            begun = frozenset(delivery.claim for delivery in self.held if self.draw.random() < 0.6)
            queue.store.roster.rescue(queue.worker, begun, now)
            self.held, queue.worker = [], queue.add_worker()
            queue.store.roster.set_late(queue.worker, ["tasks.late"])

    def known(self) -> list[str]:
        rows = self.queue.rows("SELECT id FROM litetq_task UNION SELECT id FROM litetq_result ORDER BY 1")
        return [id for (id,) in rows]

    def run_again(self, at_most: int) -> int:
        ids = [id for (id,) in self.queue.rows("SELECT id FROM litetq_result WHERE state <> 'SUCCESS' ORDER BY id")]
        try:
            return self.queue.store.run_again(self.draw.sample(ids, min(at_most, len(ids))), self.queue.now)
        except NotOnRecord:
            return 0  # a purged task, for one, has left nothing

    def finish(self) -> None:
        """Let all that is there succeed."""
        self.queue.settle(*map(success, self.held))
        self.held = []
        for _ in range(200):
            self.queue.now += 30
            self.queue.store.promote(self.queue.now)
            self.queue.run_all()
            if not self.queue.rows("SELECT 1 FROM litetq_task WHERE state IN (0, 1) LIMIT 1"):
                return


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in (1, 2))])
def test_after_any_sequence_nothing_hangs_in_the_air_and_all_ends(tmp_path: Path, part: int) -> None:
    for seed in range(part * 300, part * 300 + (60 if part == 0 else 300)):
        queue = Queue(tmp_path / f"{seed}.sqlite", redelivery_bound=2)
        play = Play(queue, seed)
        for _ in range(50):
            step = play.draw.choice(STEPS)
            play.step(step)
            assert_sound(queue, f"seed {seed}, {step}")
        for _ in range(3):
            play.finish()
            left = [table for table in ("task", "link", "join", "part") if queue.count(table)]
            assert not left, f"seed {seed}: {queue.rows('SELECT seq, id, state, blockers FROM litetq_task')}"
            assert_sound(queue, f"seed {seed}, at its end")
            play.run_again(1_000)
        queue.close()
