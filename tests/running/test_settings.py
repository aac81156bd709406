"""What settings do to a real worker; those without effect are named, with the reason, when one starts."""

from __future__ import annotations

import logging
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from docs import generate
from litetq import LiteTQ, conf
from litetq.exceptions import ImproperlyConfigured
from tests.conftest import RunPython


def test_a_setting_counts_as_honoured_when_some_room_reads_it_and_only_then() -> None:
    read = generate.read_settings()
    honoured = {key for key, option in conf.OPTIONS.items() if option.effect == conf.HONOURED}
    later = {key for key, option in conf.OPTIONS.items() if option.effect == conf.LATER}
    assert honoured - read == {"cache_backend"}  # which django-celery-results reads
    assert later & read == set()


def test_a_setting_without_effect_says_why() -> None:
    for key, option in conf.OPTIONS.items():
        if option.effect == conf.ACCEPTED and not key.startswith(FOREIGN):
            assert (
                "; " in option.meaning or key == "worker_agent" or key.endswith(("consumer", "timer", "precision"))
            ), key


FOREIGN = ("worker_enable_prefetch_count_reduction",)


@pytest.mark.row("20.worker_prefetch_multiplier")
def test_a_worker_names_the_settings_that_have_no_effect_and_why(tmp_path: Path, run_python: RunPython) -> None:
    (tmp_path / "mine.py").write_text(
        "from litetq import LiteTQ\n"
        "app = LiteTQ('mine', broker='jobs.sqlite')\n"
        "app.conf.update(worker_prefetch_multiplier=1, broker_heartbeat=5, task_time_limit=9, result_persistent=None,\n"
        "                worker_pool='threads', task_default_delivery_mode=2)\n"
    )
    worker = run_python("-m", "litetq", "-A", "mine", "worker", "--drain")
    _, err = worker.communicate(timeout=30)
    said = re.findall(r"setting (\w+) has no effect here: (.*)", err)
    assert dict(said) == {
        "worker_prefetch_multiplier": "here none is before it can start",
        "broker_heartbeat": "it concerns a server, and tasks and results are in a file",
    }
    assert worker.returncode == 0


def test_a_worker_inside_a_program_prints_nothing_about_it(db: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app = LiteTQ("tasks", broker=db, set_as_current=False, worker_prefetch_multiplier=1)
    with app.run_embedded(concurrency=1):
        pass
    (record,) = [record for record in caplog.records if "has no effect" in record.getMessage()]
    assert record.levelno == logging.INFO
    app.close()


@pytest.mark.row("20.worker_logfile")
@pytest.mark.row("20.worker_pidfile")
def test_the_settings_name_the_log_file_and_the_pid_file(tmp_path: Path, run_python: RunPython) -> None:
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\n"
        "from litetq import LiteTQ\n"
        "app = LiteTQ('mine', broker='jobs.sqlite', worker_logfile='%n.log', worker_pidfile='%n.pid', worker_pool='solo')\n"
        "@app.task(name='looks')\n"
        "def looks():\n"
        "    Path('seen').write_text(Path('one.pid').read_text())\n"
        "if __name__ == '__main__':\n"
        "    looks.delay()\n"
    )
    assert run_python(tmp_path / "mine.py").wait(30) == 0
    worker = run_python("-m", "litetq", "-A", "mine", "worker", "--drain", "-n", "one@here", "-l", "INFO")
    worker.communicate(timeout=30)
    assert "Task looks" in (tmp_path / "one.log").read_text()
    assert (tmp_path / "seen").read_text() == f"{worker.pid}\n"
    assert not (tmp_path / "one.pid").exists()


