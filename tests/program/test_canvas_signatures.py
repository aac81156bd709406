"""Signatures and canvases as values: what they are, how they merge, how they look. Values seen in Celery 5.7."""

from __future__ import annotations

import json
import pickle
from types import SimpleNamespace
from typing import Any

import pytest

from litetq import (
    LiteTQ,
    Signature,
    chain,
    chord,
    group,
    maybe_signature,
    shared_task,
    signature,
    subtask,
    xstarmap,
)
from litetq.exceptions import ImproperlyConfigured, NotRegistered
from tests.program.canvas_tasks import register


@pytest.fixture
def t(app: LiteTQ) -> SimpleNamespace:
    return register(app)


def kind(sig: Any) -> tuple[str, str]:
    return type(sig).__name__, repr(sig)


# -- one signature -----------------------------------------------------------------------------------------------------


@pytest.mark.row("5.Signature API")
def test_a_signature_is_a_dict_that_json_gives_back(app: LiteTQ, t: SimpleNamespace) -> None:
    sig = t.add.s(2, 2, debug=True).set(countdown=1)
    assert json.loads(json.dumps(sig)) == {
        "task": "tasks.add",
        "args": [2, 2],
        "kwargs": {"debug": True},
        "options": {"countdown": 1},
        "subtask_type": None,
        "immutable": False,
    }
    again = app.signature(json.loads(json.dumps(sig)))
    assert type(again) is Signature and repr(again) == "tasks.add(2, 2, debug=True)"
    assert signature({"task": "tasks.add"}, app=app).args == ()


def test_a_signature_is_made_by_name_by_task_or_by_shortcut(t: SimpleNamespace) -> None:
    by_name = signature("tasks.add", args=(2, 2), countdown=10)
    assert kind(by_name) == ("Signature", "tasks.add(2, 2)") and by_name.options == {"countdown": 10}
    assert dict(t.add.signature((2, 2), countdown=10)) == dict(by_name) == dict(t.add.subtask((2, 2), countdown=10))
    assert t.add.s(2, 2, debug=True) == t.add.signature((2, 2), {"debug": True})
    assert repr(t.add.s(2, 2, debug=True)) == "tasks.add(2, 2, debug=True)"
    assert t.add.si(2, 2) == t.add.signature((2, 2), immutable=True) and t.add.si(2, 2).immutable
    assert subtask is signature and (by_name.name, by_name.id, by_name.root_id) == ("tasks.add", None, None)


@pytest.mark.row("5.merge rule")
def test_arguments_given_later_come_first_and_options_win(t: SimpleNamespace) -> None:
    sig = t.add.s(1, x=2)
    merged = sig.clone((5,), {"y": 1}, countdown=3)
    assert (merged.args, merged.kwargs, merged.options) == ((5, 1), {"x": 2, "y": 1}, {"countdown": 3})
    assert (sig.args, sig.kwargs, sig.options) == ((1,), {"x": 2}, {})
    immutable = t.add.si(1).clone((5,), {"y": 1}, countdown=3)
    assert (immutable.args, immutable.kwargs, immutable.options) == ((1,), {}, {"countdown": 3})
    assert sig.partial((5,)) == sig.clone((5,))


@pytest.mark.row("5.merge rule")
def test_a_groups_id_and_stamps_are_not_overridden(t: SimpleNamespace) -> None:
    sig = t.add.s(1).set(group_id="g")
    sig.stamp(customer="a")
    merged = sig.clone(group_id="other", customer="b", stamped_headers=["x"], queue="q")
    assert merged.options == {"group_id": "g", "customer": "a", "stamped_headers": ["customer"], "queue": "q"}


@pytest.mark.row("5.replace(args, kwargs, options)")
def test_replace_overwrites_where_clone_merges(t: SimpleNamespace) -> None:
    replaced = t.add.s(1, x=2).replace(args=(9,), kwargs={}, options={"queue": "q"})
    assert (replaced.args, replaced.kwargs, replaced.options) == ((9,), {}, {"queue": "q"})


@pytest.mark.row("5.Signature API")
def test_set_changes_options_and_immutability_and_returns_the_signature(t: SimpleNamespace) -> None:
    sig = t.add.s(1)
    assert sig.set(countdown=1, immutable=True) is sig
    assert sig.options == {"countdown": 1} and sig.immutable
    sig.task, sig.args, sig.kwargs = "other", (3,), {"z": 1}
    assert dict(sig)["task"] == "other" and repr(sig) == "other(3, z=1)"


