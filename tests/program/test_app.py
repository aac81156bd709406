"""The app: where its file is and who decided that, settings, modules, current and default app, pickling."""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

import litetq
from litetq import Celery, LiteTQ, Task, bugreport, current_app
from litetq.exceptions import CeleryWarning, ImproperlyConfigured, StoreError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, in which modules written by the test can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    importlib.invalidate_caches()
    yield tmp_path  # type: ignore[misc]
    for name in set(sys.modules) - before:
        if name.partition(".")[0] not in ("litetq", "zoneinfo"):
            del sys.modules[name]


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    importlib.invalidate_caches()
    return path


# -- where the file is ---------------------------------------------------------------------------------------------


def test_with_nothing_said_the_file_is_litetq_sqlite_where_the_app_was_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Celery("proj") as app:
        monkeypatch.chdir(os.path.dirname(folder))
        app.send_task("any")
        assert app.engine.path == folder / "litetq.sqlite" and (folder / "litetq.sqlite").exists()
        assert app.broker_source == "the default, litetq.sqlite in the working directory"


@pytest.mark.parametrize("name", ["jobs.sqlite", "data/Jobs.DB", "redis://localhost"])
def test_a_path_or_url_in_the_place_of_the_apps_name_is_warned_of(folder: Path, name: str) -> None:
    with pytest.warns(CeleryWarning, match=f"write broker='{name}'") as warned:
        LiteTQ(name).close()
    assert [one.filename for one in warned] == [__file__]


def test_a_name_that_is_none_of_a_file_is_not_warned_of(folder: Path, recwarn: pytest.WarningsRecorder) -> None:
    for name in ("proj", "proj.db.tasks", "__main__"):
        LiteTQ(name).close()
    LiteTQ("jobs.sqlite", broker="jobs.sqlite").close()
    assert not recwarn.list


def test_a_relative_path_means_the_working_directory_of_the_apps_creation(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = LiteTQ("proj", broker="jobs.sqlite", backend="db+sqlite:///results.sqlite")
    monkeypatch.chdir("/")
    assert app.broker_address.path == str(folder / "jobs.sqlite")
    assert app.result_address.path == str(folder / "results.sqlite")
    assert app.conf.broker_url == "jobs.sqlite"
    assert app.broker_source == app.result_source == "the app's constructor"


@pytest.mark.row("1.environment overrides")
@pytest.mark.row("20.broker_url")
@pytest.mark.row("20.result_backend")
def test_who_decides_on_the_file_in_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = LiteTQ("proj")
    app.conf.broker_url = "conf.sqlite"
    app.conf.result_backend = "conf-results.sqlite"
    assert (app.broker_address.path, app.broker_source) == (str(folder / "conf.sqlite"), "an assignment to app.conf")
    monkeypatch.setenv("CELERY_BROKER_URL", "celery.sqlite")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "celery-results.sqlite")
    assert (app.broker_address.path, app.broker_source) == (str(folder / "celery.sqlite"), "$CELERY_BROKER_URL")
    assert app.result_source == "$CELERY_RESULT_BACKEND"
    monkeypatch.setenv("LITETQ_BROKER", "ours.sqlite")
    assert (app.broker_address.path, app.broker_source) == (str(folder / "ours.sqlite"), "$LITETQ_BROKER")
    app.override_broker("given.sqlite", "FILE")
    for address, source in ((app.broker_address, app.broker_source), (app.result_address, app.result_source)):
        assert (address.path, source) == (str(folder / "given.sqlite"), "FILE")


def test_an_override_counts_from_the_next_use_on(tmp_path: Path) -> None:
    with LiteTQ("x", broker=tmp_path / "one.sqlite") as app:
        app.send_task("here")
        app.override_broker(tmp_path / "two.sqlite")
        result = app.send_task("there")
        assert app.engine.path == tmp_path / "two.sqlite" and result.exists()
        assert app.broker_source == "the command line"


@pytest.mark.parametrize("form", ["{}", "sqlite:///{}", "sqla+sqlite:///{}"])
@pytest.mark.parametrize("name", ["jobs.sqlite", "with space #1 100%.sqlite", "队列.sqlite"])
def test_every_form_and_name_of_a_file_works(tmp_path: Path, form: str, name: str) -> None:
    with LiteTQ("x", broker=form.format(tmp_path / name)) as app:
        assert app.send_task("any").exists()
    assert (tmp_path / name).exists()


def test_a_private_file_serves_memory_and_is_gone_after_close() -> None:
    app = LiteTQ("x", broker="memory://", backend="cache+memory://")
    result = app.send_task("any")
    path = app.engine.path
    assert result.exists() and path.exists()
    app.close()
    assert not path.exists()


