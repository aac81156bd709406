"""Workflows: values, order, errors, and what tasks change in their own workflow while it runs."""

from __future__ import annotations

from typing import Any

import pytest

from litetq import chain, chord, group
from litetq.exceptions import ChordError
from tests.behaviour.conftest import LONG, Place
from tests.waiting import eventually

VALUES = {
    "chain": (lambda t: chain(t.add.s(1, 2), t.add.s(3), t.add.s(4)), 10),
    "chain of immutables": (lambda t: t.add.si(1, 1) | t.add.si(2, 2), 4),
    "long chain": (lambda t: chain(t.add.s(0, 1), *[t.add.s(1)] * 60), 61),
    "group": (lambda t: group(t.add.s(n, n) for n in range(8)), [0, 2, 4, 6, 8, 10, 12, 14]),
    "nested group": (lambda t: group(t.add.s(1, 1), group(t.add.s(2, 2), t.add.s(3, 3)), t.add.s(4, 4)), [2, 4, 6, 8]),
    "chains in a group": (lambda t: group(t.add.s(1, 1) | t.add.s(1), t.add.s(2, 2) | t.add.s(1)), [3, 5]),
    "group after a task": (lambda t: t.add.s(1, 1) | group(t.add.s(1), t.add.s(2)), [3, 4]),
    "chord": (lambda t: chord([t.add.s(n, n) for n in range(8)], t.total.s()), 56),
    "chord of one": (lambda t: chord([t.add.s(1, 1)], t.same.s()), [2]),
    "chord with an immutable body": (lambda t: chord([t.add.s(1, 1), t.add.s(2, 2)], t.add.si(3, 4)), 7),
    "group and a task": (lambda t: group(t.add.s(1, 1), t.add.s(2, 2)) | t.total.s(), 6),
    "chord and steps": (lambda t: chord([t.add.s(1, 1), t.add.s(2, 2)], t.total.s()) | t.add.s(1) | t.add.s(1), 8),
    "chord in a chain": (lambda t: t.add.s(1, 1) | group(t.add.s(1), t.add.s(2)) | t.total.s() | t.add.s(100), 107),
    "chord after chord": (
        lambda t: group(t.add.s(1, 1), t.add.s(2, 2)) | t.total.s() | group(t.add.s(1), t.add.s(2)) | t.total.s(),
        15,
    ),
    "chord in a chord": (
        lambda t: chord([chord([t.add.s(1, 1), t.add.s(2, 2)], t.total.s()), t.add.s(1, 1)], t.total.s()),
        8,
    ),
    "chain in a chord": (lambda t: chord([t.add.s(1, 1) | t.add.s(1), t.add.s(2, 2)], t.total.s()), 7),
    "chain as a body": (lambda t: chord([t.add.s(1, 1), t.add.s(2, 2)], t.total.s() | t.add.s(4)), 10),
    "chord as a body": (
        lambda t: chord([t.add.s(1, 1), t.add.s(2, 2)], chord([t.total.s(), t.total.s()], t.total.s())),
        12,
    ),
    "group after a group": (
        lambda t: group(t.add.s(1, 1), t.add.s(2, 2)) | group(t.total.s(), t.same.s()),
        [6, [2, 4]],
    ),
    "map": (lambda t: t.total.map([[1, 2], [3, 4]]), [3, 7]),
    "starmap": (lambda t: t.add.starmap([(1, 2), (3, 4)]), [3, 7]),
    "chunks": (lambda t: t.add.chunks([(n, n) for n in range(5)], 2).group(), [[0, 2], [4, 6], [8]]),
    "replaced": (lambda t: t.swap.s(1), 1001),
    "replaced in a chain": (lambda t: t.swap.s(1) | t.add.s(1), 1002),
    "replaced by a chain": (lambda t: t.swap_for_chain.s(1) | t.add.s(1), 1003),
    "replaced by a chord": (lambda t: t.swap_for_chord.s(1) | t.add.s(1), 6),
    "replaced in a chord": (lambda t: chord([t.swap.s(1), t.add.s(2, 2)], t.total.s()), 1005),
    "added to a chord": (lambda t: chord([t.joins_in.s(1), t.add.s(2, 2)], t.total.s()), 7),
    "retried in a chain": (lambda t: t.third_time.s() | t.add.s(1), 3),
    "retried in a chord": (lambda t: chord([t.third_time.s(), t.add.s(1, 1)], t.total.s()), 4),
    "a countdown in a chain": (lambda t: t.add.s(1, 1) | t.add.s(1).set(countdown=0.3), 3),
}


