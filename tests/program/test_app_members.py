"""What an app is given when it is made, what it tells, and what its children in a pool hear."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, signals
from litetq.exceptions import ImproperlyConfigured
from tests.conftest import RunPython


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    with LiteTQ("tests", broker=db, set_as_current=False) as app:
        yield app


def test_a_channel_of_a_connection_empties_a_queue(app: LiteTQ) -> None:
    for queue in ("full", "full", "other"):
        app.send_task("any", queue=queue)
    with app.connection() as connection, connection.default_channel as channel:
        assert channel.queue_purge("full") == 2 and channel.queue_purge("full") == 0
        assert channel.queue_purge("other") == 1


@pytest.mark.row("1.constructor: strict_typing")
@pytest.mark.parametrize("strict", [True, False])
def test_an_app_says_whether_arguments_are_checked_at_the_call(db: Path, strict: bool) -> None:
    with LiteTQ("tests", broker=db, strict_typing=strict, set_as_current=False) as app:
        add = app.task(name="add")(lambda x, y: x + y)
        own = app.task(name="own", typing=not strict)(lambda x, y: x + y)
        checked, unchecked = (add, own) if strict else (own, add)
        with pytest.raises(TypeError, match="missing 1 required positional argument"):
            checked.delay(1)
        with app.run_embedded(concurrency=1):
            result = unchecked.delay(1)
            with pytest.raises(TypeError, match="missing 1 required positional argument"):
                result.get(timeout=10)


@pytest.mark.row("1.constructor: config_source")
def test_a_config_source_is_read_at_the_first_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_settings_here.py").write_text("task_default_queue = 'mine'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with LiteTQ("tests", broker=tmp_path / "x", config_source="my_settings_here", set_as_current=False) as app:
        assert "my_settings_here" not in sys.modules
        assert app.send_task("any").queue == "mine"
    assert sys.modules.pop("my_settings_here")


@pytest.mark.row("1.config_from_envvar")
@pytest.mark.row("1.config_from_object")
def test_settings_of_a_module_that_the_environment_names_count(
    db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "named_settings_here.py").write_text("task_default_queue = 'named'\ntask_default_priority = 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("MY_SETTINGS", "named_settings_here")
    with LiteTQ("tests", broker=db, set_as_current=False) as app:
        app.config_from_envvar("MY_SETTINGS")
        look = app.task(name="look", bind=True)(lambda self: self.request.delivery_info)
        with app.run_embedded(concurrency=1):
            info = look.delay().get(timeout=10)
        assert (info["routing_key"], info["priority"]) == ("named", 3)
        app.config_from_object({"task_default_queue": "given"})
        assert app.send_task("any").queue == "given"
    del sys.modules["named_settings_here"]


@pytest.mark.row("1.constructor: classes for control and tasks")
def test_an_app_uses_the_control_class_it_is_given(db: Path) -> None:
    from litetq.control import Control

    class Mine(Control):
        """A program's own remote control."""

        def ping(self, *args: Any, **options: Any) -> Any:
            return ["mine", *super().ping(*args, **options)]

    with LiteTQ("tests", broker=db, control=Mine, set_as_current=False) as app, app.run_embedded(hostname="w@x"):
        assert app.control.ping(timeout=30) == ["mine", {"w@x": {"ok": "pong"}}]


@pytest.mark.row("1.gen_task_name")
def test_a_class_of_apps_may_name_tasks_its_own_way(db: Path) -> None:
    class Apps(LiteTQ):
        """Names tasks without the last part of their module."""

        def gen_task_name(self, name: str, module: str | None) -> str:
            return super().gen_task_name(name, (module or "").rpartition(".")[0])

    with Apps("tests", broker=db, set_as_current=False) as app:

        @app.task
        def add(x: int) -> int:
            return x

        assert add.name == f"{__name__.rpartition('.')[0]}.add"
        with app.run_embedded(concurrency=1):
            assert app.send_task(add.name, (1,)).get(timeout=10) == 1


@pytest.mark.row("1.create_task_cls, task_cls, app.Task")
def test_the_base_class_of_an_app_serves_its_tasks_in_a_worker(db: Path) -> None:
    from litetq import Task

    class Shouting(Task[..., Any]):
        """Says it louder."""

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return str(self.run(*args, **kwargs)).upper()

    with LiteTQ("tests", broker=db, task_cls=Shouting, set_as_current=False) as app:
        hello = app.task(name="hello")(lambda: "hello")
        assert isinstance(hello, app.Task) and issubclass(app.create_task_cls(), Shouting)
        with app.run_embedded(concurrency=1):
            assert hello.delay().get(timeout=10) == "HELLO"


