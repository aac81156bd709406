"""Formatters and streams of the log, as users' own set-up of logging calls them: in code and in `logging.config`."""

from __future__ import annotations

import logging
import logging.config
import sys
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, signals
from litetq.exceptions import ImproperlyConfigured
from litetq.log import ColorFormatter, TaskFormatter
from tests.conftest import RunPython


def record_of(level: int = logging.ERROR) -> logging.LogRecord:
    return logging.LogRecord("name", level, "path", 1, "hello", None, None)


@pytest.mark.parametrize("formatter", [ColorFormatter, TaskFormatter])
def test_a_formatter_takes_celerys_arguments(formatter: Any) -> None:
    assert formatter("%(message)s").format(record_of()) == "\x1b[1;31mhello\x1b[0m"
    assert formatter("%(message)s", False).format(record_of()) == "hello"
    plain = formatter(fmt="%(asctime)s|%(message)s", datefmt="%H", use_color=False)
    assert plain.format(record_of())[2:] == "|hello"


def test_a_configuration_in_a_dictionary_may_name_the_formatter_of_tasks(tmp_path: Path) -> None:
    form = {"()": "litetq.log.TaskFormatter", "fmt": "%(task_name)s %(message)s", "use_color": False}
    to_file = {"class": "logging.FileHandler", "formatter": "tasks", "filename": str(tmp_path / "log")}
    mine = {"handlers": ["file"], "level": "INFO"}
    settings = {"version": 1, "formatters": {"tasks": form}, "handlers": {"file": to_file}, "loggers": {"mine": mine}}
    logging.config.dictConfig({**settings, "disable_existing_loggers": False})
    logging.getLogger("mine").info("hello")
    [handler] = logging.getLogger("mine").handlers
    logging.getLogger("mine").removeHandler(handler)
    handler.close()
    assert (tmp_path / "log").read_text() == "??? hello\n"


def test_what_is_printed_goes_to_the_logger_that_is_named(
    app: LiteTQ, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(sys, name))  # put back afterwards
    app.log.redirect_stdouts_to_logger(logging.getLogger("mine"), "INFO", stderr=False)
    with caplog.at_level("INFO", "mine"):
        print("printed")
    assert [(record.name, record.levelname, record.message) for record in caplog.records] == [
        ("mine", "INFO", "printed")
    ]


def test_who_sets_logging_up_and_fails_is_named(app: LiteTQ, restored_logging: None) -> None:
    def fails(**_: Any) -> None:
        raise ValueError("no such file")

    signals.setup_logging.connect(fails)
    try:
        for _ in range(2):  # it was not done, so it may be tried again
            with pytest.raises(ImproperlyConfigured, match=r"fails.*setup_logging.*ValueError: no such file"):
                app.log.setup("INFO")
    finally:
        signals.setup_logging.disconnect(fails)


def test_a_worker_of_a_program_sets_logging_up_where_it_is_given_a_level(tmp_path: Path, run_python: RunPython) -> None:
    (tmp_path / "has_worker.py").write_text(
        "from litetq import LiteTQ\n"
        "app = LiteTQ('has_worker', broker='jobs.sqlite')\n"
        "app.task(name='says')(lambda: 5)\n"
        "if __name__ == '__main__':\n"
        "    worker = app.Worker(pool='threads', concurrency=1, loglevel='INFO', logfile='worker.log')\n"
        "    worker.start()\n"
        "    print(app.send_task('says').get(timeout=10))\n"
        "    worker.stop()\n"
    )
    out, err = run_python(tmp_path / "has_worker.py").communicate(timeout=30)
    assert out == "5\n" and "Task says[" in (tmp_path / "worker.log").read_text(), err


@pytest.fixture
def restored_logging() -> Any:
    yield
    from litetq.parts import Logging

    Logging.already_setup = False
