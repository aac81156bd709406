"""Turning the alias on and off: who answers `import celery`, in which processes, and beside what else."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import litetq
from tests.conftest import RunPython

INSTALL = "import litetq; litetq.install_as_celery()\n"


def output(process: subprocess.Popen[str]) -> str:
    """Return what a program printed; its errors when it failed."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out.strip()


def write_stray(folder: Path) -> None:
    """Put something called celery where a program would find it first."""
    (folder / "celery.py").write_text("raise RuntimeError('a stray celery.py')", encoding="utf-8")


# -- on and off


def test_import_litetq_loads_nothing_of_the_alias(run_python: RunPython) -> None:
    assert (
        output(run_python("import sys, litetq; print([m for m in sys.modules if 'compat' in m or 'celery' in m])"))
        == "[]"
    )


def test_installing_twice_is_as_installing_once(alias: None) -> None:
    before = list(sys.meta_path)
    litetq.install_as_celery()
    assert sys.meta_path == before


def test_uninstalling_forgets_the_modules_and_the_variable() -> None:
    litetq.install_as_celery()
    importlib.import_module("celery.app.trace")
    assert os.environ["LITETQ_AS_CELERY"] == "1"
    litetq.uninstall_celery_alias()
    litetq.uninstall_celery_alias()
    assert "LITETQ_AS_CELERY" not in os.environ
    assert [name for name in sys.modules if name.split(".")[0] in ("celery", "kombu", "billiard", "vine")] == []
    assert importlib.util.find_spec("celery") is None


def test_a_program_without_the_alias_finds_no_celery(run_python: RunPython) -> None:
    _, err = run_python("import litetq, celery").communicate(timeout=60)
    assert "ModuleNotFoundError: No module named 'celery'" in err


def test_too_late_is_refused_with_the_modules_that_are_loaded(run_python: RunPython, tmp_path: Path) -> None:
    package = tmp_path / "celery"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "result.py").write_text("", encoding="utf-8")
    _, err = run_python("import celery.result\n" + INSTALL, env={"PYTHONPATH": path_with(tmp_path)}).communicate(
        timeout=60
    )
    assert "ImproperlyConfigured: install_as_celery() came too late" in err
    assert "celery, celery.result" in err


def path_with(folder: Path) -> str:
    return os.pathsep.join([str(folder), str(Path(__file__).resolve().parents[2])])


# -- who answers


def test_a_celery_py_in_the_working_directory_does_not_come_first(run_python: RunPython, tmp_path: Path) -> None:
    write_stray(tmp_path)
    (tmp_path / "go.py").write_text(INSTALL + "import celery; print(celery.Celery is litetq.LiteTQ)", encoding="utf-8")
    assert output(run_python(tmp_path / "go.py")) == "True"


def test_a_module_of_a_project_may_be_called_celery(run_python: RunPython, tmp_path: Path) -> None:
    (tmp_path / "proj").mkdir()
    (tmp_path / "proj" / "__init__.py").write_text("from .celery import app", encoding="utf-8")
    (tmp_path / "proj" / "celery.py").write_text("from celery import Celery\napp = Celery('proj')", encoding="utf-8")
    out = output(run_python(INSTALL + "import proj.celery, celery; print(proj.celery is celery, proj.app.main)"))
    assert out == "False proj"


def test_a_script_called_celery_can_be_run_itself(run_python: RunPython, tmp_path: Path) -> None:
    (tmp_path / "proj").mkdir()
    script = tmp_path / "proj" / "celery.py"
    script.write_text(INSTALL + "from celery import Celery\nprint(Celery('proj').main)", encoding="utf-8")
    assert output(run_python(script)) == "proj"


def test_the_alias_is_found_by_spec_and_run_with_m(run_python: RunPython) -> None:
    env = {"LITETQ_AS_CELERY": "1"}
    assert "celery/app/trace.py" in output(
        run_python(
            INSTALL + "import importlib.util as u; print(u.find_spec('celery.app.trace').origin.replace('\\\\', '/'))"
        )
    )
    run = "import runpy, sys; sys.argv = ['celery', '--version']; import litetq; runpy.run_module('celery', run_name='__main__')"
    assert litetq.__version__ in output(run_python(run, env=env))


def test_modules_are_also_attributes_of_the_package(run_python: RunPython) -> None:
    code = (
        INSTALL
        + "import celery; print(celery.signals.task_prerun is litetq.signals.task_prerun, celery.app.Celery.__name__)"
    )
    assert output(run_python(code)) == "True LiteTQ"


