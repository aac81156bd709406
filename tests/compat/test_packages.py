"""Packages that were written for Celery work unmodified under the alias, with Celery itself installed beside litetq."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.compat import packages
from tests.conftest import ROOT, RunPython, missing
from tests.servers import Redis

INSTALL = "import litetq; litetq.install_as_celery()\nimport json\n"


class RunHere(Protocol):
    def __call__(self, code: str, *, alias: bool = True) -> Any: ...


@pytest.fixture
def run_there(tmp_path: Path) -> RunHere:
    """Run a program in the environment of real packages; it prints one JSON value, which is returned."""
    if not packages.is_there():
        missing("the environment of real packages is not there: python -m tests.compat.packages")

    def run(code: str, *, alias: bool = True) -> Any:
        program = tmp_path / "program.py"
        program.write_text((INSTALL if alias else "import json\n") + code, encoding="utf-8")
        ended = subprocess.run(
            [packages.PYTHON, program],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout.splitlines()[-1])

    return run


def test_litetq_answers_although_celery_is_installed(run_there: RunHere) -> None:
    assert run_there("import celery, celery.beat; print(json.dumps(celery.Celery is litetq.LiteTQ))") is True
    assert run_there("import celery; print(json.dumps(celery.Celery.__module__))", alias=False) == "celery.app.base"


def test_real_celery_that_is_loaded_is_refused(run_there: RunHere) -> None:
    said = run_there(
        "import celery.result, litetq\n"
        "try: litetq.install_as_celery()\n"
        "except Exception as error: print(json.dumps([type(error).__name__, str(error)]))",
        alias=False,
    )
    assert said[0] == "ImproperlyConfigured"
    assert "Celery itself is loaded already (celery, " in said[1]


def test_real_kombu_and_billiard_are_used_and_their_errors_are_ours(run_there: RunHere) -> None:
    found = run_there(
        "import kombu, kombu.exceptions, billiard.exceptions, billiard.einfo, celery.exceptions as ours\n"
        "import litetq.execution\n"
        "app = litetq.LiteTQ('x', broker='jobs.sqlite')\n"
        "app.conf.task_queues = [kombu.Queue('fast', kombu.Exchange('media'), routing_key='video')]\n"
        "sent = app.send_task('a.b', queue=kombu.Queue('fast'))\n"
        "open('notes.txt', 'w').write('no database at all, though it is long enough ' * 30)\n"
        "try: litetq.LiteTQ('y', broker='notes.txt').send_task('a.b'); caught = None\n"
        "except kombu.exceptions.OperationalError as error: caught = type(error).__name__\n"
        "print(json.dumps(['stand' in kombu.__doc__.lower(), kombu.exceptions.OperationalError is ours.OperationalError,\n"
        "    billiard.exceptions.SoftTimeLimitExceeded is ours.SoftTimeLimitExceeded,\n"
        "    billiard.einfo.ExceptionInfo is litetq.execution.ExceptionInfo, sent.queue, caught]))"
    )
    assert found == [False, True, True, True, "fast", "NotADatabase"]


NUMBERED = """
import json, litetq; litetq.install_as_celery()
from celery import Celery
from celery.signals import worker_process_init
from billiard import current_process
app = Celery("numbered", broker="jobs.sqlite")
at_first = []
worker_process_init.connect(lambda **_: at_first.append(current_process().index), weak=False)
@app.task(name="which")
def which():
    return [*at_first, current_process().index, current_process().name]
if __name__ == "__main__":
    result = which.delay()
    with app.run_embedded(pool="processes", concurrency=1):
        print(json.dumps(result.get(timeout=30)))
