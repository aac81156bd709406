"""What the notes of Celery's users show gives the same answers here and with Celery: one list, run by both.

Rows are those of the feature list (A application, C configuration, T tasks, K calling, S results, W workflows, P periodic
tasks, L command line, E errors). Over litetq it always runs; with Celery 5.7 where a Python that has it (`CELERY_PYTHON`, or the
environment of `tests.compat.packages`) and a redis-server are there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.compat import packages
from tests.conftest import RunPython, missing
from tests.waiting import eventually

TASKS = """
import os
import time
from datetime import datetime, timedelta
from functools import wraps

from celery import Celery, shared_task
from celery.schedules import crontab
from celery.utils.log import get_task_logger

app = Celery('tasks', broker=os.environ['BROKER'], backend=os.environ['BACKEND'])
app.conf.broker_connection_retry_on_startup = True
logger = get_task_logger(__name__)


@app.task
def add(x, y, debug=False):
    return x + y


@app.task
def mul(x, y):
    return x * y


@app.task
def subtract(x, y):
    return x - y


@app.task
def xsum(numbers):
    return sum(numbers)


@app.task
def tsum(numbers):
    return sum(numbers)


@app.task
def reset_buffers():
    return 'reset'


@app.task(serializer='json')
def create_user(username, password):
    return [username, password]


def decorator1(function):
    @wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs) * 10
    return wrapper


def decorator2(function):
    @wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs) + 1
    return wrapper


@app.task
@decorator2
@decorator1
def decorated(x, y):
    return x + y


@app.task(bind=True)
def bound(self, x, y):
    print(f'task id {self.request.id}')
    print(f'args: {self.request.args!r}')
    print(f'kwargs: {self.request.kwargs!r}')
    return [self.request.id, list(self.request.args), self.request.kwargs, self.name]


@app.task(name='sum-of-two-numbers')
def named(x, y):
    return x + y


@app.task
def logs():
    print('printed here')
    logger.info('logged here')


@app.task(bind=True, default_retry_delay=0, max_retries=2)
def send_twitter_status(self, oauth, tweet):
    try:
        raise KeyError(tweet)
    except KeyError as exc:
        raise self.retry(exc=exc)


@app.task(bind=True, default_retry_delay=0)
def succeeds_later(self):
    if self.request.retries < 2:
        raise self.retry()
    return self.request.retries


@app.task
def error_handler(request, exc, traceback):
    with open(os.environ['HANDLED'], 'a') as file:
        file.write('Task {0} raised exception: {1!r}\\n'.format(request.id, exc))


@app.task
def fails(text):
    raise ValueError(text)


@app.task(bind=True)
def hello(self, a, b):
    time.sleep(0.3)
    self.update_state(state="PROGRESS", meta={'progress': 50})
    time.sleep(0.3)
    self.update_state(state="PROGRESS", meta={'progress': 90})
    time.sleep(0.3)
    return 'hello world: %i' % (a+b)


@app.task(bind=True, ignore_result=True)
def debug_task(self):
    print(f'Request: {self.request!r}')


@shared_task
def shared(x, y):
    return x + y


@app.task
def slow():
    time.sleep(0.5)
    return 'slept'


@app.on_after_configure.connect
def setup_periodic_tasks(sender, **kwargs):
    sender.add_periodic_task(10.0, add.s(1, 1), name='add every 10')
    sender.add_periodic_task(30.0, add.s(1, 1), name='add every 30')
    sender.add_periodic_task(30.0, add.s(2, 2), expires=10)
    sender.add_periodic_task(
        crontab(hour=7, minute=30, day_of_week=1),
        add.s(3, 3),
    )
