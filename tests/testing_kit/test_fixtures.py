"""The fixtures for pytest, as a project of somebody's meets them: pytest is run on its files, in a process of its own."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RunPython

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PLUGINS: dict[str, str] = PROJECT["entry-points"]["pytest11"]

APP = """
    from litetq import LiteTQ

    app = LiteTQ("tasks", broker="jobs.sqlite")

    @app.task
    def add(x, y):
        return x + y

    @app.task(bind=True)
    def later(self):
        add.apply_async((1, 2), countdown=3600)
"""


class Project:
    """Files of a project, and what pytest says about them."""

    def __init__(self, folder: Path, run_python: RunPython) -> None:
        self.folder = folder
        self._run_python = run_python

    def write(self, **files: str) -> None:
        for name, text in files.items():
            (self.folder / f"{name}.py").write_text(textwrap.dedent(text), encoding="utf-8")

    def run(self, *arguments: str, ini: str = "") -> Any:
        (self.folder / "pytest.ini").write_text(
            f"[pytest]\naddopts = --strict-markers -p no:cacheprovider\n{ini}", encoding="utf-8"
        )
        # As it is where litetq is installed, which may be another version here, or older than its entry points.
        metadata = self.folder / "litetq-9999.dist-info"
        metadata.mkdir(exist_ok=True)
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: litetq\nVersion: 9999\n", encoding="utf-8")
        lines = [f"{name} = {module}" for name, module in PLUGINS.items()]
        (metadata / "entry_points.txt").write_text("\n".join(["[pytest11]", *lines]), encoding="utf-8")
        path = os.pathsep.join([str(self.folder), str(ROOT)])
        process = self._run_python("-m", "pytest", "-q", "-p", "no:xdist", *arguments, env={"PYTHONPATH": path})
        output, errors = process.communicate(timeout=90)
        return process.returncode, output + errors

    def passes(self, count: int, **options: Any) -> None:
        code, output = self.run(**options)
        assert code == 0, output
        assert f"{count} passed" in output, output


@pytest.fixture
def project(tmp_path: Path, run_python: RunPython) -> Project:
    return Project(tmp_path, run_python)


pytestmark = pytest.mark.system


def test_the_plugin_is_declared_and_imports_nothing_of_litetq(run_python: RunPython) -> None:
    assert PLUGINS == {"pytest_litetq": "pytest_litetq"}
    process = run_python(
        "import sys, pytest_litetq; print(*[name for name in sys.modules if name.partition('.')[0] == 'litetq'])"
    )
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output.strip()) == (0, ""), errors


def test_the_app_that_the_settings_name_has_a_new_file_in_each_test(project: Project) -> None:
    project.write(
        tasks=APP,
        test_it="""
            import pytest
            from litetq import current_app
            from litetq.testing import assert_enqueued, drain, enqueued
            from tasks import add, app, later

            @pytest.mark.parametrize("n", [1, 2])
            def test_add(litetq_app, n):
                assert litetq_app is app
                assert current_app.tasks is app.tasks
                result = add.delay(n, n)
                assert_enqueued(add, args=(n, n))
                assert len(drain()) == 1
                assert result.get(timeout=0) == 2 * n

            def test_later(litetq_app, litetq_time):
                later.delay()
                drain()
                assert_enqueued(add, args=[1, 2])
                litetq_time.forward(hours=1)
                assert [each.get(timeout=0) for each in drain()] == [3]

            def test_worker(litetq_app, litetq_worker):
                assert litetq_worker.statistics().pool == "threads"
                assert add.delay(1, 2).get(timeout=10) == 3
        """,
    )
    project.passes(4, ini="litetq_app = tasks\n")
    assert not (project.folder / "jobs.sqlite").exists()


def test_children_of_a_pool_use_the_file_of_the_test(project: Project) -> None:
    project.write(
        tasks=APP,
        test_it="""
            import pytest

            from tasks import add

            @pytest.fixture(scope="session")
            def litetq_worker_options():
                return {"pool": "processes", "concurrency": 1}

            def test_worker(litetq_worker):
                assert add.delay(1, 2).get(timeout=20) == 3
        """,
    )
    project.passes(1, ini="litetq_app = tasks:app\n")
    assert not (project.folder / "jobs.sqlite").exists()


def test_the_plugin_can_be_named_as_well(project: Project) -> None:
    project.write(test_it="def test_it(litetq_app): ...")
    code, output = project.run("-p", "pytest_litetq")
    assert code == 0, output


def test_without_a_name_there_is_a_new_app(project: Project) -> None:
    project.write(
        test_it="""
            from litetq import shared_task
            import pytest

            @pytest.fixture(scope="session")
            def litetq_worker_options():
                return {"pool": "solo", "concurrency": 1}

            @shared_task
            def add(x, y):
                return x + y

            def test_worker(litetq_worker):
                assert litetq_worker.statistics().pool == "solo"
                assert add.delay(1, 2).get(timeout=10) == 3
        """
    )
    project.passes(1)


def test_a_wrong_name_is_one_sentence(project: Project) -> None:
    project.write(test_it="def test_it(litetq_app): ...")
    code, output = project.run(ini="litetq_app = nowhere\n")
    assert code == 1
    assert "the option litetq_app = nowhere in pytest's settings: " in output
    assert "Traceback" not in output


CELERYS = """
    import pytest
    from litetq import current_app, shared_task

    @shared_task
    def double(x):
        return 2 * x

    def test_create_task(celery_app, celery_worker):
        @celery_app.task
        def mul(x, y):
            return x * y

        celery_worker.reload()
        assert mul.delay(4, 4).get(timeout=10) == 16

    @pytest.mark.celery(result_extended=True, task_default_queue="own")
    def test_settings(celery_app):
        assert celery_app.conf.result_extended
        assert celery_app.conf.task_default_queue == "own"
        assert celery_app.conf.timezone == "UTC"

    def test_the_app_is_not_current(celery_app):
        assert current_app.main != celery_app.main

    def test_it_is_where_that_is_asked_for(celery_app, depends_on_current_app):
        assert current_app.main == celery_app.main

    def test_with_a_worker_it_is_too(celery_app, celery_worker):
        assert double.delay(4).get(timeout=10) == 8
        assert celery_worker.statistics().pool == "solo"
