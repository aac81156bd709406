"""Canvases run here and now: `apply`, and `task_always_eager`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from litetq import GroupResult, LiteTQ, chain, chord, group
from litetq.exceptions import ChordError, EncodeError, Ignore, NotRegistered
from litetq.result import EagerResult
from tests.program.canvas_tasks import register


@pytest.fixture
def t(app: LiteTQ) -> SimpleNamespace:
    return register(app)


@pytest.mark.row("5.eager canvases")
@pytest.mark.parametrize("always", [False, True])
def test_every_primitive_runs_here_and_writes_nothing(app: LiteTQ, t: SimpleNamespace, always: bool) -> None:
    app.conf.task_always_eager = always
    add, tsum, same = t.add, t.tsum, t.same
    cases: list[tuple[Any, Any]] = [
        (add.s(2, 2), 4),
        (chain(add.s(2, 2), add.s(4), add.s(8)), 16),
        (group(add.s(i, i) for i in range(4)), [0, 2, 4, 6]),
        (group([]), []),
        (group([add.s(1, 1), group([add.s(2, 2)])]), [2, 4]),
        (chord([add.s(2, 2), add.s(4, 4)], tsum.s()), 12),
        (chord([], tsum.s()), 0),
        (chord([add.s(2, 2)], tsum.s() | add.s(1)), 5),
        (add.s(1, 1) | group([add.s(1), add.s(2)]) | tsum.s() | add.s(1), 8),
        (group([add.s(1, 1), add.s(2, 2)]) | group([same.s(), tsum.s()]), [[2, 4], 6]),
        (chord([add.s(1, 1) | group([add.s(1), add.s(2)]), add.s(5, 5)], same.s()), [[3, 4], 10]),
        (tsum.map([[1, 2]]), [3]),
        (add.starmap([(1, 2)]), [3]),
        (add.chunks([(1, 1), (2, 2)], 1), [[2], [4]]),
        (chain(), None),
    ]
    for sig, value in cases:
        result = sig.apply_async() if always else sig.apply()
        assert value is None or result.get() == value, repr(sig)
        assert isinstance(result, (EagerResult, GroupResult, type(None)))
    assert sum(app.engine.store.records.counts().values()) == 0


def test_results_have_parents_and_children(t: SimpleNamespace) -> None:
    result = (t.add.s(1, 1) | t.add.s(1)).apply(link=t.note.s())
    assert (result.get(), result.parent.get(), result.parent.children) == (3, 2, [result])
    assert [child.get() for child in result.children] == [[3]]
    linked = t.add.apply((2, 2), link=t.mul.s(16), link_error=t.old_errback.s())
    assert list(linked.collect()) == [(linked, 4), (linked.children[0], 64)] and t.seen == [(3,)]


@pytest.mark.row("5.eager canvases")
def test_failures_run_on_and_errbacks_are_called(app: LiteTQ, t: SimpleNamespace) -> None:
    result = (t.add.s(1, 1) | t.fail.s() | t.note.s()).on_error(t.old_errback.s()).apply()
    assert repr(result.result) == "ValueError('boom')" and result.state == result.parent.state == "FAILURE"
    result = chord([t.fail.s(), t.add.s(1, 1)], t.note.s().on_error(t.errback.s(1))).apply()
    assert type(result.result) is ChordError and t.seen[1] == (result.id, repr(result.result), False, 1)
    with pytest.raises(ChordError, match="Dependency .* raised ValueError"):
        result.get()
    direct = t.fail.apply(link_error=t.note.si(7))
    assert direct.state == "FAILURE" and t.seen[2:] == [(7,)] and len(t.seen) == 3


@pytest.mark.row("5.eager canvases")
def test_errbacks_that_are_told_the_failure_are_called_as_well_where_all_is_run_eagerly(
    app: LiteTQ, t: SimpleNamespace
) -> None:
    app.conf.task_always_eager = True
    result = (t.add.s(1, 1) | t.fail.s() | t.note.s()).on_error(t.errback.s(1)).apply_async()
    assert result.state == "FAILURE" and t.seen == [(result.parent.id, "ValueError('boom')", True, 1)]
    direct = t.fail.apply_async(link_error=t.errback.s())
    assert direct.state == "FAILURE" and t.seen[1:] == [(direct.id, "ValueError('boom')", True)]


def test_failures_propagate_where_that_is_wanted(app: LiteTQ, t: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="boom"):
        (t.add.s(1, 1) | t.fail.s()).apply(throw=True)
    app.conf.task_eager_propagates = True
    with pytest.raises(ValueError, match="boom"):
        group([t.add.s(1, 1), t.fail.s()]).apply()


@pytest.mark.row("3.task_always_eager")
def test_arguments_stay_objects_with_apply_and_travel_with_always_eager(app: LiteTQ, t: SimpleNamespace) -> None:
    thing = object()
    assert chain(t.same.s(thing), t.same.s()).apply().get() is thing
    app.conf.task_always_eager = True
    with pytest.raises(EncodeError):
        chain(t.same.s(thing), t.same.s())()
    assert chain(t.same.s((1, 2)), t.same.s())().get() == [1, 2]


@pytest.mark.row("3.eager: replace works")
def test_a_canvas_within_an_eager_task_runs_too(app: LiteTQ, t: SimpleNamespace) -> None:
    app.conf.task_always_eager = True

    @app.task
    def outer() -> list[Any]:
        (t.note.s(1) | t.note.s())()
        return [group([t.note.s(2), t.note.s(3)])().id]

    assert type(outer.delay().get()[0]) is str and t.seen == [(1,), ([1],), (2,), (3,)]


def test_a_step_that_is_not_here_cannot_run_here(app: LiteTQ, t: SimpleNamespace) -> None:
    with pytest.raises(NotRegistered):
        chain(t.add.s(1, 1), app.signature("elsewhere.task")).apply()


def test_a_large_eager_chord_takes_time_in_proportion(t: SimpleNamespace) -> None:
    assert chord([t.add.s(1, 1)] * 2000, t.tsum.s()).apply().get() == 4000


def test_a_request_shows_callbacks_and_errbacks_as_celerys_eager_ones_do(app: LiteTQ, t: SimpleNamespace) -> None:
    seen: list[Any] = []

    @app.task(name="look", bind=True)
    def look(self: Any, *args: Any) -> int:
        request = self.request
        seen.append((request.chain, request.callbacks, request.errbacks, request.chord))
        if args and not request.retries:
            raise self.retry(countdown=0)
        return 1

    callback, errback = t.note.s(), t.old_errback.s()
    look.apply(link=callback, link_error=errback)
    look.apply((1,), link=callback)
    assert seen == [(None, [callback], [errback], None), *[(None, [callback], None, None)] * 2]
    seen.clear()
    app.conf.task_always_eager = True
    chain(look.si(), look.si().on_error(errback)).apply_async()
    look.delay()
    assert seen == [(None,) * 4, (None, None, [errback], None), (None,) * 4]


def test_what_is_ignored_ends_a_chain_without_a_value_and_without_a_failure(app: LiteTQ, t: SimpleNamespace) -> None:
    @app.task(name="ignores")
    def ignores() -> None:
        raise Ignore

    app.conf.task_eager_propagates = True
    for workflow in (ignores.s(), ignores.s() | t.same.s()):
        result = workflow.apply()
        assert (result.state, result.get()) == ("IGNORED", None)
    assert group(ignores.s(), t.same.s(1)).apply().get() == [None, 1]
    app.conf.task_eager_propagates = False
    assert chord([ignores.s(), t.same.s(1)], t.same.s()).apply().state == "FAILURE"  # as in a worker
