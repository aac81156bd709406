"""Workflows from the call to their values, with the exact values that Celery's documents and runs of 5.7 show."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from litetq import AsyncResult, GroupResult, LiteTQ, Task, chain, chord, group, serialization, signals
from litetq.canvas import chunks
from litetq.exceptions import ChordError, EncodeError, IncompleteStream
from tests.program.canvas_tasks import register
from tests.program.conftest import RunWaiting

Get = Callable[[Any], Any]


@pytest.fixture
def t(app: LiteTQ) -> SimpleNamespace:
    return register(app)


@pytest.fixture
def get(app: LiteTQ, run_waiting: RunWaiting) -> Get:
    """Send a signature (or take a result), run all that follows, and return the value."""

    def get(sig: Any) -> Any:
        result = sig if isinstance(sig, (AsyncResult, GroupResult)) else sig.apply_async()
        run_waiting(app)
        return result.get(timeout=0)

    return get


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.row("5.chain building")
@pytest.mark.row("5.chain result")
def test_chains_hand_the_value_on(t: SimpleNamespace, get: Get) -> None:
    result = chain(t.add.s(2, 2), t.add.s(4), t.add.s(8))()
    assert (get(result), result.parent.get(), result.parent.parent.get()) == (16, 8, 4)
    result = (t.add.si(2, 2) | t.add.si(4, 4) | t.add.si(8, 4))()
    assert (get(result), result.parent.get(), result.parent.parent.get()) == (12, 8, 4)
    assert result.parent.parent.parent is None
    assert get((t.add.s(1) | t.add.s(2))(10)) == 13 and get(chain([t.add.s(2, 2)])) == 4 and chain()() is None


@pytest.mark.row("5.partial args to a group")
def test_partial_arguments_come_first(t: SimpleNamespace, get: Get) -> None:
    assert get(t.subtract.s(10).delay(30)) == 20 and get(t.add.s(2, 2).delay(debug=True)) == 4
    assert get(t.add.s(2, 2).apply_async(kwargs={"debug": True})) == 4
    assert get(group([t.add.s(1), t.add.s(2)])(10)) == [11, 12]
    assert get(chord([t.add.s(1), t.add.s(2)], t.tsum.s()).apply_async((10,))) == 23


@pytest.mark.row("5.group call")
@pytest.mark.row("5.nested groups")
def test_groups_give_lists_in_order(t: SimpleNamespace, get: Get) -> None:
    assert get(group(t.add.s(i, i) for i in range(10))()) == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert get(group([t.add.s(1, 1), group([t.add.s(2, 2), t.add.s(3, 3)]), t.add.s(4, 4)])) == [2, 4, 6, 8]
    assert get(group([t.add.s(1, 1) | group([t.add.s(1), t.add.s(2)]), t.add.s(5, 5)])) == [[3, 4], 10]
    assert get(group([t.add.s(1, 1) | group([t.add.s(1), t.add.s(2)])])) == [3, 4]
    assert get(group([t.add.s(1, 1), chain()])) == [2] and get(group([])) == []


@pytest.mark.row("5.chord")
@pytest.mark.row("5.empty header, header of one, no body")
def test_chords_give_their_body_a_list(t: SimpleNamespace, get: Get) -> None:
    assert get(chord((t.add.s(i, i) for i in range(10)), t.tsum.s())()) == 90
    assert get(chord([t.add.s(2, 2), t.add.s(4, 4)])(t.tsum.s())) == 12
    assert get(group([t.add.s(1, 1), t.add.s(2, 2)]) | t.tsum.s()) == 6
    assert get(chord([], t.tsum.s())) == 0 and get(group([]) | t.tsum.s()) == 0
    assert get(chord([t.add.s(1, 1)], t.same.s())) == [2] and get(group([t.add.s(1, 1)]) | t.same.s()) == [2]
    assert get(t.add.s(1, 1) | group([t.add.s(1)])) == 3
    assert get(chord([t.add.s(1, 1)], t.note.si(3))) == [3]
    with pytest.raises(ValueError, match="a chord needs a body"):
        chord([t.add.s(1, 1)])()


@pytest.mark.row("5.upgrade rules")
@pytest.mark.row("5.group unrolling")
@pytest.mark.row("5.chords in any mix")
def test_canvases_nest_in_any_mix(t: SimpleNamespace, get: Get) -> None:
    add, tsum, same = t.add, t.tsum, t.same

    def pair() -> group:
        return group([add.s(1), add.s(2)])

    cases: list[tuple[Any, Any]] = [
        (add.s(1, 1) | pair(), [3, 4]),
        (add.s(1, 1) | pair() | tsum.s(), 7),
        (add.s(1, 1) | pair() | tsum.s() | add.s(1), 8),
        (group([add.s(1, 1), add.s(2, 2)]) | group([same.s(), tsum.s()]), [[2, 4], 6]),
        (group([add.s(1, 1), add.s(2, 2)]) | group([tsum.s(), tsum.s()]) | tsum.s(), 12),
        (chord([add.s(1, 1) | pair(), add.s(5, 5)], same.s()), [[3, 4], 10]),
        (chord([add.s(1, 1) | pair()], same.s()), [[3, 4]]),
        (chord([chord([add.s(1, 1), add.s(2, 2)], tsum.s()), add.s(1, 1)], same.s()), [6, 2]),
        (chord([add.s(1, 1), group([add.s(2, 2), add.s(3, 3)]), add.s(4, 4)], same.s()), [2, 4, 6, 8]),
        (chord([add.s(1, 1), add.s(2, 2)], tsum.s() | add.s(4)), 10),
        (chord([add.s(1, 1), add.s(2, 2)], chord([tsum.s(), same.s()], same.s())), [6, [2, 4]]),
        (chord([add.s(1, 1), add.s(2, 2)], group([tsum.s(), same.s()])), [6, [2, 4]]),
        (
            chord([chord([add.s(1, 1), add.s(2, 2)], tsum.s()), chord([add.s(3, 4), add.s(3, 4)], tsum.s())], tsum.s()),
            20,
        ),
        (add.s(5, 6) | group([add.s(1) | add.s(2), add.s(3)]), [14, 14]),
    ]
    for sig, value in cases:
        assert get(sig) == value, repr(sig)


def test_a_very_long_alternation_of_groups_and_tasks_works(t: SimpleNamespace, get: Get) -> None:
    sig = t.add.s(0, 1)
    for _ in range(60):
        sig = sig | group([t.add.s(0), t.add.s(1)]) | t.tsum.s() | t.add.si(0, 1)
    assert get(sig) == 1


def test_a_long_chain_grows_the_file_in_proportion(app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting) -> None:
    """Celery's messages carry all that follows: a chain of 1,000 is 117 MB of JSON in all."""

    def size() -> int:
        return app.engine.database.read(lambda tx: tx.execute("PRAGMA page_count").get * 4096)  # type: ignore[no-any-return]

    def grown(steps: int) -> float:
        """Return by how many bytes a step the file has grown when all of a chain has run."""
        before = size()
        result = chain(t.add.s(0, 1), *(t.add.s(1) for _ in range(steps - 1))).apply_async()
        waiting = size() - before
        run_waiting(app)
        assert result.get(timeout=0) == steps
        return max(waiting, size() - before) / steps

    few = grown(400)
    assert grown(4_000) < 1.5 * few + 100 < 3_000