def test_what_has_no_adapter_is_said_at_the_first_use_without_the_password(tmp_path: Path) -> None:
    app = LiteTQ("x", broker="couchdb://:secret@localhost/0")

    @app.task
    def add() -> None: ...

    with pytest.raises(ImproperlyConfigured, match=r"broker couchdb://.*the app's constructor.*no adapter") as caught:
        add.delay()
    assert "secret" not in str(caught.value)
    app = LiteTQ("x", broker=tmp_path / "x", backend="redis://localhost/1")
    with pytest.raises(ImproperlyConfigured, match=r"result backend redis://localhost/1"):
        app.AsyncResult("1").get(timeout=1)
    with pytest.raises(ImproperlyConfigured, match="ftp"):
        LiteTQ("x", broker="ftp://somewhere")


def test_durability_comes_from_constructor_setting_or_address(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    for app in (
        LiteTQ("x", broker=path, durability="full"),
        LiteTQ("x", broker=path, litetq_durability="full"),
        LiteTQ("x", broker=f"sqlite:///{path}?durability=full"),
    ):
        assert app.send_task("any", durability="full").exists()
        assert app.engine.database.durability == "full"
        app.close()
    with pytest.raises(ImproperlyConfigured, match="durability"):
        LiteTQ("x", broker=path, durability="extreme")


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "notes.txt", "not a database " * 100)
    app = LiteTQ("x", broker=path)
    with pytest.raises(StoreError, match=r"notes\.txt"):
        app.send_task("any")
    assert path.read_text().startswith("not a database")


@pytest.mark.row("1.with app, close")
def test_the_file_is_opened_once_by_many_threads_and_again_after_close(db: Path) -> None:
    app = LiteTQ("x", broker=db)
    engines: list[Any] = []
    barrier = threading.Barrier(8)

    def use() -> None:
        barrier.wait()
        engines.append(app.engine)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(engine) for engine in engines}) == 1
    result = app.send_task("any")
    app.close()
    app.close()
    assert result.exists()
    app.close()


# -- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.row("1.laziness")
@pytest.mark.row("1.on_configure, on_after_configure")
@pytest.mark.row("1.config_from_object")
def test_settings_are_read_lazily_and_the_signals_tell_when(folder: Path) -> None:
    app = LiteTQ("x")
    order: list[str] = []

    @app.on_configure.connect
    def configuring(sender: Any, **_: Any) -> None:
        assert sender is app
        order.append("configuring")

    @app.on_after_configure.connect
    def configured(sender: Any, source: Any, **_: Any) -> None:
        assert sender is app and source is app.conf
        order.append("configured")

    write(folder / "celeryconfig.py", "task_serializer = 'yaml'\ntimezone = 'Europe/Oslo'\n")
    app.config_from_object("celeryconfig")
    assert "celeryconfig" not in sys.modules and order == []
    assert app.conf.task_serializer == "yaml"
    assert order == ["configuring", "configured"]
    assert app.conf.timezone == "Europe/Oslo" and order == ["configuring", "configured"]


@pytest.mark.row("1.constructor: keywords become settings")
@pytest.mark.row("1.add_defaults")
def test_settings_come_from_an_environment_variable_defaults_and_the_constructor(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder / "settings_here.py", "CELERY_TASK_DEFAULT_QUEUE = 'from module'\n")
    monkeypatch.setenv("MY_CONFIG", "settings_here")
    app = LiteTQ("x", namespace="CELERY", task_track_started=True, changes={"task_acks_late": True})
    app.add_defaults(lambda: {"worker_concurrency": 7})
    assert app.config_from_envvar("MY_CONFIG")
    assert not app.config_from_envvar("NOT_SET", silent=True)
    with pytest.raises(ImproperlyConfigured, match="NOT_SET"):
        app.config_from_envvar("NOT_SET")
    conf = app.conf
    assert (conf.task_default_queue, conf.worker_concurrency) == ("from module", 7)
    assert conf.task_track_started and conf.task_acks_late and app.namespace == "CELERY"


@pytest.mark.row("1.app.now, timezone, uses_utc_timezone")
@pytest.mark.row("20.enable_utc")
@pytest.mark.row("20.timezone")
def test_the_time_of_an_app_is_in_its_zone(db: Path) -> None:
    app = LiteTQ("x", broker=db)
    assert app.timezone is timezone.utc and app.uses_utc_timezone()
    assert abs(app.now() - datetime.now(timezone.utc)) < timedelta(seconds=5)
    app.conf.timezone = "Asia/Shanghai"
    assert app.now().utcoffset() == timedelta(hours=8) and not app.uses_utc_timezone()
    app.conf.timezone = "Mars/Olympus"
    with pytest.raises(ImproperlyConfigured, match="'Mars/Olympus' is no known time zone"):
        app.now()
    local = LiteTQ("x", broker=db, enable_utc=False)
    assert local.now().utcoffset() == datetime.now().astimezone().utcoffset()