"""


class Line(NamedTuple):
    rows: str
    code: str  # an expression, or statements whose last one is an expression
    answer: Any  # as JSON has it; an exception is its class' name


LINES = [
    Line("A1 A4", "app.main", "tasks"),
    Line("A5", "re.match(r'<Celery tasks at 0x', repr(app)) is not None", True),
    Line("A6", "re.match(r'<@task: tasks.add of tasks at 0x', repr(add)) is not None", True),
    Line("A7 A9", "add.name", "tasks.add"),
    Line("A8", "app.tasks['tasks.add'] is app.tasks['tasks.add'], app.tasks['tasks.add'].name", [True, "tasks.add"]),
    Line("A8", "app.tasks['no.such']", "NotRegistered"),
    Line("A11", "app.send_task('no.such').get(timeout=20)", "NotRegistered"),
    Line("A2", "from celery import current_app; current_app.main", "tasks"),
    Line(
        "A3",
        "other = Celery('other', set_as_current=False)\n@other.task(name='tasks.add')\ndef another(x, y): return -1\n"
        # Celery's other app gets one of the two: its shared tasks stand in a set, whose order differs from run to run.
        "other.tasks['tasks.add'](1, 1) in (-1, 2), app.tasks['tasks.add'](1, 1)",
        [True, 2],
    ),
    Line("A15", "Celery(__file__, set_as_current=False).main == __file__", True),
    Line("C6 C9", "fresh().config_from_object('celeryconfig')\nlast.conf.timezone", "Europe/Oslo"),
    Line("C7", "import celeryconfig\nfresh().config_from_object(celeryconfig)\nlast.conf.task_serializer", "json"),
    Line(
        "C8",
        "class Config:\n    enable_utc = True\n    timezone = 'Europe/London'\n"
        "fresh().config_from_object(Config)\nlast.conf.timezone, last.conf.enable_utc",
        ["Europe/London", True],
    ),
    Line("C13", "fresh().config_from_object('celeryconfig')\n@last.task(name='tasks.limited')\ndef limited(): pass\nlimited.rate_limit", "10/s"),
    Line(
        "C2 C33",
        "fresh().config_from_object('oldconfig')\n"
        "last.conf.timezone, last.conf.imports, last.conf.worker_max_tasks_per_child, sorted(last.conf.beat_schedule)",
        ["Asia/Shanghai", ["celery_app.task1", "celery_app.task2"], 10, ["add-every-30-seconds"]],
    ),
    Line("C4 E6", "fresh().config_from_object('mixedconfig')\nlast.conf.timezone", "ImproperlyConfigured"),
    Line("C6", "fresh().config_from_object('no_such_config')\nlast.conf.timezone", "ModuleNotFoundError"),
    Line("C21", "fresh().conf.task_serializer = 'json'\nlast.conf.task_serializer", "json"),
    Line(
        "C22 C14",
        "fresh().conf.update(task_serializer='json', accept_content=['json'], result_serializer='json', "
        "timezone='Europe/Oslo', enable_utc=True)\n"
        "last.conf.timezone, last.conf.accept_content, last.conf.result_serializer",
        ["Europe/Oslo", ["json"], "json"],
    ),
    Line("C17", "fresh().conf.update(timezone='UTC')\n'timezone' in last.conf.humanize(with_defaults=False)", True),
    Line("C18 C20", "last.conf.table(with_defaults=False, censored=True)['timezone']", "UTC"),
    Line("C24", "fresh().conf.timezone", None),
    Line("T1 T10 K10", "add(2, 2)", 4),
    Line("T2", "create_user.serializer, create_user('a', password='b')", ["json", ["a", "b"]]),
    Line("T3", "decorated(1, 2), decorated.name, decorated.delay(1, 2).get(timeout=20)", [31, "tasks.decorated", 31]),
    Line("T4 T5", "r = bound.delay(1, y=2); v = r.get(timeout=20); v[0] == r.id, v[1:]", [True, [[1], {"y": 2}, "tasks.bound"]]),
    Line("T6", "named.name, named.delay(1, 2).get(timeout=20)", ["sum-of-two-numbers", 3]),
    Line("T9", "send_twitter_status.delay('o', 't').get(timeout=30)", "KeyError"),
    Line("T9", "succeeds_later.delay().get(timeout=30)", 2),
    Line("T11", "app.send_task('tasks.add', (2, 2)).get(timeout=20)", 4),
    Line("T12", "shared.delay(2, 3).get(timeout=20), shared.name", [5, "tasks.shared"]),
    Line("T15 S8", "r = fails.delay('x'); e = r.get(timeout=20, propagate=False); type(e).__name__, str(e), r.state", ["ValueError", "x", "FAILURE"]),
    Line("K1", "add.delay(2, y=2).get(timeout=20)", 4),
    Line("K2", "add.delay(1, countdown=3)", "TypeError"),
    Line("K3", "add.apply_async((2,), {'y': 3}).get(timeout=20)", 5),
    Line("K8 K9", "add.apply_async(args=[2, 8]).get(timeout=20), mul.apply_async(args=[3], kwargs={'y': 7}).get(timeout=20)", [10, 21]),
    Line("K4", "t = time.time(); add.apply_async((1, 1), countdown=1).get(timeout=20); time.time() - t >= 1", True),
    Line(
        "K5",
        "t = time.time(); add.apply_async((1, 1), eta=datetime.now(timezone.utc) + timedelta(seconds=1)).get(timeout=20); "
        "time.time() - t >= 0.9",
        True,
    ),
    Line("K5 K21", "add.apply_async((1, 2), eta=datetime.now(timezone.utc).replace(tzinfo=None)).get(timeout=20)", 3),
    Line("K6", "add.apply_async((1, 1), countdown=1, expires=0.1).get(timeout=20)", "TaskRevokedError"),
    Line("K7", "add.apply_async((1, 1), expires=datetime.now(timezone.utc) + timedelta(days=2)).get(timeout=20)", 2),
    Line("K11", "add.s(1, y=2).apply_async().get(timeout=20)", 3),
    Line("K12 S15 S16", "r = add.apply_async((2, 2), link=add.s(16)); [v for _, v in r.collect()], r.children[0].get(timeout=20)", [[4, 20], 20]),
    Line("K14", "r = fails.apply_async(('linked',), link_error=error_handler.s()); handled(r.id)", "Task ID raised exception: ValueError('linked')"),
    Line("K15", "r = add.apply_async((2, 2), link=[add.s(16), mul.s(3)]); r.get(timeout=20); [c.get(timeout=20) for c in r.children]", [[20, 12]]),
    Line(
        "K16 K17",
        "seen = []\nr = hello.apply_async(args=(1, 1))\n"
        "def note(body):\n    if body['task_id'] == r.id:  # Celery tells of other tasks, too, when their messages come late\n"
        "        seen.append([body['status'], body['result']])\n"
        "v = r.get(on_message=note, propagate=False, timeout=20)\n"
        "seen, v",
        [[["PROGRESS", {"progress": 50}], ["PROGRESS", {"progress": 90}], ["SUCCESS", "hello world: 2"]], "hello world: 2"],
    ),
    Line("K22 K23", "add.apply_async((1, 1), queue='priority.high').get(timeout=20)", 2),
    Line("K24", "add.apply_async((1, 2), ignore_result=False).get(timeout=20), add.apply_async((1, 2), ignore_result=True).get(timeout=20)", [3, None]),
    Line("K26", "reset_buffers.apply_async().get(timeout=20)", "reset"),
    Line("S1", "slow.apply_async(countdown=3).get(timeout=0.1)", "TimeoutError"),
    Line("S1", "fails.delay('propagated').get(propagate=True, timeout=20)", "ValueError"),
    Line("S2 S3 S10", "r = slow.delay(); a = r.ready(); v = r.get(timeout=20); a, v, r.ready()", [False, "slept", True]),
    Line("S4 S9", "r = add.delay(4, 4); r.get(timeout=20); r.state, r.status, r.result, r.successful()", ["SUCCESS", "SUCCESS", 8, True]),
    Line("S5", "r = add.apply_async((1, 1), countdown=600); r.state, r.ready()", ["PENDING", False]),
    Line("S13", "r = add.delay(1, 1); r.get(timeout=20); r.forget(); app.AsyncResult(r.id).state", "PENDING"),
    Line("W1", "s = add.s(2, 2); json.loads(json.dumps(s))['task'], sorted(s)", ["tasks.add", ["args", "immutable", "kwargs", "options", "subtask_type", "task"]]),
    Line("W2", "s = signature('tasks.add', args=(2, 2), countdown=10); repr(s), s.options", ["tasks.add(2, 2)", {"countdown": 10}]),
    Line("W3", "s = add.signature((2, 2), {'debug': True}, countdown=10); s.kwargs, s.options", [{"debug": True}, {"countdown": 10}]),
    Line("W4", "repr(add.s(2, 2)), repr(add.s(2, 2, debug=True))", ["tasks.add(2, 2)", "tasks.add(2, 2, debug=True)"]),
    Line("W5", "add.s(2, 2, debug=True).kwargs, add.s(2, 2).set(countdown=1).options", [{"debug": True}, {"countdown": 1}]),
    Line("W5", "add.s(2, 2).apply_async(countdown=0).get(timeout=20)", 4),
    Line("W6", "subtract.s(10).delay(30).get(timeout=20)", 20),
    Line("W7 W8", "s = add.s(2, 2); s.delay(debug=True).get(timeout=20), s.apply_async(kwargs={'debug': True}).get(timeout=20)", [4, 4]),
    Line("W7", "add.s(2, 2)()", 4),
    Line("W7", "add(2, 2)()", "TypeError"),
    Line("W9", "r = add.apply_async((2, 2), link=reset_buffers.si()); r.get(timeout=20); r.children[0].get(timeout=20)", "reset"),
    Line("W9", "r = add.apply_async((2, 2), link=reset_buffers.signature(immutable=True)); r.get(timeout=20); r.children[0].get(timeout=20)", "reset"),
    Line("W10", "r = chain(add.si(2, 2), add.si(4, 4), add.si(8, 4))(); r.get(timeout=20), r.parent.get(timeout=20), r.parent.parent.get(timeout=20)", [12, 8, 4]),
    Line("W11 S14", "r = chain(add.s(2, 2), add.s(4), add.s(8))(); r.get(timeout=20), r.parent.get(timeout=20), r.parent.parent.get(timeout=20)", [16, 8, 4]),
    Line("W12", "(add.s(2, 2) | add.s(4) | add.s(8))().get(timeout=20)", 16),
    Line("W13", "group(add.s(i, i) for i in range(10))().get(timeout=20)", list(range(0, 20, 2))),
    Line("W14", "chord((add.s(i, i) for i in range(10)), tsum.s())().get(timeout=20)", 90),
    Line("W15", "c = (group(add.s(i, i) for i in range(10)) | tsum.s()); type(c).__name__.strip('_'), c().get(timeout=20)", ["chord", 90]),
    Line("W17", "tsum.map([list(range(10)), list(range(100))]).delay().get(timeout=20)", [45, 4950]),
    Line("W18", "add.starmap(zip(range(10), range(10))).delay().get(timeout=20)", list(range(0, 20, 2))),
    Line("W19", "add.chunks(zip(range(100), range(100)), 10)().get(timeout=20) == [[2 * (10 * i + j) for j in range(10)] for i in range(10)]", True),
    Line("W20", "add.chunks(zip(range(100), range(100)), 10).apply_async().get(timeout=20)[9][9]", 198),
    Line("W21", "g = add.chunks(zip(range(100), range(100)), 10).group(); len(g.tasks), type(g).__name__", [10, "group"]),
    Line(
        "P2 P3 P4 P5",
        "app.conf.timezone; sorted((e['task'], list(e['args']), str(e['schedule']).startswith('<crontab')) "
        "for e in app.conf.beat_schedule.values())",
        [["tasks.add", [1, 1], False], ["tasks.add", [1, 1], False], ["tasks.add", [2, 2], False], ["tasks.add", [3, 3], True]],
    ),
    Line("P5", "[e['options'] for e in app.conf.beat_schedule.values() if list(e['args']) == [2, 2]]", [{"expires": 10}]),
    Line(
        "P7",
        "fresh().conf.beat_schedule = {'add-every-30-seconds': {'task': 'tasks.add', 'schedule': 30.0, 'args': (16, 16)}}\n"
        "last.conf.beat_schedule['add-every-30-seconds']['schedule']",
        30.0,
    ),
    Line("P6 X17", "c = crontab(hour=7, minute=30, day_of_week=1); sorted(c.hour), sorted(c.minute), sorted(c.day_of_week)", [[7], [30], [1]]),
    Line("X2 X3 X4", "sorted(crontab(minute=0, hour='*/3').hour), crontab(minute=0, hour='*/3') == crontab(minute=0, hour='0,3,6,9,12,15,18,21')", [[0, 3, 6, 9, 12, 15, 18, 21], True]),
    Line("X8", "c = crontab(minute='*/10', hour='3,17,22', day_of_week='thu,fri'); sorted(c.minute), sorted(c.day_of_week)", [[0, 10, 20, 30, 40, 50], [4, 5]]),
    Line("X9 X10 X11", "[sorted(crontab(minute=0, hour=h).hour) for h in ('*/2,*/3', '*/5', '*/3,8-17')]", [
        [0, 2, 3, 4, 6, 8, 9, 10, 12, 14, 15, 16, 18, 20, 21, 22], [0, 5, 10, 15, 20], [0, 3, 6, *range(8, 18), 18, 21],
    ]),
    Line("X12 X13 X14", "[sorted(crontab(0, 0, day_of_month=d).day_of_month) for d in ('2', '2-30/2', '1-7,15-21')]", [[2], list(range(2, 31, 2)), [*range(1, 8), *range(15, 22)]]),
    Line("X15 X16", "sorted(crontab(0, 0, day_of_month='11', month_of_year='5').month_of_year), sorted(crontab(0, 0, month_of_year='*/3').month_of_year)", [[5], [1, 4, 7, 10]]),
    Line("E2", "add.apply_async((lambda: 1, 1))", "EncodeError"),
    Line("E1", "add.apply_async((1, 1), serializer='pickle').get(timeout=3)", "TimeoutError"),
]  # fmt: skip

# Where the answer of litetq is another one, as docs/differences.md says: the answer of Celery is in the list.
DIFFERENT: dict[str, Any] = {
    "E1": "ContentDisallowed",  # a message of a refused content type is a failure, Celery's caller waits
}

CLIENT = """
import ast, json, os, re, sys, time
from datetime import datetime, timedelta, timezone
from celery import Celery, chain, chord, group, signature
from celery.schedules import crontab
from tasks import *

