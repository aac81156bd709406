"""Small functions under Celery's names answer as Celery's own do: each line is evaluated by both and compared."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.compat import packages
from tests.conftest import ROOT, missing

LINES = """
celery.utils.time | t.rate("10/m"), t.rate("100/s"), t.rate("1/h"), t.rate(None), t.rate(3)
celery.utils.time | t.weekday("Sunday"), t.weekday("fri")
celery.utils.time | raised(lambda: t.weekday("nosuch"))
celery.utils.time | t.maybe_timedelta(3), t.maybe_timedelta(timedelta(1)), t.maybe_timedelta(None)
celery.utils.time | t.humanize_seconds(4 * 60 * 60 * 24), t.humanize_seconds(1), t.humanize_seconds(0), t.humanize_seconds(75)
celery.utils.time | t.humanize_seconds(4.567), t.humanize_seconds(20, prefix="in", sep=" "), t.humanize_seconds(-3)
celery.utils.time | t.maybe_iso8601("2020-05-01T10:00:00+00:00").isoformat(), t.maybe_iso8601(None), t.maybe_iso8601("2020-05-01T10:00:00Z").isoformat()
celery.utils.time | t.is_naive(datetime(2020, 1, 1)), t.is_naive(datetime(2020, 1, 1, tzinfo=timezone.utc))
celery.utils.time | t.make_aware(datetime(2020, 7, 1), t.timezone.get_timezone("Europe/Oslo")).isoformat()
celery.utils.time | t.maybe_make_aware(datetime(2020, 7, 1)).isoformat()
celery.utils.time | t.maybe_make_aware(datetime(2020, 7, 1), t.timezone.get_timezone("Europe/Oslo")).isoformat()
celery.utils.time | t.maybe_make_aware(datetime(2020, 7, 1), t.timezone.get_timezone("Europe/Oslo"), naive_as_utc=False).isoformat()
celery.utils.time | t.to_utc(datetime(2020, 7, 1)).isoformat()
celery.utils.time | t.remaining(datetime(2020, 1, 1), timedelta(hours=3), now=datetime(2020, 1, 1, 1))
celery.utils.time | t.remaining(datetime(2020, 1, 1, 5, 30), timedelta(hours=3), now=datetime(2020, 1, 1, 6), relative=True)
celery.utils.time | t.remaining(datetime(2020, 1, 1, tzinfo=timezone.utc), timedelta(hours=3), now=datetime(2020, 1, 1, 1, tzinfo=timezone.utc))
celery.utils.time | t.delta_resolution(datetime(2010, 3, 30, 11, 50, 58, 41065), timedelta(days=2))
celery.utils.time | t.delta_resolution(datetime(2010, 3, 30, 11, 50, 58, 41065), timedelta(hours=2))
celery.utils.time | t.delta_resolution(datetime(2010, 3, 30, 11, 50, 58, 41065), timedelta(minutes=2))
celery.utils.time | t.delta_resolution(datetime(2010, 3, 30, 11, 50, 58, 41065), timedelta(seconds=2))
celery.utils.time | t.adjust_timestamp(1000.0, 2, lambda: 1), t.get_exponential_backoff_interval(2, 3, 100)
celery.utils.time | t.ffwd(weekday=5, hour=14).__radd__(datetime(2020, 1, 1)), datetime(2020, 1, 30) + t.ffwd(day=3, minute=7)
celery.utils.text | t.abbr("hello world", 8), t.abbr("hello", 3, None), t.abbr(None, 3), t.abbr("short", 8)
celery.utils.text | t.truncate("hello brave world", 10), t.truncate("short", 10), t.pluralize(1, "task"), t.pluralize(2, "task")
celery.utils.text | t.indent("a\\nb", 2), t.join(["a", "", "b"]), t.str_to_list("a,b"), t.str_to_list(["a"])
celery.utils.text | t.pretty({"a": 1}), t.pretty((1, 2)), t.pretty("x")
celery.utils.functional | t.first(None, [None, 1, 2]), t.first(lambda x: x > 1, [1, 2]), t.first(None, [])
celery.utils.functional | t.maybe_list("a"), t.maybe_list(["a"]), t.maybe_list(None), t.maybe_list({"a": 1}), t.maybe_list(3)
celery.utils.functional | list(t.chunks(iter(range(5)), 2)), list(t.padlist(["a"], 3)), list(t.uniq([1, 2, 1]))
celery.utils.functional | t.dictfilter({"a": 1, "b": None}, c=None, d=2), t.fun_accepts_kwargs(lambda **k: 0), t.fun_accepts_kwargs(len if 0 else lambda a: 0)
celery.utils.functional | memoized(t), lru(t), raised(lambda: t.head_from_fun(two)(1, 2, 3))
celery.utils.functional | t.mlazy(lambda: 3)(), t.lazy(lambda x: x + 1, 3).evaluate(), t.noop(1, a=2)
celery.utils.nodenames | t.nodesplit("a@b"), t.nodesplit("b"), t.nodename("a", "b"), t.default_nodename("x@y"), t.worker_direct("a@b").name
celery.utils.nodenames | t.host_format("%n-%h-%d", "host.example.com", "w1"), t.host_format("100%%"), t.node_format("%n.log", "w@h.d")
celery.utils.imports | t.qualname(datetime), t.symbol_by_name("datetime.datetime") is datetime, t.symbol_by_name("datetime:datetime") is datetime
celery.utils.imports | t.symbol_by_name(datetime) is datetime, t.symbol_by_name("no.such:thing", default=5), t.instantiate("fractions:Fraction", 1) == 1
celery.utils.serialization | t.strtobool("yes"), t.strtobool("off"), t.strtobool(1), raised(lambda: t.strtobool("foo"))
celery.utils.serialization | t.b64encode(b"abc") if isinstance(t.b64encode(b"abc"), str) else t.b64encode(b"abc").decode(), t.b64decode("YWJj")
celery.utils.saferepr | t.saferepr([1, 2]), t.saferepr({"a": 1}), t.saferepr("text")
celery.utils.objects | t.Bunch(a=1).a, fallback(t), got(t), t.mro_lookup(bool, "real").__name__
celery.utils.collections | t.AttributeDict(a=1).a, raised(lambda: t.AttributeDict().a), limited(t), chained(t), t.force_mapping({"a": 1})["a"]
celery.utils.threads | stacked(t)
celery.utils.log | t.get_logger("a.b").name, t.get_task_logger("a.b").name, t.mlevel("INFO"), t.mlevel(10), raised(lambda: t.get_task_logger("celery"))
celery.utils.log | t.get_logger("zz").parent.name, t.get_task_logger("zz2").parent.name, t.base_logger.name, t.task_logger.name
celery.utils.term | str(t.colored(enabled=False).red("a", t.colored(enabled=False).blue("b"))), t.colored("x", enabled=False).no_color()
celery.utils.graph | sorted(t.DependencyGraph([("A", ["B"]), ("B", [])]).edges())
celery.utils.iso8601 | t.parse_iso8601("2020-05-01T10:00:00+02:00").isoformat()
celery.local | proxied(t), promised(t), t.try_import("no_such_module"), t.try_import("json").__name__
celery.events | sorted(t.Event("worker-online", hostname="h")), t.Event("x", {"a": 1}, timestamp=3)
celery.events.state | t.heartbeat_expires(100.0, 10), t.TASK_EVENT_TO_STATE
celery.states | sorted(t.READY_STATES), sorted(t.UNREADY_STATES), list(map(t.precedence, ["SUCCESS", "PENDING", "CUSTOM"])), list(t.PRECEDENCE)
celery.states | t.state("SUCCESS") > t.state("PENDING"), t.state("PENDING") < "STARTED", sorted(t.PROPAGATE_STATES), sorted(t.EXCEPTION_STATES)
celery.platforms | t.EX_OK, t.EX_USAGE, t.EX_UNAVAILABLE, t.SYSTEM, t.signals.signum("TERM"), t.signals.supported("NOSUCH"), t.signal_name(15)
celery.app.annotations | t.MapAnnotation({"*": {"a": 1}}).annotate_any(), len(t.prepare([{"x": {"a": 1}}])), t.prepare(None)
celery.app.routes | t.MapRoute({"a.b": {"queue": "x"}, "c.*": {"queue": "y"}})("a.b"), t.MapRoute({"c.*": {"queue": "y"}})("c.d"), t.MapRoute({})("z")
celery | t.VERSION[:2], t.Celery("x", set_as_current=False).main, sorted(t.chain.__name__ for _ in "a")
celery.exceptions | str(t.Retry("m", when=3)), repr(t.Reject("r", requeue=True)), t.Ignore.__mro__[-3].__name__, str(t.NotRegistered("x"))
celery.exceptions | issubclass(t.SoftTimeLimitExceeded, Exception), str(t.TimeLimitExceeded(3)), str(t.MaxRetriesExceededError("x"))
celery.app.autoretry | callable(t.add_autoretry_behaviour)
celery.app.utils | raised(lambda: t.find_app("no_such_module_at_all")) in ("ModuleNotFoundError", "ImportError", "ImproperlyConfigured", "AttributeError")
celery.contrib.testing.mocks | t.TaskMessage("a.b", id="1", args=(1,)).headers["task"], t.TaskMessage("a.b", id="1", args=(1,)).headers["id"]
""".strip().splitlines()

PROGRAM = """
import importlib, json, sys
from datetime import datetime, timedelta, timezone

