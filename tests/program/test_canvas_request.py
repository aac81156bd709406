"""What a running task sees of the workflow around it, in Celery's shapes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from litetq import LiteTQ, chain, chord, group
from litetq.exceptions import TaskRevokedError
from litetq.execution import tracer_for
from tests.program.canvas_tasks import register
from tests.program.conftest import RunWaiting


@pytest.fixture
def t(app: LiteTQ) -> SimpleNamespace:
    return register(app)


@pytest.fixture
def look(app: LiteTQ) -> Any:
    """A task that notes what its request says about the workflow."""
    seen: list[dict[str, Any]] = []

    @app.task(name="tasks.look", bind=True)
    def look(self: Any, *args: Any) -> int:
        seen.append(
            {name: getattr(self.request, name) for name in ("chain", "callbacks", "errbacks", "chord", "group")}
        )
        return 1

    look.seen = seen
    return look


def names(signatures: Any) -> list[str]:
    return [each["task"] for each in signatures]


def test_a_task_with_nothing_behind_it_sees_none(app: LiteTQ, look: Any, run_waiting: RunWaiting) -> None:
    look.delay()
    run_waiting(app)
    assert look.seen == [dict.fromkeys(("chain", "callbacks", "errbacks", "chord", "group"))]


@pytest.mark.row("2.request: chain, callbacks, errbacks, chord")
def test_a_step_sees_the_steps_after_it_the_next_one_last(
    app: LiteTQ, t: SimpleNamespace, look: Any, run_waiting: RunWaiting
) -> None:
    result = chain(look.s(), t.add.s(2), t.add.si(3, y=4))()
    run_waiting(app)
    [seen] = look.seen
    last, following = seen["chain"]
    assert following == {
        "task": "tasks.add",
        "args": [2],
        "kwargs": {},
        "options": {"task_id": result.parent.id, "queue": "celery"},
        "subtask_type": None,
        "immutable": False,
    }
    assert (last["args"], last["kwargs"], last["immutable"]) == ([3], {"y": 4}, True)
    assert seen["callbacks"] is None and seen["errbacks"] is None
    assert app.signature(following).clone(args=(1,)).apply().get() == 3


@pytest.mark.row("2.request: chain, callbacks, errbacks, chord")
def test_links_are_callbacks_and_no_steps(app: LiteTQ, t: SimpleNamespace, look: Any, run_waiting: RunWaiting) -> None:
    look.apply_async(link=[t.add.s(1), t.mul.s(2) | t.add.s(5)], link_error=t.errback.s("x"))
    sig = look.s()
    sig.link(t.note.s())
    chain(sig, t.add.s(7)).on_error(t.old_errback.s()).apply_async()
    run_waiting(app)
    alone, in_chain = look.seen
    assert names(alone["callbacks"]) == ["tasks.add", "celery.chain"] and alone["chain"] is None
    assert names(alone["callbacks"][1]["kwargs"]["tasks"]) == ["tasks.mul", "tasks.add"]
    assert [(each["task"], each["args"]) for each in alone["errbacks"]] == [("tasks.errback", ["x"])]
    assert names(in_chain["callbacks"]) == ["tasks.note"] and names(in_chain["chain"]) == ["tasks.add"]
    assert names(in_chain["errbacks"]) == ["tasks.old_errback"]
    assert names(in_chain["chain"][0]["options"]["link_error"]) == ["tasks.old_errback"]


@pytest.mark.row("2.request: chain, callbacks, errbacks, chord")
def test_a_member_of_a_chord_sees_its_body(app: LiteTQ, t: SimpleNamespace, look: Any, run_waiting: RunWaiting) -> None:
    result = chord([look.s(1), t.add.s(2, 2), look.s() | t.add.s(1)])(t.tsum.s())
    run_waiting(app)
    assert result.get(timeout=0) == 7
    alone, in_chain = look.seen
    assert alone["chord"]["task"] == "tasks.tsum" and alone["chord"]["chord_size"] == 3 and alone["chain"] is None
    assert alone["group"] is not None
    [step] = in_chain["chain"]
    assert in_chain["chord"] is None and step["options"]["chord"]["task"] == "tasks.tsum"


def test_a_chord_among_the_steps_is_shown_as_one(
    app: LiteTQ, t: SimpleNamespace, look: Any, run_waiting: RunWaiting
) -> None:
    chain(look.s(), group(t.add.s(1), t.add.s(2) | t.add.s(3)), t.tsum.s(), t.add.s(4)).apply_async()
    chain(look.s(), group(t.add.s(1), t.add.s(2))).apply_async()
    run_waiting(app)
    with_body, without = look.seen
    last, between = with_body["chain"]
    assert names([last, between]) == ["tasks.add", "celery.chord"] and last["args"] == [4]
    assert between["kwargs"]["body"]["task"] == "tasks.tsum"
    assert names(between["kwargs"]["header"]["kwargs"]["tasks"]) == ["tasks.add", "celery.chain"]
    [members] = without["chain"]
    assert (members["task"], members["subtask_type"], names(members["kwargs"]["tasks"])) == (
        "celery.group",
        "group",
        ["tasks.add", "tasks.add"],
    )


def test_a_long_chain_is_seen_whole(app: LiteTQ, t: SimpleNamespace, look: Any, run_waiting: RunWaiting) -> None:
    result = chain([look.s(), *(t.add.s(1) for _ in range(2000))])()
    seat = app.engine.seat("tests@here")
    [delivery] = seat.take(1).deliveries
    tracer_for(app, delivery.name)(delivery)
    seat.leave()
    assert len(look.seen[0]["chain"]) == 2000 and look.seen[0]["chain"][0]["options"]["task_id"] == result.id


# -- what a task changes -----------------------------------------------------------------------------------------------


@pytest.fixture
def change(app: LiteTQ) -> Any:
    """A task that does what `change.how` says with its request."""

    @app.task(name="tasks.change", bind=True, max_retries=1)
    def change(self: Any, *args: Any) -> str:
        change.how(self)
        return "value"

    change.how = lambda self: None
    return change


def assigned(**fields: Any) -> Any:
    return lambda self: self.request.update(fields)


@pytest.mark.row("2.request: chain, callbacks, errbacks, chord")
def test_a_task_can_end_its_chain(app: LiteTQ, t: SimpleNamespace, change: Any, run_waiting: RunWaiting) -> None:
    """In Celery what follows is never sent, and its result PENDING for ever; here each end is on record."""
    change.how = assigned(chain=None)
    result = (change.s() | t.note.s().on_error(t.old_errback.s()) | t.note.s())()
    run_waiting(app)
    assert result.parent.parent.get(timeout=0) == "value" and t.seen == []
    assert [result.parent.state, result.state] == ["REVOKED", "FAILURE"]
    with pytest.raises(TaskRevokedError, match="the task before it took it off"):
        result.get(timeout=0)
    assert result.retry() == 2
    run_waiting(app)
    assert t.seen == [("value",), (["value"],)]


def test_a_group_or_chord_behind_a_task_is_taken_off_whole(
    app: LiteTQ, t: SimpleNamespace, change: Any, run_waiting: RunWaiting
) -> None:
    change.how = assigned(chain=[])
    results = [
        (change.s() | group(t.note.s(), t.note.s() | t.note.s()) | t.note.s())(),
        (change.s() | group(t.note.s(), t.note.s()))(),
        chord([change.s() | t.note.s(), t.add.s(1, 1)])(t.note.s()),
    ]
    run_waiting(app)
    assert t.seen == [] and all(result.ready() and not result.successful() for result in results)


def test_callbacks_and_errbacks_can_be_taken_off_and_added(
    app: LiteTQ, t: SimpleNamespace, change: Any, run_waiting: RunWaiting
) -> None:
    def swap(self: Any) -> None:
        self.request.callbacks.pop(0)
        self.request.callbacks.append(t.same.s() | t.note.s())
        self.request.errbacks = None

    change.how = swap
    first, second = t.note.s("first").set(task_id="first"), t.note.s("second")
    change.apply_async(link=[first, second], link_error=t.old_errback.s())
    run_waiting(app)
    assert sorted(t.seen) == [("value",), ("value", "second")]
    assert app.AsyncResult("first").state == "REVOKED"
    t.seen.clear()

    def swap_and_fail(self: Any) -> None:
        self.request.errbacks = [t.note.si("told")]
        self.request.callbacks = [t.note.s()]
        raise ValueError

    change.how = swap_and_fail
    change.apply_async(link=t.note.s("first"), link_error=t.old_errback.s())
    run_waiting(app)
    assert t.seen == [("told",)]


def test_what_was_taken_off_before_a_retry_stays_off(
    app: LiteTQ, t: SimpleNamespace, change: Any, run_waiting: RunWaiting
) -> None:
    def cut_and_retry(self: Any) -> None:
        if not self.request.retries:
            self.request.chain = None
            self.request.callbacks = [t.note.s("added")]
            raise self.retry(countdown=0)

    change.how = cut_and_retry
    result = (change.s() | t.note.s())()
    run_waiting(app)
    assert result.parent.get(timeout=0) == "value" and result.state == "REVOKED"
    assert t.seen == [("value", "added")]


def test_other_changes_have_no_effect_and_are_logged(
    app: LiteTQ, t: SimpleNamespace, change: Any, run_waiting: RunWaiting, caplog: pytest.LogCaptureFixture
) -> None:
    def shuffle(self: Any) -> None:
        self.request.chain.append(t.add.s(1))
        self.request.chord = None

    change.how = shuffle
    result = (change.s() | t.note.s())()
    member = chord([change.s() | t.same.s(), t.same.s(2)])(t.note.s())
    run_waiting(app)
    assert result.get(timeout=0) == ["value"] and member.get(timeout=0) == [["value", 2]]
    assert sum("self.request.chain, which has no effect" in line for line in caplog.messages) == 2
