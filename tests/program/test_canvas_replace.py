"""Tasks that change the workflow they are part of: `replace` and `add_to_chord`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from litetq import LiteTQ, Task, chain, chord, group
from litetq.exceptions import ChordError, Ignore, ImproperlyConfigured
from tests.program.canvas_tasks import register
from tests.program.conftest import RunWaiting


@pytest.fixture
def t(app: LiteTQ) -> SimpleNamespace:
    return register(app)


@pytest.fixture(params=["worker", "eager", "as if sent"])
def run(request: pytest.FixtureRequest, app: LiteTQ, run_waiting: RunWaiting) -> Any:
    """Send a signature and return its result once all has run: through the file, by `apply`, with task_always_eager."""

    def run(sig: Any) -> Any:
        if request.param == "eager":
            return sig.apply()
        app.conf.task_always_eager = request.param == "as if sent"
        result = sig.apply_async()
        if request.param == "worker":
            run_waiting(app)
        return result

    return run


@pytest.mark.row("5.task.replace(sig)")
@pytest.mark.row("2.methods: replace, add_to_chord")
def test_the_replacement_gives_the_value_in_the_tasks_place(t: SimpleNamespace, run: Any) -> None:
    add, tsum, replaced_by = t.add, t.tsum, t.replaced_by
    cases: list[tuple[Any, Any]] = [
        (replaced_by.s(add.s(2, 3)), 5),
        (replaced_by.s(add.s(2, 3)) | add.s(10), 15),
        (replaced_by.s(add.s(2, 3) | add.s(1)) | t.mul.s(2), 12),
        (replaced_by.s(group([add.s(2, 3), add.s(1, 1)])), [5, 2]),
        (replaced_by.s(add.s(1, 1) | group([add.s(2), add.s(3)])), [4, 5]),
        (replaced_by.s(group([add.s(2, 3), add.s(1, 1)])) | tsum.s(), 7),
        (replaced_by.s(chord([add.s(2, 3)], tsum.s())), 5),
        (replaced_by.s(tsum.map([[1, 2]])), [3]),
        (replaced_by.s(add.chunks([(1, 1), (2, 2)], 1)), [[2], [4]]),
        (chord([replaced_by.s(chord([add.s(2, 3)], tsum.s())), add.s(1, 1)], tsum.s()), 7),
        (chord([add.s(1, 1)], replaced_by.s(add.s(3, 4))), 7),
        (replaced_by.s(replaced_by.s(add.s(1, 1) | add.s(1)) | add.s(1)), 4),
    ]
    for sig, value in cases:
        assert run(sig).get(timeout=0, disable_sync_subtasks=False) == value, repr(sig)


@pytest.mark.row("5.task.replace(sig)")
def test_callbacks_wait_for_the_replacement(t: SimpleNamespace, run: Any) -> None:
    result = run(t.replaced_by.s(t.add.s(2, 3) | t.add.s(1)).set(link=t.note.s(), link_error=t.old_errback.s()))
    assert t.seen == [(6,)] and result.get(timeout=0) == 6 and len(result.children) == 1


def test_a_failure_of_any_step_of_the_replacement_is_the_tasks(t: SimpleNamespace, run: Any) -> None:
    sig = (t.replaced_by.s(t.fail.s() | t.add.s(1)) | t.note.s()).on_error(t.old_errback.s())
    result = run(sig)
    assert repr(result.result) == repr(result.parent.result) == "ValueError('boom')" and len(t.seen) == 1
    result = run(chord([t.replaced_by.s(group([t.fail.s(), t.add.s(1, 1)])), t.add.s(1, 1)], t.tsum.s()))
    assert type(result.result) is ChordError


@pytest.mark.row("5.task.replace(sig)")
@pytest.mark.row("2.request: ignore_result, replaced_task_nesting")
def test_the_replacement_keeps_id_root_group_and_stamps(
    app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting
) -> None:
    @app.task(bind=True)
    def look(self: Any) -> Any:
        request = self.request
        return [request.id, request.root_id, request.parent_id, request.group, request.group_index, request.stamps,
                request.replaced_task_nesting]  # fmt: skip

    member = t.replaced_by.s(look.si())
    member.stamp(customer="a")
    result = (t.add.s(1, 1) | group([t.add.s(1), member]))()
    run_waiting(app)
    first = result.parent.id
    assert result[1].get(timeout=0) == [result[1].id, first, first, result.id, 1, {"customer": "a"}, 1]


@pytest.mark.row("5.task.replace(sig)")
def test_what_cannot_replace_is_refused(app: LiteTQ, t: SimpleNamespace, run: Any) -> None:
    for sig in (chain(), t.add.s(1, 1).set(chord=dict(t.tsum.s()))):
        assert type(run(t.replaced_by.s(sig)).result) is ImproperlyConfigured

    @app.task(bind=True)
    def nothing(self: Any) -> None:
        self.replace(3)

    result = run(nothing.s())
    assert type(result.result) is TypeError and "found 3" in str(result.result)
    with pytest.raises(RuntimeError, match="called directly"):
        t.replaced_by(t.add.s(1, 1))


@pytest.mark.row("5.on_replace(sig)")
@pytest.mark.row("2.on_replace")
def test_a_class_may_decide_how_replacements_are_sent(app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting) -> None:
    class Own(Task[..., Any]):
        def on_replace(self, sig: Any) -> Any:
            t.seen.append(repr(sig))
            sig.set(queue="other").delay()
            raise Ignore("mine")

    @app.task(base=Own, bind=True)
    def own(self: Any) -> Any:
        raise self.replace(t.add.s(1, 1))

    result = own.delay()
    run_waiting(app)
    assert result.get(timeout=0) == 2 and result.queue == "other" and t.seen == ["tasks.add(1, 1)"]


def test_a_replacement_that_was_never_sent_is_a_failure(
    app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting
) -> None:
    class Forgetful(Task[..., Any]):
        def on_replace(self, sig: Any) -> Any:
            return None

    @app.task(base=Forgetful, bind=True)
    def forgetful(self: Any) -> Any:
        raise self.replace(t.add.s(1, 1))

    result = forgetful.delay()
    run_waiting(app)
    assert type(result.result) is ImproperlyConfigured and "sent nothing" in str(result.result)


def test_a_revoke_of_a_task_that_replaces_itself_counts(
    app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting
) -> None:
    @app.task(bind=True)
    def revoked(self: Any) -> Any:
        app.control.revoke(self.request.id)
        raise self.replace(t.note.s(1))

    result = (revoked.s() | t.note.s())()
    run_waiting(app)
    assert result.parent.state == "REVOKED" and result.state == "FAILURE" and t.seen == []


@pytest.mark.row("5.add_to_chord")
@pytest.mark.row("2.methods: replace, add_to_chord")
def test_members_can_be_added_to_a_running_chord(app: LiteTQ, t: SimpleNamespace, run: Any) -> None:
    @app.task(bind=True)
    def growing(self: Any, n: int) -> int:
        if n:
            self.add_to_chord(growing.si(n - 1))
            self.add_to_chord(t.add.s(100, n) | t.add.s(0), lazy=True)
        return n

    result = run(chord([growing.si(2), t.add.s(1, 1)], t.same.s()))
    assert sorted(result.get(timeout=0, disable_sync_subtasks=False)) == [0, 1, 2, 2, 101, 102]


def test_an_added_member_that_fails_fails_the_chord(app: LiteTQ, t: SimpleNamespace, run: Any) -> None:
    @app.task(bind=True)
    def growing(self: Any) -> None:
        self.add_to_chord(t.fail.s())

    result = run(chord([growing.si(), t.add.s(1, 1)], t.same.s()))
    assert type(result.result) is ChordError


@pytest.mark.row("5.add_to_chord")
def test_only_a_member_can_add_to_a_chord(app: LiteTQ, t: SimpleNamespace, run: Any) -> None:
    @app.task(bind=True)
    def alone(self: Any) -> None:
        self.add_to_chord(t.note.s(1))

    result = run(alone.s())
    assert type(result.result) is ValueError and "not member of any chord" in str(result.result) and t.seen == []
