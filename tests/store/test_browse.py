"""What is found in a file by filter, compared with a plain model; how tasks are moved and deleted."""

from __future__ import annotations

import fnmatch
import random
from pathlib import Path
from typing import Any

import pytest

from litetq import browse
from litetq.browse import STATES, Browse, Filter, Found
from litetq.message import Message, uuid
from tests.factories import Queue, chain, failure, message, retry, success

_WAITING = {"QUEUED", "SCHEDULED", "BLOCKED"}


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browse, "PAGE", 3)  # so that a dozen tasks fill several


def is_meant(task: Found, wanted: Filter) -> bool:
    """Say whether a task fulfils a filter, word by word."""
    text = wanted.text or ""
    return (
        (not wanted.states or any(_is_in(task, state) for state in wanted.states))
        and (not wanted.names or any(fnmatch.fnmatchcase(task.name or "", name) for name in wanted.names))
        and (not wanted.queues or task.queue in wanted.queues)
        and text.encode() in (task.body or b"")
        and (wanted.sent_before is None or task.sent_at < wanted.sent_before)
        and (wanted.sent_after is None or task.sent_at >= wanted.sent_after)
    )


def _is_in(task: Found, state: str) -> bool:
    done = task.place == "DONE"
    return {
        "WAITING": task.place in _WAITING,
        "RUNNING": task.place == "CLAIMED",
        "RETRY": task.state == "RETRY" and task.place in _WAITING,
        "UNFINISHED": not done,
        "FINISHED": done,
        "DEAD": done and task.dead,
        **{place: task.place == place for place in _WAITING},
        **{name: done and task.state == name for name in ("SUCCESS", "FAILURE", "REVOKED")},
    }.get(state, task.state == state)


def fill(queue: Queue, chance: random.Random) -> int:
    """Put tasks of all kinds into a file; return how many."""
    count = 0
    for _ in range(20):
        queue.now += 10.0
        id = chance.choice([uuid(), uuid(), f"own-{count}", f"{count}-own"])
        name = chance.choice(["a.one", "a.two", "b"])
        more: dict[str, Any] = {"due_at": queue.now + 1e6} if chance.random() < 0.2 else {}
        body = b'[["%d"], {}]' % chance.randrange(4)
        if chance.random() < 0.2:
            queue.send(chain(message(id, name=name, queue="q1"), message(f"{id}+", name="b", queue="q2")))
            count += 1
        else:
            queue.send(Message(id, name, body, queue=chance.choice(["q1", "q2"]), **more))
        count += 1
        for delivery in queue.claim(chance.choice([0, 0, 1])):
            queue.settle(
                chance.choice([success(delivery), failure(delivery), failure(delivery, dead="no"), retry(delivery)])
            )
    queue.claim(2)
    return count


@pytest.mark.parametrize("seed", range(8))
def test_a_filter_finds_what_it_says_and_nothing_else(queue: Queue, seed: int) -> None:
    chance = random.Random(seed)
    count = fill(queue, chance)
    files = Browse(queue.database)
    known = files.tasks(Filter(), 1000)
    assert len(known) == count == len({task.id for task in known})
    assert [task.sent_at for task in known] == sorted((task.sent_at for task in known), reverse=True)
    times = sorted(task.sent_at for task in known)
    for _ in range(60):
        wanted = Filter(
            tuple(chance.sample(sorted(STATES), chance.choice([0, 0, 1, 2]))),
            tuple(chance.sample(["a.*", "a.one", "b", "?", "x*"], chance.choice([0, 0, 1, 2]))),
            tuple(chance.sample(["q1", "q2", "q3"], chance.choice([0, 0, 1, 2]))),
            chance.choice([None, None, '"1"', '"2"', "nowhere"]),
            chance.choice([None, None, chance.choice(times)]),
            chance.choice([None, None, chance.choice(times)]),
        )
        expected = [task for task in known if is_meant(task, wanted)]
        assert {task.id for task in files.tasks(wanted, 1000)} == {task.id for task in expected}, wanted
        assert {id for page in files.ids(wanted) for id, _ in page} == {task.id for task in expected}, wanted
        few = chance.randrange(1, 6)
        found = files.tasks(wanted, few)
        assert [task.sent_at for task in found] == [task.sent_at for task in expected[:few]], wanted
        assert files.by_ids([task.id for task in found]) == {task.id: task for task in found}


