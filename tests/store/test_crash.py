"""Killed before any statement, or any write to the disk, a verb has happened as a whole or not at all."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from tests.factories import Queue, assert_sound, message, success
from tests.store import killed
from tests.store.killed import VERBS


def prepare(folder: Path, verb: str) -> None:
    folder.mkdir()
    if verb == "open":
        return
    queue = Queue(folder / "before.sqlite")
    deliveries = VERBS[verb].prepare(queue)
    (folder / "before.pickle").write_bytes(pickle.dumps((queue.now, deliveries)))
    queue.close()


def kill(run_python: Any, tmp_path: Path, verb: str, by: str) -> tuple[Path, int]:
    """Kill the verb at every place; return the folder with the files, and the number of the one that was not killed."""
    folder = tmp_path / "killed"
    prepare(folder, verb)
    process = run_python(Path(killed.__file__), folder, verb, by)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return folder, int(out)


def go_on(queue: Queue) -> None:
    """A next worker rescues what the dead one held and runs all there is."""
    queue.store.roster.rescue(1, frozenset(), queue.now)
    queue.worker = queue.add_worker()
    queue.now += 1_000
    queue.send(message("the next one", queue="a queue of its own"))
    ran = queue.run_all(success)
    assert "the next one" in ran
    assert queue.count("task") == 0


@pytest.mark.parametrize("by", ["statement", "write"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_that_is_killed_has_happened_as_a_whole_or_not_at_all(
    tmp_path: Path, run_python: Any, verb: str, by: str
) -> None:
    folder, survived = kill(run_python, tmp_path, verb, by)
    before = Queue(folder / "before.sqlite", worker=1)
    nothing, now = before.dump(), pickle.loads((folder / "before.pickle").read_bytes())[0]
    before.close()
    after = Queue(folder / f"{survived}.sqlite", worker=1)
    whole = after.dump()
    after.close()
    assert (whole != nothing) is (verb != "give space back")
    seen = []
    for n in range(1, survived + 1):
        queue = Queue(folder / f"{n}.sqlite", worker=1)
        queue.now = now
        found = queue.dump()
        assert found in (nothing, whole), f"killed before {by} {n} of {verb}"
        seen.append(found == whole)
        assert_sound(queue)
        go_on(queue)
        assert_sound(queue)
        queue.close()
    assert seen == sorted(seen)
    assert survived > 2


@pytest.mark.parametrize("by", ["statement", "write"])
def test_a_file_whose_making_was_killed_can_be_used(tmp_path: Path, run_python: Any, by: str) -> None:
    folder, survived = kill(run_python, tmp_path, "open", by)
    assert survived > 10
    for n in range(1, survived + 1):
        queue = Queue(folder / f"{n}.sqlite")
        queue.send("a")
        assert queue.run_all() == ["a"]
        assert queue.rows("PRAGMA auto_vacuum") == [(2,)], f"killed before {by} {n}"
        assert queue.rows("PRAGMA journal_mode") == [("wal",)]
        assert_sound(queue)
        queue.close()
