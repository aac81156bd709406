"""How far a workflow is, as numbers and as a line."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from litetq import LiteTQ, chord, group, progress
from litetq.progress import Progress, in_place, line
from tests.program.canvas_tasks import register
from tests.program.conftest import RunWaiting
from tests.waiting import eventually


@pytest.fixture
def t(app: LiteTQ) -> SimpleNamespace:
    return register(app)


@pytest.mark.row("5.progress (not in Celery)")
def test_progress_counts_the_tasks_of_a_workflow(app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting) -> None:
    result = (t.add.s(1, 1) | group([t.add.s(1), t.fail.si(), t.add.s(3)]) | t.tsum.s())()
    assert result.progress() == Progress(total=5, done=0, failed=0, running=0, waiting=5)
    seat = app.engine.seat("w")
    try:
        seat.take(1)
        assert result.progress() == Progress(total=5, done=0, failed=0, running=1, waiting=4)
        assert str(result.progress()) == "0 of 5 done, 0 failed, 1 running, 4 waiting"
    finally:
        seat.leave()
    run_waiting(app)
    ended = result.progress()
    assert ended == Progress(total=5, done=3, failed=2, running=0, waiting=0) and ended.fraction == 1.0


def test_progress_of_large_groups_and_of_nothing(app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting) -> None:
    result = chord([t.add.s(1, 1)] * 1200, t.tsum.s())()
    assert result.progress().waiting == 1201
    run_waiting(app)
    assert result.progress() == Progress(1201, 1201, 0, 0, 0) == result.progress()
    assert group([])().progress().fraction == 1.0 and t.add.s(1, 1).apply().progress().done == 1
    assert app.AsyncResult("unknown").progress().waiting == 1


def test_a_line_shows_it() -> None:
    assert line(Progress(4, 1, 1, 1, 1), "job") == "job [###############---------------] 2/4, 1 failed, 1 running"
    assert line(Progress(2, 2, 0, 0, 0)) == f"[{'#' * 30}] 2/2"


def test_a_line_covers_a_longer_one_before_it_and_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    running, ended = in_place(Progress(4, 3, 0, 1, 0)), in_place(Progress(4, 4, 0, 0, 0))
    assert [len(each) for each in (running, ended)] == [40, 40] and running.endswith("-] 3/4, 1 running")
    assert ended.rstrip() == f"\r[{'#' * 30}] 4/4"
    monkeypatch.setenv("COLUMNS", "20")
    assert in_place(Progress(4, 3, 0, 1, 0), "copy").rstrip() == "\rcopy 3/4, 1 running"[:20]


def test_the_line_is_drawn_over_itself_in_a_terminal_and_once_elsewhere(
    app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    result = group([t.add.s(1, 1), t.add.s(1, 1)])()
    terminal, file = Terminal(), io.StringIO()
    with progress(result, terminal, "sums") as now:
        eventually(lambda: "0/2" in terminal.getvalue())
        run_waiting(app)
        assert now().done == 2
    with progress(result, file):
        pass
    assert (
        terminal.getvalue().rstrip().endswith(f"\rsums [{'#' * 30}] 2/2") and file.getvalue() == f"[{'#' * 30}] 2/2\n"
    )
