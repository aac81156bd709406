"""Stamping: headers that a visitor, or keywords, put on every task of a workflow."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from litetq import LiteTQ, StampingVisitor, chain, chord, group
from tests.program.canvas_tasks import register
from tests.program.conftest import RunWaiting


@pytest.fixture
def t(app: LiteTQ) -> SimpleNamespace:
    return register(app)


def stamps_of(sig: Any) -> dict[str, Any]:
    names = sig.options.get("stamped_headers") or []
    return {name: sig.options[name] for name in names if name in sig.options}


@pytest.mark.row("5.stamping")
def test_keywords_are_stamps_and_later_ones_win_or_are_added(t: SimpleNamespace) -> None:
    sig = t.add.s(1)
    sig.stamp(foo="bar")
    assert sig.options == {"foo": "bar", "stamped_headers": ["foo"]}
    sig.stamp(foo="baz")
    assert stamps_of(sig) == {"foo": "baz"}
    sig.stamp(append_stamps=True, foo="bar")
    assert stamps_of(sig) == {"foo": ["bar", "baz"]}


@pytest.mark.row("5.stamping")
def test_a_canvas_stamps_its_parts_callbacks_and_errbacks(t: SimpleNamespace) -> None:
    first = t.add.s(1, 1)
    first.link(t.note.s())
    first.link_error(t.old_errback.s())
    sig = first | group([t.add.s(1), t.add.s(2)]) | t.tsum.s()
    sig.stamp(customer="a")
    step, joined = sig.tasks
    parts = [step, *joined.tasks, step.options["link"][0], step.options["link_error"][0]]
    assert [stamps_of(part) for part in parts] == [{"customer": "a"}] * 5


class Recorder(StampingVisitor):
    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_signature(self, sig: Any, **headers: Any) -> dict[str, Any]:
        self.calls.append(f"signature {sig.task}")
        return {"on": sig.task}

    def on_group_start(self, group: Any, **headers: Any) -> dict[str, Any]:
        self.calls.append("group start")
        return {"in_group": True}

    def on_group_end(self, group: Any, **headers: Any) -> None:
        self.calls.append("group end")

    def on_chain_start(self, chain: Any, **headers: Any) -> dict[str, Any]:
        self.calls.append("chain start")
        return {}

    def on_chain_end(self, chain: Any, **headers: Any) -> None:
        self.calls.append("chain end")

    def on_chord_body(self, sig: Any, **headers: Any) -> dict[str, Any]:
        self.calls.append("chord body")
        return {"body": True}

    def on_callback(self, callback: Any, **headers: Any) -> dict[str, Any]:
        self.calls.append(f"callback {callback.task}")
        return {"called_back": True}

    def on_errback(self, errback: Any, **headers: Any) -> dict[str, Any]:
        self.calls.append(f"errback {errback.task}")
        return {"failed": True}


@pytest.mark.row("5.stamping")
def test_a_visitor_is_led_through_all_of_it(t: SimpleNamespace) -> None:
    visitor = Recorder()
    first = t.add.s(1, 1)
    first.link(t.note.s())
    first.link_error(t.old_errback.s())
    sig = chain(first, chord([t.mul.s(2)], t.tsum.s()))
    sig.stamp(visitor)
    assert visitor.calls == [
        "chain start", "callback tasks.note", "signature tasks.note", "errback tasks.old_errback",
        "signature tasks.old_errback", "signature tasks.add", "group start", "signature tasks.mul", "group end",
        "chord body", "signature tasks.tsum", "chain end",
    ]  # fmt: skip
    step, joined = sig.tasks
    assert stamps_of(step) == {"on": "tasks.add"} and stamps_of(joined.body)["body"] is True
    assert stamps_of(step.options["link"][0]) == {"called_back": True, "on": "tasks.note"}
    assert stamps_of(step.options["link_error"][0])["failed"] is True


@pytest.mark.row("5.stamping")
def test_a_visitor_may_name_which_of_its_headers_are_stamps(t: SimpleNamespace) -> None:
    class Some(StampingVisitor):
        def on_signature(self, sig: Any, **headers: Any) -> dict[str, Any]:
            return {"stamp": 1, "header": 2, "stamped_headers": ["stamp"]}

    sig = t.add.s(1)
    sig.stamp(Some())
    assert stamps_of(sig) == {"stamp": 1}
    with pytest.raises(TypeError, match="on_signature"):
        t.add.s(1).stamp(StampingVisitor())


@pytest.mark.row("5.stamping")
@pytest.mark.row("2.request: stamped_headers, stamps")
def test_stamps_travel_to_the_task_and_stay_when_overridden(
    app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting
) -> None:
    @app.task(bind=True)
    def look(self: Any, *_: Any) -> Any:
        return [self.request.stamped_headers, self.request.stamps]

    sig = look.s() | look.s()
    sig.stamp(customer="a", order=[1, 2])
    result = sig.apply_async(customer="b")
    run_waiting(app)
    assert (
        result.parent.get(timeout=0)
        == result.get(timeout=0)
        == [["customer", "order"], {"customer": "a", "order": [1, 2]}]
    )


@pytest.mark.parametrize(
    ("append", "wanted"), [(False, {"shared": 2, "own": 1, "new": 2}), (True, {"shared": [2, 1], "own": 1, "new": 2})]
)
def test_stamps_that_are_dictionaries_are_merged_inside(app: LiteTQ, append: bool, wanted: Any) -> None:
    given = {"shared": 1, "own": 1}
    call = app.signature("t")
    call.stamp(nested=given)
    call.stamp(nested={"shared": 2, "new": 2}, append_stamps=append)
    assert call.options["nested"] == wanted and given == {"shared": 1, "own": 1}