@pytest.mark.row("5.freeze")
def test_freezing_gives_an_id_once(t: SimpleNamespace) -> None:
    sig = t.add.s(1)
    result = sig.freeze(root_id="r", parent_id="p")
    assert sig.id == result.id and sig.freeze("other").id == result.id and sig._freeze().id == result.id
    assert (sig.root_id, sig.parent_id) == ("r", "p") and result.name == "tasks.add"
    assert t.add.s(1).freeze("mine").id == "mine" == t.add.s(1).set(task_id="mine").freeze().id


def test_a_frozen_signature_of_an_unknown_task_has_a_result(app: LiteTQ) -> None:
    sig = signature("nowhere.task", (1,), app=app)
    assert sig.freeze("x").id == "x" and sig.AsyncResult("y").id == "y"
    with pytest.raises(NotRegistered):
        _ = sig.type


def test_a_call_of_a_signature_runs_the_task_here(t: SimpleNamespace) -> None:
    assert t.add.s(2, 2)() == 4 and t.subtract.s(10)(30) == 20
    assert t.add.s(2).reprcall(1, debug=True) == "tasks.add(1, 2, debug=True)"


@pytest.mark.row("5.Signature API")
def test_callbacks_are_kept_as_lists_without_doubles(t: SimpleNamespace) -> None:
    sig = t.add.s(1)
    callback, errback = t.mul.s(2), t.old_errback.s()
    assert sig.link(callback) is callback and sig.link(t.mul.s(2)) == callback
    assert sig.on_error(errback) is sig and sig.link_error(errback) is errback
    assert sig.options == {"link": [callback], "link_error": [errback]}
    callback.link(t.mul.s(3))
    assert [repr(each) for each in sig.flatten_links()] == ["tasks.add(1)", "tasks.mul(2)", "tasks.mul(3)"]
    sig.extend_list_option("link", t.add.s(7))
    assert len(sig.options["link"]) == 2
    given = t.add.signature((1,), link=callback)
    given.link(t.add.s(7))
    assert given.options["link"] == [callback, t.add.s(7)]


def test_a_copy_does_not_share_callbacks(t: SimpleNamespace) -> None:
    sig = t.add.s(1)
    sig.link(t.mul.s(2))
    copied = sig.clone()
    copied.link(t.mul.s(3))
    copied.options["link"][0].args = (9,)
    assert len(sig.options["link"]) == 1 and sig.options["link"][0].args == (2,)


def test_signatures_survive_pickle(app: LiteTQ, t: SimpleNamespace) -> None:
    sig = pickle.loads(pickle.dumps(chain(t.add.s(1, 1), t.add.s(2))))
    assert kind(sig) == ("chain", "tasks.add(1, 1) | add(2)") and sig.app is app


@pytest.mark.row("5.signature(dict), maybe_signature, from_dict, register_type")
def test_maybe_signature_takes_what_there_is(app: LiteTQ, t: SimpleNamespace) -> None:
    sig = t.add.s(1)
    assert maybe_signature(None) is None and maybe_signature(sig) is sig and maybe_signature(sig, clone=True) is not sig
    assert maybe_signature(dict(sig), app=app).app is app and maybe_signature(t.add, app=app) == t.add.s()


def test_a_shared_task_makes_signatures_of_the_current_app(app: LiteTQ) -> None:
    @shared_task(name="shared.double")
    def double(x: int) -> int:
        return 2 * x

    sig = double.s(2)
    assert repr(sig) == "shared.double(2)" and sig.app is app and sig() == 4


@pytest.mark.row("5.signature(dict), maybe_signature, from_dict, register_type")
def test_an_own_type_of_signature_is_found_again(app: LiteTQ, t: SimpleNamespace) -> None:
    @Signature.register_type("own")
    class Own(Signature):
        @classmethod
        def from_dict(cls, d: Any, app: LiteTQ | None = None) -> Signature:
            return cls(d, app=app)

    try:
        assert type(app.signature({**t.add.s(1), "subtask_type": "own"})) is Own
    finally:
        del Signature.TYPES["own"]
    with pytest.raises(ImproperlyConfigured, match="unknown kind 'own'"):
        app.signature({**t.add.s(1), "subtask_type": "own"})


def test_only_signatures_are_chained(t: SimpleNamespace) -> None:
    for canvas in (t.add.s(1), chain(t.add.s(1)), group([t.add.s(1)]), chord([t.add.s(1)], t.tsum.s())):
        with pytest.raises(TypeError):
            _ = canvas | 3
    with pytest.raises(TypeError, match=r"made of signatures, found 3"):
        chain(t.add.s(1), 3)


# -- upgrades ----------------------------------------------------------------------------------------------------------


