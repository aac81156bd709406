"""Celery's names for tests of programs, for signing and for compressions; one test file, run with Celery itself and with litetq."""

from __future__ import annotations

import importlib
import os
import subprocess
import zlib
from pathlib import Path

import pytest

import litetq
from litetq import autoscale, serialization, testing
from litetq.contrib import pytest as fixtures
from tests.compat import packages
from tests.conftest import ROOT, missing

CONFTEST = """
import os

if os.environ["TESTED"] == "litetq":
    import litetq

    litetq.install_as_celery()
pytest_plugins = ("celery.contrib.pytest",)

import pytest


@pytest.fixture(scope="session")
def celery_config():
    return {"broker_url": "memory://", "result_backend": "cache+memory://", "result_extended": True}


@pytest.fixture(scope="session")
def celery_includes():
    return ["included"]


@pytest.fixture(scope="session")
def celery_worker_parameters():
    return {"perform_ping_check": True, "shutdown_timeout": 20, "queues": ("celery", "other")}
"""

TESTS = """
import os
import unittest

import celery
import pytest
from celery import Celery, current_app, shared_task
from celery.contrib.testing.app import TestApp
from celery.contrib.testing.tasks import ping
from celery.contrib.testing.worker import start_worker


@shared_task
def double(x):
    return 2 * x


def test_who_is_tested():
    assert (Celery.__module__ == "litetq.app") == (os.environ["TESTED"] == "litetq")


def test_included(celery_app, celery_worker):
    assert celery_app.tasks["included.there"].delay().get(timeout=10) == "there"


def test_create_task(celery_app, celery_worker):
    @celery_app.task
    def mul(x, y):
        return x * y

    celery_worker.reload()
    assert mul.delay(4, 4).get(timeout=10) == 16


def test_shared_tasks_and_other_queues(celery_worker):
    assert double.delay(4).get(timeout=10) == 8
    assert double.apply_async((5,), queue="other").get(timeout=10) == 10
    assert ping.delay().get(timeout=10) == "pong"


def test_a_failure(celery_app, celery_worker):
    @celery_app.task
    def fail():
        raise KeyError("no")

    celery_worker.reload()
    with pytest.raises(KeyError):
        fail.delay().get(timeout=10)


@pytest.mark.celery(task_default_queue="other", timezone="Europe/Oslo")
def test_settings_by_mark(celery_app):
    assert celery_app.conf.task_default_queue == "other"
    assert celery_app.conf.timezone == "Europe/Oslo"
    assert celery_app.conf.result_extended
    assert celery_app.conf.accept_content in ({"json"}, ["json"])


def test_settings_are_those_of_the_test(celery_app):
    assert celery_app.conf.task_default_queue == "celery"
    assert celery_app.main == "celery.tests"


def test_the_app_of_a_test_is_not_current(celery_app):
    assert current_app._get_current_object() is not celery_app


def test_unless_it_is_asked_for(celery_app, depends_on_current_app):
    assert current_app._get_current_object() is celery_app


def test_or_a_worker_runs(celery_app, celery_worker):
    assert current_app._get_current_object() is celery_app


def test_a_session(celery_session_app, celery_session_worker):
    @celery_session_app.task(name="in.session")
    def here():
        return "session"

    celery_session_worker.reload()
    assert here.delay().get(timeout=10) == "session"


def test_it_is_the_same_session(celery_session_app, celery_session_worker):
    assert celery_session_app.tasks["in.session"].delay().get(timeout=10) == "session"


def test_eager(celery_app):
    @celery_app.task
    def add(x, y):
        return x + y

    celery_app.conf.update(task_always_eager=True)
    assert add.delay(1, 2).get() == 3


class WithUnittest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.app = TestApp(config={"broker_url": "memory://", "result_backend": "cache+memory://"})
        cls.block = start_worker(cls.app, perform_ping_check=False)
        cls.worker = cls.block.__enter__()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        cls.block.__exit__(None, None, None)

    def test_a_task(self):
        assert double.delay(3).get(timeout=10) == 6
"""