@pytest.mark.row("2.methods: chunks, map, starmap")
@pytest.mark.row("5.map, starmap, chunks")
def test_maps_are_one_task_and_chunks_are_a_group(app: LiteTQ, t: SimpleNamespace, get: Get) -> None:
    result = t.tsum.map([list(range(10)), list(range(100))]).delay()
    assert sum(app.engine.store.records.counts().values()) == 1
    assert get(result) == [45, 4950]
    assert get(t.add.starmap(zip(range(10), range(10), strict=True))) == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]
    result = t.add.chunks(zip(range(100), range(100), strict=True), 10)()
    assert len(result) == 10 and get(result) == [[2 * i for i in range(n, n + 10)] for n in range(0, 100, 10)]
    assert get(t.add.chunks(zip(range(4), range(4), strict=True), 3).apply_async()) == [[0, 2, 4], [6]]
    assert get(t.add.chunks([(1, 1), (2, 2)], 1) | t.same.s()) == [[2], [4]]
    assert get(chunks.apply_chunks(t.add.s(), [(1, 1), (2, 2)], 1, app=app)) == [[2], [4]]
    with pytest.raises(ValueError, match="at least 1"):
        t.add.chunks([(1, 1)], 0)()


@pytest.mark.row("5.signature(dict), maybe_signature, from_dict, register_type")
def test_a_canvas_read_from_json_runs(app: LiteTQ, t: SimpleNamespace, get: Get) -> None:
    import json

    for sig, value in (
        (t.add.s(1, 1) | group([t.add.s(1), t.add.s(2)]) | t.tsum.s(), 7),
        (t.tsum.map([[1, 2]]), [3]),
        (t.add.chunks([(1, 1)], 1), [[2]]),
    ):
        assert get(app.signature(json.loads(json.dumps(sig)))) == value