"""


@pytest.mark.parametrize("is_installed", [True, False])
def test_a_child_of_a_pool_knows_its_number_from_billiard(
    run_there: RunHere, run_python: RunPython, tmp_path: Path, is_installed: bool
) -> None:
    """Some programs choose a GPU by it."""
    if is_installed:
        numbered = run_there(NUMBERED)
    else:
        (tmp_path / "numbered.py").write_text(NUMBERED, encoding="utf-8")
        out, err = run_python(tmp_path / "numbered.py").communicate(timeout=60)
        numbered = json.loads(out or err)
    assert numbered == [0, 0, "PoolWorker-1"]


@pytest.mark.parametrize("first", ["import kombu, billiard", "import celery"])
def test_errors_of_kombu_and_billiard_are_reached_by_a_plain_import_as_with_celery(
    run_there: RunHere, first: str
) -> None:
    told = run_there(
        f"{first.replace('import celery', 'pass')}\nimport litetq; litetq.install_as_celery()\n"
        "import celery, kombu, billiard, litetq.exceptions as ours\n"
        "print(json.dumps([kombu.exceptions.OperationalError is ours.OperationalError,\n"
        "    billiard.exceptions.WorkerLostError is ours.WorkerLostError, hasattr(kombu, 'serialization')]))",
        alias=False,
    )
    assert told == [True, True, True]


def test_a_client_of_celerys_knows_the_errors_that_workers_of_ours_put_on_record(run_there: RunHere) -> None:
    unknown = run_there(
        "import celery.exceptions, kombu.exceptions, sys\n"
        "from litetq import exceptions, serialization\n"
        "from litetq.adapters.metas import _OURS_ALONE, Codec\n"
        "from litetq.message import Record\n"
        "unknown = []\n"
        "for name, kind in vars(exceptions).items():\n"
        "    if isinstance(kind, type) and issubclass(kind, Exception) and kind.__module__ == 'litetq.exceptions':\n"
        "        data = serialization.encode_exception(kind.__new__(kind))\n"
        "        told = Codec().meta(Record('a', 'FAILURE', 'DONE', data))['result']\n"
        "        if not hasattr(sys.modules[told['exc_module']], name): unknown.append(name)\n"
        "        assert (told['exc_module'] == 'litetq.exceptions') == (name in _OURS_ALONE), name\n"
        "print(json.dumps(unknown))",
        alias=False,
    )
    assert unknown == []


def test_what_is_registered_with_real_kombu_writes_and_reads_tasks(run_there: RunHere) -> None:
    told = run_there(
        "from kombu.serialization import register, registry\n"
        "loud = lambda value: json.dumps(value).upper()\n"
        "register('loud', loud, lambda text: json.loads(text.lower()), 'application/x-loud')\n"
        "app = litetq.LiteTQ('x', broker='jobs.sqlite', accept_content=['json', 'loud'])\n"
        "@app.task\n"
        "def twice(word): return word * 2\n"
        "result = twice.apply_async(('ab',), serializer='loud')\n"
        "with app.run_embedded(1, pool='solo'): value = result.get(timeout=30)\n"
        "litetq.uninstall_celery_alias()\n"
        "print(json.dumps([value, registry.register.__self__ is registry]))"
    )
    assert told == ["abab", True]


def test_a_serializer_for_the_content_type_of_json_is_refused_with_a_sentence_where_it_is_used(
    run_there: RunHere,
) -> None:
    told = run_there(
        "from kombu.serialization import register\n"
        "register('mine', json.dumps, json.loads, content_type='application/json')\n"
        "try: litetq.LiteTQ('x', broker='jobs.sqlite', task_serializer='mine').send_task('t')\n"
        "except Exception as error: print(json.dumps(str(error)))"
    )
    assert "application/json, which is taken" in told and "application/x-mine" in told


SENTRY = """
import sentry_sdk
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.transport import Transport

seen = []


class Kept(Transport):
    def capture_envelope(self, envelope):
        seen.extend((item.type, item.payload.json) for item in envelope.items if item.payload.json)


sentry_sdk.init(
    dsn="http://key@localhost/1", transport=Kept(), traces_sample_rate=1.0,
    integrations=[CeleryIntegration(monitor_beat_tasks=True)],
)
from celery import Celery, chain

app = Celery("shop", broker="jobs.sqlite")


