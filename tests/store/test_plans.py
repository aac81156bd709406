"""What the statements cost as the file grows, and which moves between states they make."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from litetq.states import TRANSITIONS, Row
from tests.conftest import ROOT
from tests.factories import Queue, chain, message
from tests.store.killed import VERBS, Verb

HOT = [
    name
    for name in VERBS
    if name.split()[0]
    in ("send", "claim", "settle", "fail", "retry", "release", "promote", "expire", "prune", "replace")
]
READS: dict[str, Callable[[Queue], object]] = {
    "probe": lambda q: q.store.probe(q.now),
    "read": lambda q: [q.store.records.read(id) for id in ("a", "done", "unknown")],
    "read many": lambda q: q.store.records.read_many(["a", "done", "unknown"]),
    "attempts of": lambda q: q.store.records.attempts_of("a"),
    "has unfinished": lambda q: q.store.has_unfinished(q.now),
    "outbox": lambda q: q.store.records.outbox(),
    "beat": lambda q: q.store.roster.beat(q.worker),
    "update state": lambda q: q.store.update_state("a", "PROGRESS", None, None, q.now, claim=1),
    "forget": lambda q: q.store.records.forget(["done"]),
    "revoke": lambda q: q.store.revoke(["a"], "enough", q.now),
}


def plans_of(queue: Queue, do: Callable[[Queue], object]) -> dict[str, list[str]]:
    """Do something and return how SQLite planned each statement of it."""
    seen: dict[str, Any] = {}

    def note(cursor: Any, sql: str, bindings: Any) -> bool:
        seen[sql] = bindings
        return True

    queue.count("task")
    queue.database.write(lambda tx: None)
    connections = (queue.database._writer, queue.database._reader)
    for connection in connections:
        assert connection is not None
        connection.exec_trace = note
    do(queue)
    for connection in connections:
        connection.exec_trace = None  # type: ignore[union-attr]
    explained = {}
    for sql, bindings in seen.items():
        if sql.split()[0] in ("SELECT", "INSERT", "UPDATE", "DELETE"):
            explained[sql] = [row[3] for row in connections[0].execute("EXPLAIN QUERY PLAN " + sql, bindings)]  # type: ignore[union-attr]
    return explained


def assert_searched(explained: dict[str, list[str]], *, sorts: bool = False) -> None:
    """Nothing of it goes through a table that grows, nor (but for what was asked for by id) sorts what it found."""
    assert explained
    grows = r"SCAN (litetq_(task|result|attempt|part|link|join)|t\b)" + ("" if sorts else "|TEMP B-TREE")
    slow = {sql: lines for sql, lines in explained.items() if any(re.search(grows, line) for line in lines)}
    assert not slow, slow


@pytest.mark.parametrize("verb", HOT)
def test_no_statement_on_the_hot_path_goes_through_a_whole_table(queue: Queue, verb: str) -> None:
    deliveries = VERBS[verb].prepare(queue)
    assert_searched(plans_of(queue, lambda q: VERBS[verb].do(q, deliveries or [])))


@pytest.mark.parametrize("name", READS)
def test_no_question_that_is_asked_often_goes_through_a_whole_table(queue: Queue, name: str) -> None:
    queue.send("a", "done")
    assert_searched(plans_of(queue, READS[name]), sorts=name == "read many")


def test_a_claim_costs_the_same_statements_whatever_waits_and_whatever_is_done(queue: Queue) -> None:
    def steps() -> int:
        """How many instructions SQLite's machine takes for a claim and a settle of one task."""
        connection = queue.database._writer
        assert connection is not None
        count = 0

        def tick() -> bool:
            nonlocal count
            count += 1
            return False

        connection.set_progress_handler(tick, 1)
        queue.run()
        connection.set_progress_handler(None)
        return count

    queue.send("first", "second")
    queue.run()
    few = steps()
    queue.send(*(message(queue="celery" if n % 2 else "other") for n in range(3_000)))
    for _ in range(1_000):
        queue.run()
    queue.send(*(message(due_at=queue.now + 1_000 + n) for n in range(1_000)))
    queue.send(chain(*(f"step {n}" for n in range(1_000))))
    many = steps()
    assert many < few * 2  # a second lane, and nothing else


# -- states


def arrows_of(queue: Queue, do: Callable[[Queue], object]) -> set[tuple[Row | None, Row | None]]:
    """Do something and return the moves between states that its statements made; None is: not there."""
    found: set[tuple[Row | None, Row | None]] = set()
    born: set[int] = set()

    def note(*row: Any) -> None:
        seq, old, new = row
        if old != new:
            found.add((None if old is None else Row(old), None if new is None else Row(new)))
        if old is None:
            born.add(seq)
        elif new is None and seq in born:
            found.add((None, None))

    def committed(cursor: Any, sql: str, bindings: Any) -> bool:
        if sql == "BEGIN IMMEDIATE":
            born.clear()
        return True

    queue.database.write(lambda tx: None)
    connection = queue.database._writer
    assert connection is not None
    connection.create_scalar_function("note", note)
    connection.execute(
        "CREATE TEMP TRIGGER born AFTER INSERT ON main.litetq_task BEGIN SELECT note(new.seq, NULL, new.state); END;"
        "CREATE TEMP TRIGGER moved AFTER UPDATE ON main.litetq_task BEGIN SELECT note(new.seq, old.state, new.state); END;"
        "CREATE TEMP TRIGGER gone AFTER DELETE ON main.litetq_task BEGIN SELECT note(old.seq, old.state, NULL); END"
    )
    connection.exec_trace = committed
    do(queue)
    queue.close()
    return found


def test_the_store_makes_the_moves_that_states_lists_and_no_others(tmp_path: Path) -> None:
    def later_successor(queue: Queue) -> None:
        queue.send(chain("a", message("b", delay=5.0)))
        queue.run()
        queue.store.revoke(["b"], "enough", queue.now)

    made = set()
    for place, (prepare, do) in enumerate([*VERBS.values(), Verb(lambda q: None, lambda q, _: later_successor(q))]):
        queue = Queue(tmp_path / f"{place}.sqlite")

        def play(queue: Queue, prepare: Any = prepare, do: Any = do) -> None:
            do(queue, prepare(queue) or [])

        made |= arrows_of(queue, play)
    assert made == set(TRANSITIONS)


def test_the_page_about_states_says_what_states_lists() -> None:
    page = (ROOT / "docs" / "states.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `?([A-Z ]+?|not in the file)`? \| `?([A-Z ]+?|finished)`? \| (.+?) \|$", page, re.MULTILINE)
    listed = {
        (None if a == "not in the file" else Row[a], None if b == "finished" else Row[b]): who for a, b, who in rows
    }
    assert listed == TRANSITIONS
    assert len(rows) == len(listed)
    for state in Row:
        assert f"**{state.name}**" in page


def test_the_diagram_has_an_arrow_for_each_move() -> None:
    page = (ROOT / "docs" / "states.md").read_text(encoding="utf-8")
    arrows = re.findall(r"^    (\S+) --> (\S+?)(?:: .*)?$", page, re.MULTILINE)
    drawn = {tuple(None if end == "[*]" else Row[end] for end in arrow) for arrow in arrows}
    assert drawn == set(TRANSITIONS)