# -- results -----------------------------------------------------------------------------------------------------------


@pytest.mark.row("3.link, link_error")
def test_links_are_children(t: SimpleNamespace, get: Get) -> None:
    result = t.add.apply_async((2, 2), link=t.mul.s(16))
    assert get(result) == 4 and result.children[0].get() == 64
    assert list(result.collect()) == [(result, 4), (result.children[0], 64)] and result.get_leaf() == 64
    result = t.add.apply_async((2, 2), link=[t.mul.s(16), t.mul.s(3)])
    assert get(result) == 4 and type(result.children[0]) is GroupResult and result.children[0].get() == [64, 12]
    result = t.add.apply_async((2, 2), link=[group([t.mul.s(16)]), t.mul.s(3) | t.mul.s(2)])
    get(result)
    assert [child.get() for child in result.children] == [[64], [24]]


def test_the_steps_of_a_chain_are_children_of_each_other(t: SimpleNamespace, get: Get) -> None:
    result = (t.add.s(1, 1) | t.add.s(1) | t.add.s(1))()
    get(result)
    assert result.children == [] and result.parent.children == [result]
    assert list(result.parent.collect()) == [(result.parent, 3), (result, 4)]
    result = (t.add.s(1, 1) | group([t.add.s(1), t.add.s(2)]))()
    get(result)
    assert [child.as_tuple() for child in result.parent.children] == [GroupResult(result.id, list(result)).as_tuple()]


def test_what_a_failed_task_was_linked_to_is_no_child(app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting) -> None:
    result = t.fail.apply_async(link=t.note.s())
    run_waiting(app)
    assert result.children == [] and t.seen == []


@pytest.mark.row("2.request: root_id, parent_id")
@pytest.mark.row("2.request: group, group_index")
def test_ids_tell_root_parent_and_group(t: SimpleNamespace, get: Get) -> None:
    result = chain(t.info.si(), t.info.si(), t.info.si())()
    third, second, first = get(result), result.parent.get(), result.parent.parent.get()
    assert first["root"] == second["root"] == third["root"] == first["id"] and first["parent"] is None
    assert (second["parent"], third["parent"], third["id"]) == (first["id"], second["id"], result.id)
    result = group([t.info.si(), t.info.si() | t.info.s()])()
    alone, after = get(result)
    assert (alone["group"], alone["index"], alone["root"]) == (result.id, 0, alone["id"])
    assert (after["group"], after["index"], after["args"][0]["group"]) == (result.id, 1, None)
    result = chord([t.info.si(), t.info.si()], t.info.s())()
    body = get(result)
    assert (
        body["parent"] == body["args"][0][1]["id"] and [m["group"] for m in body["args"][0]] == [result.parent.id] * 2
    )


@pytest.mark.row("5.chain result")
def test_ids_of_ones_own_go_to_the_end(t: SimpleNamespace, get: Get) -> None:
    assert chain(t.add.s(1, 1), t.add.s(1)).apply_async(task_id="chain").id == "chain"
    result = chord([t.add.s(1, 1)], t.tsum.s()).apply_async(task_id="chord")
    assert result.id == "chord" and result.parent.id != "chord"
    assert group([t.add.s(1, 1), t.add.s(1, 1)]).apply_async(task_id="group").id == "group"
    frozen = t.add.s(1, 1) | t.add.s(1)
    known = frozen.freeze()
    assert frozen.apply_async() == known and get(known) == 3


@pytest.mark.row("5.chain options")
@pytest.mark.row("5.link and errback on a chain")
def test_options_of_a_chain_are_the_first_tasks_and_links_the_last_ones(
    app: LiteTQ, t: SimpleNamespace, get: Get
) -> None:
    result = (t.add.s(1, 1) | t.add.s(2)).apply_async(queue="slow", link=t.note.s(), headers={"a": 1})
    assert (result.queue, result.parent.queue) == ("celery", "slow")
    assert get(result) == 4 and result.children[0].get() == [4] and result.parent.children == [result]