"""


def test_celerys_fixtures_are_there(project: Project) -> None:
    project.write(test_it=CELERYS, conftest='pytest_plugins = ("litetq.contrib.pytest",)')
    project.passes(5)


def test_each_of_them_can_be_redefined(project: Project) -> None:
    project.write(
        more="""
            from litetq import shared_task

            @shared_task
            def included():
                return "included"
        """,
        conftest="""
            import pytest
            from litetq import Task

            pytest_plugins = ("litetq.contrib.pytest",)

            class Named(Task):
                name = "named"

                def run(self):
                    return "named"

            @pytest.fixture(scope="session")
            def celery_config():
                return {"task_default_queue": "own"}

            @pytest.fixture(scope="session")
            def celery_parameters():
                return {"strict_typing": False}

            @pytest.fixture(scope="session")
            def celery_includes():
                return ["more"]

            @pytest.fixture(scope="session")
            def celery_worker_pool():
                return "threads"

            @pytest.fixture(scope="session")
            def celery_worker_parameters():
                return {"concurrency": 3, "queues": ("own", "other"), "shutdown_timeout": 5}

            @pytest.fixture(scope="session")
            def celery_class_tasks():
                return [Named]
        """,
        test_it="""
            def test_one(celery_session_app, celery_session_worker):
                assert celery_session_app.tasks["more.included"].delay().get(timeout=10) == "included"
                assert celery_session_app.tasks["named"].delay().get(timeout=10) == "named"
                assert celery_session_worker.queues == {"own", "other"}
                celery_session_app.seen = celery_session_worker

            def test_what_was_included_is_there_for_other_apps_too(celery_app, celery_worker):
                assert celery_app.tasks["more.included"].apply_async(queue="own").get(timeout=10) == "included"

            def test_two(celery_session_app, celery_session_worker):
                statistics = celery_session_worker.statistics()
                assert (statistics.pool, statistics.concurrency) == ("threads", 3)
                assert celery_session_app.seen is celery_session_worker
                assert celery_session_app.conf.task_default_queue == "own"
                assert not celery_session_app.strict_typing
        """,
    )
    project.passes(3)


def test_the_trap_catches_who_uses_the_current_app(project: Project) -> None:
    project.write(
        conftest="""
            import pytest
            pytest_plugins = ("litetq.contrib.pytest",)

            @pytest.fixture(scope="session")
            def use_celery_app_trap():
                return True
        """,
        test_it="""
            import pytest
            from litetq import current_app

            def test_trap(celery_app):
                with pytest.raises(RuntimeError, match="Test depends on current_app"):
                    current_app.conf

            def test_asked_for(celery_app, depends_on_current_app):
                assert current_app.main == celery_app.main
        """,
    )
    project.passes(2)
