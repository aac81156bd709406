"""An app with a `send_task` of its own sees every call, as with Celery: packages put headers there, tests look there."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from litetq import LiteTQ, chain, chord, group
from litetq.result import AsyncResult

RunWaiting = Callable[[LiteTQ], list[str]]


class Tenants(LiteTQ):
    """Puts a header into each call, as packages for tenants do."""

    seen: list[str]

    def send_task(self, name: str, *args: Any, **options: Any) -> AsyncResult[Any]:
        self.seen.append(name)
        options["headers"] = {**(options.get("headers") or {}), "tenant": "one"}
        return super().send_task(name, *args, **options)


@pytest.fixture
def tenants(tmp_path: Path) -> Tenants:
    app = Tenants("tenants", broker=str(tmp_path / "jobs.sqlite"), set_as_current=False)
    app.seen = []

    @app.task(name="who", bind=True)
    def who(self: Any, *_: Any) -> str:
        return str(self.request.headers["tenant"])

    return app


def test_calls_of_tasks_go_through_it(tenants: Tenants, run_waiting: RunWaiting) -> None:
    who = tenants.tasks["who"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = [who.delay(), who.apply_async((1,), countdown=0), who.s(2).delay(), tenants.send_task("who")]
    run_waiting(tenants)
    assert [result.get(timeout=5) for result in results] == ["one"] * 4 and tenants.seen == ["who"] * 4


def test_members_of_workflows_go_through_it(tenants: Tenants, run_waiting: RunWaiting) -> None:
    who = tenants.tasks["who"]
    results = [
        chain(who.s(), who.s()).delay(),
        group(who.s() for _ in range(2)).delay(),
        chord([who.s(), who.s()], who.s()).delay(),
        who.apply_async(link=who.si()),
    ]
    run_waiting(tenants)
    assert [result.get(timeout=5) for result in results] == ["one", ["one", "one"], "one", "one"]
    assert len(tenants.seen) == 9


def test_a_member_that_is_known_by_its_name_alone_goes_through_it(tenants: Tenants) -> None:
    chain(tenants.signature("elsewhere"), tenants.signature("there", immutable=True)).delay()
    assert sorted(tenants.seen) == ["elsewhere", "there"]


def test_a_test_that_replaces_it_gets_name_and_arguments(tmp_path: Path) -> None:
    app = LiteTQ("plain", broker=str(tmp_path / "jobs.sqlite"), set_as_current=False)
    task = app.task(name="t")(lambda a, b=0: a)
    with patch.object(app, "send_task") as send_task:
        task.delay(1, b=2)
        task.apply_async((3,), queue="slow", task_id="x")
    (first, second) = send_task.call_args_list
    assert first.args == ("t", (1,), {"b": 2}) and first.kwargs["task_type"] is task
    assert second.args[:2] == ("t", (3,)) and (second.kwargs["queue"], second.kwargs["task_id"]) == ("slow", "x")
    assert not app.engine.read("x")


def test_one_that_sends_nothing_cannot_be_part_of_a_workflow(tmp_path: Path) -> None:
    app = LiteTQ("plain", broker=str(tmp_path / "jobs.sqlite"), set_as_current=False)
    task = app.task(name="t")(lambda *_: 1)
    with patch.object(app, "send_task"), pytest.raises(RuntimeError, match="super.*send_task"):
        chain(task.s(), task.s()).delay()
