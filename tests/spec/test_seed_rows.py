"""The rows of the feature list that no other test shows whole; a test's name begins with the row's id.

`rows.py` says for every row which test shows it, here or elsewhere.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from email.parser import Parser
from pathlib import Path
from typing import Any

import psutil
import pytest

from litetq import Celery, LiteTQ, context, current_app, probes
from litetq.exceptions import ContentDisallowed, EncodeError, NotRegistered
from litetq.exceptions import TimeoutError as LateResult
from tests.conftest import ROOT, RunPython, missing
from tests.spec import rows
from tests.waiting import eventually

Run = Callable[..., str]


@pytest.fixture(autouse=True)
def _no_app_is_left_current() -> Iterator[None]:
    context.set_current_app(None)
    context.set_default_app(None)
    yield
    context.set_current_app(None)
    context.set_default_app(None)


@pytest.fixture
def files(tmp_path: Path) -> Callable[[dict[str, str]], None]:
    def write(sources: dict[str, str]) -> None:
        for name, source in sources.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source, encoding="utf-8")

    return write


@pytest.fixture
def run(run_python: RunPython) -> Run:
    """Run a program to its end and return all that it said; its exit code is 0."""

    def run(*words: Any, code: int = 0, **settings: Any) -> str:
        process = run_python(*words, **settings)
        out, err = process.communicate(timeout=30)
        assert process.returncode == code, out + err
        return out + err

    return run


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    with LiteTQ("tests", broker=db) as app:
        yield app


@pytest.mark.parametrize("row", [f"{letter}{n}" for letter, last in rows.WHOLE.items() for n in range(1, last + 1)])
def test_every_row_is_shown_by_a_test_or_waits_for_something(row: str) -> None:
    assert row in rows.ROWS


@pytest.mark.parametrize("row", rows.ROWS)
def test_the_tests_named_for_a_row_exist(row: str) -> None:
    shown = rows.ROWS[row]
    if isinstance(shown, str):
        assert shown.startswith("later: ")
        return
    for named in shown:
        file, _, name = named.partition("::")
        assert f"\ndef {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file} has no {name}"


def test_every_test_of_a_row_is_in_the_table() -> None:
    named = {name.partition("::")[2] for shown in rows.ROWS.values() if isinstance(shown, tuple) for name in shown}
    here = {name for name in globals() if re.match(r"test_[A-Z]+\d", name)}
    assert here <= named, f"not in rows.py: {sorted(here - named)}"


# -- 1. installation and systems -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("hatchling") is None:
        missing("hatchling is not installed, so no wheel can be built: pip install hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=True)
    (path,) = folder.glob("*.whl")
    return path


def requirements(wheel: Path) -> dict[str, set[str]]:
    """Return the names of the packages that each extra asks for; "" is what every installation gets."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("METADATA")]
        fields = Parser().parsestr(archive.read(name).decode())
    wanted: dict[str, set[str]] = {extra: set() for extra in ["", *fields.get_all("Provides-Extra", [])]}
    for line in fields.get_all("Requires-Dist", []):
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", line)
        wanted[extra.group(1) if extra else ""].add(re.match(r"[\w.\[\]-]+", line)[0])  # type: ignore[index]
    return wanted


def test_I1_the_installed_package_needs_no_server_and_no_client_of_one(
    wheel: Path, tmp_path: Path, run_python: RunPython
) -> None:
    clients = {"redis", "amqp", "kombu", "celery", "pika", "py-amqp", "django"}
    assert "apsw" in requirements(wheel)[""] and not clients & requirements(wheel)[""]
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import sys, litetq; print(litetq.__file__)\n"
        "app = litetq.Celery('x'); four = app.task(name='four')(lambda: 4)\n"
        "with app.run_embedded(): print(four.delay().get(timeout=10))\n"
        "print({'redis', 'amqp', 'kombu', 'celery', 'pika'} & {name.split('.')[0] for name in sys.modules})\n"
    )
    process = run_python(code, env={"PYTHONPATH": str(tmp_path / "site")})
    out, err = process.communicate(timeout=30)
    assert out.split("\n")[:3] == [str(tmp_path / "site" / "litetq" / "__init__.py"), "4", "set()"], err


def test_I3_the_extra_redis_exists_for_broker_and_results(wheel: Path) -> None:
    assert requirements(wheel)["redis"] == {"kombu[redis]"}