@pytest.mark.row("1.config_from_cmdline")
def test_settings_may_be_given_as_words(app: LiteTQ) -> None:
    app.config_from_cmdline(
        [
            *("task.default_queue=mine", ".send_task_events=yes", "worker_concurrency=(int)7"),
            *("task.routes=(dict){" + '"add": "fast"}', "result.expires=60", "BROKER.TRANSPORT_OPTIONS=(json){}"),
        ],
        namespace="worker",
    )
    conf = app.conf
    assert (conf.worker_send_task_events, conf.worker_concurrency, conf.result_expires) == (True, 7, 60)
    assert (app.send_task("other").queue, app.send_task("add").queue) == ("mine", "fast")


@pytest.mark.row("1.config_from_cmdline")
@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("worker.concurrency", "'worker.concurrency' is no setting; write it as name=value"),
        ("worker.concurrency=many", "worker_concurrency .* must be"),
        ("worker.concurrency=(int)many", "'worker.concurrency=.int.many': 'many' cannot be read as int"),
        ("task.routes=(what)x", "cannot be read as what"),
    ],
)
def test_a_word_that_is_no_setting_is_named(app: LiteTQ, word: str, said: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=said):
        app.config_from_cmdline([word])


@pytest.fixture
def _nobody_listens_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loader listens as long as the process lives."""
    for signal in vars(signals).values():
        if isinstance(signal, signals.Signal):
            monkeypatch.setattr(signal, "receivers", signal.receivers)


@pytest.mark.row("1.app.loader")
@pytest.mark.usefixtures("_nobody_listens_afterwards")
def test_a_loader_of_ones_own_imports_modules_and_is_told_of_each_task(
    db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from litetq.parts import Loader

    (tmp_path / "my_included_here.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    told: list[Any] = []

    class Mine(Loader):
        """A program's own loader."""

        def on_worker_init(self) -> None:
            told.append("worker")

        def on_task_init(self, task_id: str, task: Any) -> None:
            told.append((task_id, task.name))

    with LiteTQ("tests", broker=db, loader=Mine, include=["my_included_here"], set_as_current=False) as app:
        app.task(name="work")(lambda: 7)
        assert [module.__name__ for module in app.loader.import_default_modules()] == ["my_included_here"]
        assert app.loader.import_task_module("my_included_here") is sys.modules["my_included_here"]
        with app.run_embedded(concurrency=1):
            result = app.send_task("work")
            assert result.get(timeout=10) == 7
        assert (result.id, "work") in told
    del sys.modules["my_included_here"]


@pytest.mark.row("1.app.log")
def test_a_program_sets_up_its_log_as_a_worker_does(tmp_path: Path, run_python: RunPython) -> None:
    process = run_python(
        "from litetq import LiteTQ, get_task_logger\n"
        "app = LiteTQ('logs', worker_log_format='L|%(levelname)s|%(message)s', worker_task_log_format='T|%(message)s')\n"
        "print(app.log.setup('INFO', logfile='app.log', redirect_stdouts=True), app.log.setup('DEBUG'))\n"
        "app.log.get_default_logger().info('said by the program')\n"
        "get_task_logger('mine').info('said as a task')\n"
    )
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert (tmp_path / "app.log").read_text().splitlines() == [
        *("L|WARNING|True False", "L|INFO|said by the program", "T|said as a task")
    ]


PROGRAM = """
import os
from pathlib import Path
from litetq import LiteTQ

app = LiteTQ("forked", broker=Path(__file__).parent / "jobs.sqlite")
heard = []

@app.on_after_fork.connect
def opened_anew(sender, **kwargs):
    heard.append(sender is app)

@app.task
def look():
    return [os.getpid(), heard]

if __name__ == "__main__":
    with app.run_embedded(concurrency=1, pool="processes"):
        pid, seen = look.delay().get(timeout=30)
    print(pid != os.getpid(), seen, heard)
"""


@pytest.mark.row("1.on_after_fork")
@pytest.mark.row("8.start method spawn")
def test_an_app_is_told_in_each_child_and_nowhere_else(tmp_path: Path, run_python: RunPython) -> None:
    (tmp_path / "forked.py").write_text(PROGRAM)
    process = run_python(tmp_path / "forked.py")
    out, err = process.communicate(timeout=60)
    assert out.split("\n")[0] == "True [True] []", err
