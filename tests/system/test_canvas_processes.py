"""Random workflows in whole worker processes, and under `kill -9`: none is lost, none hangs, no step is enqueued twice."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ
from tests import canvas_model
from tests.canvas_model import Drawing, Expected, Node, mended, outcome_of, register, revoked_ids, signature_of
from tests.waiting import eventually

HERE = Path(__file__).parent
CASES = int(os.environ.get("LITETQ_CANVAS_CASES", "300")) // 5
TABLES = ("litetq_task", "litetq_link", "litetq_join", "litetq_part")

RunPython = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def house(tmp_path: Path) -> Path:
    shutil.copy(HERE / "canvas_program.py", tmp_path)
    shutil.copy(canvas_model.__file__, tmp_path / "canvas_model.py")
    return tmp_path


@pytest.fixture
def app(house: Path) -> Iterator[LiteTQ]:
    with LiteTQ("canvas_program", broker=house / "jobs.sqlite", set_as_current=False) as app:
        yield app


def ledger(house: Path) -> Counter[int]:
    path = house / "ledger"
    return Counter(map(int, path.read_text().split())) if path.exists() else Counter()


def send_all(app: LiteTQ, cases: int, *, revoked: bool) -> list[tuple[Node, Any, Any]]:
    tasks = register(app, lambda number: None)
    sent = []
    drawing = Drawing(2026, revoked=revoked)
    for _ in range(cases):
        node = drawing.whole()
        app.control.revoke(revoked_ids(node))
        sig = signature_of(node, tasks)
        sent.append((node, sig, sig.apply_async()))
    return sent


def work(run_python: RunPython, pool: str, *more: str) -> subprocess.Popen[str]:
    return run_python("-m", "litetq", "-A", "canvas_program", "worker", "-P", pool, "-c", "2", "-l", "CRITICAL", *more)


def drain(run_python: RunPython, pool: str) -> None:
    process = work(run_python, pool, "--drain")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err


def leftovers(app: LiteTQ) -> dict[str, int]:
    counted = app.engine.database.read(
        lambda tx: {table: tx.execute(f"SELECT count(*) FROM {table}").get for table in TABLES}
    )
    return {table: count for table, count in counted.items() if count}


@pytest.mark.parametrize("pool", ["threads", "processes"])
def test_workflows_in_a_worker_do_what_the_model_says(
    house: Path, app: LiteTQ, run_python: RunPython, pool: str
) -> None:
    sent = send_all(app, CASES, revoked=True)
    drain(run_python, pool)
    expected: Counter[int] = Counter()
    for node, sig, result in sent:
        wanted = Expected(node)
        expected.update(wanted.ledger)
        assert outcome_of(result) == wanted.outcome, repr(sig)
    assert ledger(house) == expected and leftovers(app) == {}


def runs_of(node: Node) -> dict[int, int]:
    """Return how often each task of a canvas may run at most; errbacks are not counted."""
    own = {} if node.kind in ("chain", "group", "chord") else {node.number: 2 if node.kind == "retry" else 1}
    if node.link is not None:
        own[node.link] = 1
    for part in node.parts:
        own.update(runs_of(part))
    return own


def test_a_killed_worker_leaves_no_workflow_hanging_and_no_step_doubled(
    house: Path, app: LiteTQ, run_python: RunPython
) -> None:
    sent = send_all(app, CASES, revoked=False)
    for _ in range(5):
        before = ledger(house).total()
        process = work(run_python, "processes")
        eventually(lambda before=before: ledger(house).total() > before + 10, within=30)  # type: ignore[misc]
        process.kill()
        process.wait(30)
    drain(run_python, "processes")
    runs = ledger(house)
    cut_off = 0
    for node, sig, result in sent:
        wanted = Expected(node)
        assert result.ready(), repr(sig)
        for number, most in runs_of(node).items():
            assert runs[number] <= most, f"{number} ran {runs[number]} times: {sig!r}"
        if outcome_of(result) != wanted.outcome:
            cut_off += 1
            assert "failed" in str(outcome_of(result)), repr(sig)
    assert leftovers(app) == {} and cut_off <= 5 * 2, "each kill cuts off what two children ran, no more"


def test_workflows_that_failed_or_lost_their_workers_are_resumed_and_come_to_what_the_model_says(
    house: Path, app: LiteTQ, run_python: RunPython
) -> None:
    sent = send_all(app, CASES, revoked=True)
    for round in range(4):
        if round == 2:
            (house / "mended").touch()
        before = ledger(house).total()
        process = work(run_python, "processes")
        eventually(lambda before=before: ledger(house).total() > before + 10, within=30)  # type: ignore[misc]
        process.kill()
        process.wait(30)
        # Some workflows have failed by now, some are in the middle: those go on, and these are sent to run again.
        for _, _, result in sent:
            result.retry()
    for _ in range(20):
        drain(run_python, "processes")
        if not sum(result.retry() for _, _, result in sent):
            break
    for node, sig, result in sent:
        assert outcome_of(result) == Expected(mended(node)).outcome, repr(sig)
    assert leftovers(app) == {}
