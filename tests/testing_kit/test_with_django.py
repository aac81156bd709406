"""`drain` within a test of Django's: the task runs inside of the test's own transaction, and leaves it alone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.compat import packages
from tests.conftest import ROOT, missing

FILES = {
    "manage.py": """
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
""",
    "proj/__init__.py": """
from litetq import LiteTQ

app = LiteTQ("proj", broker="tasks.sqlite")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
""",
    # A file, not a database in memory: that one Django never closes.
    "proj/settings.py": """
SECRET_KEY = "x"
INSTALLED_APPS = ["django.contrib.contenttypes", "shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3", "TEST": {"NAME": "test.sqlite3"}}}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = True
""",
    "shop/__init__.py": "",
    "shop/models.py": """
from django.db import models

class Order(models.Model):
    state = models.CharField(max_length=10, default="new")
""",
    "shop/tasks.py": """
from litetq import shared_task
from .models import Order

@shared_task
def ship(pk):
    order = Order.objects.get(pk=pk)
    order.state = "shipped"
    order.save()
    return order.state
""",
    "shop/tests.py": """
from django.test import TestCase
from litetq.testing import assert_enqueued, assert_not_enqueued, drain, temporary_file
from proj import app
from .models import Order
from .tasks import ship

class ShipTest(TestCase):
    def setUp(self):
        file = temporary_file(app)
        file.__enter__()
        self.addCleanup(file.__exit__, None, None, None)

    def test_an_order_is_shipped(self):
        order = Order.objects.create()
        with self.captureOnCommitCallbacks(execute=True):
            ship.delay_on_commit(order.pk)
            assert_not_enqueued(ship)
        assert_enqueued(ship, args=[order.pk])
        (ran,) = drain(throw=True)
        self.assertEqual(ran.get(timeout=0), "shipped")
        order.refresh_from_db()
        self.assertEqual(order.state, "shipped")

    def test_nothing_of_another_test_is_left(self):
        self.assertEqual(Order.objects.count(), 0)
        self.assertEqual(drain(), [])
""",
}


@pytest.mark.system
def test_a_task_sees_and_changes_what_the_test_has_not_committed(tmp_path: Path) -> None:
    if not packages.is_there():
        missing("the environment of real packages is not there: python -m tests.compat.packages")
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    ended = subprocess.run(
        [packages.PYTHON, "manage.py", "test"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Ran 2 tests" in ended.stderr
    assert not (tmp_path / "tasks.sqlite").exists()
