"""Thousands of random canvases against a model: values, failures, which tasks ran and which errbacks, each exactly once."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from litetq import LiteTQ, clock
from tests.canvas_model import (
    FAILED,
    Drawing,
    Expected,
    Node,
    mended,
    numbers_of,
    outcome_of,
    register,
    revoked_ids,
    signature_of,
)
from tests.program.conftest import RunWaiting

TABLES = ("litetq_task", "litetq_link", "litetq_join", "litetq_part")
PAST = ("litetq_past_task", "litetq_past_link", "litetq_past_join", "litetq_past_part")
CASES = int(os.environ.get("LITETQ_CANVAS_CASES", "300"))


def leftovers(app: LiteTQ, tables: tuple[str, ...] = TABLES) -> dict[str, int]:
    """Return how many rows there are of which tables; by default of those of unfinished work."""
    counted = app.engine.database.read(
        lambda tx: {table: tx.execute(f"SELECT count(*) FROM {table}").get for table in tables}
    )
    return {table: count for table, count in counted.items() if count}


# Chords in a group that ends a chain: its errback was called for each of them when a group before failed.
FOUND = (658, 4396)


@pytest.mark.row("5.chords in any mix")
@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in range(1, 4))])
def test_random_canvases_do_what_the_model_says(app: LiteTQ, run_waiting: RunWaiting, part: int) -> None:
    ledger: list[int] = []
    tasks = register(app, ledger.append)
    for seed in (*range(part * CASES, (part + 1) * CASES), *FOUND):
        ledger.clear()
        node = Drawing(seed).whole()
        app.control.revoke(revoked_ids(node))
        sig = signature_of(node, tasks)
        expected = Expected(node)
        result = sig.apply_async()
        run_waiting(app)
        assert outcome_of(result) == expected.outcome, f"seed {seed}: {sig!r}"
        assert Counter(ledger) == expected.ledger, f"seed {seed}: {sig!r}"
        assert leftovers(app) == {}, f"seed {seed}: {sig!r}"
        app.engine.database.write(
            lambda tx: [tx.execute(f"DELETE FROM {table}").fetchall() for table in ("litetq_result", "litetq_revoked")]
        )
        app.engine.store.records.prune(clock.now() + 1e9)
        assert leftovers(app, PAST) == {}, f"seed {seed}: {sig!r}"


def failing(seed: int) -> Node:
    """Return a canvas in which something fails."""
    for further in range(1000):
        node = Drawing(seed + 10_000 * further).whole()
        if numbers_of(node, "fail") or revoked_ids(node):
            return node
    raise AssertionError("no canvas fails")


@pytest.mark.parametrize("part", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_random_canvases_that_failed_are_resumed_and_come_to_what_the_model_says(
    app: LiteTQ, run_waiting: RunWaiting, part: int
) -> None:
    ledger: list[int] = []
    is_mended = False
    tasks = register(app, ledger.append, lambda: is_mended)
    for seed in range(part * CASES, (part + 1) * CASES):
        ledger.clear()
        is_mended = False
        node = failing(seed)
        app.control.revoke(revoked_ids(node))
        sig = signature_of(node, tasks)
        wanted = Expected(mended(node))
        result = sig.apply_async()
        run_waiting(app)
        before = Counter(ledger)
        failed = FAILED in str(outcome_of(result))
        if not revoked_ids(node):
            ledger.clear()
            assert bool(result.retry()) is failed
            run_waiting(app)
            again = {number: before[number] for number in before if number not in wanted.ledger}  # its errbacks
            again.update((number, before[number]) for number in numbers_of(node, "fail") if before[number])
            assert not failed or Counter(ledger) == again, f"seed {seed}: {sig!r}"
            before += Counter(ledger)
        is_mended = True
        ledger.clear()
        assert bool(result.retry()) is failed
        assert not result.retry()
        run_waiting(app)
        assert outcome_of(result) == wanted.outcome, f"seed {seed}: {sig!r}"
        done = Counter(ledger) + before
        for number in wanted.ledger.keys() | done.keys():
            if number in numbers_of(node, "fail"):
                expected = before[number] + wanted.ledger[number]
            else:
                expected = wanted.ledger[number] or before[number]
            assert done[number] == expected, f"seed {seed}, {number}: {sig!r}"
        assert leftovers(app, (*TABLES, *PAST)) == {}, f"seed {seed}: {sig!r}"
        app.engine.database.write(
            lambda tx: [tx.execute(f"DELETE FROM {table}").fetchall() for table in ("litetq_result", "litetq_revoked")]
        )


def test_random_canvases_run_eagerly_do_the_same(app: LiteTQ) -> None:
    ledger: list[int] = []
    tasks = register(app, ledger.append)
    for seed in (*range(CASES), *FOUND):
        ledger.clear()
        node = Drawing(seed, revoked=False).whole()
        sig = signature_of(node, tasks)
        expected = Expected(node)
        assert outcome_of(sig.apply()) == expected.outcome, f"seed {seed}: {sig!r}"
        assert Counter(ledger) == expected.ledger, f"seed {seed}: {sig!r}"