@pytest.mark.row("5.repr forms")
@pytest.mark.row("5.chain building")
@pytest.mark.row("5.upgrade rules")
@pytest.mark.row("5.group unrolling")
def test_the_operator_upgrades_as_celery_does(t: SimpleNamespace) -> None:
    a, b, c = t.add.s(1, 1), t.add.s(2), t.tsum.s()

    def pair() -> group:
        return group([t.add.s(1), t.add.s(2)])

    cases = [
        (a | b, "chain", "tasks.add(1, 1) | add(2)"),
        (a | (b | b), "chain", "tasks.add(1, 1) | add(2) | add(2)"),
        ((a | b) | (b | b), "chain", "tasks.add(1, 1) | add(2) | add(2) | add(2)"),
        (a | pair(), "chain", "tasks.add(1, 1) | group([add(1), add(2)])"),
        (a | group([b]), "chain", "tasks.add(1, 1) | add(2)"),
        ((a | b) | group([]), "chain", "tasks.add(1, 1) | add(2)"),
        (a | pair() | c, "chain", "tasks.add(1, 1) | %tsum([add(1), add(2)])"),
        (a | pair() | c | b, "chain", "tasks.add(1, 1) | %(tsum([add(1), add(2)]) | add(2))"),
        (chain(a, pair(), c), "chain", "tasks.add(1, 1) | %tsum([add(1), add(2)])"),
        (chain(pair(), c), "chord", "%tasks.tsum([add(1), add(2)])"),
        (pair() | c, "chord", "%tasks.tsum([add(1), add(2)])"),
        (pair() | (c | b), "chord", "%(tasks.tsum([add(1), add(2)]) | add(2))"),
        (group([]) | c, "chord", "%tasks.tsum([])"),
        (a | pair() | pair(), "chain", "tasks.add(1, 1) | group([add(1), add(2)]) | group([add(1), add(2)])"),
        (a | chord([b], c), "chain", "tasks.add(1, 1) | %tsum([add(2)])"),
        (a | chord([b], c) | b, "chain", "tasks.add(1, 1) | %(tsum([add(2)]) | add(2))"),
        (chord([a], c) | b, "chord", "%(tasks.tsum([add(1, 1)]) | add(2))"),
        (chord([a], c) | (b | b), "chain", "%tasks.tsum([add(1, 1)]) | tasks.add(2) | tasks.add(2)"),
        (chord([a], c) | group([b]), "chord", "%(tasks.tsum([add(1, 1)]) | add(2))"),
        (chord([a], c) | chord([b], c), "chord", "%(tasks.tsum([add(1, 1)]) | %tsum([add(2)]))"),
    ]
    for sig, wanted, text in cases:
        assert kind(sig) == (wanted, text)
    assert type(pair() | pair()) is chord and type(chord([a], c) | pair()) is chain


def test_the_operator_changes_neither_side(t: SimpleNamespace) -> None:
    first, second = t.add.s(1, 1) | t.add.s(2), group([t.add.s(3), t.add.s(4)])
    texts = repr(first), repr(second)
    whole = first | second | t.tsum.s() | t.add.s(5)
    whole.tasks[0].set(countdown=9)
    assert (repr(first), repr(second)) == texts and first.tasks[0].options == {}
    first |= t.add.s(7)
    assert repr(first) == "tasks.add(1, 1) | add(2) | add(7)"


@pytest.mark.row("5.repr forms")
def test_the_other_forms_look_as_in_celery(t: SimpleNamespace) -> None:
    assert repr(chain()).startswith("<chain@0x") and repr(chain()).endswith(": empty>")
    assert kind(group([])) == ("group", "group(<empty>)") and len(group([])) == 0
    assert repr(group(t.add.s(2, 2), t.add.s(4, 4))) == "group((tasks.add(2, 2), add(4, 4)))"
    assert repr(group([t.add.s(1, 1), group([t.add.s(2)] * 2)])) == "group([tasks.add(1, 1), group([add(2), add(2)])])"
    assert repr(chord([t.add.s(2, 2), t.add.s(4, 4)], t.tsum.s())) == "%tasks.tsum([add(2, 2), add(4, 4)])"
    assert repr(chord([t.add.s(1, 1)])) == "<chord without body: [tasks.add(1, 1)]>"
    assert kind(t.tsum.map([[1], [2]])) == ("xmap", "[tasks.tsum(x) for x in [[1], [2]]]")
    assert kind(t.add.starmap(zip(range(2), range(2), strict=True))) == (
        "xstarmap",
        "[tasks.add(*x) for x in [(0, 0), (1, 1)]]",
    )
    assert repr(t.tsum.map([list(range(50))])).endswith(" 26,...]")
    assert chain(t.add.s(1, 1), t.add.s(2), queue="x").options == {"queue": "x"}