def test_I6_extras_of_celerys_names_exist(wheel: Path) -> None:
    wanted = requirements(wheel)
    assert {"librabbitmq", "redis", "auth", "msgpack"} <= set(wanted)
    assert wanted["librabbitmq"] == wanted["amqp"] == {"kombu"}
    assert wanted["msgpack"] == {"msgpack"} and wanted["auth"] == {"cryptography"}


def test_I9_a_pool_that_is_not_installed_is_refused_without_a_traceback(
    wheel: Path, files: Callable[[dict[str, str]], None], run: Run
) -> None:
    wanted = requirements(wheel)
    assert wanted["gevent"] == {"gevent"} and wanted["eventlet"] == {"eventlet"}
    files({"tasks.py": "from litetq import Celery\napp = Celery('tasks')\n"})
    for pool in ("gevent", "eventlet"):
        missing_both = "import sys; sys.modules.update({'gevent': None, 'gevent.monkey': None, 'eventlet': None})\n"
        command = f"from litetq.cli import main; sys.exit(main('-A tasks worker -P {pool}'.split()))"
        said = run(missing_both + command, code=1)
        assert f"pip install 'litetq[{pool}]'" in said and "Traceback" not in said


def test_I15_one_process_enqueues_another_works_and_a_third_reads(
    files: Callable[[dict[str, str]], None], run: Run
) -> None:
    files({"tasks.py": ADD})
    id = run("from tasks import add; print(add.delay(4, 4).id)").strip()
    ask = f"from tasks import app; r = app.AsyncResult({id!r}); print(r.state, r.ready() and r.get())"
    assert run(ask).split() == ["PENDING", "False"]
    run("-m", "litetq", "-A", "tasks", "worker", "--drain", "-P", "solo")
    assert run(ask).split() == ["SUCCESS", "8"]


ADD = """
from litetq import Celery
app = Celery('tasks', broker='sqlite:///jobs.sqlite')

@app.task
def add(x, y):
    return x + y
"""


# -- 4. application ------------------------------------------------------------------------------------------------


def test_A1_the_first_argument_is_the_main_name_and_the_urls_are_settings(tmp_path: Path) -> None:
    app = Celery("tasks", broker=f"sqlite:///{tmp_path}/a.sqlite", backend=f"db+sqlite:///{tmp_path}/b.sqlite")
    assert app.main == "tasks"
    assert app.broker_address.path == str(tmp_path / "a.sqlite")
    assert app.result_address.path == str(tmp_path / "b.sqlite")