def test_importing_modules_of_the_alias_hides_no_room_of_litetq(run_python: RunPython) -> None:
    code = (
        "import litetq.app, litetq.beat, litetq.events, litetq.worker, litetq.result\n"
        "before = {n: getattr(litetq, n) for n in ('app', 'beat', 'events', 'worker', 'result', 'states')}\n"
        + INSTALL
        + "import celery.app, celery.beat, celery.events, celery.worker, celery.result, celery.states\n"
        "print(all(getattr(litetq, n) is m for n, m in before.items()), hasattr(litetq, 'utils'))"
    )
    assert output(run_python(code)) == "True False"


def test_eight_threads_that_import_at_once_get_one_module(run_python: RunPython) -> None:
    code = INSTALL + (
        "import threading, importlib\n"
        "gate, found = threading.Barrier(8), []\n"
        "def take():\n"
        "    gate.wait()\n"
        "    found.append(importlib.import_module('celery.app.trace'))\n"
        "threads = [threading.Thread(target=take) for _ in range(8)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        "print(len(found), len(set(map(id, found))))"
    )
    assert output(run_python(code)) == "8 1"


def test_warnings_as_errors_do_not_trip_over_the_alias(run_python: RunPython) -> None:
    code = (
        INSTALL + "import celery.beat, celery.app.trace, celery.signals, celery.contrib.testing.worker; print('fine')"
    )
    assert output(run_python("-W", "error", "-c", code)) == "fine"


# -- metadata


def test_tools_find_a_distribution_called_celery(alias: None) -> None:
    assert importlib.metadata.version("celery") == "5.7.0"
    assert importlib.metadata.version("Celery").startswith("5.")
    scripts = importlib.metadata.entry_points(group="console_scripts")
    assert [found.value for found in scripts if found.name == "celery"][:1] == ["celery.__main__:main"]
    celery = importlib.import_module("celery")
    assert celery.VERSION[:2] == (5, 7)
    assert celery.VERSION >= (5, 4)


# -- other processes


def test_a_process_that_this_one_starts_has_the_alias_once_it_imports_litetq(run_python: RunPython) -> None:
    child = "import litetq, celery; print(celery.Celery.__module__)"
    code = (
        INSTALL
        + f"import subprocess, sys; print(subprocess.check_output([sys.executable, '-c', {child!r}], text=True))"
    )
    assert output(run_python(code)) == "litetq.app"


