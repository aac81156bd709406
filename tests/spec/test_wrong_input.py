"""Wrong input of every kind: one sentence that names the thing, what was found and what to do; the right exit code or
exception; and nothing else in the file has changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pytest

from litetq import LiteTQ, context
from litetq.exceptions import (
    ContentDisallowed,
    DecodeError,
    EncodeError,
    ImproperlyConfigured,
    NewerSchema,
    NotADatabase,
    NotRegistered,
    SerializerNotInstalled,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreReadOnly,
)
from tests.conftest import RunPython, missing

TASKS = """
from litetq import LiteTQ
app = LiteTQ("tasks", broker="jobs.sqlite")

@app.task
def add(x, y=1):
    return x + y
"""
EVIL = "open('evil-was-here', 'w').close()\n"
Dump = dict[str, list[Any]]
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `tasks.py` and a file of three waiting tasks, that names its app. No test changes it."""
    folder = tmp_path_factory.mktemp("template")
    (folder / "tasks.py").write_text(TASKS, encoding="utf-8")
    code = "from tasks import add, app\nfor n in range(3): add.apply_async((n, n), task_id=f'waits-{n}')\napp.close()"
    root = str(Path(__file__).resolve().parents[2])
    subprocess.run([sys.executable, "-c", code], cwd=folder, env={**os.environ, "PYTHONPATH": root}, check=True)
    return folder


@pytest.fixture
def house(template: Path, tmp_path: Path) -> Path:
    for name in ("tasks.py", "jobs.sqlite"):
        shutil.copy(template / name, tmp_path / name)
    os.chmod(tmp_path / "jobs.sqlite", 0o600)
    return tmp_path


@pytest.fixture(autouse=True)
def _no_app_is_left_current() -> Iterator[None]:
    yield
    context.set_current_app(None)
    context.set_default_app(None)


def dump(path: Path) -> Dump:
    """Return all rows of all our tables."""
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(5_000)
    try:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in tables}
    finally:
        connection.close()


def change(path: Path, sql: str, *bindings: Any) -> None:
    """Write into the file by hand, as no verb would."""
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(5_000)
    connection.execute(sql, bindings)
    connection.close()


def names(folder: Path) -> set[str]:
    """Return what lies in a folder, but for what Python and SQLite keep beside their files."""
    return {entry.name for entry in folder.iterdir() if not entry.name.startswith(("__pycache__", "jobs.sqlite-"))}


def assert_says(text: str, words: tuple[str, ...]) -> None:
    assert "Traceback" not in text, text
    for word in words:
        assert word in text, f"{word!r} is not in:\n{text}"


# -- the command line ----------------------------------------------------------------------------------------------


class Line(NamedTuple):
    """What is typed, what must be said, and the exit code; `files` and `record` are what lies there before."""

    words: str
    said: tuple[str, ...]
    code: int = 2
    files: Mapping[str, str] = {}
    env: Mapping[str, str] = {}
    record: str | None = None  # what the file says about its app
    mode: int = 0o600  # of the file


def app_with(*lines: str) -> dict[str, str]:
    """Return a `tasks.py` whose app takes its settings from the module `conf`, which has these lines."""
    source = TASKS + "app.config_from_object('conf')\n"
    return {"tasks.py": source, "conf.py": "\n".join(lines) + "\n"}


