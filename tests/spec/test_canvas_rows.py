"""The rows W1-W23 and Q9-Q11 of the feature list, with their exact values, in a worker; a test's name begins with the row's id."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from litetq import LiteTQ, chain, chord, group, signature
from tests.conftest import ROOT

LONG = 20.0  # seconds


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiteTQ]:
    path: Path = tmp_path_factory.mktemp("rows") / "jobs.sqlite"
    with LiteTQ("tasks", broker=path) as app:
        yield app


@pytest.fixture(scope="module")
def t(app: LiteTQ) -> Iterator[SimpleNamespace]:
    """The tasks of the lists, and a worker with eight threads."""
    bodies: list[Any] = []

    @app.task(name="tasks.add")
    def add(x: int, y: int, debug: bool = False) -> int:
        return x + y

    @app.task(name="tasks.mul")
    def mul(x: int, y: int) -> int:
        return x * y

    @app.task(name="tasks.subtract")
    def subtract(x: int, y: int) -> int:
        return x - y

    @app.task(name="tasks.tsum")
    def tsum(numbers: list[int]) -> int:
        return sum(numbers)

    @app.task(name="tasks.body")
    def body(numbers: list[int]) -> int:
        bodies.append(numbers)
        return sum(numbers)

    @app.task(name="tasks.reset_buffers")
    def reset_buffers() -> str:
        return "reset"

    with app.run_embedded(concurrency=8):
        yield SimpleNamespace(**{name: value for name, value in locals().items() if name != "app"})


def get(result: Any) -> Any:
    return result.get(timeout=LONG)


EVEN = list(range(0, 20, 2))


def test_W1_a_signature_is_a_dict_and_may_be_an_argument(app: LiteTQ, t: SimpleNamespace) -> None:
    @app.task(name="tasks.call")
    def call(sig: Any) -> int:
        return int(app.signature(sig).type.run(*sig["args"]))

    sig = t.add.s(2, 2)
    assert set(sig) == {"task", "args", "kwargs", "options", "subtask_type", "immutable"}
    assert signature(json.loads(json.dumps(sig)), app=app) == {**sig, "args": [2, 2]}
    assert get(call.delay(sig)) == 4


def test_W2_W3_W4_signatures_by_name_by_task_and_by_shortcut(t: SimpleNamespace) -> None:
    named = signature("tasks.add", args=(2, 2), countdown=10)
    of_task = t.add.signature((2, 2), countdown=10)
    for sig in (named, of_task):
        assert repr(sig) == "tasks.add(2, 2)" and sig.options == {"countdown": 10}
    keyed = t.add.signature((2, 2), {"debug": True}, countdown=10)
    assert repr(keyed) == "tasks.add(2, 2, debug=True)" == repr(t.add.s(2, 2, debug=True))
    assert repr(t.add.s(2, 2)) == "tasks.add(2, 2)" and t.add.s(2, 2).options == {}


def test_W5_options_are_set_and_given_and_the_later_ones_win(app: LiteTQ, t: SimpleNamespace) -> None:
    sig = t.add.s(2, 2).set(countdown=1)
    assert sig.options == {"countdown": 1} and sig.set(countdown=2, queue="other").options["countdown"] == 2
    waiting = sig.apply_async(countdown=3600)
    record = app.engine.read(waiting.id)
    assert record.place == "SCHEDULED" and 3500 < record.due_at - record.enqueued_at <= 3600 and record.queue == "other"
    waiting.revoke()


@pytest.mark.row("5.merge rule")
@pytest.mark.row("5.~sig")
def test_W6_W7_W8_what_is_given_later_comes_first_and_wins(t: SimpleNamespace) -> None:
    assert get(t.subtract.s(10).delay(30)) == 20
    assert ~t.add.s(2, 2) == 4 == get(t.add.s(2, 2).delay()) == get(t.add.s(2, 2).apply_async())
    assert get(t.add.s(2, 2).delay(debug=True)) == 4 == get(t.add.s(2, 2).apply_async(kwargs={"debug": True}))
    assert t.add.s(2, y=5).clone((), {"y": 6}).kwargs == {"y": 6}


def test_W9_an_immutable_signature_is_not_given_the_value(t: SimpleNamespace) -> None:
    for sig in (t.reset_buffers.si(), t.reset_buffers.signature(immutable=True)):
        assert get((t.add.s(2, 2) | sig)()) == "reset"
    linked = t.add.apply_async((2, 2), link=t.reset_buffers.si())
    assert get(linked) == 4 and get(linked.children[0]) == "reset"


def test_Q10_W10_W11_W12_chains(t: SimpleNamespace) -> None:
    immutable = chain(t.add.si(2, 2), t.add.si(4, 4), t.add.si(8, 4))()
    assert (get(immutable), get(immutable.parent), get(immutable.parent.parent)) == (12, 8, 4)
    for partial in (chain(t.add.s(2, 2), t.add.s(4), t.add.s(8)), t.add.s(2, 2) | t.add.s(4) | t.add.s(8)):
        result = partial()
        assert (get(result), get(result.parent), get(result.parent.parent)) == (16, 8, 4)


def test_W13_a_group_gives_its_values_in_order(t: SimpleNamespace) -> None:
    assert get(group(t.add.s(i, i) for i in range(10))()) == EVEN


@pytest.mark.row("5.chord")
def test_W14_a_chords_body_runs_once_after_all(t: SimpleNamespace) -> None:
    results = [chord((t.add.s(i, i) for i in range(10)), t.body.s())() for _ in range(30)]
    assert [get(result) for result in results] == [90] * 30
    assert t.bodies == [EVEN] * 30


def test_W15_a_group_before_a_task_is_a_chord(t: SimpleNamespace) -> None:
    sig = group(t.add.s(i, i) for i in range(10)) | t.tsum.s()
    assert isinstance(sig, chord) and get(sig()) == 90


def rows_of(app: LiteTQ, send: Any) -> tuple[int, Any]:
    """Return how many tasks a call makes, and its value."""

    def count() -> int:
        seq: int = app.engine.database.read(
            lambda tx: tx.execute("SELECT seq FROM sqlite_sequence WHERE name = 'litetq_task'").get
        )
        return seq

    before = count()
    value = get(send())
    return count() - before, value


def test_W16_W17_W18_maps_are_one_task(app: LiteTQ, t: SimpleNamespace) -> None:
    get(t.add.delay(1, 1))
    assert rows_of(app, lambda: t.tsum.map([list(range(10)), list(range(100))]).delay()) == (1, [45, 4950])
    assert rows_of(app, lambda: t.add.starmap(zip(range(10), range(10), strict=True)).delay()) == (1, EVEN)
    assert rows_of(app, lambda: group(t.add.s(i, i) for i in range(10))()) == (10, EVEN)


@pytest.mark.row("5.map, starmap, chunks")
def test_W19_W20_W21_chunks_are_a_group_of_maps(app: LiteTQ, t: SimpleNamespace) -> None:
    def chunks() -> Any:
        return t.add.chunks(zip(range(100), range(100), strict=True), 10)

    values = [list(range(first, first + 20, 2)) for first in range(0, 200, 20)]
    assert rows_of(app, lambda: chunks()()) == (10, values) == rows_of(app, lambda: chunks().apply_async())
    assert len(chunks().group()) == 10 and {task["task"] for task in chunks().group().tasks} == {"celery.starmap"}


def test_W22_W23_the_guide_has_a_chapter_and_the_one_on_calls_leads_to_it() -> None:
    guide = ROOT / "docs" / "guide"
    assert (guide / "canvas.md").read_text(encoding="utf-8").startswith("# Canvas")
    assert "(canvas.md)" in (guide / "calling.md").read_text(encoding="utf-8")


def test_Q9_an_ignored_result_is_none_at_once(t: SimpleNamespace) -> None:
    result = t.add.apply_async((1, 2), ignore_result=True)
    assert result.get() is None
    stored = t.add.apply_async((1, 2), ignore_result=False)
    assert get(stored) == 3
    assert result.result is None


def test_Q11_K12_children_are_those_of_the_link_form(t: SimpleNamespace) -> None:
    linked = t.add.apply_async((2, 2), link=t.mul.s(16))
    child = get(linked) and linked.children[0]
    assert get(child) == 64 and [(node.id, value) for node, value in linked.collect()] == [
        (linked.id, 4),
        (child.id, 64),
    ]
    last = chain(t.add.s(2, 2), t.add.s(4))()
    assert get(last) == 8 and not last.children
    again = t.add.apply_async((2, 2), link=t.add.s(16))
    assert get(again) == 4 and get(again.children[0]) == 20