@pytest.mark.row("5.countdown, eta on a chord")
def test_a_chords_countdown_delays_its_members_only(app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting) -> None:
    result = chord([t.add.s(1, 1)], t.tsum.s()).apply_async(countdown=60, queue="q")
    assert run_waiting(app) == []
    member, body = app.engine.read(result.parent[0].id), app.engine.read(result.id)
    assert member is not None and body is not None
    assert (member.place, member.queue, body.place, body.queue, body.due_at) == ("SCHEDULED", "q", "BLOCKED", "q", None)


def test_countdown_and_expiry_of_a_step_count_from_its_release(
    app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting
) -> None:
    result = (t.add.s(1, 1) | t.add.s(1).set(countdown=3600, expires=7200)).apply_async()
    before = app.engine.read(result.id)
    assert before is not None and before.place == "BLOCKED" and before.due_at is None
    run_waiting(app)
    after = app.engine.read(result.id)
    assert after is not None and after.place == "SCHEDULED" and after.due_at is not None


@pytest.mark.row("6.children")
def test_a_group_called_in_a_task_is_its_child(app: LiteTQ, t: SimpleNamespace, get: Get) -> None:
    @app.task
    def parent() -> None:
        group([t.info.si(), t.info.si()])()
        (t.info.si() | t.info.si())()
        t.info.apply_async(add_to_parent=False)

    result = parent.delay()
    get(result)
    members, first = result.children
    assert type(members) is GroupResult and all(value["parent"] == result.id for value in members.get())
    assert first.get()["root"] == result.id and len(first.children) == 1


@pytest.mark.row("2.trail")
def test_no_trail_no_children(app: LiteTQ, t: SimpleNamespace, get: Get) -> None:
    @app.task(trail=False)
    def parent() -> None:
        group([t.info.si(), t.info.si()])()

    result = parent.delay()
    get(result)
    assert result.children == []


# -- what is written ---------------------------------------------------------------------------------------------------


def test_members_that_are_alike_are_sent_as_each_would_be_alone(app: LiteTQ, t: SimpleNamespace) -> None:
    """What they have in common is worked out once; with a receiver of the publish signal, for each."""
    options: dict[str, Any] = {"countdown": 60, "priority": 3, "headers": {"x": '"group_index":0'}, "expires": 900}
    for sig in (
        group([t.add.s(n, n) for n in range(4)]),
        group([t.add.s(n, debug=n) for n in range(4)]),
        group([t.add.s(0, 0), t.mul.s(1, 1), t.add.s(2, 2).set(queue="other"), t.add.si(3, 3), t.add.s(4, 4)]),
        t.add.s(1, 1) | group([t.same.s(n) for n in range(4)]) | t.same.s(),
        t.add.s(1, 1) | group([t.same.si(n) for n in range(4)]),
    ):
        for partial in ((), (7,)):
            for given in ({}, options):
                if isinstance(sig, group) or not given:
                    both = []
                    for signal in (False, True):
                        if signal:
                            signals.before_task_publish.connect(_nothing)
                        try:
                            both.append(_sent(app, lambda: sig.apply_async(partial, **given)))  # noqa: B023
                        finally:
                            signals.before_task_publish.disconnect(_nothing)
                    assert both[0] == both[1], (sig, partial, given)


def _nothing(**_: Any) -> None: ...


def _sent(app: LiteTQ, send: Callable[[], Any]) -> list[Any]:
    """Return the rows that a call makes, without ids and times, and take them away."""
    try:
        send()
    except TypeError as error:
        return [str(error)]
    rows = app.engine.database.read(
        lambda tx: tx.execute(
            "SELECT name, state, lane, priority, body, role, linked, blockers, round(coalesce(due_at - enqueued_at, 0)), "
            "round(coalesce(expires_at - enqueued_at, 0)), json_remove(headers, '$.group', '$.successors'), root_id IS NULL, parent_id IS NULL "
            "FROM litetq_task ORDER BY seq"
        ).fetchall()
    )
    app.engine.database.write(lambda tx: tx.execute("DELETE FROM litetq_task").fetchall())
    return list(rows)


