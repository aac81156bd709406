"""Killed before any statement, or any write to the disk, a verb has happened as a whole or not at all."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
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


@pytest.fixture(scope="module")
def victims() -> Iterator[subprocess.Popen[str]]:
    """The one process whose forks are killed."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with subprocess.Popen(
        [sys.executable, killed.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        encoding="utf-8",
    ) as process:
        yield process


def kill(victims: subprocess.Popen[str], tmp_path: Path, verb: str, by: str) -> tuple[Path, int]:
    """Kill the verb at every place; return the folder with the files, and the number of the one that was not killed."""
    assert victims.stdin is not None and victims.stdout is not None
    folder = tmp_path / "killed"
    prepare(folder, verb)
    victims.stdin.write(f"{folder}\t{verb}\t{by}\n")
    victims.stdin.flush()
    return folder, int(victims.stdout.readline())


def go_on(queue: Queue) -> None:
    """A next worker rescues what the dead one held and runs all there is."""
    queue.store.roster.rescue(1, frozenset(), queue.now)
    queue.worker = queue.add_worker()
    queue.now += 1_000
    queue.send(message("the next one", queue="a queue of its own"))
    ran = queue.run_all(success)
    assert "the next one" in ran
    assert queue.count("task") == 0


OFTEN = ("send a workflow", "claim", "settle and claim", "settle the last member")
WRITES = [pytest.param(verb, "write", marks=[] if verb in OFTEN else pytest.mark.slow) for verb in VERBS]


@pytest.mark.parametrize(("verb", "by"), [*((verb, "statement") for verb in VERBS), *WRITES])
def test_a_verb_that_is_killed_has_happened_as_a_whole_or_not_at_all(
    tmp_path: Path, victims: subprocess.Popen[str], verb: str, by: str
) -> None:
    folder, survived = kill(victims, tmp_path, verb, by)
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
def test_a_file_whose_making_was_killed_can_be_used(tmp_path: Path, victims: subprocess.Popen[str], by: str) -> None:
    folder, survived = kill(victims, tmp_path, "open", by)
    assert survived > 10
    for n in range(1, survived + 1):
        queue = Queue(folder / f"{n}.sqlite")
        queue.send("a")
        assert queue.run_all() == ["a"]
        assert queue.rows("PRAGMA auto_vacuum") == [(2,)], f"killed before {by} {n}"
        assert queue.rows("PRAGMA journal_mode") == [("wal",)]
        assert_sound(queue)
        queue.close()