last = None

def fresh():
    global last
    last = Celery('fresh', set_as_current=False)
    return last

def handled(id):
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if os.path.exists(os.environ['HANDLED']):
            for line in open(os.environ['HANDLED']):
                if id in line:
                    return line.strip().replace(id, 'ID')
        time.sleep(0.02)

def answer(code):
    tree = ast.parse(code)
    last_one = ast.Expression(tree.body.pop().value)
    exec(compile(tree, 'note', 'exec'), globals())
    return eval(compile(last_one, 'note', 'eval'), globals())

answers = []
for code in json.load(open(sys.argv[1])):
    try:
        answers.append(answer(code))
    except Exception as error:
        answers.append(type(error).__name__)
print(json.dumps(answers, default=repr))
"""

FILES = {
    "tasks.py": TASKS,
    "celeryconfig.py": """
broker_url = 'memory://'
imports = ('myapp.tasks',)
task_annotations = {'tasks.limited': {'rate_limit': '10/s'}}
task_serializer = 'json'
result_serializer = 'json'
accept_content = ['json']
timezone = 'Europe/Oslo'
enable_utc = True
""",
    "oldconfig.py": """
from datetime import timedelta
CELERY_TIMEZONE = 'Asia/Shanghai'
CELERY_IMPORTS = ('celery_app.task1', 'celery_app.task2')
CELERYD_MAX_TASKS_PER_CHILD = 10
CELERYBEAT_SCHEDULE = {
    'add-every-30-seconds': {'task': 'celery_app.task1.add', 'schedule': timedelta(seconds=30), 'args': (5, 8)},
}
""",
    "mixedconfig.py": "CELERY_TIMEZONE = 'UTC'\nCELERY_IMPORTS = ()\ntask_serializer = 'json'\n",
}


class Place(NamedTuple):
    """A folder with the notes' files, and what runs `celery` there."""

    folder: Path
    command: list[str]  # `celery`
    python: list[str]  # python with `import celery` as this place has it
    env: dict[str, str]