LINES: dict[str, Line] = {
    # addresses
    "unknown scheme": Line("worker ftp://host/x", ("'ftp://host/x'", "unknown scheme 'ftp'", "Known are sqlite")),
    "bad port": Line("worker redis://host:notaport", ("'redis://host:notaport'", "port that is no number")),
    "port in a list": Line("worker sentinel://a:1;sentinel://b:x", ("'sentinel://b:x'", "port that is no number")),
    "service of old": Line("worker ironmq://x", ("'ironmq://x'", "no longer speaks to")),
    "near scheme": Line("worker sqllite:///x", ("unknown scheme 'sqllite'", "did you mean sqlite://")),
    "two slashes": Line("worker sqlite://x.sqlite", ("two slashes", "write sqlite:///x.sqlite")),
    "unknown option of a URL": Line("worker sqlite:///x?dura=full", ("unknown option 'dura'", "durability")),
    "wrong option of a URL": Line("worker sqlite:///x?durability=ful", ("durability='ful'", "normal or full")),
    "an empty address": Line("worker ''", ("address is empty", "jobs.sqlite")),
    "no adapter": Line(
        "-A tasks -b amqp://:secret@localhost/0 worker", ("the broker amqp://:**@localhost/0", "needs the package 'kombu'", "litetq[amqp]")
    ),
    "no adapter for results": Line(
        "-A tasks --result-backend redis://x/1 worker", ("result backend redis://x/1", "needs the package 'redis'", "litetq[redis]")
    ),
    "a folder as file": Line("-A tasks worker .", ("'.' is a folder", "jobs.sqlite")),
    "a missing folder": Line(
        "-A tasks worker no/such/x.sqlite", ("cannot open", "folder", "no/such does not exist", "create it"), 1
    ),
    "bad LITETQ_BROKER": Line("worker", ("'sqlite://x'", "two slashes"), env={"LITETQ_BROKER": "sqlite://x"}),
    "bad CELERY_BROKER_URL": Line("worker", ("unknown scheme 'ftp'",), env={"CELERY_BROKER_URL": "ftp://x"}),
    # the app
    "missing module": Line("-A nosuch worker", ("module 'nosuch' was not found", "sys.path")),
    "near module": Line("-A task worker", ("module 'task' was not found", "did you mean 'tasks'")),
    "missing attribute": Line("-A tasks:nope worker", ("module 'tasks' has no attribute 'nope'", "tasks:app")),
    "a task for an app": Line("-A tasks:add worker", ("'tasks:add' is a Task, not an app", "tasks:app")),
    "a file for a module": Line("-A tasks.py worker", ("name of a module, not of a file", "-A tasks")),
    "no name of an app": Line("-A 'a b' worker", ("'a b' is not the name of an app", "-A tasks")),
    "module with a syntax error": Line(
        "-A tasks worker", ("module 'tasks' cannot be imported: SyntaxError", "line 1"), files={"tasks.py": "def (:\n"}
    ),
    "module that raises": Line(
        "-A tasks worker", ("ValueError: no luck", "tasks.py, line 2"), files={"tasks.py": "\nraise ValueError('no luck')"}
    ),
    "module that ends the program": Line(
        "-A tasks worker", ("ended the program", "exit code 3", "__main__"), files={"tasks.py": "raise SystemExit(3)"}
    ),
    "module without app": Line("-A tasks worker", ("defines no app", "tasks.app"), files={"tasks.py": "x = 1\n"}),
    "two apps": Line(
        "worker other.sqlite", ("several modules", "one, two", "-A one"),
        files={"one.py": TASKS, "two.py": TASKS, "tasks.py": ""},
    ),
    "no app at all": Line("worker other.sqlite", ("no app was named", "-A tasks"), files={"tasks.py": ""}),
    "missing included module": Line("-A tasks worker -I nosuch", ("module 'nosuch' was not found",)),
    "bad LITETQ_APP": Line("worker", ("$LITETQ_APP names an app that cannot be used", "'gone'"), env={"LITETQ_APP": "gone"}),
    "pyproject.toml is no TOML": Line(
        "worker", ("pyproject.toml", "-A"), files={"pyproject.toml": "[tool.litetq]\napp = tasks:app\n"}
    ),
    "pyproject.toml names a number": Line(
        "worker", ("app in [tool.litetq]", "is 3", 'app = "module:attribute"'),
        files={"pyproject.toml": "[tool.litetq]\napp = 3\n"},
    ),
    "pyproject.toml names no app": Line(
        "worker", ("pyproject.toml names an app that cannot be used", "'gone'"),
        files={"pyproject.toml": "[tool.litetq]\napp = 'gone'\n"},
    ),
    # the app that the file names
    "hostile: a module of Python": Line(
        "worker jobs.sqlite", ("names the app 'antigravity'", "no such module lies below"),
        record='{"module": "antigravity", "attribute": null}',
    ),
    "hostile: outside of the directory": Line(
        "worker jobs.sqlite", ("names the app 'evil'", "no such module lies below"),
        record='{"module": "evil", "attribute": "app", "file": "{house}/../evil.py"}',
    ),
    "hostile: a path for a module": Line(
        "worker jobs.sqlite", ("names the app '../evil'", "--no-recorded-app"), record='{"module": "../evil"}'
    ),
    "hostile: writable by others": Line(
        "worker jobs.sqlite", ("writable by others", "not trusted"), mode=0o666,
        record='{"module": "inside", "attribute": "app"}', files={"inside.py": EVIL},
    ),
    "hostile: not JSON": Line("worker jobs.sqlite", ("in a form that this version cannot read",), record="{app: evil"),
    "hostile: no object": Line("worker jobs.sqlite", ("in a form that this version cannot read",), record="[1, 2]"),
    "recorded module is gone": Line(
        "worker jobs.sqlite", ("names the app 'gone'", "start the command where the module is"), record='{"module": "gone"}'
    ),
    # options
    "unknown command": Line("wroker", ("No such command 'wroker'", "Did you mean 'worker'")),
    "unknown option": Line("worker --concurency 3", ("No such option '--concurency'", "--concurrency")),
    "concurrency 0": Line("-A tasks worker -c 0", ("'0' is not a number from 1 up",)),
    "concurrency in words": Line("-A tasks worker -c many", ("'many' is not a number from 1 up", "auto")),
    "unknown pool": Line("-A tasks worker -P gvent", ("'gvent' is not one of", "threads", "module:Class")),
    "a class that is no pool": Line("-A tasks worker -P logging:Logger", ("pool logging:Logger", "it has no start()", "SimplePool")),
    "a pool that is no class": Line("-A tasks worker -P os:path", ("pool os:path", "no class")),
    "a pool that cannot be imported": Line("-A tasks worker -P gone:Pool", ("pool gone:Pool", "cannot be imported", "No module named 'gone'")),
    "custom pool of nowhere": Line("-A tasks worker -P custom", ("CELERY_CUSTOM_WORKER_POOL is not set", "module:Class")),
    "unknown level": Line("-A tasks worker -l LOUD", ("'LOUD' is not one of", "WARNING")),
    "empty queue": Line("-A tasks worker -Q a,,b", ("'a,,b' has an empty name in it", "a,b")),
    "no queue left": Line("-A tasks worker -X celery", ("-X", "nothing is left of the queues")),
    "no node name": Line("-A tasks worker -n @", ("'@' is no name for a node", "mail@%h")),
    "line break in a node name": Line("-A tasks worker -n 'a\nb'", (r"'a\nb' is no name for a node",)),
    "pid file in no folder": Line("-A tasks worker --pidfile no/x.pid", ("--pidfile", "cannot write", "No such file")),
    "pid file is a folder": Line("-A tasks worker --pidfile .", ("--pidfile", "is a folder")),
    "pid file is something else": Line(
        "-A tasks worker --pidfile notes.txt", ("notes.txt is no pid file of ours", "remove the file"), 73,
        files={"notes.txt": "buy milk"},
    ),
    "log file in no folder": Line("-A tasks worker -f no/x.log", ("the log file", "cannot be written", "-f")),
    "FILE and -b": Line("worker a.sqlite -b b.sqlite", ("FILE ('a.sqlite') and -b ('b.sqlite')", "give one")),
    "missing workdir": Line("--workdir no/such worker", ("--workdir", "cannot go to 'no/such'")),
    # settings
    "missing settings": Line("-A tasks --config gone worker", ("configuration module 'gone' cannot be found", "importable")),
    "settings with a syntax error": Line(
        "-A tasks worker", ("module 'conf' cannot be imported: SyntaxError", "conf.py, line 1"), files=app_with("x = (")
    ),
    "settings of wrong types": Line(
        "-A tasks worker",
        ("3 settings", "task_always_eager (conf) is 'perhaps'", "task_time_limit (conf) is 'x'", "worker_concurrency (conf) is 0"),
        files=app_with("task_always_eager = 'perhaps'", "task_time_limit = 'x'", "worker_concurrency = 0"),
    ),
    "wrong queues": Line("-A tasks worker", ("task_queues (conf) is 7", "a list"), files=app_with("task_queues = 7")),
    "a span below zero": Line("-A tasks worker", ("litetq_lease (conf) is -1",), files=app_with("litetq_lease = -1")),
    "bad durability": Line(
        "-A tasks worker", ("litetq_durability (conf) is 'ful'", '"normal" or "full"'), files=app_with("litetq_durability = 'ful'")
    ),
    "pool of the settings": Line("-A tasks worker", ("setting worker_pool: pool eventlet", "too late", "-P eventlet"), files=app_with("worker_pool = 'eventlet'")),
    "no pool in the settings": Line("-A tasks worker", ("setting worker_pool", "'gvent'", "threads"), files=app_with("worker_pool = 'gvent'")),
    "unknown serializer accepted": Line(
        "-A tasks worker", ("setting accept_content", "nosuch", "known are json"), files=app_with("accept_content = ['nosuch']")
    ),
    "unknown serializer of results": Line(
        "-A tasks worker", ("setting result_serializer", "nosuch", "known are json"), files=app_with("result_serializer = 'nosuch'")
    ),
    "unknown compression of results": Line(
        "-A tasks worker", ("setting result_compression", "'nosuch'", "zlib"), files=app_with("result_compression = 'nosuch'")
    ),
    "unknown time zone": Line("-A tasks worker", ("setting timezone: 'Mars/Base'", "UTC"), files=app_with("timezone = 'Mars/Base'")),
    "mixed spellings": Line(
        "-A tasks worker", ("Cannot mix new and old setting keys", "CELERY_TASK_RESULT_EXPIRES", "result_expires"),
        files=app_with("CELERY_TASK_RESULT_EXPIRES = 3", "task_track_started = True", "task_acks_late = True"),
    ),
    "unusable print level": Line(
        "-A tasks worker", ("'LOUD' is no level of the log", "WARNING"), files=app_with("worker_redirect_stdouts_level = 'LOUD'")
    ),
}  # fmt: skip