@pytest.mark.row("15.passwords are masked")
def test_the_bug_report_names_the_source_of_the_broker_and_hides_passwords() -> None:
    app = LiteTQ("x", broker="amqp://me:secret@host//", task_track_started=True)
    text = app.bugreport()
    assert "secret" not in text and "(the app's constructor)" in text
    assert "task_track_started: True" in text and litetq.__version__ in text
    assert bugreport() == text == bugreport(app)


# -- modules -------------------------------------------------------------------------------------------------------


@pytest.mark.row("1.autodiscover_tasks")
@pytest.mark.row("20.imports")
@pytest.mark.row("20.include")
def test_a_worker_imports_include_imports_and_what_was_autodiscovered(folder: Path) -> None:
    for package in ("shop", "mail"):
        write(folder / package / "__init__.py")
        write(folder / package / "tasks.py", "from litetq import current_app\n@current_app.task\ndef job(): ...\n")
    write(folder / "bare" / "__init__.py")
    write(folder / "one_include.py")
    write(folder / "one_import.py")
    app = LiteTQ("x", include="one_include", imports="one_import")
    app.autodiscover_tasks(lambda: ["shop", "bare"])
    assert "shop.tasks" not in sys.modules
    names = [module.__name__ for module in app.import_default_modules()]
    assert names == ["one_import", "one_include"]
    assert "shop.tasks.job" in app.tasks and "mail.tasks.job" not in app.tasks
    app.autodiscover_tasks(["mail"], force=True)
    assert "mail.tasks.job" in app.tasks


def test_what_a_discovered_module_raises_is_raised(folder: Path) -> None:
    write(folder / "broken" / "__init__.py")
    write(folder / "broken" / "tasks.py", "import no_such_module_at_all\n")
    app = LiteTQ("x")
    app.autodiscover_tasks(["broken"])
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        app.import_default_modules()
    with pytest.raises(ModuleNotFoundError, match="not_there"):
        app.autodiscover_tasks(["not_there"], force=True)


# -- current and default -------------------------------------------------------------------------------------------


def in_thread(function: Any) -> Any:
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(function()))
    thread.start()
    thread.join()
    return answers[0]


@pytest.mark.row("1.constructor: set_as_current")
@pytest.mark.row("1.set_current, set_default, current_app")
def test_the_last_app_made_is_current_and_the_first_is_every_threads_default() -> None:
    first, second = LiteTQ("first"), LiteTQ("second")
    aside = LiteTQ("aside", set_as_current=False)
    assert current_app == second
    assert in_thread(lambda: current_app.main) == "first"
    aside.set_default()
    assert in_thread(lambda: current_app.main) == "aside"
    first.set_current()
    assert current_app == first and repr(current_app) == repr(first)


@pytest.mark.row("1.pickling an app")
def test_an_app_pickles_to_one_with_the_same_settings_and_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "celeryconfig.py", "task_serializer = 'yaml'\n")
    app = LiteTQ("x", broker="jobs.sqlite", include=["a"], worker_concurrency=3, strict_typing=False)
    import celeryconfig  # type: ignore[import-not-found]

    app.config_from_object(celeryconfig)
    app.conf.task_acks_late = True
    data = pickle.dumps(app)
    monkeypatch.chdir("/")
    twin = pickle.loads(data)
    assert twin is not app and current_app == app
    assert twin.broker_address.path == str(folder / "jobs.sqlite")
    conf = twin.conf
    assert (conf.task_serializer, conf.task_acks_late, conf.worker_concurrency) == ("yaml", True, 3)
    assert (twin.main, twin.strict_typing, tuple(conf.include)) == ("x", False, ("a",))


# -- the file names its app ----------------------------------------------------------------------------------------

SCRIPT = """
from litetq import LiteTQ
queue = LiteTQ(broker="jobs.sqlite")

@queue.task
def add(x): return x

if __name__ == "__main__":
    print(add.name, add.delay(1).state, queue.engine.recorded_app())
"""


def test_the_file_names_the_script_that_its_app_is_defined_in(folder: Path) -> None:
    script = write(folder / "myjobs.py", SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, script], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    recorded = {"attribute": "queue", "file": str(script), "module": "myjobs"}
    assert done.stdout.strip() == f"__main__.add PENDING {recorded}", done.stderr


def test_an_app_that_no_module_names_is_not_recorded(db: Path) -> None:
    with LiteTQ("x", broker=db) as app:
        app.send_task("any")
        assert app.engine.recorded_app() is None


# -- running -------------------------------------------------------------------------------------------------------


def test_worker_main_wants_the_worker_command(db: Path) -> None:
    with pytest.raises(ValueError, match="worker sub-command must be specified"):
        LiteTQ("x", broker=db).worker_main(["--loglevel=INFO"])


def test_public_names() -> None:
    assert set(litetq.__all__) >= {"LiteTQ", "Celery", "Task", "shared_task", "current_app", "current_task", "uuid"}
    assert Celery is LiteTQ and issubclass(Task, object) and all(hasattr(litetq, name) for name in litetq.__all__)
