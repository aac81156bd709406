"""What an app does for a project of Django."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from litetq import LiteTQ
from litetq.exceptions import FixupWarning
from litetq.task import Task
from tests.conftest import RunPython
from tests.django.conftest import MakeProject, Project

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

PROBE = """
import json, threading
from django.db import connection
from django.contrib.contenttypes.models import ContentType

def look(names):
    found = connection.connection is None
    ContentType.objects.count()
    open("seen", "a").write(json.dumps([found, threading.current_thread().name]) + "\\n")
"""
SYNC = PROBE + "\n@shared_task\ndef probe(n): look(n)\n"
ASYNC = (
    PROBE + "\nfrom asgiref.sync import sync_to_async\n@shared_task\nasync def probe(n): await sync_to_async(look)(n)\n"
)
SEND = "from work.tasks import probe\nfor n in range(6): probe.delay(n)\nprint(1)"


def migrate(project: Project) -> None:
    project.do("-m", "django", "migrate", "--verbosity", "0", env={"DJANGO_SETTINGS_MODULE": "proj.settings"})


def drain(project: Project, pool: str = "solo", *more: str) -> None:
    project.do("-m", "litetq", "-A", "proj", "worker", "--drain", "-P", pool, "-l", "INFO", *more)


def seen(project: Project) -> list[bool]:
    return [line.startswith("[true") for line in (project.folder / "seen").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("pool", ["solo", "threads", "processes", "gevent"])
def test_each_task_finds_the_connections_of_its_thread_closed(make_project: MakeProject, pool: str) -> None:
    project = make_project(SYNC)
    migrate(project)
    project.python(SEND)
    drain(project, pool, "-c", "1")
    assert seen(project) == [True] * 6


def test_asynchronous_tasks_get_new_connections_too(make_project: MakeProject) -> None:
    project = make_project(ASYNC)
    migrate(project)
    project.python(SEND)
    drain(project, "asyncio", "-c", "1")
    assert seen(project) == [True] * 6


def test_asynchronous_tasks_do_not_close_what_another_one_reads_from(make_project: MakeProject) -> None:
    project = make_project(
        "import asyncio\nfrom django.contrib.contenttypes.models import ContentType\n"
        "@shared_task\n"
        "async def probe(n):\n"
        "    if n: return await ContentType.objects.acount()\n"
        "    names = []\n"
        "    async for each in ContentType.objects.order_by('pk').aiterator(chunk_size=1):\n"
        "        names.append(each.model); await asyncio.sleep(0.05)\n"
        "    open('names', 'w').write(' '.join(names))\n"
    )
    migrate(project)
    project.python(SEND)
    drain(project, "asyncio", "-c", "3")
    assert len((project.folder / "names").read_text(encoding="utf-8").split()) > 3


def test_as_many_tasks_as_asked_for_use_the_same_connections(make_project: MakeProject) -> None:
    project = make_project(SYNC, "CELERY_DB_REUSE_MAX = 3\n")
    migrate(project)
    project.python(SEND)
    drain(project)
    assert seen(project) == [True, False, False, True, False, False]


def test_a_call_on_commit_is_sent_after_the_commit_and_never_after_a_rollback(make_project: MakeProject) -> None:
    project = make_project("@shared_task\ndef note(text): open('noted', 'a').write(text + ' ')\n")
    said = project.python(
        "from django.db import transaction\nfrom work.tasks import note\n"
        "with transaction.atomic():\n"
        "    note.delay_on_commit('kept'); note.apply_async_on_commit(('also',), priority=3)\n"
        "    early = os.path.exists('jobs.sqlite')\n"
        "try:\n"
        "    with transaction.atomic():\n"
        "        note.delay_on_commit('lost'); raise ValueError\n"
        "except ValueError: pass\n"
        "returned = note.delay_on_commit('outside')\n"
        "print(json.dumps([early, returned, 'DjangoTask' in [cls.__name__ for cls in type(note._get_current_object()).__mro__]]))"
    )
    assert said == [False, None, True]
    drain(project)
    assert sorted((project.folder / "noted").read_text().split()) == ["also", "kept", "outside"]


def test_an_eager_task_keeps_the_transaction_that_it_runs_in(make_project: MakeProject) -> None:
    project = make_project(SYNC, "CELERY_TASK_ALWAYS_EAGER = True\n")
    migrate(project)
    project.python(
        "from django.db import connection, transaction\nfrom work.tasks import probe\n"
        "with transaction.atomic(): probe.delay(1); print(json.dumps(connection.in_atomic_block))"
    )
    assert seen(project) == [False]


def test_settings_that_a_test_overrides_count_as_long_as_it_says(make_project: MakeProject) -> None:
    project = make_project("@shared_task\ndef here(): return 1\n")
    said = project.python(
        "from django.test import override_settings\nfrom litetq.result import EagerResult\nfrom work.tasks import here\n"
        "def is_eager(): return isinstance(here.delay(), EagerResult)\n"
        "said = [is_eager()]\n"
        "with override_settings(CELERY_TASK_ALWAYS_EAGER=True): said.append(is_eager())\n"
        "said.append(is_eager())\n"
        "here.app.conf.task_always_eager = True\n"
        "with override_settings(CELERY_TASK_ALWAYS_EAGER=False): said.append(is_eager())\n"
        "print(json.dumps(said))"
    )
    assert said == [False, True, False, True]  # what is assigned to conf stands above the settings, as in Celery


def test_tasks_are_found_in_all_installed_apps_and_what_one_raises_is_told(make_project: MakeProject) -> None:
    project = make_project("@shared_task\ndef one(): pass\n", "INSTALLED_APPS.append('more.apps.MoreConfig')\n")
    more = project.folder / "more"
    more.mkdir()
    (more / "__init__.py").write_text("", encoding="utf-8")
    (more / "apps.py").write_text(
        "from django.apps import AppConfig\nclass MoreConfig(AppConfig): name = 'more'\n", encoding="utf-8"
    )
    tasks = more / "tasks.py"
    tasks.write_text(
        "from django.contrib.auth.models import User\nfrom celery import shared_task\n@shared_task\ndef two(): pass\n",
        encoding="utf-8",
    )
    listed = project.do("-m", "litetq", "-A", "proj", "worker", "--drain", "-P", "solo")
    assert "  . more.tasks.two\n" in listed and "  . work.tasks.one\n" in listed
    tasks.write_text("import nowhere_at_all\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="nowhere_at_all"):
        drain(project)


def test_what_djangos_checks_find_is_told_unless_they_are_skipped(make_project: MakeProject) -> None:
    project = make_project("", "INSTALLED_APPS.append('django.contrib.admin')\n")  # which needs others
    words = ("worker", "--drain", "-P", "solo", "-l", "INFO")
    process = project.start("-m", "litetq", "-A", "proj", *words)
    assert process.wait(timeout=60) == 0, project.said()
    assert "Django's checks: ?: (admin." in project.said()
    process = project.start("-m", "litetq", "-A", "proj", "--skip-checks", *words)
    assert process.wait(timeout=60) == 0
    assert "Django's checks" not in project.said(1)


def test_djangos_own_database_is_no_file_of_tasks(make_project: MakeProject) -> None:
    project = make_project("@shared_task\ndef one(): pass\n", "CELERY_BROKER_URL = 'sqlite:///db.sqlite3'\n")
    said = project.python(
        "from work.tasks import one\ntry: one.delay()\n"
        "except Exception as error: print(json.dumps([type(error).__name__, str(error)]))"
    )
    assert said[0] == "ImproperlyConfigured" and "the file of tasks is Django's database 'default'" in said[1]
    assert not (project.folder / "db.sqlite3").exists()


def test_an_app_with_a_task_class_of_its_own_keeps_it(make_project: MakeProject) -> None:
    project = make_project("")
    said = project.python(
        "from celery import Celery, Task\n"
        "class Own(Task): abstract = True\n"
        "class Ours(Celery): task_cls = Own\n"
        "bases = lambda app: sorted({cls.__name__ for cls in app.Task.__mro__} & {'Own', 'DjangoTask'})\n"
        "print(json.dumps([bases(Celery('a', task_cls=Own)), bases(Ours('b')), bases(Celery('c')),\n"
        "    bases(Celery('d', fixups=[]))]))"
    )
    assert said == [["Own"], ["Own"], ["DjangoTask"], []]


def test_settings_of_django_without_django_are_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "proj.settings")
    monkeypatch.setitem(sys.modules, "django", None)
    with pytest.warns(FixupWarning, match="Django is not installed"):
        app = LiteTQ("a", broker=tmp_path / "jobs.sqlite", set_as_current=False)
    assert app.fixups == [] and app.Task.__mro__[1] is Task


def test_an_app_without_djangos_settings_loads_nothing_of_it(run_python: RunPython) -> None:
    process = run_python(
        "import sys, litetq; litetq.LiteTQ('a', broker='x.sqlite'); print('litetq.contrib.django' in sys.modules)"
    )
    out, err = process.communicate(timeout=60)
    assert (out.strip(), err) == ("False", "")


@pytest.mark.parametrize(
    ("settings", "variable", "words", "said"),
    [
        (
            "INSTALLED_APPS.append('django_celery_beat')\n"
            "CELERY_BEAT_SCHEDULER = 'django_celery_beat.schedulers:DatabaseScheduler'\n",
            "proj.settings",
            ("beat",),
            "DatabaseScheduler cannot start: OperationalError: no such table: django_celery_beat_",
        ),
        ("", "proj.setings", ("worker",), "No module named 'proj.setings'"),
        (
            "CELERY_BROKER_URL = 'django://'\n",
            "proj.settings",
            ("worker",),
            "has no adapter for django://; give the path",
        ),
        ("CELERY_RESULT_BACKEND = 'django-db'\n", "proj.settings", ("worker",), "in INSTALLED_APPS"),
    ],
)
def test_what_is_missing_is_said_in_a_sentence(
    make_project: MakeProject, settings: str, variable: str, words: tuple[str, ...], said: str
) -> None:
    project = make_project("", settings)
    process = project.start("-m", "litetq", "-A", "proj", *words, env={"DJANGO_SETTINGS_MODULE": variable})
    assert process.wait(timeout=60) not in (0, None)
    last = project.said().strip().splitlines()[-1]
    assert last.startswith("Error: ") and said in last and "Traceback" not in project.said()