@pytest.mark.system
@pytest.mark.parametrize("case", list(LINES))
def test_a_wrong_command_line_ends_as_one_sentence_and_changes_nothing(
    house: Path, run_python: RunPython, case: str
) -> None:
    import shlex

    line = LINES[case]
    if case == "hostile: writable by others" and sys.platform == "win32":
        pytest.skip("Windows says who may write by lists, not by mode")
    for name, text in line.files.items():
        (house / name).write_text(text, encoding="utf-8")
    (house.parent / "evil.py").write_text(EVIL, encoding="utf-8")
    file = house / "jobs.sqlite"
    if line.record is not None:
        change(file, "UPDATE litetq_meta SET value = ?1 WHERE key = 'app'", line.record.replace("{house}", str(house)))
    file.chmod(line.mode)
    before, there = dump(file), names(house)
    process = run_python("-m", "litetq", *shlex.split(line.words), env=line.env)
    out, err = process.communicate(timeout=30)
    assert process.returncode == line.code, out + err
    sentence = err[err.index("Error: ") :]
    assert_says(err, ())
    assert_says(sentence, line.said)
    assert "secret" not in out + err
    if case not in (
        "settings of wrong types",
        "wrong queues",
        "a span below zero",
        "bad durability",
        "mixed spellings",
    ):
        assert len(sentence.strip().splitlines()) == 1, sentence  # a list of settings has one line for each
    assert names(house) == there
    assert dump(file) == before


