"""Thousands of random canvases against a model: values, failures, which tasks ran and which errbacks, each exactly once."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from litetq import LiteTQ
from tests.canvas_model import Drawing, Expected, outcome_of, register, revoked_ids, signature_of
from tests.program.conftest import RunWaiting

TABLES = ("litetq_task", "litetq_link", "litetq_join", "litetq_part")
CASES = int(os.environ.get("LITETQ_CANVAS_CASES", "300"))


def leftovers(app: LiteTQ) -> dict[str, int]:
    """Return how many rows of which tables of unfinished work there are."""
    counted = app.engine.database.read(
        lambda tx: {table: tx.execute(f"SELECT count(*) FROM {table}").get for table in TABLES}
    )
    return {table: count for table, count in counted.items() if count}


@pytest.mark.parametrize("part", range(4))
def test_random_canvases_do_what_the_model_says(app: LiteTQ, run_waiting: RunWaiting, part: int) -> None:
    ledger: list[int] = []
    tasks = register(app, ledger.append)
    for seed in range(part * CASES, (part + 1) * CASES):
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


def test_random_canvases_run_eagerly_do_the_same(app: LiteTQ) -> None:
    ledger: list[int] = []
    tasks = register(app, ledger.append)
    for seed in range(CASES):
        ledger.clear()
        node = Drawing(seed, revoked=False).whole()
        sig = signature_of(node, tasks)
        expected = Expected(node)
        assert outcome_of(sig.apply()) == expected.outcome, f"seed {seed}: {sig!r}"
        assert Counter(ledger) == expected.ledger, f"seed {seed}: {sig!r}"
