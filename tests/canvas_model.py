"""Random canvases, and a small model of what they do: which tasks run, which errbacks, and what comes out.

A canvas is drawn as a tree of nodes. `signature_of` makes litetq's canvas of it, `Expected` works out by hand what must happen.
Each task notes its number in a ledger when it runs.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from litetq import LiteTQ, chain, chord, group

FAILED = "failed"


@dataclass
class Node:
    kind: str  # ok, fail, retry, replace, revoked; chain, group, chord
    number: int = 0
    parts: list[Node] = field(default_factory=list)  # of a chain or group; header and body of a chord; the replacement
    link: int | None = None
    errback: int | None = None


def total(value: Any) -> int:
    return sum(map(total, value)) if isinstance(value, list) else value


def register(
    app: LiteTQ, ledger: Callable[[int], None], is_mended: Callable[[], bool] = lambda: False
) -> SimpleNamespace:
    """Give the tasks to an app; each calls `ledger` with its number. Where all is mended, none fails."""

    @app.task(name="model.ok")
    def ok(*args: Any) -> int:
        *values, number = args
        ledger(number)
        return total(values) + number

    @app.task(name="model.fail")
    def fail(*args: Any) -> int:
        *values, number = args
        ledger(number)
        if not is_mended():
            raise ValueError(number)
        return total(values) + number

    @app.task(name="model.retry", bind=True)
    def retry(self: Any, *args: Any) -> int:
        *values, number = args
        ledger(number)
        if self.request.retries == 0:
            raise self.retry(countdown=0)
        return total(values) + number

    @app.task(name="model.replace", bind=True)
    def replace(self: Any, *args: Any) -> None:
        *_, number, sig = args
        ledger(number)
        raise self.replace(app.signature(sig))

    @app.task(name="model.caught")
    def caught(number: int) -> None:
        ledger(number)

    return SimpleNamespace(ok=ok, fail=fail, retry=retry, replace=replace, caught=caught)


class Drawing:
    """Draws random canvases; numbers are never used twice."""

    def __init__(self, seed: int, *, revoked: bool = True) -> None:
        self.random = random.Random(seed)
        self.revoked = revoked
        self._number = 0

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def whole(self) -> Node:
        """Return a canvas; in one of which a task is revoked, nothing has errbacks."""
        node = self.canvas()
        if node.kind == "chord" and node.parts[1].kind == "group" and self.random.random() < 0.5:
            node.parts[1].errback = self.next_number()
        return without_errbacks(node) if revoked_ids(node) else node

    def canvas(self, depth: int = 3) -> Node:
        kind = self.random.choice(["leaf", "chain", "chain", "group", "chord", "chord"]) if depth else "leaf"
        if kind == "leaf":
            return self._leaf(depth)
        errback = self.next_number() if self.random.random() < 0.3 and kind == "chain" else None
        if kind == "chord":
            return Node("chord", parts=[self._group(depth - 1), self.canvas(depth - 1)])
        if kind == "group":
            return self._group(depth)
        count = self.random.randint(2, 4)
        return Node("chain", parts=[self.canvas(depth - 1) for _ in range(count)], errback=errback)

    def _group(self, depth: int) -> Node:
        count = self.random.randint(2, 3)
        return Node("group", parts=[self.canvas(max(0, depth - 1)) for _ in range(count)])

    def _leaf(self, depth: int) -> Node:
        kinds = ["ok"] * 12 + ["fail", "retry", "replace"] + (["revoked"] if self.revoked else [])
        kind = self.random.choice(kinds)
        node = Node(kind, self.next_number())
        if kind == "replace":
            node.parts = [self.canvas(max(0, depth - 1))]
            while node.parts[0].kind == "group":  # one value, so that the model stays small
                node.parts = [self.canvas(max(0, depth - 1))]
            _allow(node.parts[0])
        if self.random.random() < 0.2:
            node.link = self.next_number()
        if self.random.random() < 0.3:
            node.errback = self.next_number()
        return node


def _allow(node: Node) -> None:
    """Revoke nothing in a replacement: its last task takes over another id."""
    if node.kind == "revoked":
        node.kind = "ok"
    for part in node.parts:
        _allow(part)


def without_errbacks(node: Node) -> Node:
    """Take all errbacks off: what is revoked ends before its turn, and whose errbacks are called then is another story."""
    node.errback = None
    for part in node.parts:
        without_errbacks(part)
    return node


def mended(node: Node) -> Node:
    """Return the canvas as it is when nothing in it fails."""
    kind = "ok" if node.kind in ("fail", "revoked") else node.kind
    return Node(kind, node.number, [mended(part) for part in node.parts], node.link, node.errback)


def numbers_of(node: Node, kind: str) -> list[int]:
    own = [node.number] if node.kind == kind else []
    return own + [number for part in node.parts for number in numbers_of(part, kind)]


def revoked_ids(node: Node) -> list[str]:
    own = [f"revoked-{node.number}"] if node.kind == "revoked" else []
    return own + [id for part in node.parts for id in revoked_ids(part)]


def signature_of(node: Node, t: SimpleNamespace) -> Any:
    if node.kind == "group":
        members = group([signature_of(part, t) for part in node.parts])
        return members if node.errback is None else members.set(link_error=t.caught.si(node.errback))
    if node.kind == "chord":
        return chord(signature_of(node.parts[0], t), signature_of(node.parts[1], t))
    if node.kind == "chain":
        for part in node.parts:
            _strip(part)
        sig = chain(*(signature_of(part, t) for part in node.parts))
        if node.errback is not None and type(sig) is chain:
            sig.link_error(t.caught.si(node.errback))
        else:
            node.errback = None  # an upgraded chain is another canvas, with rules of its own
        return sig
    if node.kind == "replace":
        sig = t.replace.s(node.number, signature_of(node.parts[0], t))
    elif node.kind == "revoked":
        sig = t.ok.s(node.number).set(task_id=f"revoked-{node.number}")
    else:
        sig = getattr(t, node.kind).s(node.number)
    if node.link is not None:
        sig.link(t.ok.s(node.link))
    if node.errback is not None:
        sig.link_error(t.caught.si(node.errback))
    return sig


def _strip(node: Node) -> None:
    """Take the errback off a chain that is part of a chain: it would become those of its steps, as Celery has it."""
    if node.kind == "chain":
        node.errback = None
    elif node.kind == "chord":
        _strip(node.parts[1])


class Expected:
    """What running a canvas must bring: `outcome`, and how often each number is noted in the ledger."""

    def __init__(self, node: Node) -> None:
        self.ledger: Counter[int] = Counter()
        self.outcome = self._run(node, [], [])

    def _run(self, node: Node, inputs: list[Any], errbacks: Sequence[int]) -> Any:
        """Return the value, FAILED, or for a group the list of its members' outcomes."""
        if node.kind == "group":
            return [self._run(part, inputs, [*errbacks, *_own(node)]) for part in _members(node)]
        if node.kind in ("chain", "chord"):
            return self._run_steps(_steps(node, errbacks), inputs)
        own = [*errbacks, *_own(node)]
        if node.kind != "revoked":
            self.ledger[node.number] += 2 if node.kind == "retry" else 1
        if node.kind in ("fail", "revoked"):
            value: Any = FAILED
        elif node.kind == "replace":
            value = self._run(node.parts[0], [], [])
            value = FAILED if _has_failed(value) else value
        else:
            value = total(inputs) + node.number
        if value == FAILED:
            self.ledger.update(own)
        elif node.link is not None:
            self.ledger[node.link] += 1
        return value

    def _run_steps(self, steps: list[tuple[Node, list[int], bool]], inputs: list[Any]) -> Any:
        """Run steps one after another; a failed group before a step fails that step, whose errbacks are then called."""
        outcome: Any = None
        for place, (node, errbacks, is_header) in enumerate(steps):
            outcome = self._run(node, inputs, [] if is_header else errbacks)
            rest = steps[place + 1 :]
            if rest and _has_failed(outcome):
                if isinstance(outcome, list):
                    self._fail_entry(rest[0][0], rest[0][1])
                return _failed_like(rest[-1][0])
            inputs = [outcome]
        return outcome

    def _fail_entry(self, node: Node, errbacks: Sequence[int]) -> None:
        """The body of a chord fails without running: the errbacks of what it begins with are called."""
        if node.kind == "group":
            self.ledger.update([*errbacks, *_own(node)])
            for part in _members(node):
                self._fail_entry(part, [])
        elif node.kind in ("chain", "chord"):
            first, own, _ = _steps(node, errbacks)[0]
            self._fail_entry(first, own)
        else:
            self.ledger.update([*errbacks, *_own(node)])