# -- calls ---------------------------------------------------------------------------------------------------------

Case = tuple[Callable[[Any, Any], Any], type[Exception], tuple[str, ...]]

CALLS: dict[str, Case] = {
    "unknown option": (lambda app, add: add.apply_async((1,), countdwn=3), TypeError, ("'countdwn'", "did you mean 'countdown'")),
    "an argument as option": (lambda app, add: add.apply_async((1,), zzz=3), TypeError, ("unknown option 'zzz'", "args and kwargs")),
    "an option for delay": (lambda app, add: add.delay(1, countdown=3), TypeError, ("unexpected keyword argument 'countdown'",)),
    "too few arguments": (lambda app, add: add.delay(), TypeError, ("add() missing 1 required positional argument: 'x'",)),
    "too many arguments": (lambda app, add: add.delay(1, 2, 3), TypeError, ("add() takes from 1 to 2", "3 were given")),
    "args is no list": (lambda app, add: add.apply_async(1), TypeError, ("args must be a list or tuple, found 1", "(x,) is")),
    "kwargs is no mapping": (lambda app, add: add.apply_async((1,), [2]), TypeError, ("kwargs must be a mapping", "[2]")),
    "countdown in words": (lambda app, add: add.apply_async((1,), countdown="soon"), TypeError, ("'countdown' must be seconds", "'soon'")),
    "countdown is no number": (lambda app, add: add.apply_async((1,), countdown=float("nan")), ValueError, ("'countdown'", "nan", "no number")),
    "countdown without end": (lambda app, add: add.apply_async((1,), countdown=float("inf")), ValueError, ("'countdown'", "years 1 to 9999")),
    "countdown beyond the calendar": (lambda app, add: add.apply_async((1,), countdown=10**400), ValueError, ("'countdown'", "years 1 to 9999")),
    "eta is a number": (lambda app, add: add.apply_async((1,), eta=5), TypeError, ("'eta' must be a datetime", "found 5")),
    "eta is a date": (lambda app, add: add.apply_async((1,), eta=date(2030, 1, 1)), TypeError, ("'eta' must be a datetime", "date")),
    "eta is no date": (lambda app, add: add.apply_async((1,), eta="tomorrow"), TypeError, ("'eta'", "ISO 8601", "'tomorrow'")),
    "expires is a list": (lambda app, add: add.apply_async((1,), expires=[]), TypeError, ("'expires' must be seconds", "[]")),
    "expires without end": (lambda app, add: add.apply_async((1,), expires=float("inf")), ValueError, ("'expires'", "years 1 to 9999")),
    "priority in words": (lambda app, add: add.apply_async((1,), priority="high"), TypeError, ("'priority'", "0 to 255", "'high'")),
    "queue is a number": (lambda app, add: add.apply_async((1,), queue=7), TypeError, ("'queue' must be the name of a queue", "7")),
    "queue without name": (lambda app, add: add.apply_async((1,), queue=""), TypeError, ("'queue' must be the name of a queue", "''")),
    "queue that is no text": (lambda app, add: add.apply_async((1,), queue="\ud800"), ValueError, ("'queue'", "UTF-8", r"'\ud800'")),
    "id is a number": (lambda app, add: add.apply_async((1,), task_id=7), TypeError, ("'task_id' must be a text", "7")),
    "id is bytes": (lambda app, add: add.apply_async((1,), task_id=b"x"), TypeError, ("'task_id' must be a text", "b'x'")),
    "root is an object": (lambda app, add: add.apply_async((1,), root_id=object()), TypeError, ("'root_id' must be a text", "object")),
    "retries in words": (lambda app, add: add.apply_async((1,), retries="two"), TypeError, ("'retries'", "whole number", "'two'")),
    "headers is a list": (lambda app, add: add.apply_async((1,), headers=[1]), TypeError, ("'headers' must be a mapping", "[1]")),
    "headers without JSON": (lambda app, add: add.apply_async((1,), headers={"x": object()}), EncodeError, ("headers", "tasks.add", "JSON")),
    "time limit in words": (lambda app, add: add.apply_async((1,), time_limit="x"), TypeError, ("'time_limit' must be seconds", "'x'")),
    "time limit below zero": (lambda app, add: add.apply_async((1,), soft_time_limit=-1), ValueError, ("'soft_time_limit'", "0 seconds or more")),
    "soft limit above hard": (lambda app, add: add.apply_async((1,), time_limit=1, soft_time_limit=2), ValueError, ("soft_time_limit",)),
    "durability": (lambda app, add: add.apply_async((1,), durability="ful"), ValueError, ("'durability'", "'normal' or 'full'", "'ful'")),
    "retry policy": (lambda app, add: add.apply_async((1,), retry_policy=3), TypeError, ("'retry_policy' must be a mapping", "3")),
    "value of a retry policy": (lambda app, add: add.apply_async((1,), retry_policy={"max_retries": "x"}), ImproperlyConfigured, ("max_retries='x'", "a number")),
    "callback": (lambda app, add: add.apply_async((1,), callback=3), TypeError, ("'callback' must be a function", "3")),
    "serializer": (lambda app, add: add.apply_async((1,), serializer="nosuch"), SerializerNotInstalled, ("nosuch", "known are json")),
    "compression": (lambda app, add: add.apply_async((1,), compression="nosuch"), SerializerNotInstalled, ("'nosuch'", "zlib")),
    "a set": (lambda app, add: add.delay({1, 2}), EncodeError, ("args[0]", "set", "pass a list")),
    "a function": (lambda app, add: add.delay(lambda: 1), EncodeError, ("args[0]", "function", "pass plain data")),
    "a local class by pickle": (lambda app, add: add.apply_async((type("L", (), {}),), serializer="pickle"), EncodeError, ("args[0]", "pickle")),
    "a list in itself": (lambda app, add: add.delay(endless()), EncodeError, ("nested too deeply", "itself")),
    "name is a number": (lambda app, add: app.send_task(7), TypeError, ("'name' must be a text", "7")),
    "name is empty": (lambda app, add: app.send_task(""), ValueError, ("name of a task", "empty")),
    "name is nothing": (lambda app, add: app.send_task(None), TypeError, ("'name' must be a text", "None")),
    "result of no id": (lambda app, add: app.AsyncResult(None), ValueError, ("requires valid id", "NoneType")),
    "result of a number": (lambda app, add: app.AsyncResult(7), ValueError, ("requires valid id", "int", "'7'")),
    "timeout in words": (lambda app, add: app.AsyncResult("x").get(timeout="soon"), TypeError, ("timeout must be seconds", "'soon'")),
    "then calls nothing": (lambda app, add: app.AsyncResult("x").then(3), TypeError, ("then() needs functions", "3")),
    "revoke nothing": (lambda app, add: app.control.revoke(None), TypeError, ("revoke needs the id", "None")),
    "purge a number": (lambda app, add: app.control.purge(3), TypeError, ("queues must be a list", "3")),
    "unknown task": (lambda app, add: app.tasks["nosuch"], NotRegistered, ("nosuch",)),
    "a task of a number": (lambda app, add: app.task(3), TypeError, ("must be a callable", "3")),
    "a number as name": (lambda app, add: app.task(name=3)(endless), TypeError, ("'name' must be a text", "3")),
    "a number as base": (lambda app, add: app.task(base=3)(endless), TypeError, ("'base' must be a class of tasks", "3")),
    "register a number": (lambda app, add: app.register_task(3), TypeError, ("register_task needs a task", "3")),
    "embedded: concurrency 0": (lambda app, add: app.run_embedded(concurrency=0), ImproperlyConfigured, ("concurrency=0", "at least one task")),
    "embedded: concurrency in words": (lambda app, add: app.run_embedded(concurrency="4"), ImproperlyConfigured, ("concurrency='4'", "whole number")),
    "embedded: unknown pool": (lambda app, add: app.run_embedded(pool="gvent"), ImproperlyConfigured, ("pool='gvent'", "threads")),
    "embedded: greenlets in a program without": (
        lambda app, add: app.run_embedded(pool="gevent"), ImproperlyConfigured, ("pool gevent", "monkey.patch_all()")
    ),
    "embedded: no queue": (lambda app, add: app.run_embedded(queues=[]), ImproperlyConfigured, ("queues=[]", "needs a queue")),
    "embedded: queue is a number": (lambda app, add: app.run_embedded(queues=[3]), TypeError, ("name of a queue", "3")),
    "embedded: unknown option": (lambda app, add: app.run_embedded(concurency=3), TypeError, ("'concurency'",)),
    "embedded: unknown format": (lambda app, add: with_setting(app, "accept_content", ["nosuch"]).run_embedded(), ImproperlyConfigured, ("accept_content", "nosuch")),
}  # fmt: skip