def test_a_class_that_looks_at_each_call_sees_all_members(app: LiteTQ, t: SimpleNamespace) -> None:
    class Shadowed(Task[..., Any]):
        def shadow_name(self, args: Any, kwargs: Any, options: Any) -> str:
            return f"shadow of {args[0]}"

    shadowed = app.task(name="shadowed", base=Shadowed)(lambda x: x)
    result = group([shadowed.s(n) for n in range(3)]).apply_async()
    records = app.engine.read_many([member.id for member in result])
    shadows = [json.loads(records[member.id].headers or "")["shadow"] for member in result]
    assert shadows == ["shadow of 0", "shadow of 1", "shadow of 2"]


def test_a_wrong_step_is_refused_before_anything_is_written(app: LiteTQ, t: SimpleNamespace) -> None:
    for sig, error in (
        (t.add.s(1, 1) | t.mul.s(1, 2), TypeError),  # one too many, with the value that comes
        (t.add.s(1, 1) | t.add.si(1), TypeError),
        (group([t.add.s(1, 1), t.add.s(1, {1})]), EncodeError),
        (t.add.s(1, 1) | t.add.s(1).set(countdwn=1), TypeError),
    ):
        with pytest.raises(error):
            sig.apply_async()
    assert sum(app.engine.store.records.counts().values()) == 0


def test_a_task_that_is_not_here_can_be_a_step(app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting) -> None:
    result = (t.add.s(1, 1) | app.signature("elsewhere.task", (3,))).apply_async()
    run_waiting(app)
    assert result.parent.get() == 2 and result.state == "FAILURE"
    linked = app.send_task("tasks.add", (1, 1), link=app.signature("tasks.note"))
    run_waiting(app)
    assert linked.get() == 2 and t.seen == [(2,)]


@pytest.mark.row("5.header with retries, ignored or revoked members")
def test_values_of_ignoring_members_still_reach_the_body(app: LiteTQ, t: SimpleNamespace, get: Get) -> None:
    result = chord([t.add.s(1, 1).set(ignore_result=True), t.add.s(2, 2)], t.same.s())()
    assert get(result) == [2, 4] and result.parent[0].result is None and result.parent[0].state == "SUCCESS"


def test_a_task_with_an_apply_async_of_its_own_is_asked(app: LiteTQ, t: SimpleNamespace, get: Get) -> None:
    class Marked(Task[..., Any]):
        def apply_async(self, args: Any = None, kwargs: Any = None, task_id: Any = None, **options: Any) -> Any:
            options["headers"] = {"marked": True}
            return super().apply_async(args, kwargs, task_id, **options)

    @app.task(base=Marked, bind=True)
    def marked(self: Any, value: Any) -> Any:
        return value, self.request.marked

    assert get(marked.s(1)) == [1, True] and get(marked.s(1) | t.same.s()) == [1, True]
    assert get(t.add.s(1, 1) | marked.s()) == [2, True]
    assert get(marked.apply_async((1,), link=t.note.s())) == [1, True] and t.seen == [([1, True],)]


def test_publish_signals_tell_of_every_task(t: SimpleNamespace, get: Get) -> None:
    before: list[Any] = []
    after: list[Any] = []

    def note_before(sender: Any, headers: Any, **_: Any) -> None:
        before.append((sender, headers["id"]))

    def note_after(sender: Any, headers: Any, **_: Any) -> None:
        after.append((sender, headers["id"]))

    signals.before_task_publish.connect(note_before)
    signals.after_task_publish.connect(note_after)
    try:
        result = (t.add.s(1, 1) | t.mul.s(2))()
    finally:
        signals.before_task_publish.disconnect(note_before)
        signals.after_task_publish.disconnect(note_after)
    assert before == after == [("tasks.add", result.parent.id), ("tasks.mul", result.id)]


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.row("5.chain failure")
@pytest.mark.row("5.link and errback on a chain")
@pytest.mark.row("6.get: follow_parents")
def test_a_failed_chain_fails_all_that_follow_with_the_same_error(
    app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting
) -> None:
    result = (t.add.s(1, 1) | t.fail.s() | t.note.s() | group([t.note.s(), t.note.s()])).on_error(t.old_errback.s())()
    run_waiting(app)
    failed = result.parent.parent
    for ended in (*result, result.parent, failed):
        assert ended.state == "FAILURE" and repr(ended.result) == "ValueError('boom')"
        with pytest.raises(ValueError, match="boom"):
            ended.get(timeout=0)
    assert t.seen == [failed.id] and failed.parent.get() == 2
    with pytest.raises(ValueError, match="boom"):
        result.get(timeout=0)


