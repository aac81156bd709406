"""A row or a table that no program of ours would write: the row fails alone, the worker ends with a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ
from litetq.exceptions import StoreError
from tests.spec.test_seed_rows import PROJ, files, run  # noqa: F401
from tests.spec.test_wrong_input import change, house, template  # noqa: F401


@pytest.mark.parametrize("headers", ["not json", "[1]", '{"headers": 3}'])
def test_garbage_in_the_headers_fails_its_task_alone(house: Path, headers: str) -> None:  # noqa: F811
    file = house / "jobs.sqlite"
    change(file, "UPDATE litetq_task SET headers = ?1 WHERE id = 'waits-1'", headers)
    with LiteTQ("tasks", broker=file) as app:
        app.task(name="tasks.add")(lambda x, y=1: x + y)
        with app.run_embedded(concurrency=1) as worker:
            assert worker.drain(10)
        assert app.AsyncResult("waits-1").state == "FAILURE"
        assert app.AsyncResult("waits-2").get(timeout=1) == 4


def test_a_worker_whose_table_is_gone_ends_with_a_sentence(house: Path, run_python: Any) -> None:  # noqa: F811
    change(house / "jobs.sqlite", "DROP TABLE litetq_task")
    process = run_python("-m", "litetq", "-A", "tasks", "worker", "jobs.sqlite", "--drain", "-P", "solo")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1 and "Traceback" not in err


def test_a_foreign_table_of_our_name_is_an_error_of_the_file(tmp_path: Path) -> None:
    change(tmp_path / "x.sqlite", "CREATE TABLE litetq_task (x)")
    with (
        LiteTQ("t", broker=tmp_path / "x.sqlite") as app,
        pytest.raises(StoreError, match="litetq_task already exists"),
    ):
        app.send_task("any")


def test_children_of_a_package_started_as_a_script_know_its_tasks(files: Any, run: Any) -> None:  # noqa: F811
    files(PROJ)
    id = run("from proj.tasks import xsum; print(xsum.delay([1, 2, 3]).id)").strip()
    run("-m", "proj.celery", "worker", "--drain", "-P", "processes", "-c", "1")
    assert run(f"from proj.celery import app; print(app.AsyncResult({id!r}).state)").strip() == "SUCCESS"