@pytest.mark.parametrize("seed", range(4))
def test_counts_are_those_of_the_tasks(queue: Queue, seed: int) -> None:
    fill(queue, random.Random(seed))
    files = Browse(queue.database)
    known = files.tasks(Filter(), 1000)

    def count(**facts: Any) -> int:
        return sum(all(getattr(task, name) == value for name, value in facts.items()) for task in known)

    assert files.waiting() == {place: count(place=place) for place in ("QUEUED", "SCHEDULED", "BLOCKED", "CLAIMED")}
    later = files.later()
    for found in files.queues():
        assert (found.ready, found.running) == (
            count(queue=found.name, place="QUEUED"),
            count(queue=found.name, place="CLAIMED"),
        )
        for place in ("SCHEDULED", "BLOCKED"):
            assert later.get(found.name, {}).get(place, 0) == count(queue=found.name, place=place)
        ready = [task.sent_at for task in known if task.queue == found.name and task.place == "QUEUED"]
        assert found.oldest_at == min(ready, default=None)
    ends = files.ends(queue.now)
    assert {state: n for state, n in ends.total.items() if n} == {
        state: count(place="DONE", state=state) for state in {t.state for t in known if t.place == "DONE"}
    }
    assert ends.minute.total() == sum(task.done_at is not None and task.done_at >= queue.now - 60 for task in known)


def test_a_look_reads_no_more_than_a_page_at_a_time(queue: Queue) -> None:
    """No statement holds a snapshot longer than a page takes."""
    for n in range(20):
        queue.send(message(name="a", queue=f"q{n % 2}"))
        queue.run()
    for _ in range(20):
        queue.send(message(name="a"))
    files = Browse(queue.database)
    reads: list[int] = []
    whole = queue.database.read

    def read(operation: Any) -> Any:
        found = whole(operation)
        reads.append(len(found) if isinstance(found, list) else 1)
        return found

    queue.database.read = read  # type: ignore[method-assign]
    assert sum(len(page) for page in files.ids(Filter())) == 40
    assert len(files.ended_after(Filter(), 0.0)) == 20
    assert files.tasks(Filter(names=("nobody",)), 10) == []
    assert max(reads) <= browse.PAGE


def test_a_file_that_was_made_before_is_read_as_well(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "empty.sqlite")
    files = Browse(queue.database)
    assert files.tasks(Filter(), 10) == [] and files.queues() == [] and files.later() == {} and files.next_due() is None
    assert files.ends(0.0).total == {} and list(files.ids(Filter())) == [] and files.last_seq() == 0
    queue.close()


@pytest.mark.parametrize("seed", range(4))
def test_a_list_with_a_larger_limit_begins_with_the_shorter_one(queue: Queue, seed: int) -> None:
    """Pages of a list are cut from longer and longer ones: none may be shown twice or left out."""
    chance = random.Random(seed)
    ids = [uuid() for _ in range(30)]
    chance.shuffle(ids)  # made in another order than they are sent
    count = fill(queue, chance) + len(ids)
    for id in ids:
        queue.now += 1.0
        queue.send(id)
        queue.settle(*(success(delivery) for delivery in queue.claim(1)))
    files = Browse(queue.database)
    for wanted in (Filter(), Filter(states=("FINISHED",)), Filter(states=("UNFINISHED",))):
        whole = files.tasks(wanted, count + 1)
        for limit in range(1, count + 1):
            assert files.tasks(wanted, limit) == whole[:limit]


def test_ends_are_counted_by_the_worker_that_brought_them(queue: Queue) -> None:
    queue.send(*(message(f"t{n}") for n in range(10)))
    for delivery in queue.claim(7):
        queue.settle(failure(delivery) if delivery.id in ("t1", "t5") else success(delivery))
    (counts,) = Browse(queue.database).ends_by_worker().values()
    assert counts == (7, 2)