@pytest.mark.row("6.get: follow_parents")
@pytest.mark.row("5.chord error")
def test_a_failed_member_fails_the_chord_once_and_others_run_on(
    app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting
) -> None:
    result = chord([t.fail.s(), t.fail.s(), t.add.s(1, 1)], t.note.s().on_error(t.errback.s("more")))()
    run_waiting(app)
    text = f"Dependency {result.parent[0].id} raised ValueError('boom')"
    assert type(result.result) is ChordError and str(result.result) == text and result.parent[2].get() == 2
    assert t.seen == [(result.id, repr(ChordError(text)), False, "more")]
    with pytest.raises(ValueError, match="boom"):
        result.get(timeout=0)
    with pytest.raises(ChordError, match="Dependency"):
        result.get(timeout=0, follow_parents=False)


@pytest.mark.row("5.chord error")
@pytest.mark.parametrize(("serializer", "cause"), [("own-json", "ValueError('boom')"), ("pickle", "an exception")])
def test_the_cause_of_a_failed_chord_is_read_from_json_of_a_serializer_of_ones_own(
    app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting, serializer: str, cause: str
) -> None:
    serialization.register("own-json", json.dumps, json.loads, "application/x-own-json", "utf-8")
    app.conf.update(result_serializer=serializer, accept_content=["json", serializer])
    result = chord([t.fail.s(), t.add.s(1, 1)], t.tsum.s())()
    run_waiting(app)
    assert str(result.result) == f"Dependency {result.parent[0].id} raised {cause}"


@pytest.mark.row("5.chord error")
def test_nested_chords_name_the_innermost_cause(app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting) -> None:
    inner = chord([t.fail.s(), t.add.s(1, 1)], t.tsum.s())
    result = chord([inner, t.add.s(1, 1)], t.tsum.s().on_error(t.errback.s()))()
    run_waiting(app)
    failed = result.parent[0].parent[0].id
    assert str(result.result) == f"Dependency {failed} raised ValueError('boom')" and len(t.seen) == 1


def test_a_failure_in_a_chain_within_a_chord_reaches_the_body(
    app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting
) -> None:
    result = (chord([t.fail.s() | t.add.s(1), t.add.s(1, 1)], t.tsum.s()) | t.add.s(1))()
    run_waiting(app)
    assert type(result.result) is ChordError and type(result.parent.result) is ChordError


@pytest.mark.row("5.on_error")
@pytest.mark.row("3.link, link_error")
@pytest.mark.row("3.errback rules")
def test_errbacks_are_called_in_celerys_two_styles(app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting) -> None:
    @app.task(bind=True)
    def bound(self: Any, *args: Any) -> None:
        t.seen.append(("bound", *args))

    errbacks = [t.errback.s("x"), t.old_errback.s(), bound.s(), t.note.si(7)]
    result = t.fail.apply_async(link_error=errbacks)
    run_waiting(app)
    assert t.seen == [(result.id, "ValueError('boom')", True, "x"), result.id, ("bound", result.id), (7,)]


@pytest.mark.parametrize("given", [(("stored",), {}), ((), {"label": "stored"})])
@pytest.mark.parametrize("eager", [False, True])
def test_arguments_that_an_errback_holds_do_not_count_for_its_style(
    app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting, given: tuple[Any, Any], eager: bool
) -> None:
    @app.task
    def labelled(failed_id: str, label: str) -> None:
        t.seen.append((failed_id, label))

    errback = labelled.s(*given[0], **given[1])
    result = t.fail.apply(link_error=errback) if eager else t.fail.apply_async(link_error=errback)
    run_waiting(app)
    assert t.seen == [(result.id, "stored")]


