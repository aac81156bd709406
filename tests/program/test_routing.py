"""Where tasks go: call options, the task's own attributes, routes, the default queue, in this order."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, Queue, chain
from litetq.exceptions import ImproperlyConfigured, QueueNotFound
from litetq.routing import Broadcast, worker_direct
from tests.conftest import RunPython
from tests.program.conftest import RunWaiting


@pytest.fixture
def queue_of(app: LiteTQ) -> Any:
    """Send a task under a name with these settings, and return the queue that it is in."""

    def ask(name: str = "feed.tasks.fetch", *, options: dict[str, Any] | None = None, **settings: Any) -> str | None:
        app.conf.update(settings)
        return app.send_task(name, **(options or {})).queue

    return ask


def by_function(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **more: Any) -> Any:
    return "large" if args and args[0] > 100 else None


class ByClass:
    def route_for_task(self, task: str, args: Any = None, kwargs: Any = None) -> Any:
        return {"queue": "classy"} if task.startswith("feed") else None


@pytest.fixture
def routers() -> Iterator[str]:
    module = types.ModuleType("my_routers")
    module.function, module.kind, module.made, module.none = by_function, ByClass, ByClass(), 3  # type: ignore[attr-defined]
    sys.modules["my_routers"] = module
    yield "my_routers"
    del sys.modules["my_routers"]


@pytest.mark.row("20.task_routes")
@pytest.mark.row("11.task_routes")
@pytest.mark.parametrize(
    "routes",
    [
        {"feed.tasks.fetch": "feeds"},
        {"feed.tasks.fetch": {"queue": "feeds"}},
        {"feed.tasks.*": "feeds"},
        {"feed.*": {"queue": "feeds", "routing_key": "feed.import"}},
        {"*fetch": "feeds"},
        {re.compile(r"(video|feed)\.tasks\..*"): {"queue": "feeds"}},
        {"feed.tasks.*": "others", "feed.tasks.fetch": "feeds"},
        [("feed.tasks.*", "feeds"), ("*", "others")],
        ([("feed.tasks.*", {"queue": "feeds"}), ("web.tasks.*", {"queue": "web"})],),
        [{"web.*": "web"}, {"feed.*": "feeds"}],
        [{"feed.*": None}, {"feed.*": "feeds"}],
        lambda name, args, kwargs, options, task=None, **more: {"queue": "feeds"},
        [lambda name, *_, **__: None, lambda name, *_, **__: "feeds"],
    ],
)
def test_a_route_of_every_form_leads_to_its_queue(queue_of: Any, routes: Any) -> None:
    if isinstance(routes, list) and isinstance(routes[0], tuple):
        routes = (routes,)
    assert queue_of(task_routes=routes) == "feeds"


@pytest.mark.row("11.task_routes")
@pytest.mark.parametrize("path", ["my_routers.kind", "my_routers.made", "my_routers:kind"])
def test_a_router_may_be_named_by_its_path(queue_of: Any, routers: str, path: str) -> None:
    assert queue_of(task_routes=path) == "classy"
    assert queue_of("web.fetch") == "celery"


@pytest.mark.row("11.task_routes")
def test_a_function_sees_the_arguments(queue_of: Any, routers: str) -> None:
    assert queue_of(options={"args": [101]}, task_routes=("my_routers.function",)) == "large"
    assert queue_of(options={"args": [1]}) == "celery"


@pytest.mark.row("11.task_routes")
def test_a_name_without_a_route_goes_to_the_default_queue(queue_of: Any) -> None:
    assert queue_of("web.fetch", task_routes={"feed.*": "feeds"}) == "celery"
    assert queue_of("web.fetch", task_default_queue="standard") == "standard"


@pytest.mark.row("11.precedence")
def test_call_options_stand_over_attributes_and_these_over_routes(app: LiteTQ) -> None:
    app.conf.task_routes = {"*": {"queue": "routed", "priority": 7}}
    plain = app.task(name="plain")(lambda: None)
    own = app.task(name="own", queue="own", priority=3)(lambda: None)
    assert (plain.delay().queue, own.delay().queue) == ("routed", "own")
    assert own.apply_async(queue="said").queue == "said"
    seat = app.engine.seat("tests@here")
    taken = {(one.name, one.queue): one.priority for one in seat.take(10).deliveries}
    seat.leave()
    assert taken == {("plain", "routed"): 7, ("own", "own"): 3, ("own", "said"): 3}


@pytest.mark.row("20.task_default_priority")
@pytest.mark.row("11.route option `priority`")
def test_a_route_gives_options_of_the_call(app: LiteTQ) -> None:
    app.conf.update(
        task_default_priority=2,
        task_routes={"a": {"priority": 9, "serializer": "yaml", "expires": 60}, "b": "elsewhere"},
    )
    app.send_task("a")
    app.send_task("b")
    app.send_task("a", priority=4, serializer="json", expires=5000)
    seat = app.engine.seat("tests@here")
    first, second, third = seat.take(10).deliveries
    seat.leave()
    assert (first.priority, first.content_type, second.priority, second.queue) == (9, "application/x-yaml", 4, "celery")
    assert (
        first.expires_at is not None and second.expires_at is not None and second.expires_at > first.expires_at + 4000
    )
    assert (third.priority, third.queue) == (2, "elsewhere")


@pytest.mark.row("20.task_inherit_parent_priority")
@pytest.mark.parametrize(("inherit", "expected"), [(True, {"child": 8, "own": 1}), (False, {"child": 0, "own": 1})])
def test_a_task_sent_by_a_task_has_its_priority_by_option(app: LiteTQ, inherit: bool, expected: dict[str, int]) -> None:
    app.conf.task_inherit_parent_priority = inherit
    app.task(name="parent")(lambda: [app.tasks[name].delay() and None for name in ("child", "own")] and None)
    app.task(name="child")(lambda: None)
    app.task(name="own", priority=1)(lambda: None)
    app.tasks["parent"].apply_async(priority=8)
    from litetq.execution import tracer_for

    seat = app.engine.seat("tests@here")
    (parent,) = seat.take(1).deliveries
    seat.take(0, [tracer_for(app, "parent", "tests@here")(parent)])
    found = {one.name: one.priority for one in seat.take(10).deliveries}
    seat.leave()
    assert found == expected


@pytest.mark.row("20.task_create_missing_queues")
@pytest.mark.row("11.task_create_missing_queues")
def test_a_queue_that_is_not_declared_is_refused_where_none_may_be_made(app: LiteTQ, queue_of: Any) -> None:
    app.conf.update(task_create_missing_queues=False, task_queues=[Queue("a"), "b"], task_default_queue="a")
    assert queue_of() == "a"
    assert queue_of(options={"queue": "b"}) == "b"
    assert queue_of(options={"queue": Queue("b")}) == "b"
    with pytest.raises(QueueNotFound, match="Queue 'c' missing from task_queues"):
        queue_of(options={"queue": "c"})
    with pytest.raises(QueueNotFound):
        queue_of(task_routes={"*": "c"})
    with pytest.raises(ImproperlyConfigured, match="queue 'c' cannot be served"):
        app.run_embedded(queues=["a", "c"])
    assert app.engine.store.records.counts()["QUEUED"] == 3


@pytest.mark.row("20.task_queues")
@pytest.mark.row("11.task_queues")
@pytest.mark.parametrize(
    "queues",
    [
        [Queue("a"), Queue("b", routing_key="b.#")],
        ("a", "b"),
        {"a": {"exchange": "a", "routing_key": "a"}, "b": {}},
        [types.SimpleNamespace(name="a"), types.SimpleNamespace(name="b", routing_key="b")],
    ],
)
def test_a_worker_serves_all_declared_queues(app: LiteTQ, queues: Any) -> None:
    app.conf.task_queues = queues
    assert app.Worker(pool="solo").queues == {"a", "b"}
    assert app.Worker(pool="solo", queues="b,c").queues == {"b", "c"}


@pytest.mark.row("11.queue aliases")
def test_a_queue_is_found_by_its_alias(app: LiteTQ, queue_of: Any) -> None:
    app.conf.task_queues = [Queue("long.name.of.a.queue", alias="short")]
    assert queue_of(options={"queue": "short"}) == "long.name.of.a.queue"
    assert app.Worker(pool="solo", queues=["short"]).queues == {"long.name.of.a.queue"}


@pytest.mark.row("11.queue aliases")
def test_the_command_line_takes_aliases_to_serve_and_to_leave_out(tmp_path: Path, run_python: RunPython) -> None:
    (tmp_path / "mine.py").write_text(
        "from litetq import LiteTQ, Queue\n"
        "app = LiteTQ('mine', broker='jobs.sqlite', task_queues=[Queue('celery'), Queue('mail', alias='m')])\n"
    )
    for option, served in (("-Q", "mail"), ("-X", "celery")):
        worker = run_python("-m", "litetq", "-A", "mine", "worker", "-P", "solo", "--drain", option, "m")
        out, _ = worker.communicate(timeout=30)
        assert re.findall(r"\.> (\S+) +exchange", out) == [served]


@pytest.mark.row("11.exchanges")
def test_a_call_that_names_a_routing_key_only_finds_the_queue_bound_by_it(queue_of: Any) -> None:
    queues = [
        Queue("default", routing_key="task.#"),
        Queue("feeds", exchange="media", routing_key="feed.*"),
        Queue("web", routing_key="web"),
    ]
    assert queue_of(options={"routing_key": "feed.import"}, task_queues=queues) == "feeds"
    assert queue_of(options={"routing_key": "task"}) == "default"
    assert queue_of(options={"routing_key": "task.a.b"}) == "default"
    assert queue_of(options={"exchange": "media"}) == "feeds"
    assert queue_of(options={"routing_key": "feed.a.b"}) == "celery"
    assert queue_of(task_routes={"*": {"exchange": "web", "routing_key": "web"}}) == "web"


@pytest.mark.row("20.task_queue_max_priority")
def test_a_queue_knows_no_larger_priority_than_it_says(app: LiteTQ) -> None:
    app.conf.update(task_queue_max_priority=5, task_queues=[Queue("a"), Queue("b", max_priority=2)])
    for queue in "ab":
        app.send_task("x", queue=queue, priority=9)
    seat = app.engine.seat("tests@here")
    assert [(one.queue, one.priority) for one in seat.take(5).deliveries] == [("a", 5), ("b", 2)]
    seat.leave()


def test_a_step_of_a_workflow_is_routed_as_any_call(app: LiteTQ, run_waiting: RunWaiting) -> None:
    queues: list[Any] = []
    app.conf.task_routes = {"second": "elsewhere"}
    app.task(name="first")(lambda: 1)

    @app.task(name="second", bind=True)
    def second(self: Any, value: int) -> None:
        queues.append(self.request.delivery_info["routing_key"])

    chain(app.tasks["first"].s(), second.s()).delay()
    run_waiting(app)
    assert queues == ["elsewhere"]


@pytest.mark.row("8.worker_direct")
def test_a_worker_has_a_queue_of_its_own_by_option(app: LiteTQ) -> None:
    app.conf.worker_direct = True
    here = app.task(name="here", bind=True)(lambda self: self.request.hostname)
    with app.run_embedded(hostname="one@host"), app.run_embedded(hostname="two@host"):
        for node in ("one@host", "two@host", "one@host"):
            assert here.apply_async(queue=worker_direct(node)).get(timeout=10) == node


@pytest.mark.row("11.Broadcast")
def test_every_worker_gets_a_copy_of_a_broadcast(app: LiteTQ, db: Path) -> None:
    from tests.waiting import eventually

    app.conf.task_queues = [Queue("celery"), Broadcast("news")]
    app.conf.task_routes = {"reload": "news"}
    heard: list[str] = []
    reload = app.task(name="reload", bind=True)(lambda self: heard.append(self.request.hostname))
    with app.run_embedded(hostname="one@host"), app.run_embedded(hostname="two@host"):
        with app.run_embedded(hostname="deaf@host", queues=["celery"]):
            reload.delay()
            eventually(lambda: sorted(heard) == ["one@host", "two@host"])
        with pytest.raises(ValueError, match="a task that is broadcast"):
            chain(reload.si(), reload.si()).delay()
    heard.clear()
    waiting = reload.delay()  # nobody is there: the next worker has it
    with app.run_embedded(hostname="three@host"):
        waiting.get(timeout=10)
    assert heard == ["three@host"]


@pytest.mark.parametrize(
    ("routes", "said"),
    [
        ({"*": 5}, "must be the name of a queue or a dictionary of options, found 5"),
        ([5], "an entry must be a dictionary, a list of pairs, a function or its path, found 5"),
        ([["feed.*", "a", "b"]], "pairs of a name"),
        (["no.such.module"], "'no.such.module' cannot be imported"),
    ],
)
def test_a_route_that_is_none_is_named_in_a_sentence(queue_of: Any, routes: Any, said: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"task_routes: .*{re.escape(said)}"):
        queue_of(task_routes=routes)


def test_an_unknown_option_in_a_route_is_a_mistake(queue_of: Any) -> None:
    with pytest.raises(TypeError, match="priorty"):
        queue_of(task_routes={"*": {"priorty": 3}})