def _own(node: Node) -> list[int]:
    return [] if node.errback is None else [node.errback]


def _members(node: Node) -> list[Node]:
    """Groups within a group are flattened."""
    return [member for part in node.parts for member in (_members(part) if part.kind == "group" else [part])]


def _steps(node: Node, errbacks: Sequence[int]) -> list[tuple[Node, list[int], bool]]:
    """Return tasks and groups in order, with the errbacks of the chains around them; a group before a step is a header."""
    if node.kind == "chord":
        body = _steps(node.parts[1], errbacks)
        return [(node.parts[0], list(errbacks), True), *body]
    if node.kind == "chain":
        own = [*errbacks, *_own(node)]
        steps = [step for part in node.parts for step in _steps(part, own)]
        last = len(steps) - 1
        return [
            (step, errs, is_header or (step.kind == "group" and place < last))
            for place, (step, errs, is_header) in enumerate(steps)
        ]
    return [(node, list(errbacks), False)]


def _has_failed(outcome: Any) -> bool:
    return any(map(_has_failed, outcome)) if isinstance(outcome, list) else outcome == FAILED


def _failed_like(node: Node) -> Any:
    if node.kind == "group":
        return [_failed_like(part) for part in _members(node)]
    if node.kind in ("chain", "chord"):
        return _failed_like(_steps(node, [])[-1][0])
    return FAILED


def outcome_of(result: Any) -> Any:
    """Return what a result came to, in the model's terms."""
    from litetq import GroupResult

    if isinstance(result, GroupResult):
        return [outcome_of(member) for member in result]
    return (
        result.result
        if result.state == "SUCCESS"
        else FAILED
        if result.state in ("FAILURE", "REVOKED")
        else result.state
    )


def count(node: Node) -> int:
    return 1 + sum(map(count, node.parts))