@pytest.mark.row("5.chord errback")
def test_the_errback_of_a_chord_is_told_of_the_end_of_its_body_when_a_member_fails(
    app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting
) -> None:
    """As Celery 5.7 with Redis does it: the body is one thing until it has begun."""

    def told(sig: Any, *, eagerly: bool = False) -> tuple[list[str], list[Any]]:
        """Return what the errbacks were told, and the ids of the result and its parents, the last one first."""
        t.seen.clear()
        result = sig.apply() if eagerly else sig.apply_async()
        run_waiting(app)
        return list(t.seen), result.as_list()

    def of_chord(errback: Any, *body: Any, header: Any = None) -> Any:
        sig = chord([header or t.fail.s(), t.add.s(1, 1)], chain(*body))
        sig.link_error(errback)
        return sig

    for eagerly in (False, True):
        body = t.tsum.s(), t.add.s(1), t.add.s(2)
        seen, ids = told(of_chord(t.old_errback.s(), *body), eagerly=eagerly)
        assert seen == [ids[0]]
        seen, ids = told(of_chord(t.errback.s(), *body), eagerly=eagerly)
        assert [id for id, *_ in seen] == [ids[0]] and "ChordError" in repr(seen)
        failing = of_chord(t.old_errback.s(), t.tsum.s(), t.fail.s(), t.add.s(2), header=t.add.s(2, 2))
        seen, ids = told(failing, eagerly=eagerly)
        assert seen == [ids[1]], "a step of the body that fails itself"
        whole = chain(t.add.s(1, 1), group(t.fail.s(), t.add.s(1)), t.tsum.s(), t.add.s(2))
        whole.link_error(t.old_errback.s())
        seen, ids = told(whole, eagerly=eagerly)
        assert seen == [ids[1]], "the errback of a chain around it is told of the first step of the body"


def test_an_errback_may_be_a_canvas(app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting) -> None:
    failed = t.same.s(1) | t.fail.s()
    failed.link_error(t.same.s() | t.note.s())
    failed.link_error(group([t.note.si(1), t.note.si(2)]) | t.note.s())
    result = failed()
    run_waiting(app)
    assert t.seen == [(1,), (2,), (result.id,), ([[1], [2]],)]


@pytest.mark.row("5.group link")
def test_each_failing_member_of_a_group_calls_the_errback(
    app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting
) -> None:
    members = group([t.fail.s(), t.fail.s(), t.add.s(1, 1)])
    members.link_error(t.old_errback.s())
    result = members()
    run_waiting(app)
    assert t.seen == [result[0].id, result[1].id]


@pytest.mark.row("5.chord errback")
@pytest.mark.row("20.task_allow_error_cb_on_chord_header")
def test_errbacks_of_a_chords_body_may_watch_its_members_too(
    app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting
) -> None:
    app.conf.task_allow_error_cb_on_chord_header = True
    sig = chord([t.fail.s(), t.add.s(1, 1)], t.tsum.s())
    sig.link_error(t.old_errback.s())
    result = sig()
    run_waiting(app)
    assert sorted(t.seen) == sorted([result.parent[0].id, result.id])


@pytest.mark.row("5.chord errback")
def test_a_group_that_is_a_chords_body_keeps_errbacks_of_its_own(
    app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting
) -> None:
    """Also where it has one member, and also when it is the header that fails; as Celery 5.7 with Redis calls them."""

    def told(header: Any, *members: Any, eagerly: bool = False) -> list[Any]:
        t.seen.clear()
        body = group(*members).set(link_error=t.note.si("group"))
        sig = chord([header], body)
        sig.set(link_error=t.note.si("chord"))
        if eagerly:
            sig.apply()
        else:
            sig.apply_async()
        run_waiting(app)
        return sorted(t.seen)

    def failing() -> Any:
        return chord([t.add.si(1, 1)], group(t.fail.si(), t.add.si(1, 1)))

    both = [("chord",), ("group",)]
    for eagerly in (False, True):
        for members in ([failing()], [failing(), t.add.si(1, 1)], [t.fail.si()], [t.fail.si(), t.add.si(1, 1)]):
            assert told(t.add.si(1, 1), *members, eagerly=eagerly) == both
        assert told(t.fail.si(), t.add.si(1, 1), t.add.si(2, 2), eagerly=eagerly) == both
        assert told(t.fail.si(), t.add.si(1, 1), eagerly=eagerly) == both


def test_the_only_member_of_a_group_has_the_groups_options(app: LiteTQ, t: SimpleNamespace) -> None:
    """What was set on a group of one that is the body of a chord is not lost."""
    one = group(t.add.si(1, 1)).set(queue="other", priority=3)
    result = chord([t.add.si(1, 1)], one)()
    record = app.engine.read(result[0].id)
    assert record is not None and record.queue == "other"