def endless() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def with_setting(app: LiteTQ, name: str, value: Any) -> LiteTQ:
    app.conf[name] = value
    return app


@pytest.mark.parametrize("case", list(CALLS))
def test_a_wrong_call_raises_one_sentence_and_changes_nothing(house: Path, case: str) -> None:
    call, error, words = CALLS[case]
    file = house / "jobs.sqlite"
    with LiteTQ("tasks", broker=file) as app:

        @app.task(name="tasks.add")
        def add(x: Any, y: Any = 1) -> Any:
            return x + y

        app.engine.store.get_meta("schema")  # the file is open, and names this app now
        before = dump(file)
        with pytest.raises(error) as caught:
            call(app, add)
        assert_says(str(caught.value), words)
        assert "\n" not in str(caught.value)
        assert dump(file) == before


MAKING: dict[str, tuple[dict[str, Any], type[Exception], tuple[str, ...]]] = {
    "broker is a number": ({"broker": 3}, ImproperlyConfigured, ("must be a path or a URL", "found 3")),
    "broker is empty": ({"broker": ""}, ImproperlyConfigured, ("address is empty", "jobs.sqlite")),
    "broker has no such scheme": ({"broker": "ftp://x"}, ImproperlyConfigured, ("unknown scheme 'ftp'",)),
    "broker is a folder": ({"broker": "."}, ImproperlyConfigured, ("'.' is a folder", "jobs.sqlite")),
    "several files": ({"broker": ["a.sqlite", "b.sqlite"]}, ImproperlyConfigured, ("one file", "give one")),
    "backend is a number": ({"backend": 3}, ImproperlyConfigured, ("must be a path or a URL", "found 3")),
    "durability": ({"durability": "ful"}, ImproperlyConfigured, ("litetq_durability", "'ful'", '"normal" or "full"')),
    "include": ({"include": 3}, TypeError, ("list of their names", "3")),
    "changes": ({"changes": 3}, TypeError, ("changes must be a mapping", "3")),
    "class of tasks": ({"task_cls": "nosuch:Task"}, ImproperlyConfigured, ("task_cls='nosuch:Task'", "module:Class")),
    "class that makes no tasks": ({"task_cls": dict}, ImproperlyConfigured, ("task_cls", "class of tasks")),
    "a setting": ({"task_time_limit": "soon"}, ImproperlyConfigured, ("task_time_limit", "'soon'", "seconds")),
    "missing config": ({"config_source": "gone"}, ModuleNotFoundError, ("configuration module 'gone'", "importable")),
}