def raised(call):
    try: call()
    except Exception as error: return type(error).__name__
    return "nothing"

def two(a, b=1): pass

def memoized(t):
    calls = []
    @t.memoize(maxsize=2)
    def double(x): calls.append(x); return x * 2
    return [double(1), double(1), double(2), calls, double.hits, double.misses]

def lru(t):
    cache = t.LRUCache(limit=2)
    cache["a"] = 1; cache["b"] = 2; cache["a"]; cache["c"] = 3
    return sorted(cache), cache.get("b")

def fallback(t):
    class Made:
        def __enter__(self): return "made"
        def __exit__(self, *_): pass
    with t.FallbackContext("given", Made) as one, t.FallbackContext(None, Made) as two: return one, two

def got(t):
    class Thing(dict):
        x = t.getitem_property("a.b"); y = t.getitem_property("c")
    thing = Thing(a={"b": 1}, c=2); thing.y = 3
    return thing.x, thing["c"]

def limited(t):
    kept = t.LimitedSet(maxlen=2)
    for item in "abc": kept.add(item)
    return sorted(kept), "a" in kept, len(kept), kept.pop()

def chained(t):
    chain = t.ChainMap({"a": 1}, {"a": 2, "b": 3}); chain["c"] = 4
    return chain["a"], chain["b"], chain.changes, chain.get("z"), sorted(chain)