@app.task
def buy(x):
    raise ValueError(f"no {x}")


@app.task
def add(x):
    return x + 1
"""


def test_sentry_reports_errors_and_follows_traces_through_a_workflow(run_there: RunHere) -> None:
    seen = run_there(
        SENTRY + "with sentry_sdk.start_transaction(name='caller', op='test') as caller:\n"
        "    failed, steps = buy.delay('apples'), chain(add.s(1), add.s())()\n"
        "with app.run_embedded(1, pool='solo') as worker:\n"
        "    value = steps.get(timeout=30); worker.drain(30)\n"
        "traced = lambda p: p['contexts']['trace']['trace_id'] == caller.trace_id\n"
        "print(json.dumps([value, [[kind, p['transaction'], traced(p), p['contexts']['trace'].get('op'),\n"
        "    [e['type'] for e in p.get('exception', {}).get('values', [])]] for kind, p in seen]]))"
    )
    value, told = seen
    assert value == 3
    assert ["event", "shop.buy", True, "queue.task.celery", ["ValueError"]] in told
    assert [each[1] for each in told if each[0] == "transaction"].count("shop.add") == 2
    assert all(traced for _, _, traced, _, _ in told)


def test_sentry_monitors_periodic_tasks(run_there: RunHere) -> None:
    told = run_there(
        SENTRY + "from celery.beat import ScheduleEntry, Scheduler\n"
        "entry = ScheduleEntry(name='hourly', task='shop.add', args=(1,), schedule=3600.0, app=app)\n"
        "Scheduler(app, lazy=True).apply_entry(entry)\n"
        "with app.run_embedded(1, pool='solo') as worker:\n"
        "    worker.drain(30)\n"
        "print(json.dumps([[p['monitor_slug'], p['status']] for kind, p in seen if kind == 'check_in']))"
    )
    assert told == [["hourly", "in_progress"], ["hourly", "ok"]]


def test_opentelemetry_makes_spans_that_hang_together(run_there: RunHere) -> None:
    spans = run_there(
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.export import SimpleSpanProcessor\n"
        "from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter\n"
        "kept, provider = InMemorySpanExporter(), TracerProvider()\n"
        "provider.add_span_processor(SimpleSpanProcessor(kept)); trace.set_tracer_provider(provider)\n"
        "from opentelemetry.instrumentation.celery import CeleryInstrumentor\n"
        "CeleryInstrumentor().instrument()\n"
        "from celery import Celery\n"
        "app = Celery('shop', broker='jobs.sqlite')\n"
        "@app.task\n"
        "def add(x, y): return x + y\n"
        "@app.task\n"
        "def fail(): raise ValueError('no')\n"
        "results = [add.delay(1, 2), fail.delay()]\n"
        "with app.run_embedded(1) as worker: worker.drain(30)\n"
        "print(json.dumps([[s.name, s.context.trace_id, s.parent is not None, s.status.status_code.name,\n"
        "    s.attributes.get('celery.state')] for s in kept.get_finished_spans()]))"
    )
    by_name = {name: rest for name, *rest in spans}
    assert set(by_name) == {"apply_async/shop.add", "apply_async/shop.fail", "run/shop.add", "run/shop.fail"}
    assert by_name["run/shop.add"][0] == by_name["apply_async/shop.add"][0]
    assert by_name["run/shop.add"][1:] == [True, "UNSET", "SUCCESS"]
    assert by_name["run/shop.fail"][1:] == [True, "ERROR", "FAILURE"]


def test_celery_once_refuses_what_is_queued_already(run_there: RunHere) -> None:
    told = run_there(
        "from celery import Celery\n"
        "from celery_once import AlreadyQueued, QueueOnce\n"
        "app = Celery('once', broker='jobs.sqlite')\n"
        "app.conf.ONCE = {'backend': 'celery_once.backends.File', 'settings': {'location': 'locks', 'default_timeout': 60}}\n"
        "@app.task(base=QueueOnce)\n"
        "def pay(x): return x\n"
        "@app.task(base=QueueOnce, once={'graceful': True, 'keys': ['x']})\n"
        "def look(x, y): return x\n"
        "first = pay.delay(1)\n"
        "try: pay.delay(1); refused = False\n"
        "except AlreadyQueued: refused = True\n"
        "look.delay(1, 2)\n"
        "again = look.delay(1, 3)\n"
        "with app.run_embedded(1, pool='solo'):\n"
        "    values = [first.get(timeout=30), pay.delay(1).get(timeout=30)]\n"
        "print(json.dumps([refused, again.state, values]))"
    )
    assert told == [True, "REJECTED", [1, 1]]


def test_celery_progress_shows_how_far_a_task_is(run_there: RunHere) -> None:
    told = run_there(
        "import threading\n"
        "from celery import Celery\n"
        "from celery_progress.backend import Progress, ProgressRecorder\n"
        "app = Celery('shop', broker='jobs.sqlite')\n"
        "half, go = threading.Event(), threading.Event()\n"
        "@app.task(bind=True)\n"
        "def pack(self):\n"
        "    ProgressRecorder(self).set_progress(2, 4, description='half')\n"
        "    half.set(); go.wait(30)\n"
        "    return 'packed'\n"
        "@app.task\n"
        "def fail(): raise ValueError('no')\n"
        "result, failed = pack.delay(), fail.delay()\n"
        "told = [Progress(result).get_info()]\n"
        "with app.run_embedded(2) as worker:\n"
        "    assert half.wait(30)\n"
        "    told.append(Progress(result).get_info())\n"
        "    go.set(); worker.drain(30)\n"
        "told += [Progress(result).get_info(), Progress(failed).get_info()]\n"
        "print(json.dumps([[t['state'], t['success'], t['progress']['percent'], t.get('result')] for t in told]))"
    )
    assert told == [
        ["PENDING", None, 0, None],
        ["PROGRESS", None, 50.0, None],
        ["SUCCESS", True, 100, "packed"],
        ["FAILURE", False, 100, "no"],
    ]


def test_elastic_apm_reports_transactions_and_errors(run_there: RunHere) -> None:
    told = run_there(
        "from elasticapm import Client\n"
        "from elasticapm.contrib.celery import register_exception_tracking, register_instrumentation\n"
        "client = Client(service_name='shop', disable_send=True, metrics_interval='0ms', central_config=False)\n"
        "seen = []\n"
        "client.tracer.queue_func = lambda kind, data, flush=False: seen.append([kind, data.get('name'), data.get('result')])\n"
        "client.queue = lambda kind, data, flush=False: seen.append([kind, data['exception']['type'], None])\n"
        "register_exception_tracking(client); register_instrumentation(client)\n"
        "from celery import Celery\n"
        "app = Celery('shop', broker='jobs.sqlite')\n"
        "@app.task(name='add')\n"
        "def add(x, y): return x + y\n"
        "@app.task(name='fail')\n"
        "def fail(): raise ValueError('no')\n"
        "add.delay(1, 2); fail.delay()\n"
        "with app.run_embedded(1, pool='solo') as worker: worker.drain(30)\n"
        "print(json.dumps(sorted(seen)))"
    )
    assert told == [
        ["error", "ValueError", None],
        ["transaction", "__main__.add", "SUCCESS"],
        ["transaction", "__main__.fail", "FAILURE"],
    ]


def test_dyrygent_runs_a_workflow_of_its_own(run_there: RunHere) -> None:
    told = run_there(
        "import threading\n"
        "from celery import Celery, chain, group\n"
        "from celery_dyrygent.tasks import register_workflow_processor\n"
        "from celery_dyrygent.workflows import Workflow\n"
        "app = Celery('shop', broker='jobs.sqlite')\n"
        "register_workflow_processor(app)\n"
        "seen, last = [], threading.Event()\n"
        "@app.task(name='step')\n"
        "def step(x):\n"
        "    seen.append(x)\n"
        "    if x == 4: last.set()\n"
        "workflow = Workflow()\n"
        "workflow.add_celery_canvas(chain(step.si(1), group(step.si(2), step.si(3)), step.si(4)))\n"
        "workflow.apply_async()\n"
        "with app.run_embedded(2): assert last.wait(60)\n"
        "print(json.dumps([seen[0], sorted(seen[1:3]), seen[3:]]))"
    )
    assert told == [1, [2, 3], [4]]


def test_celery_batches_runs_many_calls_at_once(run_there: RunHere) -> None:
    told = run_there(
        "import threading\n"
        "from celery import Celery, chain, signals\n"
        "from celery_batches import Batches\n"
        "app = Celery('shop', broker='jobs.sqlite')\n"
        "received, sizes, late = [], [], threading.Event()\n"
        "signals.task_received.connect(lambda request, **_: received.append(request.name), weak=False)\n"
        "@app.task(base=Batches, flush_every=3, flush_interval=0.2)\n"
        "def total(requests):\n"
        "    sizes.append(len(requests))\n"
        "    for request in requests:\n"
        "        app.backend.mark_as_done(request.id, sum(request.args), request=request)\n"
        "@app.task(base=Batches, flush_every=2, flush_interval=60, acks_late=True)\n"
        "def count(requests): late.set()\n"
        "@app.task\n"
        "def double(x): return 2 * x\n"
        "results = [total.delay(1, n) for n in range(4)]\n"
        "steps = chain(total.s(20, 1), double.s()).delay()\n"
        "counted = [count.delay(1), count.delay(2)]\n"
        "with app.run_embedded(2) as worker:\n"
        "    values = [r.get(timeout=30) for r in [*results, steps]]\n"
        "    assert late.wait(30)\n"
        "print(json.dumps([values, sizes, len(received), [app.engine.read(c.id).reason for c in counted]]))"
    )
    values, sizes, received, reasons = told
    assert values == [1, 2, 3, 4, 42]
    assert sizes == [3, 2]
    assert received == 8, "each is told once, by the strategy or by the worker"
    assert reasons == ["ignored", "ignored"]


@pytest.mark.slow
def test_redbeat_keeps_its_schedule_in_redis_and_sends_to_the_file(run_there: RunHere, redis: Redis) -> None:
    told = run_there(
        "import threading\n"
        "from celery import Celery\n"
        "from celery.schedules import schedule\n"
        "from redbeat import RedBeatSchedulerEntry\n"
        "app = Celery('shop', broker='jobs.sqlite', beat_max_loop_interval=1)\n"
        f"app.conf.redbeat_redis_url = {redis.url!r}\n"
        "app.conf.redbeat_lock_timeout = 5\n"
        "app.conf.beat_schedule = {'often': {'task': 'add', 'schedule': 1.0, 'args': (1, 2)}}\n"
        "seen = {3: threading.Event(), 22: threading.Event()}\n"
        "@app.task(name='add')\n"
        "def add(x, y): seen[x + y].set()\n"
        "beat = app.Beat(scheduler='redbeat.RedBeatScheduler')\n"
        "with app.run_embedded(1):\n"
        "    beat.start_in_thread()\n"
        "    assert seen[3].wait(30)\n"
        "    RedBeatSchedulerEntry('new', 'add', schedule(run_every=1), args=[20, 2], app=app).save()\n"
        "    assert seen[22].wait(30)\n"
        "    beat.stop()\n"
        "print(json.dumps(type(beat.scheduler).__module__))"
    )
    assert told == "redbeat.schedulers"


def test_a_transport_of_ones_own_carries_tasks(run_there: RunHere, tmp_path: Path) -> None:
    """The one of docs/guide/extending.md."""
    page = (ROOT / "docs" / "guide" / "extending.md").read_text(encoding="utf-8")
    for name in ("spool_transport", "spooled"):
        found = re.search(rf"^```python\n(# {name}\.py\n.*?)^```", page, re.MULTILINE | re.DOTALL)
        assert found is not None
        (tmp_path / f"{name}.py").write_text(found[1], encoding="utf-8")
    (tmp_path / "results").mkdir()
    told = run_there(
        "from spooled import add, app\n"
        "from litetq import chain, group\n"
        "results = [add.delay(n, 1) for n in range(3)]\n"
        "with app.run_embedded(2):\n"
        "    values = [result.get(timeout=30) for result in results]\n"
        "    values.append(chain(add.s(1, 2), add.s(3)).delay().get(timeout=30))\n"
        "    values.append(group(add.s(1, n) for n in range(3)).delay().get(timeout=30))\n"
        "print(json.dumps(values))",
        alias=False,
    )
    assert told == [1, 2, 3, 6, [1, 2, 3]]
    assert len(list((tmp_path / "queues").glob("celery/*.taken"))) == 8


def test_flower_shows_workers_and_tasks(run_there: RunHere, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "import litetq; litetq.install_as_celery()\n"
        "from celery import Celery\n"
        "app = Celery('shop', broker='jobs.sqlite', worker_send_task_events=True)\n"
        "@app.task\n"
        "def add(x, y): return x + y\n",
        encoding="utf-8",
    )
    told = run_there(
        "import os, socket, subprocess, sys, time, urllib.request\n"
        "from shop import add, app\n"
        "with socket.create_server(('127.0.0.1', 0)) as free: port = free.getsockname()[1]\n"
        "words = [sys.executable, '-m', 'litetq', 'exec', '--', sys.executable, '-m', 'celery', '-A', 'shop', 'flower', '--installed']\n"
        "flower = subprocess.Popen([*words, '--address=127.0.0.1', f'--port={port}'],\n"
        "    env={**os.environ, 'FLOWER_UNAUTHENTICATED_API': 'true'}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "def ask(path, until):\n"
        "    deadline = time.monotonic() + 60\n"
        "    while True:\n"
        "        try: found = json.load(urllib.request.urlopen(f'http://127.0.0.1:{port}/api/{path}', timeout=5))\n"
        "        except OSError as error: found = repr(error)\n"
        "        if until(found): return found\n"
        "        assert time.monotonic() < deadline, found\n"
        "        time.sleep(0.1)\n"
        "try:\n"
        "    with app.run_embedded(1) as worker:\n"
        "        node = worker.hostname\n"
        "        ask('workers', lambda found: node in found)\n"
        "        result = add.delay(1, 2)\n"
        "        seen = ask('tasks', lambda found: isinstance(found, dict) and found.get(result.id, {}).get('state') == 'SUCCESS')\n"
        "finally:\n"
        "    flower.terminate(); flower.wait(20)\n"
        "task = seen[result.id]\n"
        "print(json.dumps([task['name'], task['args'], task['result'], task['worker'] == node]))"
    )
    assert told == ["shop.add", "(1, 2)", "3", True]


def test_the_page_for_a_file_wins_over_flower_and_flower_over_none(run_there: RunHere) -> None:
    told = run_there(
        "import subprocess, sys\n"
        "lines = (['-b', 'jobs.sqlite', 'flower'], ['flower', 'jobs.sqlite'], ['-b', 'redis://127.0.0.1:1', 'flower'],\n"
        "         ['flower', '--broker=redis://127.0.0.1:1'], ['flower', '--installed'], ['monitor'])\n"
        "print(json.dumps([subprocess.run([sys.executable, '-m', 'litetq', 'exec', '--', sys.executable, '-m', 'celery', *line,\n"
        "    '--help'], capture_output=True, text=True, timeout=60).stdout.splitlines()[2].strip() for line in lines]))"
    )
    ours, flowers = "Show workers, tasks, queues and schedule in a browser.", "Web based tool for monitoring"
    assert [line.startswith(wanted) for line, wanted in zip(told, [ours, ours, *[flowers] * 3, ours], strict=True)] == [
        True
    ] * 6
