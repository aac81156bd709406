"""The fifteen ways in which an alias of Celery goes wrong, by number; each is told in docs/from-celery.md or in `compat/alias.py`."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import litetq
from litetq import LiteTQ, exceptions, execution, serialization
from litetq.adapters.metas import Codec
from litetq.exceptions import ImproperlyConfigured
from litetq.message import Record
from tests.conftest import ROOT, RunPython

INSTALL = "import litetq; litetq.install_as_celery()\n"
HAS_CELERY = importlib.util.find_spec("celery") is not None


@pytest.fixture
def app(alias: None, db: Path) -> Iterator[LiteTQ]:
    app = LiteTQ("pitfalls", broker=db)
    yield app
    app.close()


def test_pitfall_1_what_is_replaced_under_one_name_is_replaced_under_both(app: LiteTQ) -> None:
    trace = importlib.import_module("celery.app.trace")
    base = importlib.import_module("celery.app.base")
    assert base.Celery is LiteTQ
    with mock.patch.object(base.Celery, "send_task", return_value="patched"):
        assert app.send_task("a.b") == "patched"
    calls: list[str] = []
    own = trace.build_tracer

    def build_tracer(name: str, task: Any, *args: Any, **options: Any) -> Any:
        calls.append(name)
        return own(name, task, *args, **options)

    one = app.task(name="one")(lambda: 1)
    with mock.patch.object(trace, "build_tracer", build_tracer), app.run_embedded(1):
        assert one.delay().get(timeout=30) == 1
    assert "one" in calls
    assert execution.build_tracer is not execution.Tracer, "the runtime looks it up where tools replace it"


def test_pitfall_2_modules_are_those_that_their_specs_say(alias: None) -> None:
    for name in ("celery", "celery.app.task", "celery.utils.log", "celery.exceptions", "celery.worker.state"):
        module = importlib.import_module(name)
        assert module.__spec__ is not None and module.__spec__.name == module.__name__ == name
        assert module.__package__ == module.__spec__.parent, "else relative imports in it warn"
    ours = importlib.import_module("litetq.exceptions")
    assert ours.__spec__ is not None and ours.__spec__.name == "litetq.exceptions"


def test_pitfall_3_a_folder_and_a_file_called_celery_do_not_come_first(run_python: RunPython, tmp_path: Path) -> None:
    (tmp_path / "celery").mkdir()
    (tmp_path / "celery" / "app.py").write_text("raise RuntimeError('a stray module')", encoding="utf-8")
    process = run_python(
        INSTALL + "import celery.app, importlib.util, pkgutil\n"
        "print(celery.Celery is litetq.LiteTQ, importlib.util.find_spec('celery.nosuch'),\n"
        "    'worker' in {m.name for m in pkgutil.iter_modules(celery.__path__)})"
    )
    out, err = process.communicate(timeout=60)
    assert out.strip() == "True None True", err


def test_pitfall_4_data_that_name_celerys_modules_are_read_as_ours_and_ours_stay_ours(app: LiteTQ) -> None:
    assert exceptions.Retry.__module__ == "litetq.exceptions"
    written = {"exc_type": "MaxRetriesExceededError", "exc_message": ["too often"], "exc_module": "celery.exceptions"}
    assert type(serialization.restore_exception(written)) is exceptions.MaxRetriesExceededError
    kept = Codec().meta(
        Record("a", "FAILURE", "DONE", serialization.encode_exception(exceptions.WorkerLostError("lost")))
    )
    assert kept["result"]["exc_module"] == "celery.exceptions", "what a client of Celery's reads over a broker"
    assert type(serialization.restore_exception(kept["result"])) is exceptions.WorkerLostError
    copied = pickle.loads(pickle.dumps(exceptions.Ignore("x")))
    assert type(copied) is exceptions.Ignore
    custom = importlib.import_module("celery.app.trace").task_has_custom
    plain = app.task(name="plain")(lambda: None)

    class Own(importlib.import_module("celery").Task):  # type: ignore[misc]
        def __call__(self, *args: Any) -> Any:
            return self.run(*args)

    assert not custom(plain, "__call__")
    assert custom(app.task(name="own", base=Own)(lambda: None), "__call__")


def test_pitfall_5_what_waits_for_an_import_sees_it_when_a_worker_starts(app: LiteTQ) -> None:
    waited_for = [
        "celery.app.trace",
        "celery.local",
        "celery.worker",
        "celery.concurrency.prefork",
        "celery.loaders.base",
    ]
    for name in waited_for:
        sys.modules.pop(name, None)
    seen = app.task(name="seen")(lambda: [name for name in waited_for if name not in sys.modules])
    with app.run_embedded(1):
        assert seen.delay().get(timeout=30) == [], "they are there before the first task runs"


def test_pitfall_6_celerys_metadata_are_there_and_say_a_version_of_5(alias: None) -> None:
    celery = importlib.import_module("celery")
    version = importlib.metadata.version("celery")
    assert version == celery.__version__ == ".".join(map(str, celery.VERSION[:3])) and version.startswith("5.")
    scripts = importlib.metadata.entry_points(group="console_scripts", name="celery")
    assert [script.value for script in scripts] == ["celery.__main__:main"]


def test_pitfall_7_without_the_alias_nothing_here_answers_to_celery(run_python: RunPython) -> None:
    """What is installed under that name does; the page says how to go sure."""
    process = run_python("import litetq, importlib.util as u; print(u.find_spec('celery') is not None)")
    assert process.communicate(timeout=60)[0].strip() == str(HAS_CELERY)
    assert "Without the alias\nit is Celery that is imported" in (ROOT / "docs/from-celery.md").read_text(
        encoding="utf-8"
    )


def test_pitfall_8_too_late_is_said_with_what_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "celery.result", type(sys)("celery.result"))
    with pytest.raises(ImproperlyConfigured, match=r"loaded already \(celery\.result\).*manage\.py.*litetq exec"):
        litetq.install_as_celery()
    assert not any(name == "celery" for name in sys.modules)


def test_pitfall_9_child_processes_have_the_alias_when_they_import_litetq(alias: None) -> None:
    code = "import litetq, celery; print(celery.Celery is litetq.LiteTQ)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.stdout.strip() == "True", ended.stderr


def test_pitfall_10_a_module_of_a_project_may_be_called_celery(
    alias: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pitfall_ten").mkdir()
    (tmp_path / "pitfall_ten" / "__init__.py").write_text("", encoding="utf-8")
    (tmp_path / "pitfall_ten" / "celery.py").write_text(
        "from celery import Celery\napp = Celery('ten', broker='memory://')\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    from litetq.cli.find import find_app

    found = find_app("pitfall_ten").app  # as after -A
    assert found is importlib.import_module("pitfall_ten.celery").app and found.main == "ten"
    assert importlib.import_module("celery").Celery is LiteTQ


def test_pitfall_11_a_name_may_be_a_class_and_a_module_and_hides_no_room_of_ours(alias: None) -> None:
    celery = importlib.import_module("celery")
    for name in ("app", "beat", "result", "events", "states", "worker", "utils", "schedules", "canvas", "signals"):
        importlib.import_module(f"celery.{name}")
    assert isinstance(celery.chain, type) and isinstance(celery.beat, type(sys))
    command = importlib.import_module("celery.bin.celery")
    assert callable(command.celery) and callable(command.main)
    for name in ("beat", "result", "states", "worker", "schedules", "canvas", "signals"):
        assert importlib.import_module(f"litetq.{name}").__name__ == f"litetq.{name}"


def test_pitfall_12_lines_of_the_log_come_from_celerys_loggers(app: LiteTQ, caplog: pytest.LogCaptureFixture) -> None:
    fine = app.task(name="fine")(lambda: None)
    with caplog.at_level(logging.INFO), app.run_embedded(1):
        fine.delay().get(timeout=30)
        app.send_task("pitfall.nosuch").get(timeout=30, propagate=False)
    names = {record.name for record in caplog.records if "fine[" in record.message or "received" in record.message}
    assert names == {"celery.worker.strategy", "celery.app.trace"}
    assert importlib.import_module("celery.worker.strategy").logger.name == "celery.worker.strategy"
    assert importlib.import_module("celery.utils.log").get_task_logger("mine").parent.name == "celery.task"


def test_pitfall_13_queues_are_taken_by_their_attributes_not_by_their_class(app: LiteTQ) -> None:
    class Queue:  # as kombu's, of whatever version
        name, routing_key, alias, queue_arguments, bindings = "fast", "video", None, None, ()
        exchange = type("Exchange", (), {"name": "media", "type": "direct"})()

    app.conf.task_queues = [Queue()]
    assert app.send_task("a.b", queue=Queue()).queue == "fast"
    assert list(app.amqp.queues) == ["fast"]


def test_pitfall_14_threads_that_import_at_once_get_one_module(alias: None) -> None:
    sys.modules.pop("celery.utils.timer2", None)
    gate, found = threading.Barrier(8), []

    def load() -> None:
        gate.wait(30)
        found.append(importlib.import_module("celery.utils.timer2"))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 8 and len(set(map(id, found))) == 1


def test_pitfall_15_type_checkers_are_spoken_of_and_find_our_types() -> None:
    assert (ROOT / "litetq" / "py.typed").exists()
    assert "type checker" in (ROOT / "docs" / "from-celery.md").read_text(encoding="utf-8")


def test_every_number_has_its_test() -> None:
    numbers = [int(name.split("_")[2]) for name in globals() if name.startswith("test_pitfall_")]
    assert numbers == list(range(1, 16))
