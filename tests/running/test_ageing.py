"""The setting `litetq_priority_ageing`, as a worker obeys it."""

from __future__ import annotations

from pathlib import Path

import pytest

from litetq import LiteTQ, clock
from tests.waiting import eventually


@pytest.mark.parametrize(("ageing", "order"), [(0.01, ["patient", "urgent"]), (None, ["urgent", "patient"])])
def test_a_worker_lets_waiting_tasks_rise_where_the_setting_says_so(
    db: Path, ageing: float | None, order: list[str]
) -> None:
    app = LiteTQ("tasks", broker=db)
    app.conf.litetq_priority_ageing = ageing
    ran = []

    @app.task
    def note(what: str) -> None:
        ran.append(what)

    note.apply_async(("patient",), priority=0)
    since = clock.now()
    eventually(lambda: clock.now() - since > 0.1)
    note.apply_async(("urgent",), priority=5)
    with app.run_embedded(pool="solo") as worker:
        assert worker.drain(10)
    assert ran == order
    app.close()