class Tasks:
    """The tasks of a place by their names."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def __getattr__(self, name: str) -> Any:
        return self._place.task(name)


@pytest.fixture
def t(worker: Place) -> Tasks:
    return Tasks(worker)


@pytest.mark.parametrize("what", VALUES)
def test_a_workflow_gives_its_value(t: Tasks, what: str) -> None:
    make, value = VALUES[what]
    assert make(t).apply_async().get(timeout=LONG) == value


def test_results_of_a_chain_know_their_parents(t: Tasks) -> None:
    result = chain(t.add.s(1, 2), t.add.s(3), t.add.s(4)).apply_async()
    assert result.get(timeout=LONG) == 10
    assert [result.parent.get(timeout=LONG), result.parent.parent.get(timeout=LONG)] == [6, 3]
    assert result.parent.parent.parent is None


def test_members_of_a_group_have_results_of_their_own(t: Tasks) -> None:
    result = group(t.add.s(n, n) for n in range(4)).apply_async()
    assert result.join(timeout=LONG) == [0, 2, 4, 6]
    assert (result.ready(), result.successful(), result.failed(), result.completed_count()) == (True, True, False, 4)
    assert result[1].get(timeout=LONG) == 2
    assert [child.get(timeout=LONG) for child in result] == [0, 2, 4, 6]


def test_a_saved_group_is_found_again(t: Tasks, worker: Place) -> None:
    result = group(t.add.s(n, n) for n in range(3)).apply_async()
    result.save()
    assert worker.app.GroupResult.restore(result.id).get(timeout=LONG) == [0, 2, 4]
    result.delete()
    assert worker.app.GroupResult.restore(result.id) is None


def test_a_step_that_fails_ends_its_chain(t: Tasks, worker: Place) -> None:
    result = chain(t.add.s(1, 1), t.fail.s(), t.noted.si("after")).apply_async()
    with pytest.raises(ValueError):
        result.get(timeout=LONG)
    assert result.parent.state == "FAILURE"
    assert result.parent.parent.get(timeout=LONG) == 2
    assert t.add.delay(1, 1).get(timeout=LONG) == 2
    assert worker.notes("after") == []


def test_a_member_that_fails_fails_the_body(t: Tasks, worker: Place) -> None:
    result = chord([t.add.s(1, 1), t.fail.s("bad")], t.noted.si("body")).apply_async()
    with pytest.raises((ChordError, ValueError), match="bad"):
        result.get(timeout=LONG)
    assert worker.notes("body") == []


def test_errbacks_of_workflows_are_told(t: Tasks, worker: Place) -> None:
    chained = chain(t.add.s(1, 1), t.fail.s("in a chain"), t.add.s(1)).apply_async(link_error=t.told.s())
    worker.noted(f"told-{chained.parent.id}")
    body = t.total.s().on_error(t.told.s())
    failed = chord([t.add.s(1, 1), t.fail.s("in a chord")], body).apply_async()
    with pytest.raises((ChordError, ValueError)):
        failed.get(timeout=LONG)
    eventually(lambda: any(failed.id in line for line in worker.notes("told")), within=LONG)


def test_callbacks_of_workflows_are_called(t: Tasks, worker: Place) -> None:
    chain(t.add.s(1, 1), t.add.s(1)).apply_async(link=t.same.s() | t.noted.si("after the chain"))
    worker.noted("after the chain")
    chord([t.add.s(1, 1), t.add.s(2, 2)], t.total.s()).apply_async(link=t.noted.si("after the body"))
    worker.noted("after the body")


def test_tasks_of_a_workflow_know_their_place_in_it(t: Tasks) -> None:
    result = chain(t.request.s(), t.request.s()).apply_async()
    second, first = result.get(timeout=LONG), result.parent.get(timeout=LONG)
    assert first["root"] == first["id"] == second["root"] == second["parent"]
    assert second["id"] != first["id"]
    [member] = group(t.request.si()).apply_async().get(timeout=LONG)
    assert member["parent"] is None


def test_stamps_travel_with_a_workflow(t: Tasks) -> None:
    sig = chain(t.add.s(1, 1), t.same.s())
    sig.stamp(colour="red")
    assert sig.apply_async().get(timeout=LONG) == 2


def test_many_chords_at_once_end_each_once(t: Tasks, worker: Place) -> None:
    results = [chord([t.add.s(n, 0) for n in range(5)], t.noted.s()).apply_async() for _ in range(20)]
    assert [result.get(timeout=LONG) for result in results] == [[0, 1, 2, 3, 4]] * 20
    assert len(worker.notes("[0, 1, 2, 3, 4]")) == 20