@pytest.mark.row("6.result_expires")
@pytest.mark.row("20.result_expires")
@pytest.mark.row("20.result_failure_expires")
@pytest.mark.parametrize(
    ("settings", "success", "failure"),
    [
        ({}, 86400, 86400),
        ({"result_failure_expires": 7200}, 86400, 7200),
        ({"result_expires": 60, "result_failure_expires": timedelta(days=7)}, 60, 604800),
        ({"result_expires": 0, "result_failure_expires": 60}, None, 60),
        ({"result_expires": 60, "result_failure_expires": 0}, 60, None),
    ],
)
def test_failures_may_stay_longer_on_record_than_successes(
    db: Path, settings: dict[str, Any], success: float | None, failure: float | None
) -> None:
    app = LiteTQ("tasks", broker=db, set_as_current=False, **settings)
    app.task(name="works")(lambda: 1)
    app.task(name="fails")(lambda: 1 / 0)
    with app.run_embedded(concurrency=1):
        for name in ("works", "fails"):
            app.send_task(name).get(timeout=10, propagate=False)
    found = app.engine.database.read(
        lambda tx: dict(tx.execute("SELECT name, expires_at - done_at FROM litetq_result").fetchall())
    )
    assert found == {
        "works": success if success is None else pytest.approx(success),
        "fails": failure if failure is None else pytest.approx(failure),
    }
    app.close()


@pytest.mark.row("20.broker_write_url")
@pytest.mark.parametrize("key", ["broker_write_url", "broker_read_url"])
def test_one_of_the_two_one_way_addresses_is_enough(db: Path, key: str) -> None:
    app = LiteTQ("tasks", set_as_current=False, **{key: f"sqlite:///{db}"})
    app.task(name="works")(lambda: 1)
    with app.run_embedded(concurrency=1):
        assert app.send_task("works").get(timeout=10) == 1
    assert db.exists()
    assert app.broker_source == f"the setting {key}"
    app.close()


@pytest.mark.row("20.broker_read_url")
def test_two_places_for_reading_and_writing_are_refused(db: Path) -> None:
    app = LiteTQ("tasks", broker=db, set_as_current=False, broker_read_url=f"sqlite:///{db}2")
    with pytest.raises(ImproperlyConfigured, match="setting broker_read_url: .* set broker_url alone"):
        app.run_embedded()


@pytest.mark.row("20.result_backend_transport_options")
@pytest.mark.row("20.broker_transport_options")
def test_transport_options_are_those_of_the_file(db: Path, tmp_path: Path) -> None:
    app = LiteTQ(
        "tasks",
        broker=db,
        backend=tmp_path / "results.sqlite",
        set_as_current=False,
        broker_transport_options={"busy_timeout": 3, "lease": 11, "durability": "full"},
        result_backend_transport_options={"busy_timeout": 4},
    )
    assert (app.engine.database.busy_timeout, app.engine.lease) == (3, 11)
    assert app.results.database.busy_timeout == 4
    app.close()


@pytest.mark.row("2.store_eager_result")
@pytest.mark.row("20.task_store_eager_result")
@pytest.mark.parametrize("stored", [True, False])
def test_the_end_of_an_eager_task_is_on_record_by_option(db: Path, stored: bool) -> None:
    app = LiteTQ("tasks", broker=db, set_as_current=False, task_always_eager=True, task_store_eager_result=stored)
    works = app.task(name="works")(lambda: 1)
    fails = app.task(name="fails")(lambda: 1 / 0)
    quiet = app.task(name="quiet", ignore_result=True)(lambda: 1)
    good, bad, none = works.delay(), fails.delay(), quiet.delay()
    read = LiteTQ("reader", broker=db, set_as_current=False)
    assert read.AsyncResult(good.id).state == ("SUCCESS" if stored else "PENDING")
    assert read.AsyncResult(bad.id).state == ("FAILURE" if stored else "PENDING")
    assert read.AsyncResult(none.id).state == "PENDING"
    if stored:
        assert read.AsyncResult(good.id).get(timeout=1) == 1
        with pytest.raises(ZeroDivisionError):
            read.AsyncResult(bad.id).get(timeout=1)
    read.close()
    app.close()
