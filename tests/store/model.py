"""What the file is meant to do, as plain Python: tasks, links, joins and results in dictionaries, no SQL, no cleverness.

Written from the contract, not from the store: where the store works through a list, this recurses, so that an order which
must not matter is shown not to matter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from litetq.message import SELF, Kind, Message, Plan

READY, SCHEDULED, BLOCKED, CLAIMED = range(4)


@dataclass
class Task:
    seq: int
    message: Message
    state: int
    due_at: float | None
    expires_at: float | None
    role: int = 0
    join: int | None = None
    attempts: int = 0
    retries: int = 0
    deliveries: int = 0
    claim: int | None = None
    worker: int | None = None
    input: Any = None
    revoked: str | None = None
    knotted: bool = False  # others wait for it, or waited once


@dataclass
class Group:
    members: list[int | None]  # seqs; None: filled, or a nested group
    nested: dict[int, int]  # place -> join
    values: list[Any]
    body: int | None
    outer: tuple[int, int] | None = None  # (join, place)
    open: set[int] = field(default_factory=set)  # places not yet filled


class Model:
    def __init__(self, redelivery_bound: int) -> None:
        self.bound = redelivery_bound
        self.tasks: dict[int, Task] = {}
        self.links: set[tuple[int, int, int]] = set()
        self.joins: dict[int, Group] = {}
        self.results: dict[str, tuple[str, int | None]] = {}  # id -> state, claim
        self.revoked: dict[str, str] = {}
        self.next_seq = self.next_join = self.next_claim = 1

    # -- verbs

    def send(self, plan: Plan, now: float, self_seq: int | None = None) -> list[int]:
        seqs = list(range(self.next_seq, self.next_seq + len(plan.messages)))
        self.next_seq += len(seqs)
        ids = list(range(self.next_join, self.next_join + len(plan.joins)))
        self.next_join += len(ids)
        for seq, m in zip(seqs, plan.messages, strict=True):
            later = m.due_at is not None and m.due_at > now
            self.tasks[seq] = Task(seq, m, SCHEDULED if later else READY, m.due_at, m.expires_at)
        origin: int | None
        for source, target, kind in plan.links:
            task = self.tasks[seqs[target]]
            task.state, task.role = BLOCKED, int(kind == Kind.ERRBACK)
            origin = self_seq if source == SELF else seqs[source]
            assert origin is not None
            self.links.add((origin, task.seq, kind))
            self.tasks[origin].knotted = True
        for id, join in zip(ids, plan.joins, strict=True):
            members = [seqs[m] if m >= 0 else None for m in join.members]
            nested = {place: ids[-2 - m] for place, m in enumerate(join.members) if m < 0}
            body = None if join.body is None else seqs[join.body]
            self.joins[id] = Group(members, nested, [None] * len(members), body, open=set(range(len(members))))
            if body is not None:
                self.tasks[body].state, self.tasks[body].join = BLOCKED, id
            for waited in [*members, body]:
                if waited is not None:
                    self.tasks[waited].knotted = True
        for id in ids:
            for place, inner in self.joins[id].nested.items():
                self.joins[inner].outer = (id, place)
        for id in ids:
            if id in self.joins and not self.joins[id].members:
                self.join_done(id, now)
        for m in plan.messages:
            if m.id in self.revoked:
                self.revoke_waiting(m.id, now)
        return seqs

    def claim(self, worker: int, free: int, now: float, queues: frozenset[str] | None) -> list[Task]:
        self.promote(now)
        ready = [t for t in self.tasks.values() if t.state == READY and (queues is None or t.message.queue in queues)]
        ready.sort(key=lambda t: (-t.message.priority, t.seq))
        started = []
        for task in ready[:free]:
            task.state, task.claim, task.worker = CLAIMED, self.next_claim, worker
            task.attempts += 1
            self.next_claim += 1
        for task in ready[:free]:
            if task.revoked is not None or (task.expires_at is not None and task.expires_at <= now):
                self.end(task, "REVOKED", now)
            else:
                started.append(task)
        return started

    def complete(self, task: Task, value: bytes, now: float, state: str = "SUCCESS") -> None:
        self.end(task, state, now, value=(None, value) if state == "SUCCESS" else None)

    def retry(self, task: Task, due_at: float | None, now: float) -> None:
        if task.revoked is not None:
            self.end(task, "REVOKED", now)
            return
        task.retries += 1
        task.state = SCHEDULED if due_at is not None and due_at > now else READY
        task.due_at = due_at
        task.claim = task.worker = None

    def release(self, task: Task) -> None:
        task.state, task.claim, task.worker = READY, None, None
        task.attempts -= 1

    def redeliver(self, task: Task, now: float) -> bool:
        task.deliveries += 1
        if task.deliveries > self.bound:
            self.end(task, "FAILURE", now)
            return False
        task.state, task.claim, task.worker = READY, None, None
        return True

    def replace(self, task: Task, plan: Plan, now: float) -> None:
        if task.revoked is not None:
            self.end(task, "REVOKED", now)
            return
        seqs = self.send(plan, now, task.seq)
        heir = seqs[-1]
        self.tasks[heir].knotted |= task.knotted
        for source, target, kind in list(self.links):
            if source == task.seq:
                self.links.remove((source, target, kind))
                self.links.add((heir, target, kind))
                if kind == Kind.ERRBACK:
                    self.links |= {(seq, target, kind) for seq in seqs[:-1]}  # here: a chain of steps before the heir
        for join in self.joins.values():
            join.members = [heir if member == task.seq else member for member in join.members]
        if task.join is not None:
            self.drop_join(task.join)
        del self.tasks[task.seq]

    def rescue(
        self, worker: int, begun: set[int], late: str, now: float
    ) -> tuple[list[str], list[str], list[str], list[str]]:
        found: tuple[list[str], list[str], list[str], list[str]] = ([], [], [], [])
        for task in [t for t in self.tasks.values() if t.worker == worker]:
            if task.claim not in begun:
                self.release(task)
                found[0].append(task.message.id)
            elif task.message.name == late:
                found[1 if self.redeliver(task, now) else 3].append(task.message.id)
            else:
                found[2].append(task.message.id)
                self.end(task, "FAILURE", now)
        return found

    def promote(self, now: float) -> int:
        due = [t for t in self.tasks.values() if t.state == SCHEDULED and t.due_at is not None and t.due_at <= now]
        for task in due:
            task.state = READY
        return len(due)

    def expire(self, now: float) -> int:
        over = [
            t for t in self.tasks.values() if t.state != CLAIMED and t.expires_at is not None and t.expires_at <= now
        ]
        over.sort(key=lambda t: (t.expires_at, t.seq))
        return sum(self.end_waiting(task, now) for task in over)

    def revoke(self, id: str, reason: str, now: float) -> int:
        held = [t for t in self.tasks.values() if t.message.id == id and t.state == CLAIMED]
        ended = self.revoke_waiting(id, now)
        for task in held:
            task.revoked = reason
        if not ended and not held and id not in self.results:
            self.revoked[id] = reason
        return ended

    def revoke_waiting(self, id: str, now: float) -> int:
        waiting = [t for t in self.tasks.values() if t.message.id == id and t.state != CLAIMED]
        return sum(self.end_waiting(task, now) for task in waiting)

    def purge(self, queues: frozenset[str], now: float) -> int:
        waiting = [t for t in self.tasks.values() if t.message.queue in queues and t.state in (READY, SCHEDULED)]
        knotted = [t for t in waiting if t.knotted]
        for task in waiting:
            if task not in knotted:
                del self.tasks[task.seq]
        for task in knotted:
            self.end_waiting(task, now)
        return len(waiting)

    # -- ends, and what follows

    def end_waiting(self, task: Task, now: float) -> bool:
        if task.seq not in self.tasks:
            return False
        self.links = {link for link in self.links if link[1] != task.seq}
        self.end(task, "REVOKED", now)
        return True

    def end(self, task: Task, state: str, now: float, value: Any = None, fires: bool = True) -> None:
        del self.tasks[task.seq]
        known = self.results.get(task.message.id)
        if not (known and known[1] is not None and task.claim is not None and known[1] > task.claim):
            self.results[task.message.id] = (state, task.claim)
        if task.join is not None:
            self.drop_join(task.join)
        succeeded = state == "SUCCESS"
        for link in sorted(self.links):
            if link[0] != task.seq or link not in self.links:
                continue
            self.links.remove(link)
            waiting = self.tasks[link[1]]
            if link[2] == Kind.ERRBACK:
                if not succeeded and fires:
                    self.links = {other for other in self.links if other[1] != waiting.seq}
                    waiting.input = task.message.id
                    self.unblock(waiting, now)
                elif not self.watches(waiting.seq):
                    self.doom(waiting.seq)
            elif succeeded:
                if link[2] == Kind.VALUE:
                    waiting.input = value
                if not self.watches(waiting.seq):
                    self.unblock(waiting, now)
            else:
                self.fail(waiting, now, fires=False)
        for id in list(self.joins):
            join = self.joins.get(id)
            if join is None or task.seq not in join.members:
                continue
            if succeeded:
                place = join.members.index(task.seq)
                join.members[place], join.values[place] = None, value
                join.open.remove(place)
                if not join.open:
                    self.join_done(id, now)
            else:
                body = self.body_of(id)
                self.fail(self.tasks[body], now, fires=True)

    def fail(self, task: Task, now: float, fires: bool) -> None:
        self.links = {link for link in self.links if link[1] != task.seq}
        self.end(task, "FAILURE", now, fires=fires)

    def watches(self, seq: int) -> bool:
        return any(target == seq for _, target, _ in self.links)

    def unblock(self, task: Task, now: float) -> None:
        m = task.message
        if m.delay is not None:
            task.due_at = now + m.delay
        if m.lifetime is not None:
            task.expires_at = now + m.lifetime
        task.state = SCHEDULED if task.due_at is not None and task.due_at > now else READY

    def doom(self, seq: int) -> None:
        """Forget an errback that can never be needed, with all that waits for it."""
        task = self.tasks.pop(seq, None)
        if task is None:
            return
        behind = [link for link in self.links if link[0] == seq]
        self.links = {link for link in self.links if seq not in link[:2]}
        for _, target, kind in behind:
            if kind != Kind.ERRBACK or not self.watches(target):
                self.doom(target)
        for id in [id for id, join in self.joins.items() if seq in join.members]:
            if id in self.joins:
                self.doom(self.body_of(id))
        if task.join is not None:
            self.drop_join(task.join)

    def join_done(self, id: int, now: float) -> None:
        join = self.joins[id]
        if join.outer is not None:
            outer = self.joins[join.outer[0]]
            outer.open.remove(join.outer[1])
            if not outer.open:
                self.join_done(join.outer[0], now)
        elif join.body is not None:
            self.unblock(self.tasks[join.body], now)

    def body_of(self, id: int) -> int:
        join = self.joins[id]
        while join.outer is not None:
            join = self.joins[join.outer[0]]
        assert join.body is not None
        return join.body

    def drop_join(self, id: int) -> None:
        for inner in self.joins.pop(id).nested.values():
            self.drop_join(inner)

    def values_of(self, id: int) -> list[Any]:
        join = self.joins[id]
        return [
            self.values_of(join.nested[place]) if place in join.nested else value
            for place, value in enumerate(join.values)
        ]
