"""The schedule's verbs: a due time is dealt with once, whoever comes, and whatever the clock does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from litetq.database import Database, migrations
from litetq.store import Store
from litetq.timetable import Definition, Entry, Fired, Firing, Put, Run, Timetable
from tests.factories import Queue, plan


@pytest.fixture
def timetable(queue: Queue) -> Timetable:
    return Timetable(queue.database, queue.store)


def definition(name: str, **fields: Any) -> Definition:
    given = {"definition": '{"task": "tasks.work"}', "schedule": '{"every": 10}', "words": "every 10 seconds",
             "zone": "UTC", "policy": None}  # fmt: skip
    return Definition(name, **{**given, **fields})


def add(timetable: Timetable, *names: str, owner: str = "", due_at: float | None = 1_000.0) -> list[Entry]:
    assert timetable.put([Put(definition(name), due_at, due_at, None) for name in names], owner, 990.0)
    return [entry for name in names if (entry := timetable.entry(name)) is not None]


def fire(timetable: Timetable, entry: Entry, id: str, due_at: float = 1_000.0, **fields: Any) -> Fired | None:
    firing = Firing(due_at, due_at + 10, due_at + 10, **{"outcome": "SENT", **fields})
    return timetable.fire(entry, firing, Run(id, [plan(id)]) if firing.outcome == "SENT" else None, due_at + 0.5)


def waiting_tasks(queue: Queue) -> list[str]:
    return [id for (id,) in queue.rows("SELECT id FROM litetq_task ORDER BY seq")]


def test_a_firing_is_its_row_the_task_and_the_state_of_the_entry_as_a_whole(queue: Queue, timetable: Timetable) -> None:
    [entry] = add(timetable, "mail")
    fired = fire(timetable, entry, "a", missed=3, missed_reason="beat was away")
    assert fired is not None and fired.outcome == "SENT" and waiting_tasks(queue) == ["a"]
    assert fired.entry == timetable.entry("mail")
    assert fired.entry[10:] == (1_010.0, 1_010.0, None, 1_000.0, 1_000.5, "a", None, 1, "beat was away")
    [row] = timetable.firings("mail")
    assert row == ("mail", 1_000.0, "SENT", "a", 1_000.5, None, 3)


def test_who_comes_second_with_the_same_version_changes_nothing(queue: Queue, timetable: Timetable) -> None:
    [entry] = add(timetable, "mail")
    assert fire(timetable, entry, "a") is not None
    assert fire(timetable, entry, "b") is None
    assert waiting_tasks(queue) == ["a"] and len(timetable.firings("mail")) == 1


def test_a_due_time_is_not_enqueued_again_after_the_clock_was_put_back(queue: Queue, timetable: Timetable) -> None:
    [entry] = add(timetable, "mail")
    fired = fire(timetable, entry, "a")
    assert fired is not None
    assert timetable.move(fired.entry, 1_000.0, 1_000.0, "the clock was put back", 995.0)
    [moved] = [timetable.entry("mail")]
    assert moved is not None and moved.due_at == 1_000.0
    again = fire(timetable, moved, "b")
    assert again is not None and again.outcome == "DONE" and again.entry.due_at == 1_010.0
    assert waiting_tasks(queue) == ["a"] and again.entry.runs == 1


def test_of_many_beats_at_the_same_instant_one_enqueues(queue: Queue, timetable: Timetable) -> None:
    def beat(number: int) -> None:
        database = Database(queue.path)
        own = Timetable(database, Store(database))
        barrier.wait()
        for due in range(1_000, 1_200, 10):
            entry = own.entry("mail")
            while entry is not None and entry.due_at == due:
                fire(own, entry, f"{due}-{number}", float(due))
                entry = own.entry("mail")
        database.close()

    add(timetable, "mail")
    barrier = threading.Barrier(4)
    threads = [threading.Thread(target=beat, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [id.split("-")[0] for id in waiting_tasks(queue)] == [str(due) for due in range(1_000, 1_200, 10)]


def test_a_look_shows_what_is_due_in_order_and_when_the_next_one_is(timetable: Timetable) -> None:
    add(timetable, "late", due_at=800.0)
    add(timetable, "later", due_at=900.0)
    add(timetable, "next", due_at=1_100.0)
    add(timetable, "never", due_at=None)
    add(timetable, "mine", owner="shop", due_at=850.0)
    add(timetable, "others", owner="mill", due_at=10.0)
    add(timetable, "paused", due_at=20.0)
    assert timetable.set_paused("paused", True)
    found = timetable.look(1_000.0, "shop")
    assert [entry.name for entry in found.due] == ["late", "mine", "later"]
    assert found.next_at == 1_100.0 and not found.waiting
    assert [entry.name for entry in timetable.look(1_000.0, "shop", ["mine"]).due] == ["late", "later"]
    assert [entry.name for entry in timetable.look(1_000.0, "", limit=1).due] == ["late"]


def test_the_look_of_an_idle_beat_searches_and_never_scans(queue: Queue, timetable: Timetable) -> None:
    seen: dict[str, Any] = {}
    timetable.entries()
    reader = queue.database._reader
    assert reader is not None
    reader.exec_trace = lambda cursor, sql, bindings: seen.setdefault(sql, bindings) is not None
    timetable.look(1_000.0, "shop", ["a"])
    timetable.prune(1e9)
    reader.exec_trace = None
    for sql, bindings in seen.items():
        steps = [row[3] for row in reader.execute(f"EXPLAIN QUERY PLAN {sql}", bindings)]
        scans = [
            step for step in steps if step.startswith("SCAN") and "json_each" not in step and "waiting" not in step
        ]
        assert not scans and not any("TEMP B-TREE" in step for step in steps), (sql, steps)


@pytest.mark.parametrize(("overlap", "outcomes"), [("allow", ["SENT", "SENT", "SENT"]), ("skip", ["SENT", "SKIPPED", "SKIPPED"]),
                                                  ("queue_one", ["SENT", "WAITING", "SKIPPED"])])  # fmt: skip
def test_overlap_is_decided_against_the_last_run(
    queue: Queue, timetable: Timetable, overlap: str, outcomes: list[str]
) -> None:
    [entry] = add(timetable, "mail")
    found = []
    for n in range(3):
        fired = fire(timetable, entry, f"id{n}", 1_000.0 + 10 * n, overlap=overlap)
        assert fired is not None
        found.append(fired.outcome)
        entry = fired.entry
    assert found == outcomes and len(waiting_tasks(queue)) == outcomes.count("SENT")
    if overlap == "skip":
        assert entry.note is not None and "id0, is not finished" in entry.note


def test_a_run_that_waits_is_enqueued_when_the_one_before_it_has_ended(queue: Queue, timetable: Timetable) -> None:
    [entry] = add(timetable, "mail")
    first = fire(timetable, entry, "a", overlap="queue_one")
    assert first is not None
    second = fire(timetable, first.entry, "b", 1_010.0, overlap="queue_one")
    assert second is not None and second.outcome == "WAITING"
    [waiting] = timetable.look(1_011.0, "").waiting
    assert (
        timetable.is_unfinished(waiting) and timetable.release_waiting(waiting, Run("c", [plan("c")]), 1_012.0) is None
    )
    queue.run_all()
    assert not timetable.is_unfinished(waiting)
    changed = timetable.release_waiting(waiting, Run("c", [plan("c")]), 1_013.0)
    assert changed is not None and changed.last_id == "c" and changed.waiting_due_at is None
    assert waiting_tasks(queue) == ["c"] and not timetable.look(1_013.0, "").waiting
    assert [(row.due_at, row.outcome) for row in timetable.firings("mail")] == [(1_010.0, "SENT"), (1_000.0, "SENT")]


def test_an_entry_changed_meanwhile_is_not_fired_as_it_was(queue: Queue, timetable: Timetable) -> None:
    [entry] = add(timetable, "mail")
    changed = Put(definition("mail", words="every hour"), 5_000.0, 5_000.0, entry.version)
    assert timetable.put([changed], "", 1_000.0) and not timetable.put([changed], "", 1_000.0)
    assert fire(timetable, entry, "a") is None and not timetable.postpone(entry, 1.0)
    assert not waiting_tasks(queue)
    now = timetable.entry("mail")
    assert now is not None and now.words == "every hour" and now.due_at == 5_000.0


def test_a_name_can_be_taken_once_and_removed_by_its_owner_alone(timetable: Timetable) -> None:
    assert timetable.reserve_name(definition("mail"), 1.0, 1.0, 0.0)
    assert not timetable.reserve_name(definition("mail"), 2.0, 2.0, 0.0)
    assert timetable.remove(["mail"], "shop") == 0 and timetable.remove(["mail"], "") == 1
    assert timetable.entry("mail") is None and not timetable.set_paused("mail", True)


def test_a_run_out_of_turn_leaves_the_due_times_alone(queue: Queue, timetable: Timetable) -> None:
    add(timetable, "mail")
    changed = timetable.run_now("mail", Run("a", [plan("a")]), 995.0)
    assert (
        changed is not None and changed.due_at == 1_000.0 and changed.last_id == "a" and waiting_tasks(queue) == ["a"]
    )
    assert timetable.run_now("post", Run("b", [plan("b")]), 995.0) is None and waiting_tasks(queue) == ["a"]


def test_old_firings_go_and_those_ahead_of_the_clock_stay(queue: Queue, timetable: Timetable) -> None:
    [entry] = add(timetable, "mail")
    for n in range(5):
        fired = fire(timetable, entry, f"id{n}", 1_000.0 + n)
        assert fired is not None
        entry = fired.entry
    far = fire(timetable, entry, "far", 900_000.0)
    assert far is not None
    assert timetable.prune(1_003.0 + 86_400.0 + 1, limit=2) == 2
    assert timetable.prune(1_003.0 + 86_400.0 + 1) == 2
    assert [row.due_at for row in timetable.firings("mail")] == [900_000.0, 1_004.0]
    assert [entry.name for entry in timetable.ahead_of(5_000.0)] == ["mail"] and not timetable.ahead_of(900_000.0)


@pytest.fixture(autouse=True)
def _no_task_without_its_firing(queue: Queue) -> Iterator[None]:
    yield
    lost = queue.rows("SELECT task_id FROM litetq_firing WHERE outcome = 'SENT' AND task_id NOT IN "
                      "(SELECT id FROM litetq_task UNION SELECT id FROM litetq_result)")  # fmt: skip
    assert not lost


def test_a_file_of_the_first_schema_gets_the_tables(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    old = apsw.Connection(str(path))
    old.execute("PRAGMA journal_mode = WAL")
    old.execute(migrations()[0][1])
    old.execute("INSERT INTO litetq_meta (key, value) VALUES ('schema', '1')")
    old.close()
    database = Database(path)
    assert Timetable(database, Store(database)).entries() == []
    database.close()