def test_a_task_is_unpickled_in_a_spawned_process(run_python: RunPython, tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(
        "from celery import Celery\napp = Celery('tasks', broker='jobs.sqlite')\n\n\n@app.task\ndef add(x, y):\n    return x + y\n",
        encoding="utf-8",
    )
    code = INSTALL + (
        "import multiprocessing, pickle, subprocess, sys\n"
        "from tasks import add\n"
        "child = 'import pickle, sys; print(pickle.load(sys.stdin.buffer)(2, 3))'\n"
        "print(subprocess.run([sys.executable, '-c', child], input=pickle.dumps(add), capture_output=True).stdout.decode())"
    )
    assert output(run_python(code)) == "5"


# -- what is installed beside it


def test_a_stand_in_gives_way_to_what_is_installed(run_python: RunPython, tmp_path: Path) -> None:
    (tmp_path / "kombu").mkdir()
    (tmp_path / "kombu" / "__init__.py").write_text("REAL = True", encoding="utf-8")
    (tmp_path / "kombu" / "exceptions.py").write_text("class OperationalError(Exception): pass", encoding="utf-8")
    code = INSTALL + (
        "import kombu, kombu.exceptions, celery.exceptions\n"
        "print(kombu.REAL, kombu.exceptions.OperationalError is celery.exceptions.OperationalError)\n"
        "litetq.uninstall_celery_alias()\n"
        "print(kombu.exceptions.OperationalError.__module__)"
    )
    out = output(run_python(code, env={"PYTHONPATH": path_with(tmp_path)}))
    assert out.split("\n") == ["True True", "kombu.exceptions"]


def test_a_module_that_is_loaded_before_the_alias_gets_our_errors_too(run_python: RunPython, tmp_path: Path) -> None:
    (tmp_path / "billiard").mkdir()
    (tmp_path / "billiard" / "__init__.py").write_text("", encoding="utf-8")
    (tmp_path / "billiard" / "exceptions.py").write_text("class WorkerLostError(Exception): pass", encoding="utf-8")
    code = (
        "import billiard.exceptions\n"
        + INSTALL
        + ("import celery.exceptions\nprint(billiard.exceptions.WorkerLostError is celery.exceptions.WorkerLostError)")
    )
    assert output(run_python(code, env={"PYTHONPATH": path_with(tmp_path)})) == "True"


def test_a_folder_without_code_is_no_kombu(run_python: RunPython, tmp_path: Path) -> None:
    (tmp_path / "kombu").mkdir()
    assert (
        output(run_python(INSTALL + "from kombu import Queue, Exchange; print(Queue('a', Exchange('b')).exchange)"))
        == "b"
    )


def test_stand_ins_are_there_only_with_the_alias(run_python: RunPython) -> None:
    code = INSTALL + "import kombu, billiard.exceptions, vine\nlitetq.uninstall_celery_alias()\nimport kombu"
    _, err = run_python(code).communicate(timeout=60)
    assert "ModuleNotFoundError: No module named 'kombu'" in err


def test_a_call_that_the_file_refuses_is_caught_as_kombus_error(alias: None, tmp_path: Path) -> None:
    exceptions = importlib.import_module("kombu.exceptions")
    file = tmp_path / "notes.txt"
    file.write_text("no database, though it is long enough to be looked at as one" * 20, encoding="utf-8")
    app = litetq.Celery("x", broker=file, set_as_current=False)
    with pytest.raises(exceptions.OperationalError):
        app.send_task("x.y")


def test_queues_of_kombu_are_taken_in_settings(alias: None, db: Path) -> None:
    kombu = importlib.import_module("kombu")
    app = litetq.Celery("x", broker=db, set_as_current=False)
    app.conf.task_queues = [kombu.Queue("fast", kombu.Exchange("media"), routing_key="video")]
    app.conf.task_default_queue = "fast"
    result = app.send_task("x.y", exchange="media", routing_key="video")
    assert result.queue == "fast"
    app.close()


def test_a_serializer_registered_with_kombu_writes_and_reads_tasks(alias: None, db: Path) -> None:
    kombu = importlib.import_module("kombu.serialization")
    kombu.register("loud", lambda value: "at first", lambda text: text, "application/x-loud")
    kombu.register(  # the last one counts
        "loud", lambda value: json.dumps(value).upper(), lambda text: json.loads(text.lower()), "application/x-loud"
    )
    try:
        app = litetq.Celery("x", broker=db, set_as_current=False, accept_content=["json", "loud"])
        app.task(lambda word: word * 2, name="twice")
        result = app.tasks["twice"].apply_async(("ab",), serializer="loud")
        with app.run_embedded(1, pool="solo"):
            assert result.get(timeout=30) == "abab"
        app.close()
    finally:
        kombu.unregister("loud")


def test_what_waits_for_the_import_of_a_module_sees_it_when_a_worker_starts(alias: None, db: Path) -> None:
    waited_for = {
        "celery.app.trace",
        "celery.local",
        "celery.worker",
        "celery.concurrency.prefork",
        "celery.loaders.base",
    }

    class Hook:
        seen: set[str] = set()

        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            self.seen.add(name)

    sys.meta_path.insert(0, Hook())  # type: ignore[arg-type]
    try:
        app = litetq.LiteTQ("x", broker=db, set_as_current=False)
        with app.run_embedded(1, pool="solo") as worker:
            assert worker.drain(30)
        app.close()
    finally:
        del sys.meta_path[0]
    assert waited_for <= Hook.seen


def test_what_waits_for_a_module_of_the_worker_comes_before_the_program_hears_of_a_worker(
    run_python: RunPython, tmp_path: Path
) -> None:
    (tmp_path / "tasks.py").write_text(
        "import sys\nfrom pathlib import Path\nfrom celery import Celery\nfrom celery.signals import worker_init\n"
        "app = Celery('tasks', broker='jobs.sqlite')\n"
        "worker_init.connect(lambda **_: Path('known').write_text(' '.join(sys.modules)), weak=False)\n"
    )
    worker = run_python("-m", "litetq", "--as-celery", "-A", "tasks", "-q", "worker", "-P", "solo", "--drain")
    output(worker)
    assert "celery.app.trace" in (tmp_path / "known").read_text().split()


def test_threads_keep_working_while_the_alias_goes(db: Path) -> None:
    litetq.install_as_celery()
    app = importlib.import_module("celery").Celery("x", broker=db, set_as_current=False)
    add = app.task(lambda x: x + 1, name="add")
    with app.run_embedded(1):
        litetq.uninstall_celery_alias()
        assert add.delay(1).get(timeout=30) == 2
    app.close()