def litetq_place(folder: Path) -> Place:
    env = {"BROKER": str(folder / "jobs.sqlite"), "BACKEND": str(folder / "jobs.sqlite")}
    command = [sys.executable, "-m", "litetq"]
    return Place(folder, [*command, "--as-celery"], [*command, "exec", "--", sys.executable], env)


def celery_python() -> str:
    """Return a Python that has real Celery; skip where there is none."""
    python = os.environ.get("CELERY_PYTHON") or (str(packages.PYTHON) if packages.is_there() else None)
    if python is None:
        missing("no real Celery: python -m tests.compat.packages, or CELERY_PYTHON=/path/to/python")
    return str(python)


@pytest.fixture
def redis_port(tmp_path: Path) -> Iterator[int]:
    """A redis-server of the test's own, on a free port."""
    server = shutil.which("redis-server")
    if server is None:
        missing("redis-server is not installed: nothing to compare with")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = int(taken.getsockname()[1])
    folder = tmp_path / "redis"
    folder.mkdir()
    settings = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen([str(server), *settings], cwd=folder, stdout=subprocess.DEVNULL)
    try:
        eventually(lambda: _answers(port))
        yield port
    finally:
        process.terminate()
        process.wait(timeout=30)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture(params=["litetq", pytest.param("celery", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    folder = tmp_path / "notes"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    if request.param == "litetq":
        made = litetq_place(folder)
    else:
        python = celery_python()
        port = request.getfixturevalue("redis_port")
        env = {"BROKER": f"redis://127.0.0.1:{port}/0", "BACKEND": f"redis://127.0.0.1:{port}/1"}
        made = Place(folder, [python, "-m", "celery"], [python], env)
    return made._replace(env={**made.env, "HANDLED": str(folder / "handled.txt"), "TZ": "UTC"})


@pytest.mark.system
def test_the_notes_snippets_answer_as_the_notes_and_celery_say(place: Place, run_python: RunPython) -> None:
    log = place.folder / "worker.log"
    worker = start(place, run_python, [*place.command, "-A", "tasks", "worker", *WORKER, "-f", str(log)])
    eventually(lambda: log.exists() and "ready." in log.read_text(encoding="utf-8"), within=60)
    codes = place.folder / "codes.json"
    codes.write_text(json.dumps([line.code for line in LINES]), encoding="utf-8")
    (place.folder / "client.py").write_text(CLIENT, encoding="utf-8")
    out, err = start(place, run_python, [*place.python, "client.py", str(codes)]).communicate(timeout=150)
    assert out, err
    found = json.loads(out.splitlines()[-1])
    wrong = [
        f"{line.rows}: {line.code}\n    {answer!r} instead of {wanted(line, place)!r}"
        for line, answer in zip(LINES, found, strict=True)
        if answer != wanted(line, place)
    ]
    assert not wrong, "\n".join(wrong) + err
    worker.terminate()
    assert worker.wait(timeout=60) == 0
    check_log(log.read_text(encoding="utf-8"))


WORKER = ["-l", "info", "-c", "2", "-Q", "celery,priority.high"]  # K23, L1, L8


def wanted(line: Line, place: Place) -> Any:
    """Return what the place must answer."""
    return DIFFERENT[line.rows] if line.rows in DIFFERENT and "litetq" in place.command else line.answer


def start(place: Place, run_python: RunPython, command: list[str]) -> Any:
    """Run a program of the place, so that it is dead when the test is over."""
    code = "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"
    if command[0] == sys.executable:
        return run_python(*command[1:], env=place.env, cwd=place.folder)
    env = {**os.environ, **place.env}
    env.pop("PYTHONPATH", None)
    return run_python(code, *command, env=env, cwd=place.folder)


def check_log(log: str) -> None:
    """Rows S17, T5, T7, T8, T13, T16: what the worker's log shows."""
    moment = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}: "
    for pattern in (
        moment + r"INFO/MainProcess\] Task tasks\.add\[[0-9a-f-]{36}\] received",
        moment + r"INFO/\S+\] Task tasks\.add\[[0-9a-f-]{36}\] succeeded in [\d.e-]+s: 8",
        moment + r"WARNING/\S+\] task id [0-9a-f-]{36}",
        moment + r"WARNING/\S+\] kwargs: \{'y': 2\}",
    ):
        assert re.search(pattern, log), f"not in the worker's log: {pattern}\n{log[-3000:]}"


@pytest.mark.system
def test_the_notes_commands_do_what_they_say(place: Place, run_python: RunPython) -> None:
    help_text = start(place, run_python, [*place.command, "worker", "--help"]).communicate(timeout=60)[0]
    assert all(option in help_text for option in ("--concurrency", "--pool", "--queues", "--loglevel"))  # L15
    wrong = start(place, run_python, [*place.command, "-A", "tasks", "worker", "-l", "loud"])
    out, err = wrong.communicate(timeout=60)
    assert wrong.returncode == 2 and "loud" in (out + err).lower()  # L6
    absent = start(place, run_python, [*place.command, "-A", "nosuch", "worker"])
    out, err = absent.communicate(timeout=60)
    assert absent.returncode == 2 and "nosuch" in out + err  # Q5
    schedule = place.folder / "celerybeat-schedule"
    beat = start(
        place, run_python, [*place.command, "-A", "tasks", "beat", "-l", "INFO", "-s", str(schedule), "-f", "beat.log"]
    )
    eventually(lambda: "beat: Starting..." in _text(place.folder / "beat.log"), within=60)  # P12, P14
    eventually(
        lambda: "Scheduler: Sending due task add every 10 (tasks.add)" in _text(place.folder / "beat.log"), within=60
    )
    beat.terminate()
    beat.wait(timeout=60)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