@pytest.mark.parametrize("case", list(MAKING))
def test_a_wrong_app_raises_one_sentence_and_makes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    options, error, words = MAKING[case]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as caught:
        app = LiteTQ("x", **options)
        _ = app.Task, app.conf.timezone
    assert_says(str(caught.value), words)
    assert os.listdir(tmp_path) == []


# -- files ---------------------------------------------------------------------------------------------------------


def overwrite(path: Path, data: bytes, at: int = 0) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


FILES: dict[str, tuple[Callable[[Path], object], type[Exception], tuple[str, ...]]] = {
    "a text": (lambda path: path.write_text("not a database " * 100), NotADatabase, ("not a database", "left as it is")),
    "a garbage header": (lambda path: overwrite(path, b"\xff" * 100, 16), NotADatabase, ("not a database", "another file")),
    "garbage pages": (lambda path: overwrite(path, b"Z" * 60_000, 4096), StoreCorrupt, ("malformed", "stop all workers")),
    "half a file": (truncate, StoreCorrupt, ("malformed", "copy the file")),
    "a newer schema": (
        lambda path: change(path, "UPDATE litetq_meta SET value = '99' WHERE key = 'schema'"),
        NewerSchema,
        ("newer litetq", "schema 99", "upgrade litetq"),
    ),
    "a schema that is no number": (
        lambda path: change(path, "UPDATE litetq_meta SET value = 'soon' WHERE key = 'schema'"),
        NotADatabase,
        ("'soon' for a schema version", "name another file"),
    ),
    "nothing but a link to itself": (
        lambda path: (path.unlink(), path.symlink_to(path)), StoreError, ("cannot open", "choose another place"),
    ),
}  # fmt: skip