def test_generators_may_make_canvases(t: SimpleNamespace) -> None:
    assert repr(chain(t.add.s(i) for i in range(3))) == "tasks.add(0) | add(1) | add(2)"
    assert len(group(t.add.s(i, i) for i in range(10))) == 10
    assert repr(chord((t.add.s(i, i) for i in range(2)), t.tsum.s())) == "%tasks.tsum([add(0, 0), add(1, 1)])"
    parts = t.add.chunks(zip(range(100), range(100), strict=True), 10).group()
    assert len(parts) == 10 and all(type(part) is xstarmap for part in parts.tasks)


@pytest.mark.row("5.signature(dict), maybe_signature, from_dict, register_type")
def test_canvases_survive_json(app: LiteTQ, t: SimpleNamespace) -> None:
    a, b, c = t.add.s(1, 1), t.add.s(2), t.tsum.s()
    for sig in (chain(a, b), group([a, b]), chord([a], c), a | group([b, b]) | c | b, chain(a, b, queue="q")):
        again = app.signature(json.loads(json.dumps(sig)))
        assert type(again) is type(sig) and repr(again) == repr(sig) and again.options == sig.options
    assert list(chord([a], c)) == ["task", "args", "kwargs", "options", "subtask_type", "immutable"]
    assert json.loads(json.dumps(chord([a], c)))["kwargs"]["header"][0]["args"] == [1, 1]
    assert json.loads(json.dumps(t.tsum.map([[1]])))["kwargs"] == {"task": json.loads(json.dumps(c)), "it": [[1]]}


@pytest.mark.row("5.freeze")
def test_freezing_a_canvas_gives_ids_to_all_and_links_the_results(t: SimpleNamespace) -> None:
    steps = chain(t.add.s(1, 1), t.add.s(2))
    result = steps.freeze("last")
    assert steps.id == result.id == "last" and [task.id for task in steps.tasks][1] == "last"
    assert result.parent.id == steps.tasks[0].id
    members = group([t.add.s(1, 1), t.add.s(1, 2)])
    results = members.freeze("gid")
    assert members.id == results.id == "gid" and [task.id for task in members.tasks] == [r.id for r in results]
    assert [task.options["group_index"] for task in members.tasks] == [0, 1]
    whole = chord([t.add.s(1, 1)], t.tsum.s() | t.add.s(1))
    ended = whole.freeze("end")
    assert ended.id == "end" and ended.parent.parent.results[0].id == whole.tasks.tasks[0].id


@pytest.mark.row("5.group call")
def test_skew_spreads_countdowns(t: SimpleNamespace) -> None:
    countdowns = [
        task.options["countdown"] for task in group([t.add.s(i) for i in range(4)]).skew(start=1, stop=3).tasks
    ]
    assert countdowns == [1, 2, 3, 3]


@pytest.mark.row("5.group link")
def test_links_of_canvases_go_where_celery_puts_them(t: SimpleNamespace) -> None:
    members = group([t.add.s(1, 1), t.add.s(1, 2)])
    members.link(t.mul.s(2))
    members.link_error(t.old_errback.s())
    first, second = (task.options for task in members.tasks)
    assert first["link"] == [t.mul.si(2)] and "link" not in second and first["link_error"] == second["link_error"]
    whole = chord([t.add.s(1, 1)], t.tsum.s())
    whole.link(t.mul.s(2))
    whole.link_error(t.old_errback.s())
    assert whole.body.options == {"link": [t.mul.s(2)], "link_error": [t.old_errback.s()]}
    assert whole.tasks[0].options == {}
    whole.app.conf.task_allow_error_cb_on_chord_header = True
    whole.link_error(t.old_errback.s(1))
    assert whole.tasks[0].options == {"link_error": [t.old_errback.s(1)]}
    with pytest.raises(TypeError, match="use a chord"):
        members.apply_async(link=t.mul.s(2))
    with pytest.raises(TypeError, match="individual tasks"):
        members.apply_async(link_error=t.mul.s(2))


def test_immutability_of_a_canvas_is_that_of_its_members(t: SimpleNamespace) -> None:
    members = group([t.add.s(1), t.add.s(2)])
    members.set_immutable(True)
    whole = chord([t.add.s(1)], t.tsum.s())
    whole.set(immutable=True)
    assert all(task.immutable for task in [*members.tasks, *whole.tasks]) and not whole.body.immutable


def test_a_canvas_as_text_shortens_only_names_of_the_same_module(app: LiteTQ) -> None:
    names = ["app.tasks.a", "webapp.tasks.b", "my-app.tasks.c", "app.tasks.d"]
    assert (
        repr(group(app.signature(name) for name in names))
        == "group([app.tasks.a(), webapp.tasks.b(), my-app.tasks.c(), d()])"
    )
