"""`result.retry()`: what has failed of a workflow runs again, from the failed steps on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from litetq import LiteTQ, chain, chord, group
from litetq.exceptions import ChordError, NotOnRecord
from tests.program.conftest import RunWaiting


@pytest.fixture
def tasks(app: LiteTQ) -> SimpleNamespace:
    """`flaky` fails until `ran.mended` is true; all note their names."""
    ran = SimpleNamespace(names=[], mended=False)

    @app.task(name="add")
    def add(x: int, y: int) -> int:
        ran.names.append("add")
        return x + y

    @app.task(name="flaky")
    def flaky(x: int) -> int:
        ran.names.append("flaky")
        if not ran.mended:
            raise ValueError("boom")
        return x * 10

    @app.task(name="total")
    def total(numbers: list[int]) -> int:
        ran.names.append("total")
        return sum(numbers)

    return SimpleNamespace(add=add, flaky=flaky, total=total, ran=ran)


def mend(tasks: SimpleNamespace) -> None:
    tasks.ran.names.clear()
    tasks.ran.mended = True


@pytest.mark.row("5.resumed from the failed step (not in Celery)")
def test_a_chain_is_resumed_at_the_step_that_failed(
    app: LiteTQ, tasks: SimpleNamespace, run_waiting: RunWaiting
) -> None:
    result = chain(tasks.add.s(1, 1), tasks.flaky.s(), tasks.add.s(5))()
    run_waiting(app)
    with pytest.raises(ValueError, match="boom"):
        result.get(timeout=1)
    ids = result.as_list()
    mend(tasks)
    assert result.retry() == 2
    assert (result.state, result.parent.state, result.parent.parent.state) == ("PENDING", "PENDING", "SUCCESS")
    assert result.progress() == (3, 1, 0, 0, 2)
    run_waiting(app)
    assert result.get(timeout=1) == 25 and result.as_list() == ids
    assert tasks.ran.names == ["flaky", "add"]


@pytest.mark.row("5.resumed from the failed step (not in Celery)")
def test_a_chord_is_resumed_with_its_failed_members_only(
    app: LiteTQ, tasks: SimpleNamespace, run_waiting: RunWaiting
) -> None:
    result = chord([tasks.add.s(1, 1), tasks.flaky.s(1), tasks.flaky.s(2)], tasks.total.s())()
    run_waiting(app)
    with pytest.raises(ChordError):
        result.get(timeout=1, follow_parents=False)
    mend(tasks)
    assert result.retry() == 3
    run_waiting(app)
    assert result.get(timeout=1) == 32
    assert sorted(tasks.ran.names) == ["flaky", "flaky", "total"]
    assert result.retry() == 0


def test_a_group_is_resumed_through_its_result_or_that_of_a_member(
    app: LiteTQ, tasks: SimpleNamespace, run_waiting: RunWaiting
) -> None:
    result = group(tasks.add.s(1, 1), tasks.flaky.s(1), tasks.flaky.s(2))()
    run_waiting(app)
    assert result.failed()
    mend(tasks)
    assert result[1].retry() == 1
    assert result.retry() == 1
    run_waiting(app)
    assert result.get(timeout=1) == [2, 10, 20]


def test_a_plain_task_is_run_again_under_its_id(app: LiteTQ, tasks: SimpleNamespace, run_waiting: RunWaiting) -> None:
    result = tasks.flaky.delay(3)
    run_waiting(app)
    assert result.failed()
    mend(tasks)
    assert result.retry() == 1 and not result.ready()
    run_waiting(app)
    assert result.get(timeout=1) == 30


def test_a_revoked_task_is_run_again_when_it_is_asked_for(
    app: LiteTQ, tasks: SimpleNamespace, run_waiting: RunWaiting
) -> None:
    result = tasks.add.delay(1, 1)
    result.revoke()
    assert result.state == "REVOKED"
    assert result.retry() == 1
    run_waiting(app)
    assert result.get(timeout=1) == 2


def test_nothing_happens_where_nothing_has_failed(app: LiteTQ, tasks: SimpleNamespace, run_waiting: RunWaiting) -> None:
    result = chain(tasks.add.s(1, 1), tasks.add.s(5))()
    assert result.retry() == 0
    run_waiting(app)
    assert result.retry() == 0 and result.get(timeout=1) == 7
    assert group([])().retry() == 0


def test_a_result_that_another_process_has_sent_to_run_again_is_read_again(
    app: LiteTQ, tasks: SimpleNamespace, run_waiting: RunWaiting
) -> None:
    result = tasks.flaky.delay(3)
    run_waiting(app)
    assert result.failed()
    mend(tasks)
    assert app.AsyncResult(result.id).retry() == 1
    run_waiting(app)
    assert result.retry() == 0 and result.get(timeout=1) == 30


def test_what_the_file_does_not_know_is_said_so(app: LiteTQ, tasks: SimpleNamespace, db: Path) -> None:
    tasks.add.delay(1, 1)
    with pytest.raises(NotOnRecord, match="No task nobody is known to .*: it was never sent there"):
        app.AsyncResult("nobody").retry()
    with pytest.raises(NotOnRecord, match="was run here and now"):
        tasks.flaky.apply((1,)).retry()


def test_a_workflow_of_which_a_part_has_been_forgotten_is_refused(
    app: LiteTQ, tasks: SimpleNamespace, run_waiting: RunWaiting
) -> None:
    result: Any = chord([tasks.flaky.s(1), tasks.flaky.s(2)], tasks.total.s())()
    run_waiting(app)
    result.parent[1].forget()
    with pytest.raises(NotOnRecord, match="has expired or was forgotten; send the workflow anew"):
        result.retry()
    assert result.state == "FAILURE"