def test_A3_two_apps_in_eight_threads_never_mix(tmp_path: Path) -> None:
    apps = [LiteTQ(f"app{n}", broker=tmp_path / f"{n}.sqlite", task_default_queue=f"q{n}") for n in range(2)]
    for n, app in enumerate(apps):
        app.task(lambda x, n=n: [n, x], name="tasks.same", typing=False)
    answers: list[tuple[int, int, Any, str | None]] = []

    def call(which: int, number: int) -> None:
        app = apps[which]
        for x in range(number * 100, number * 100 + 20):
            result = app.tasks["tasks.same"].delay(x)
            answers.append((which, x, result.get(timeout=20), result.queue))

    with apps[0].run_embedded(concurrency=2), apps[1].run_embedded(concurrency=2):
        threads = [threading.Thread(target=call, args=(number % 2, number)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(answers) == 160
    assert all(got == [which, x] and queue == f"q{which}" for which, x, got, queue in answers)
    for app in apps:
        app.close()


NAMES = """
from litetq import Celery
app = Celery({arguments})

@app.task
def add(x, y):
    return x + y

if __name__ == "__main__":
    print(app)
    print(add)
    print(add.name, app.tasks[add.name] is add)
"""


@pytest.mark.system
@pytest.mark.parametrize(("arguments", "main"), [("", "__main__"), ("'tasks'", "tasks")])
def test_A4_A5_A6_A7_in_a_script_the_main_name_stands_for_the_module(
    files: Callable[[dict[str, str]], None], run: Run, tmp_path: Path, arguments: str, main: str
) -> None:
    files({"script.py": NAMES.format(arguments=arguments)})
    shown, task, names = run(tmp_path / "script.py").splitlines()
    assert re.fullmatch(rf"<(Celery|LiteTQ) {main} at 0x[0-9a-f]+>", shown)
    assert re.fullmatch(rf"<@task: {main}\.add of {main} at 0x[0-9a-f]+>", task)
    assert names == f"{main}.add True"


def test_A8_a_name_that_is_missing_in_the_registry_is_not_registered(app: LiteTQ) -> None:
    add = app.task(name="__main__.add")(max)
    assert app.tasks["__main__.add"] is add
    with pytest.raises(NotRegistered, match="nope"):
        app.tasks["nope"]


@pytest.mark.system
def test_A9_an_imported_module_gives_its_name(files: Callable[[dict[str, str]], None], run: Run) -> None:
    files({"tasks.py": NAMES.format(arguments="'other'")})
    assert run("from tasks import add; print(add.name)").strip() == "tasks.add"


def test_A10_without_a_module_the_main_name_begins_the_tasks_name() -> None:
    scope: dict[str, Any] = {"__name__": None}
    exec("from litetq import Celery\napp = Celery('shell')\n@app.task\ndef add(x, y): return x + y", scope)
    assert scope["add"].name == "shell.add"


@pytest.mark.row("8.unknown task")
@pytest.mark.system
def test_A11_an_unknown_name_ends_as_not_registered_and_is_logged(
    files: Callable[[dict[str, str]], None], run: Run
) -> None:
    files({"tasks.py": ADD})
    id = run("from tasks import app; print(app.send_task('no.such', (1,)).id)").strip()
    log = run("-m", "litetq", "-A", "tasks", "worker", "--drain", "-P", "solo")
    assert "Received unregistered task of type 'no.such'" in log
    ask = (
        "from tasks import app\n"
        f"try: app.AsyncResult({id!r}).get(timeout=5)\n"
        "except app.tasks.NotRegistered as error: print('caught', error, app.AsyncResult(error and "
        + repr(id)
        + ").state)"
    )
    assert run(ask).split() == ["caught", "'no.such'", "FAILURE"]


PROJ = {
    "proj/__init__.py": "",
    "proj/celery.py": """
from litetq import Celery
app = Celery('proj', broker='sqlite:///proj.sqlite', backend='rpc://', include=['proj.tasks'])
app.conf.update(result_expires=3600)
if __name__ == '__main__':
    app.start()
""",
    "proj/tasks.py": """
from .celery import app

@app.task
def add(x, y):
    return x + y

@app.task
def mul(x, y):
    return x * y

@app.task
def xsum(numbers):
    return sum(numbers)
""",
}


@pytest.mark.row("20.include")
@pytest.mark.system
@pytest.mark.parametrize("words", [("-m", "litetq", "-A", "proj"), ("-m", "proj.celery")])
def test_A12_A13_the_included_modules_are_imported_whoever_starts_the_worker(
    files: Callable[[dict[str, str]], None], run: Run, words: tuple[str, ...]
) -> None:
    files(PROJ)
    id = run("from proj.tasks import xsum; print(xsum.delay([1, 2, 3]).id)").strip()
    log = run(*words, "worker", "-l", "INFO", "--drain", "-P", "solo")
    assert re.search(r"\[tasks\]\n  \. proj\.tasks\.add\n  \. proj\.tasks\.mul\n  \. proj\.tasks\.xsum\n", log), log
    assert run(f"from proj.celery import app; print(app.AsyncResult({id!r}).get(timeout=5))").strip() == "6"


def test_A15_any_text_is_a_main_name() -> None:
    app = Celery(__file__, set_as_current=False)
    assert repr(app).startswith(f"<Celery {__file__} at 0x")
    assert app.task(named_by_its_module).name == f"{__name__}.named_by_its_module"


def named_by_its_module() -> None: ...


@pytest.mark.row("1.laziness")
def test_A16_an_app_may_stay_in_the_background_and_opens_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    current = Celery("one")
    other = Celery("two", set_as_current=False)

    class DebugTask(current.Task):  # type: ignore[name-defined,misc]
        abstract = True

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return ["called", super().__call__(*args, **kwargs)]

    assert current_app.main == "one" and other.main == "two"
    assert other.task(base=DebugTask, name="x")(lambda: 1)() == ["called", 1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.system
def test_A17_a_package_makes_its_app_current_for_shared_tasks(
    files: Callable[[dict[str, str]], None], run: Run
) -> None:
    files(
        {
            "site/__init__.py": "from .celery import app as celery_app\n__all__ = ('celery_app',)\n",
            "site/celery.py": "from litetq import Celery\napp = Celery('site', broker='site.sqlite')\n"
            "app.autodiscover_tasks(['shop'])\n",
            "shop/__init__.py": "",
            "shop/tasks.py": "from litetq import shared_task\n@shared_task\ndef ship(n):\n    return n + 1\n",
            "use.py": "import importlib\nproject = importlib.import_module('site_project')\n"
            "from shop.tasks import ship\nprint(ship.app is project.celery_app, ship.delay(1).id)\n",
        }
    )
    # `site` is a module of Python; the package is called as a project would be.
    folder = Path(run("import os; print(os.getcwd())").strip())
    (folder / "site").rename(folder / "site_project")
    is_current, id = run("exec(open('use.py').read())").split()
    assert is_current == "True"
    log = run("-m", "litetq", "-A", "site_project", "worker", "--drain", "-P", "solo")
    assert "shop.tasks.ship" in log
    assert run(f"from site_project import celery_app as a; print(a.AsyncResult({id!r}).get(timeout=5))").strip() == "2"


@pytest.mark.system
def test_A18_a_name_is_all_that_an_app_needs(run: Run, tmp_path: Path) -> None:
    code = (
        "from litetq import Celery\napp = Celery('proj')\n@app.task\ndef add(x, y): return x + y\n"
        "with app.run_embedded(): print(add.delay(2, 2).get(timeout=10))"
    )
    assert run(code).strip() == "4"
    assert (tmp_path / "litetq.sqlite").exists()


def test_A19_configuration_may_follow_the_tasks(tmp_path: Path) -> None:
    app = Celery("demo")
    work = app.task(named_by_its_module)
    app.conf.update(broker_url=str(tmp_path / "later.sqlite"), task_default_queue="later")
    assert work.delay().queue == "later"
    assert (tmp_path / "later.sqlite").exists()
    app.close()


@pytest.mark.system
def test_A20_a_bound_task_without_result_runs_and_keeps_no_value(
    files: Callable[[dict[str, str]], None], run: Run
) -> None:
    source = ADD + (
        "@app.task(bind=True, ignore_result=True)\ndef debug_task(self):\n"
        "    print(f'Request: {self.request!r}')\n    return 'unwanted'\n"
    )
    files({"tasks.py": source})
    id = run("from tasks import debug_task; r = debug_task.delay(); assert r.get() is None; print(r.id)").strip()
    log = run("-m", "litetq", "-A", "tasks", "worker", "--drain", "-P", "processes", "-c", "1")
    assert "WARNING/PoolWorker-1] Request: <Context: {" in log and f"'id': '{id}'" in log
    kept = run(f"from tasks import app; r = app.results.read({id!r}); print(r.state, r.result)")
    assert kept.split() == ["SUCCESS", "None"]


# -- 13. errors and pitfalls ---------------------------------------------------------------------------------------


@pytest.mark.row("16.accept_content")
@pytest.mark.row("20.accept_content")
def test_E1_pickle_is_refused_on_both_sides_until_it_is_accepted(db: Path) -> None:
    sentence = "Refusing to deserialize untrusted content of type pickle (application/x-python-serialize)"
    with LiteTQ("sender", broker=db, task_serializer="pickle") as app:
        task = app.task(name="tasks.same")(lambda x: x)
        with app.run_embedded(concurrency=1):
            with pytest.raises(
                ContentDisallowed
            ) as refused:  # the worker refuses the message, and its caller hears of it
                task.delay(1).get(timeout=10)
        assert str(refused.value) == sentence
        app.conf.update(accept_content=["pickle", "json"], result_serializer="pickle")
        with app.run_embedded(concurrency=1):
            result = task.delay({1, 2})
            assert result.get(timeout=10) == {1, 2}
    with (
        LiteTQ("reader", broker=db) as reader,
        pytest.raises(ContentDisallowed) as refused,
    ):  # the reader refuses the result
        reader.AsyncResult(result.id).get(timeout=10)
    assert str(refused.value) == sentence


def test_E2_what_cannot_be_pickled_is_named_at_the_call(app: LiteTQ) -> None:
    task = app.task(name="tasks.same", serializer="pickle")(lambda x: x)
    with pytest.raises(EncodeError, match=r"args\[0\] as pickle.*<lambda> is local: define it at the top level"):
        task.delay(lambda: 1)
    assert app.control.purge() == 0


@pytest.mark.system
def test_E3_a_relative_import_without_package_says_what_to_write(
    files: Callable[[dict[str, str]], None], run: Run
) -> None:
    files({"tasks.py": ADD, "new_task.py": "from .tasks import app\n"})
    said = run("-m", "litetq", "-A", "tasks", "worker", "-I", "new_task", code=2)
    assert "module 'new_task' cannot be imported: ImportError: attempted relative import" in said
    assert "from tasks import app" in said and "include" in said and "new_task.py, line 1" in said
    cured = "from tasks import app\n@app.task\ndef new(): return 'new'\n"
    files({"tasks.py": ADD.replace("'tasks',", "'tasks', include=['new_task'],"), "new_task.py": cured})
    id = run("from new_task import new; print(new.delay().id)").strip()
    run("-m", "litetq", "-A", "tasks", "worker", "--drain", "-P", "processes", "-c", "1")
    assert run(f"from tasks import app; print(app.AsyncResult({id!r}).get(timeout=5))").strip() == "new"


@pytest.mark.system
def test_E7_report_shows_where_modules_are_looked_for(files: Callable[[dict[str, str]], None], run: Run) -> None:
    files({"tasks.py": ADD})
    here = run("import os; print(os.getcwd())").strip()
    said = run("-m", "litetq", "-A", "tasks", "report")
    assert f"working directory:{here} import path:{here}" in said


def test_E9_a_long_eta_waits_in_the_file_and_not_in_the_worker(app: LiteTQ) -> None:
    task = app.task(name="tasks.same")(lambda x: x)
    process = psutil.Process()
    with app.run_embedded(concurrency=1) as worker:
        task.delay(0).get(timeout=10)
        before = process.memory_info().rss
        results = [task.apply_async((n,), countdown=86_400) for n in range(3_000)]
        assert task.delay(1).get(timeout=10) == 1  # and later work passes them
        grown = process.memory_info().rss - before
        assert worker.statistics().held == 0
    assert grown < 20e6, f"{grown / 1e6:.1f} MB for 3,000 tasks of tomorrow"
    assert {app.results.read(result.id).place for result in results[::100]} == {"SCHEDULED"}  # type: ignore[union-attr]


@pytest.mark.row("15.redirected prints")
@pytest.mark.row("20.worker_redirect_stdouts")
@pytest.mark.row("20.worker_redirect_stdouts_level")
@pytest.mark.system
@pytest.mark.parametrize("own_logger", [False, True])
@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        ("", r"^\[[-\d]+ [:,\d]+: WARNING/PoolWorker-1\] said in a task$"),
        (
            "app.conf.worker_redirect_stdouts_level = 'ERROR'",
            r"^\[[-\d]+ [:,\d]+: ERROR/PoolWorker-1\] said in a task$",
        ),
        ("app.conf.worker_redirect_stdouts = False", r"^said in a task$"),
    ],
)
def test_E10_what_a_task_prints_is_seen(
    files: Callable[[dict[str, str]], None], run: Run, setting: str, shown: str, own_logger: bool
) -> None:
    log = (
        "from litetq.log import get_task_logger\nlogger = get_task_logger(__name__)\n"
        if own_logger
        else "import logging as logger\n"
    )
    files(
        {
            "tasks.py": ADD
            + setting
            + f"\n{log}@app.task\ndef say():\n    print('said', 'in a task')\n    logger.warning('logged')\n"
        }
    )
    id = run("from tasks import say; print(say.delay().id)").strip()
    said = run("-m", "litetq", "-A", "tasks", "worker", "--drain", "-P", "processes", "-c", "1")
    assert re.search(shown, said, re.M), said
    assert re.search(rf"WARNING/PoolWorker-1\] {rf'tasks.say.{id}.: ' if own_logger else ''}logged$", said, re.M), said


@pytest.mark.system
def test_E14_a_module_object_as_settings_reaches_child_processes(
    files: Callable[[dict[str, str]], None], run: Run
) -> None:
    source = (
        "import settings\nfrom litetq import Celery\napp = Celery('tasks')\napp.config_from_object(settings)\n"
        "@app.task\ndef queue():\n    return app.conf.task_default_queue\n"
    )
    files({"tasks.py": source, "settings.py": "broker_url = 'jobs.sqlite'\ntask_default_queue = 'mine'\n"})
    id = run("from tasks import queue; print(queue.delay().id)").strip()
    run("-m", "litetq", "-A", "tasks", "worker", "--drain", "-P", "processes", "-c", "1")
    assert run(f"from tasks import app; print(app.AsyncResult({id!r}).get(timeout=5))").strip() == "mine"


# -- 6, 7, 8. tasks, calls, results --------------------------------------------------------------------------------


def test_T3_a_decorator_below_is_part_of_the_task(app: LiteTQ) -> None:
    def twice(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return [function(*args)] * 2

        return wrapper

    @app.task
    @twice
    def work(x: int) -> int:
        return x + 1

    assert work.name == f"{__name__}.work"
    with app.run_embedded(concurrency=1):
        assert work.delay(1).get(timeout=10) == [2, 2]


@pytest.mark.row("2.request: id, task, args, kwargs")
@pytest.mark.row("2.get_task_logger, TaskFormatter")
@pytest.mark.row("8.worker log: received, succeeded")
@pytest.mark.system
def test_T5_T8_T16_what_a_task_logs_carries_its_name_and_id(files: Callable[[dict[str, str]], None], run: Run) -> None:
    source = ADD + (
        "from litetq.log import get_task_logger\nlogger = get_task_logger(__name__)\n"
        "@app.task(bind=True)\ndef send(self, msg, *, times=1):\n"
        "    print(f'id {self.request.id} args {self.request.args!r} kwargs {self.request.kwargs!r}')\n"
        "    logger.info('via logger')\n"
    )
    files({"tasks.py": source})
    id = run("from tasks import send; print(send.delay('hi', times=2).id)").strip()
    log = run("-m", "litetq", "-A", "tasks", "worker", "-l", "INFO", "--drain", "-P", "solo")
    stamp = r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}: "
    for line in (
        rf"INFO/MainProcess\] Task tasks\.send\[{id}\] received$",
        rf"WARNING/MainProcess\] id {id} args \['hi'\] kwargs {{'times': 2}}$",
        rf"INFO/MainProcess\] tasks\.send\[{id}\]: via logger$",
        rf"INFO/MainProcess\] Task tasks\.send\[{id}\] succeeded in \d[\de.-]*s: None$",
    ):
        assert re.search(stamp + line, log, re.M), f"{line} not in:\n{log}"


@pytest.mark.row("1.app.task: name, base, bind")
def test_T6_a_name_may_be_chosen(app: LiteTQ) -> None:
    assert app.task(name="sum-of-two-numbers")(lambda x, y: x + y).name == "sum-of-two-numbers"
    assert "sum-of-two-numbers" in app.tasks


class NoSuchComment(Exception):
    """An error of the program."""


def test_T14_T15_true_stays_true_and_an_error_keeps_type_and_text(app: LiteTQ) -> None:
    @app.task
    def spam_filter(comment_id: int) -> bool:
        if comment_id == 0:
            raise NoSuchComment("comment 0 is gone")
        return comment_id == 1

    with app.run_embedded(concurrency=1):
        assert spam_filter.delay(comment_id=1).get(timeout=10) is True
        failed = spam_filter.delay(0)
        with pytest.raises(NoSuchComment, match="^comment 0 is gone$"):
            failed.get(timeout=10)
    assert failed.state == "FAILURE" and type(failed.result) is NoSuchComment


def test_K16_K17_progress_is_seen_in_order_with_the_value_at_the_end(app: LiteTQ) -> None:
    seen = threading.Event()

    @app.task(bind=True)
    def hello(self: Any, a: int, b: int) -> str:
        for percent in (50, 90):
            self.update_state(state="PROGRESS", meta={"progress": percent})
            seen.wait(10)
            seen.clear()
        return f"hello world: {a + b}"

    bodies: list[dict[str, Any]] = []

    def on_raw_message(body: dict[str, Any]) -> None:
        bodies.append(body)
        seen.set()

    with app.run_embedded(concurrency=1):
        result = hello.apply_async((1, 1))
        assert result.get(on_message=on_raw_message, propagate=False, timeout=10) == "hello world: 2"
    assert [body["status"] for body in bodies] == ["PROGRESS", "PROGRESS", "SUCCESS"]
    assert [body["result"] for body in bodies] == [{"progress": 50}, {"progress": 90}, "hello world: 2"]
    assert all({"task_id", "status", "result", "traceback", "children"} <= set(body) for body in bodies)


def test_K18_K21_countdown_and_eta_are_one_point_in_time(app: LiteTQ) -> None:
    task = app.task(named_by_its_module)
    now = datetime.now(timezone.utc)
    calls = [
        task.apply_async(countdown=86_400),
        task.apply_async(eta=now + timedelta(days=1)),
        task.apply_async(eta=(now + timedelta(days=1)).replace(tzinfo=None)),
        task.apply_async(eta=(now + timedelta(days=1)).astimezone(timezone(timedelta(hours=8)))),
    ]
    due = [app.results.read(result.id).due_at - now.timestamp() for result in calls]  # type: ignore[union-attr,operator]
    assert all(abs(seconds - 86_400) < 60 for seconds in due), due


def test_K26_K31_a_task_without_arguments_and_one_by_keywords_only(app: LiteTQ) -> None:
    ping = app.task(name="ping")(lambda: "pong")
    send = app.task(name="send")(lambda *, text, to: f"{to}: {text}")
    with app.run_embedded(concurrency=1):
        assert ping.apply_async().get(timeout=10) == "pong"
        assert send.delay(to="me", text="hi").get(timeout=10) == "me: hi"


@pytest.mark.row("2.track_started")
@pytest.mark.row("4.state")
@pytest.mark.row("6.ready, successful, failed")
def test_S6_S7_S10_states_on_the_way_are_not_ready(app: LiteTQ) -> None:
    inside, leave = threading.Event(), threading.Event()

    @app.task(bind=True, track_started=True)
    def work(self: Any) -> int:
        inside.set()
        leave.wait(10)
        if self.request.retries == 0:
            raise self.retry(exc=ValueError("once more"), countdown=3600)
        return 1

    with app.run_embedded(concurrency=1) as worker:
        waiting = work.apply_async(countdown=3600)
        result = work.delay()
        assert inside.wait(10)
        assert (waiting.state, waiting.ready()) == ("PENDING", False)
        assert (result.state, result.ready()) == ("STARTED", False)
        assert result.info == {"pid": os.getpid(), "hostname": worker.hostname}
        leave.set()
        eventually(lambda: result.state == "RETRY")
        assert not result.ready() and repr(result.result) == "ValueError('once more')"


# -- 15. claims: facts behind the figures that benchmarks/ takes ---------------------------------------------------


def test_H1_tasks_are_claimed_and_settled_in_batches(app: LiteTQ) -> None:
    task = app.task(name="tasks.none")(lambda: None)
    results = [task.delay() for _ in range(2_000)]
    transactions = 0

    def count(moment: str) -> None:
        nonlocal transactions
        transactions += moment == "settled"

    with app.run_embedded(concurrency=1, pool="threads") as worker:
        probes.hook = count
        try:
            assert worker.drain(timeout=30)
        finally:
            probes.hook = None
    assert {result.state for result in results} == {"SUCCESS"}
    assert transactions < len(results) / 2, f"{transactions} transactions for {len(results)} tasks"


@pytest.mark.row("8.idle: wake-up and CPU")
def test_H2_a_sleeping_worker_is_woken_and_so_is_who_waits(app: LiteTQ) -> None:
    task = app.task(name="tasks.same")(lambda x: x)
    slow_looks = 0
    with app.run_embedded(concurrency=1):
        task.delay(0).get(timeout=10)
        for n in range(20):
            result = task.delay(n)
            try:
                assert result.get(timeout=0.5) == n  # half of the slow look that serves those whom no bell reaches
            except LateResult:
                slow_looks += 1
    assert slow_looks <= 5, f"{slow_looks} of 20 round trips waited for the slow look"


def test_H8_the_caller_returns_without_anybody_working(app: LiteTQ) -> None:
    task = app.task(name="tasks.same")(lambda x: x)
    results = [task.delay(n) for n in range(10)]
    assert [result.state for result in results] == ["PENDING"] * 10
    assert all(result.exists() for result in results)
    assert eventually(lambda: app.control.purge()) == 10