@pytest.mark.system
@pytest.mark.parametrize("case", list(FILES))
def test_a_file_that_cannot_be_used_is_named_and_left_as_it_is(house: Path, run_python: RunPython, case: str) -> None:
    damage, error, words = FILES[case]
    if case.endswith("link to itself") and sys.platform == "win32":
        pytest.skip("links need a right on Windows")
    file = house / "jobs.sqlite"
    damage(file)
    before = None if file.is_symlink() else file.read_bytes()
    with LiteTQ("tasks", broker=file) as app:
        for use in (lambda: app.send_task("any"), lambda: app.AsyncResult("waits-1").state, app.run_embedded):
            with pytest.raises(error) as caught:
                use()
            assert_says(str(caught.value), (str(file), *words))
    process = run_python("-m", "litetq", "-A", "tasks", "worker", "jobs.sqlite", "--drain", "-P", "solo")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1, err
    assert_says(err, ("Error: ", str(file), *words))
    assert before is None or file.read_bytes() == before


@pytest.fixture
def frozen() -> Iterator[Callable[[Path], None]]:
    """Make a file or folder read-only, also for root."""
    done: list[Path] = []

    def freeze(path: Path) -> None:
        if os.geteuid() == 0:
            tool = shutil.which("chattr")
            if tool is None or subprocess.run([tool, "+i", path], capture_output=True).returncode:
                missing("root may write anything here: chattr +i does not work on this file system")
        else:
            path.chmod(0o500 if path.is_dir() else 0o400)
        done.append(path)

    yield freeze
    for path in done:
        if os.geteuid() == 0:
            subprocess.run(["chattr", "-i", path], check=True)
        else:
            path.chmod(0o700)


@posix_only
def test_a_file_in_a_read_only_folder_cannot_be_made(tmp_path: Path, frozen: Callable[[Path], None]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    frozen(folder)
    with LiteTQ("tasks", broker=folder / "jobs.sqlite") as app, pytest.raises(StoreReadOnly) as caught:
        app.send_task("any")
    assert_says(str(caught.value), ("cannot create", str(folder), "make", "writable"))
    assert os.listdir(folder) == []


@posix_only
def test_a_read_only_file_can_be_read_and_not_written(
    house: Path, frozen: Callable[[Path], None], run_python: RunPython
) -> None:
    file = house / "jobs.sqlite"
    before = dump(file)
    frozen(file)
    with LiteTQ("tasks", broker=file) as app:
        with pytest.raises(StoreReadOnly) as caught:
            app.send_task("any")
        assert_says(str(caught.value), (str(file), "readonly", "choose another place"))
        assert app.AsyncResult("waits-1").exists()
    process = run_python("-m", "litetq", "-A", "tasks", "worker", "jobs.sqlite", "--drain", "-P", "solo")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert_says(err, ("Error: ", str(file), "readonly"))
    assert dump(file) == before


@posix_only
def test_a_full_disk_refuses_the_call_and_takes_it_when_there_is_space(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if mount is None or subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "none", disk]).returncode:
        missing("a small file system needs the right to mount one")
    try:
        with LiteTQ("tasks", broker=disk / "jobs.sqlite") as app:
            app.send_task("first", task_id="first")
            (disk / "ballast").write_bytes(b"x" * (2**20 - 450_000))
            with pytest.raises(StoreFull) as caught:
                app.send_task("large", ["x" * 300_000], task_id="large")
            assert_says(str(caught.value), (str(disk / "jobs.sqlite"), "full", "free some space"))
            assert app.AsyncResult("first").exists() and not app.AsyncResult("large").exists()
            (disk / "ballast").unlink()
            app.send_task("large", ["x" * 300_000], task_id="large")
            assert app.AsyncResult("large").exists()
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.system
def test_a_file_that_stays_locked_is_named_after_the_wait(house: Path, run_python: RunPython) -> None:
    file = house / "jobs.sqlite"
    holder = apsw.Connection(str(file))
    holder.execute("BEGIN IMMEDIATE")
    words = (str(file), "held its write lock for 0.1 s", "try again")
    with LiteTQ("tasks", broker=f"sqlite:///{file}?busy_timeout=0.1") as app, pytest.raises(StoreBusy) as caught:
        app.send_task("any", retry=False)
    assert_says(str(caught.value), words)
    line = ("-A", "tasks", "worker", "sqlite:///jobs.sqlite?busy_timeout=0.1", "--drain", "-P", "solo")
    process = run_python("-m", "litetq", *line)
    _, err = process.communicate(timeout=30)
    holder.execute("ROLLBACK")
    holder.close()
    assert process.returncode == 1
    assert_says(err, ("Error: ", *words))
    assert {row[1] for row in dump(file)["litetq_task"]} == {"waits-0", "waits-1", "waits-2"}