@pytest.mark.system
@pytest.mark.parametrize("tested", [pytest.param("celery", marks=pytest.mark.slow), "litetq"])
def test_a_test_file_for_celerys_fixtures_passes_with_both(tmp_path: Path, tested: str) -> None:
    if not packages.is_there():
        missing("the environment of real packages is not there: python -m tests.compat.packages")
    if subprocess.run([packages.PYTHON, "-c", "import pytest"], capture_output=True, timeout=60).returncode:
        missing("there is no pytest in the environment of real packages: .venv-compat/bin/python -m pip install pytest")
    (tmp_path / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    (tmp_path / "test_it.py").write_text(TESTS, encoding="utf-8")
    (tmp_path / "included.py").write_text(
        "from celery import shared_task\n\n@shared_task\ndef there():\n    return 'there'\n", encoding="utf-8"
    )
    ended = subprocess.run(
        [packages.PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)]), "TESTED": tested},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert "14 passed" in ended.stdout, ended.stdout + ended.stderr


@pytest.mark.usefixtures("alias")
@pytest.mark.parametrize(
    ("module", "name", "ours"),
    [
        ("celery.contrib.pytest", "celery_app", fixtures.celery_app),
        ("celery.contrib.pytest", "celery_worker", fixtures.celery_worker),
        ("celery.contrib.testing.app", "TestApp", testing.temporary_app),
        ("celery.contrib.testing.app", "setup_default_app", testing.visiting_app),
        ("celery.contrib.testing.worker", "start_worker", testing.start_worker),
        ("celery.contrib.testing.worker", "test_worker_started", testing.test_worker_started),
        ("celery.worker.autoscale", "Autoscaler", autoscale.Autoscaler),
    ],
)
def test_celerys_name_is_the_object_itself(module: str, name: str, ours: object) -> None:
    assert getattr(importlib.import_module(module), name) is ours


@pytest.mark.usefixtures("alias")
def test_security_is_set_up_by_celerys_function_too(db: Path) -> None:
    setup_security = importlib.import_module("celery.security").setup_security
    with litetq.LiteTQ("x", broker=db) as app, pytest.raises(Exception, match="no point in signing"):
        setup_security(app=app)
    assert callable(importlib.import_module("celery.security.serialization").register_auth)


@pytest.mark.usefixtures("alias")
def test_a_compression_registered_with_the_stand_in_of_kombu_is_litetqs() -> None:
    kombu = importlib.import_module("kombu.compression")
    kombu.register(lambda data: zlib.compress(data, 1), zlib.decompress, "application/x-quick", ["quick"])
    kombu.register(zlib.compress, zlib.decompress, "application/x-quicker")
    assert serialization.is_compression("quick")
    assert serialization.is_compression("application/x-quicker")


@pytest.mark.system
def test_a_compression_registered_with_kombu_itself_is_litetqs(tmp_path: Path) -> None:
    if not packages.is_there():
        missing("the environment of real packages is not there: python -m tests.compat.packages")
    program = """
import zlib
import litetq
litetq.install_as_celery()
import kombu.compression
from litetq import serialization

register = (lambda data: zlib.compress(data, 1)), zlib.decompress, "application/x-quick", ["quick"]
kombu.compression.register(*register)
content_type, data = serialization.encode("word " * 100, "json", "quick")
print(kombu.compression.decompress(data, "quick").decode() == '"' + "word " * 100 + '"', content_type)
print(serialization.decode(data, content_type) == "word " * 100)
litetq.uninstall_celery_alias()
print(kombu.compression.register.__module__)
"""
    ended = subprocess.run(
        [packages.PYTHON, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.stdout.split("\n")[:3] == [
        "True application/json; compression=quick",
        "True",
        "kombu.compression",
    ], ended.stderr