@pytest.mark.parametrize("eagerly", [False, True])
def test_a_group_of_one_that_is_the_body_of_a_chord_is_a_group(
    t: SimpleNamespace, run_waiting: RunWaiting, app: LiteTQ, eagerly: bool
) -> None:
    """Whoever makes the body of a list gets a list, however long that is; in a chain a group of one is its member."""
    two, one = group(t.add.si(1, 1), t.add.si(2, 2)), group(t.same.s())

    def value(sig: Any) -> Any:
        result = sig.apply() if eagerly else sig.apply_async()
        run_waiting(app)
        return result.get(timeout=1)

    for sig in (chord(two, one), two | one, chain(two, one)):
        assert value(sig) == [[2, 4]], repr(sig)
    assert value(chain(t.same.si(1), chord(two, one))) == [[2, 4]]
    assert value(group(chord(two, one), t.add.si(3, 3))) == [[[2, 4]], 6]
    assert value(chord([chord(two, one), t.add.si(3, 3)], t.same.s())) == [[[2, 4]], 6]
    assert value(chain(two, one, t.same.s())) == value(chord(two, one) | t.same.s()) == [[2, 4]]
    assert value(chain(t.same.si(1), two, one)) == [2, 4] and value(chain(t.same.si(1), one)) == 1


@pytest.mark.row("5.header with retries, ignored or revoked members")
@pytest.mark.parametrize("how", ["revoked", "expired", "ignored", "rejected", "unknown"])
def test_a_member_that_never_ends_well_still_resolves_its_chord(
    app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting, how: str
) -> None:
    from litetq.exceptions import Ignore, Reject

    @app.task
    def ignored() -> None:
        raise Ignore

    @app.task
    def rejected() -> None:
        raise Reject("no")

    member = {
        "revoked": t.add.s(1, 1).set(task_id="revoked"),
        "expired": t.add.s(1, 1).set(expires=-1),
        "ignored": ignored.s(),
        "rejected": rejected.s(),
        "unknown": app.signature("unknown"),
    }[how]
    app.control.revoke("revoked")
    result = chord([member, t.add.s(1, 1)], t.tsum.s())()
    run_waiting(app)
    app.engine.store.expire(1e12)
    assert result.state == "FAILURE" and type(result.result) is ChordError


@pytest.mark.row("5.header with retries, ignored or revoked members")
@pytest.mark.row("4.self.retry: callbacks, chain and group are kept")
def test_a_retrying_member_only_delays_its_chord(app: LiteTQ, t: SimpleNamespace, get: Get) -> None:
    @app.task(bind=True, max_retries=2)
    def second_time(self: Any) -> Any:
        if self.request.retries == 0:
            raise self.retry(countdown=0)
        return "done"

    assert get(chord([second_time.s(), t.add.s(1, 1)], t.same.s())) == ["done", 2]


@pytest.mark.row("5.graph")
@pytest.mark.row("6.AsyncResult: graph")
def test_the_graph_of_a_result_says_who_called_whom(app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting) -> None:
    last = chain(t.add.s(1, 1), t.add.s(2), group(t.add.s(3), t.add.s(4)))()
    first = last.parent.parent
    with pytest.raises(IncompleteStream):
        first.graph  # noqa: B018
    assert list(first.build_graph(intermediate=True)) == [first]
    run_waiting(app)
    graph = first.graph
    assert graph is first.graph and [node.id for node in graph] == [
        each.id for each in (first, last.parent, last, *last.results)
    ]
    below = {node.id: [each.id for each in below] for node, below in graph.items()}
    members = [member.id for member in last.results]
    assert below[first.id] == [last.parent.id] and below[last.parent.id] == [last.id] and below[last.id] == members
    assert [node.id for node in graph.edges()] == [first.id, last.parent.id, last.id] and len(graph) == 5
    assert graph.valency_of(first) == 4 and graph.valency_of("unknown") == 0 and first in graph
    assert graph.topsort()[-1] == first and {node.id for node in graph.topsort()[:2]} == set(members)
    text = io.StringIO()
    graph.to_dot(text)
    assert f'"{first.id}" -> "{last.parent.id}"' in text.getvalue() and text.getvalue().startswith("digraph ")
    assert repr(graph).startswith(f"{first.id}(1)\n     {last.parent.id}\n")
