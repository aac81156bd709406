"""`app.backend` has the methods of Celery's backends, and what else Celery's own tests ask of calls and results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, chain, group, signature
from litetq.canvas import StampingVisitor
from litetq.exceptions import TaskRevokedError
from litetq.result import GroupResult, result_from_tuple
from litetq.testing import start_worker
from tests.waiting import eventually


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    app = LiteTQ("tasks", broker=db, set_as_current=False)
    yield app
    app.close()


def test_what_is_stored_by_hand_is_read_by_everybody(app: LiteTQ) -> None:
    backend = app.backend
    backend.store_result("a", {"n": 1}, "SUCCESS")
    backend.mark_as_failure("b", KeyError("k"), traceback="Traceback: here")
    backend.store_result("c", {"percent": 5}, "PROGRESS")
    backend.mark_as_revoked("d", "enough")
    backend.mark_as_started("e", pid=7)
    assert app.AsyncResult("a").get(timeout=5) == {"n": 1} == backend.get_result("a")
    with pytest.raises(KeyError, match="k"):
        app.AsyncResult("b").get(timeout=5)
    assert backend.get_traceback("b") == "Traceback: here"
    assert (backend.get_state("c"), backend.get_result("c")) == ("PROGRESS", {"percent": 5})
    with pytest.raises(TaskRevokedError, match="enough"):
        app.AsyncResult("d").get(timeout=5)
    assert backend.get_task_meta("e")["result"] == {"pid": 7}
    meta = backend.get_task_meta("a")
    assert (meta["task_id"], meta["status"], meta["children"]) == ("a", "SUCCESS", [])
    assert backend.wait_for("a", timeout=5)["result"] == {"n": 1}
    backend.forget("a")
    assert backend.get_state("a") == "PENDING" and not backend.task_result_exists("a")


def test_the_end_of_a_task_comes_over_what_was_stored_for_it(app: LiteTQ) -> None:
    @app.task
    def one() -> int:
        return 1

    result = one.delay()
    app.backend.store_result(result.id, {"at": 3}, "PROGRESS")
    assert (result.state, result.info) == ("PROGRESS", {"at": 3})
    with app.run_embedded(pool="threads", concurrency=1):
        assert result.get(timeout=10) == 1


def test_a_group_is_saved_and_restored_by_the_backend(app: LiteTQ) -> None:
    made = GroupResult("g", [app.AsyncResult("x"), app.AsyncResult("y")], app=app)
    app.backend.save_group("g", made)
    assert app.backend.restore_group("g") == made
    app.backend.delete_group("g")
    assert app.backend.restore_group("g") is None


def test_a_task_may_return_a_result(app: LiteTQ) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    @app.task
    def outer() -> Any:
        return group(add.s(1, 1), add.s(2, 2)).delay()

    with app.run_embedded(pool="threads", concurrency=1):
        described = outer.delay().get(timeout=10)
        assert result_from_tuple(described, app).get(timeout=10) == [2, 4]  # type: ignore[attr-defined]


def test_the_group_behind_a_task_that_failed_raises_what_that_task_raised(app: LiteTQ) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    @app.task
    def fail() -> None:
        raise KeyError("first")

    with app.run_embedded(pool="threads", concurrency=1):
        result = chain(group(add.si(1, 1), fail.si()), group(add.si(1, 1), add.si(2, 2))).delay()
        with pytest.raises(KeyError, match="first"):
            result.get(timeout=10)


def test_an_errback_with_other_arguments_is_no_reason_to_refuse_the_call(app: LiteTQ) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    @app.task
    def told(a: str = "", b: str = "") -> None: ...

    with app.run_embedded(pool="threads", concurrency=1):
        assert add.apply_async((1, 1), link_error=told.s()).get(timeout=10) == 2


def test_what_a_chain_is_given_reaches_its_first_task_past_empty_steps(app: LiteTQ) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    with app.run_embedded(pool="threads", concurrency=1):

        def as_read(
            tasks: list[Any],
        ) -> Any:  # an empty group at its head is no chord's header, as it is if `chain` makes it
            return signature(json.loads(json.dumps({**chain(add.s(1), add.s(1)), "kwargs": {"tasks": tasks}})), app=app)

        for sig in (
            as_read([group(), add.s(10)]),
            as_read([chain(), add.s(10)]),
            as_read([as_read([group(), add.s(4)]), add.s(6)]),
        ):
            assert sig.apply_async((5,)).get(timeout=10) == 15
        assert chain(group(app=app), chain(app=app), app=app).apply_async().get(timeout=10) == []


def test_throw_is_an_option_of_eager_calls(app: LiteTQ) -> None:
    @app.task
    def fail() -> None:
        raise KeyError("here")

    app.conf.task_always_eager = True
    assert fail.apply_async().state == "FAILURE"
    with pytest.raises(KeyError, match="here"):
        fail.apply_async(throw=True)


def test_a_stamp_keeps_its_type_and_revokes_all_the_same(app: LiteTQ) -> None:
    class Stamps(StampingVisitor):
        def on_signature(self, sig: Any, **headers: Any) -> Any:
            super().on_signature(sig, **headers)  # type: ignore[safe-super]
            return {"one": 42, "several": [4, 2], "set": frozenset([7])}

    @app.task(bind=True)
    def look(self: Any) -> Any:
        assert self.signature_from_request().options["stamped_headers"] == self.request.stamped_headers
        return self.request.stamps

    def stamped() -> Any:
        sig = look.s()
        sig.stamp(Stamps())
        return sig.delay()

    sig = look.s()
    sig.stamp(one=1)
    assert sig.apply().get() == {"one": 1}
    first = stamped()
    with app.run_embedded(pool="threads", concurrency=1):
        assert first.get(timeout=10) == {"one": 42, "several": [4, 2], "set": [7]}
    for wanted in ({"one": 42}, {"several": 2}, {"set": 7}):
        waiting = stamped()
        app.control.revoke_by_stamped_headers(wanted)
        eventually(lambda waiting=waiting: waiting.state == "REVOKED")  # type: ignore[misc]


def test_a_worker_of_a_test_has_the_name_that_celerys_has(app: LiteTQ) -> None:
    import os
    import socket

    with start_worker(app, perform_ping_check=False) as worker:
        assert worker.hostname == f"gen{os.getpid()}@{socket.gethostname()}"
