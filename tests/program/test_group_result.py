"""Results of groups: asked for, waited for, kept under their id, and found again."""

from __future__ import annotations

import json
import pickle
import threading
from types import SimpleNamespace

import pytest

from litetq import AsyncResult, GroupResult, LiteTQ, ResultSet, chain, chord, group, result_from_tuple
from litetq.exceptions import TimeoutError
from tests.program.canvas_tasks import register
from tests.program.conftest import RunWaiting


@pytest.fixture
def t(app: LiteTQ) -> SimpleNamespace:
    return register(app)


@pytest.mark.row("6.ResultSet: state")
def test_a_group_tells_how_far_it_is(app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting) -> None:
    result = group([t.add.s(1, 1), t.fail.s(), t.add.s(2, 2)])()
    assert (len(result), result.waiting(), result.ready(), result.completed_count()) == (3, True, False, 0)
    with pytest.raises(TimeoutError):
        result.get(timeout=0)
    run_waiting(app)
    assert (result.waiting(), result.ready(), result.failed(), result.successful()) == (False, True, True, False)
    assert result.completed_count() == 2 and result[0].get() == 2 and result.children == list(result)
    with pytest.raises(ValueError, match="boom"):
        result.get(timeout=0)
    values = result.join(timeout=0, propagate=False)
    assert [values[0], repr(values[1]), values[2]] == [2, "ValueError('boom')", 4] and result.join_native is not None


def test_values_come_in_order_of_the_group_and_of_their_ends(
    app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting
) -> None:
    result = group([t.add.s(i, i) for i in range(1200)])()
    run_waiting(app)
    assert result.get(timeout=0) == [2 * i for i in range(1200)]
    again = app.GroupResult(result.id, [app.AsyncResult(each.id) for each in result])
    assert sorted(again.iterate(timeout=5)) == [2 * i for i in range(1200)]
    nested = group([t.add.s(1, 1) | group([t.add.s(1), t.add.s(2)]), t.add.s(3, 3)])()
    run_waiting(app)
    assert sorted(nested.iterate(timeout=5)) == [3, 4, 6] and nested.get(timeout=0) == [[3, 4], 6]


@pytest.mark.row("6.GroupResult")
def test_a_saved_group_is_found_again_until_it_is_deleted(
    app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting
) -> None:
    result = (t.add.s(1, 1) | group([t.add.s(1), t.add.s(2)]))()
    result.save()
    with LiteTQ("other", broker=app.engine.path, set_as_current=False) as other:
        found = GroupResult.restore(result.id, app=other)
        assert found == result and found is not None and found.parent == result.parent
        run_waiting(app)
        assert found.get(timeout=0) == [3, 4] and found.parent.get(timeout=0) == 2
    result.delete()
    assert GroupResult.restore(result.id, app=app) is None and result.get(timeout=0) == [3, 4]
    assert app.AsyncResult(result.id).state == "PENDING"


@pytest.mark.row("5.nested groups")
@pytest.mark.row("6.result_from_tuple, as_tuple, as_list")
def test_tuples_describe_the_whole_tree(app: LiteTQ, t: SimpleNamespace) -> None:
    result = (t.add.s(1, 1) | group([t.add.s(1), t.add.s(2) | t.add.s(3)]) | t.tsum.s() | t.add.s(1))()
    again = result_from_tuple(json.loads(json.dumps(result.as_tuple())), app)
    assert again.as_tuple() == result.as_tuple()
    members = again.parent.parent
    assert type(members) is GroupResult and members.parent.id == result.parent.parent.parent.id
    assert members[1].parent is not None
    assert result.as_list() == [result.id, result.parent.id, members.id, members.parent.id]


def test_a_chain_of_ten_thousand_results_is_no_problem(app: LiteTQ, t: SimpleNamespace) -> None:
    result = chain([t.add.s(1, 1)] + [t.add.s(1)] * 9_999)()
    assert len(result.as_list()) == 10_000
    again = result_from_tuple(result.as_tuple(), app)
    assert again.id == result.id and len(again.as_list()) == 10_000


@pytest.mark.row("6.GroupResult")
def test_groups_are_equal_by_id_and_members_and_survive_pickle(app: LiteTQ) -> None:
    members = [AsyncResult("a", app=app), AsyncResult("b", app=app)]
    one, other = GroupResult("g", members), GroupResult("g", list(members))
    assert one == other == "g" and one != GroupResult("g", members[:1]) and len({one, other}) == 1
    assert repr(one) == "<GroupResult: g [a, b]>" and str(one) == "g" and pickle.loads(pickle.dumps(one)) == one
    assert bool(GroupResult("g", [])) and not GroupResult() and one.as_tuple() == (
        ("g", None), [(("a", None), None), (("b", None), None)])  # fmt: skip


@pytest.mark.row("6.ResultSet: members")
def test_a_set_can_be_changed(app: LiteTQ) -> None:
    members = ResultSet([AsyncResult("a", app=app)])
    members.add(AsyncResult("b", app=app))
    members.remove("a")
    assert [each.id for each in members] == ["b"] and members.app is app


@pytest.mark.row("6.ResultSet: forget, revoke")
def test_revoke_and_forget_reach_all_members(app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting) -> None:
    result = group([t.add.s(1, 1), t.add.s(1, 1) | group([t.note.s(), t.note.s()])])()
    result.revoke()
    assert run_waiting(app) != [] and t.seen == [] and {leaf.state for leaf in result.leaves()} == {"REVOKED"}
    result[0].forget()
    assert result[0].state == "PENDING"


@pytest.mark.row("6.ResultSet: then")
def test_then_calls_once_all_have_ended(app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting) -> None:
    called = threading.Event()
    failed: list[object] = []
    result = group([t.add.s(1, 1), t.add.s(2, 2)])()
    result.then(lambda ended: called.set())
    broken = group([t.add.s(1, 1), t.fail.s()])()
    broken.then(lambda ended: None, on_error=failed.append)
    run_waiting(app)
    assert called.wait(10)
    broken.then(lambda ended: None, on_error=failed.append)
    assert "boom" in str(failed[-1])


def test_a_body_reports_through_its_header(app: LiteTQ, t: SimpleNamespace, run_waiting: RunWaiting) -> None:
    result = chord([t.add.s(i, i) for i in range(3)], t.tsum.s())()
    run_waiting(app)
    assert result.get(timeout=0) == 6 and result.parent.completed_count() == 3