# -- rows ----------------------------------------------------------------------------------------------------------

ROWS: dict[str, tuple[dict[str, Any], type[Exception], tuple[str, ...]]] = {
    "bytes that are no text": ({"body": b"\xff\xfe{"}, DecodeError, ("Cannot decode", "application/json")),
    "text that is no JSON": ({"body": b"{nope"}, DecodeError, ("Cannot decode b'{nope' as application/json",)),
    "no bytes": ({"body": b""}, DecodeError, ("Cannot decode b''",)),
    "JSON of another shape": ({"body": b"[[1], {}, {}]"}, DecodeError, ("must be [args, kwargs]", "[[1], {}, {}]")),
    "arguments that are no list": ({"body": b"[7, {}]"}, DecodeError, ("must be [args, kwargs]", "[7, {}]")),
    "broken compression": ({"content_type": "application/json; compression=zlib"}, DecodeError, ("Cannot decode", "zlib")),
    "unknown compression": ({"content_type": "application/json; compression=rar"}, SerializerNotInstalled, ("'rar'", "zlib")),
    "pickle, which is not accepted": (
        {"content_type": "application/x-python-serialize", "body": b"\x80\x04N."},
        ContentDisallowed,
        ("Refusing to deserialize untrusted content of type pickle (application/x-python-serialize)",),
    ),
    "a format nobody knows": ({"content_type": "application/x-nosuch"}, ContentDisallowed, ("application/x-nosuch",)),
    "an unknown task": ({"name": "no.such"}, NotRegistered, ("no.such",)),
    "a task without name": ({"name": ""}, NotRegistered, ("''",)),
    "too many arguments": ({"body": b"[[1, 2, 3], {}]"}, TypeError, ("takes from 1 to 2 positional arguments but 3",)),
    "an unknown argument": ({"body": b'[[1], {"z": 1}]'}, TypeError, ("unexpected keyword argument 'z'",)),
    "a broken value of a predecessor": ({"input": b"{nope"}, DecodeError, ("Cannot decode b'{nope'",)),
}  # fmt: skip


@pytest.mark.parametrize("case", list(ROWS))
def test_a_row_that_cannot_be_run_ends_as_failure_and_touches_no_other(house: Path, case: str) -> None:
    columns, error, words = ROWS[case]
    file = house / "jobs.sqlite"
    with LiteTQ("tasks", broker=file) as app:

        @app.task(name="tasks.add")
        def add(x: Any, y: Any = 1) -> Any:
            return x + y

        later = [add.apply_async((n,), countdown=3600, task_id=f"later-{n}") for n in range(2)]
        app.close()
        for column, value in columns.items():
            change(file, f"UPDATE litetq_task SET {column} = ?1 WHERE id = 'waits-1'", value)
        before = dump(file)
        with app.run_embedded(concurrency=1) as worker:
            assert worker.drain(timeout=20)
        bad = app.AsyncResult("waits-1")
        assert bad.state == "FAILURE"
        caught = bad.get(propagate=False, timeout=1)
        assert isinstance(caught, error)
        assert_says(str(caught), words)
        assert [app.AsyncResult(id).get(timeout=1) for id in ("waits-0", "waits-2")] == [0, 4]
        assert [result.state for result in later] == ["PENDING"] * 2
        app.close()
    after = dump(file)
    ids = [row[1] for row in before["litetq_task"]]
    assert ids == ["waits-0", "waits-1", "waits-2", "later-0", "later-1"]
    assert after["litetq_task"] == before["litetq_task"][3:]
    assert {row[0] for row in after["litetq_result"]} == {"waits-0", "waits-1", "waits-2"}
    changed = {table for table in before if after[table] != before[table] and not table.startswith("litetq_past_")}
    assert changed - {"sqlite_sequence"} <= {"litetq_task", "litetq_result", "litetq_counter", "litetq_meta"}
    assert json.loads(dict(after["litetq_meta"])["app"]) == json.loads(dict(before["litetq_meta"])["app"])