def stacked(t):
    stack = t.LocalStack()
    stack.push(1); stack.push(2)
    return stack.top, stack.pop(), stack.top, len(stack), stack.pop(), stack.pop(), stack.top

def proxied(t):
    value = {"a": 1}
    proxy = t.Proxy(lambda: value)
    proxy["b"] = 2
    return proxy["a"], len(proxy), "b" in proxy, sorted(proxy), proxy == value, bool(proxy), proxy._get_current_object() is value

def promised(t):
    calls = []
    def make(): calls.append(1); return [1]
    promise = t.PromiseProxy(make)
    return len(promise), promise[0], len(calls), t.maybe_evaluate(promise)

answers = []
for line in json.load(sys.stdin):
    name, _, expression = line.partition(" | ")
    t = importlib.import_module(name)
    try: value = eval(expression)
    except Exception as error: value = f"{type(error).__name__}: {error}"
    answers.append(repr(value))
print(json.dumps(answers))
"""


def answers(alias: bool, folder: str) -> list[str]:
    """Return what each line gives, with the alias or with Celery."""
    install = "import litetq; litetq.install_as_celery()\n" if alias else ""
    ended = subprocess.run(
        [packages.PYTHON, "-W", "ignore", "-c", install + PROGRAM],
        input=json.dumps(LINES),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TZ": "UTC"},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert ended.returncode == 0, ended.stderr
    found: list[str] = json.loads(ended.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """What Celery and litetq answer to each line."""
    if not packages.is_there():
        missing("the environment of real packages is not there: python -m tests.compat.packages")
    folder = str(tmp_path_factory.mktemp("answers"))
    return dict(zip(LINES, zip(answers(False, folder), answers(True, folder), strict=True), strict=True))


@pytest.mark.parametrize("line", LINES)
def test_the_answer_is_celerys(both: dict[str, tuple[str, str]], line: str) -> None:
    celerys, ours = both[line]
    assert ours == celerys
