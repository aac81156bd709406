"""django-celery-results, unmodified: the ends of tasks are copied to Django's tables, or to its cache."""

from __future__ import annotations

import pytest

from tests.django.conftest import MakeProject, Project
from tests.servers import BorrowedRedis, Redis
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

TASKS = """
@shared_task
def add(x, y): return x + y
@shared_task
def boom(): raise LookupError("not here", 3)
@shared_task(bind=True)
def slow(self):
    from django_celery_results.models import TaskResult
    self.update_state(state="PROGRESS", meta={"done": 1})
    import time
    until = time.monotonic() + 30
    while time.monotonic() < until:
        row = TaskResult.objects.filter(task_id=self.request.id).first()
        if row is not None and row.status == "PROGRESS": return row.result
        time.sleep(0.05)
@shared_task(ignore_result=True)
def quiet(): return 1
@shared_task(bind=True, max_retries=1)
def again(self):
    if not self.request.retries: raise self.retry(countdown=0)
    return "at last"
"""
DATABASE = "INSTALLED_APPS.append('django_celery_results')\nCELERY_RESULT_BACKEND = 'django-db'\nCELERY_RESULT_EXTENDED = True\n"
ROWS = "from django_celery_results.models import TaskResult\nrows = {row.task_name.split('.')[-1]: row for row in TaskResult.objects.all()}\n"


def migrate(project: Project) -> None:
    project.do("-m", "django", "migrate", "--verbosity", "0", env={"DJANGO_SETTINGS_MODULE": "proj.settings"})


def drain(project: Project, pool: str = "solo") -> None:
    project.start("-m", "litetq", "-A", "proj", "worker", "--drain", "-P", pool, "-l", "INFO").wait(timeout=90)


@pytest.mark.row("20.result_extended")
def test_every_end_is_a_row_of_django(make_project: MakeProject) -> None:
    project = make_project(TASKS, DATABASE)
    migrate(project)
    project.python(
        "from work.tasks import *\nfrom celery import chord, group\n"
        "saved = group(add.s(1, 1), add.s(2, 2)).delay(); saved.save()\n"
        "boom.delay(); quiet.delay(); again.delay(); chord([add.s(3, 3)], add.s(10))  # not called\n"
        "open('group', 'w').write(saved.id); add.apply_async((40,), {'y': 2}, task_id='known'); print(1)"
    )
    drain(project, "processes")
    said = project.python(
        ROWS + "known, boom = TaskResult.objects.get(task_id='known'), rows['boom']\n"
        "print(json.dumps([known.status, known.result, known.task_name, known.task_args, known.task_kwargs, known.worker != '',\n"
        "    boom.status, json.loads(boom.result), 'raise LookupError' in boom.traceback, sorted(rows), rows['again'].result]))"
    )
    assert said == [
        "SUCCESS", "42", "work.tasks.add", "\"(40,)\"", "\"{'y': 2}\"", True,
        "FAILURE", {"exc_type": "LookupError", "exc_message": ["not here", 3], "exc_module": "builtins"}, True,
        ["add", "again", "boom"], '"at last"',
    ]  # fmt: skip
    assert project.python(
        "from celery.result import GroupResult\nfrom proj import celery_app as app\n"
        "from django_celery_results.models import GroupResult as Row\n"
        "id = open('group').read(); app.engine.forget(['group:' + id])\n"
        "print(json.dumps([Row.objects.count(), GroupResult.restore(id, app=app).get(timeout=9)]))"
    ) == [1, [2, 4]]


def test_what_the_file_no_longer_keeps_is_read_from_django(make_project: MakeProject) -> None:
    project = make_project(TASKS, DATABASE)
    migrate(project)
    project.python(
        "from work.tasks import *\nadd.apply_async((1, 2), task_id='a'); boom.apply_async(task_id='b'); print(1)"
    )
    drain(project)
    assert project.python(
        "from proj import celery_app as app\napp.engine.forget(['a', 'b'])\n"
        "a, b, c = map(app.AsyncResult, 'abc')\n"
        "print(json.dumps([a.get(timeout=9), a.date_done is not None, repr(b.result), b.state, 'Error' in b.traceback, c.state]))"
    ) == [3, True, "LookupError('not here', 3)", "FAILURE", True, "PENDING"]
    assert project.python(
        "from proj import celery_app as app\nfrom django_celery_results.models import TaskResult\n"
        "app.AsyncResult('a').forget()\nprint(json.dumps([TaskResult.objects.count(), app.AsyncResult('a').state]))"
    ) == [1, "PENDING"]


def test_states_on_the_way_are_rows_too(make_project: MakeProject) -> None:
    project = make_project(TASKS, DATABASE)
    migrate(project)
    project.python("from work.tasks import *\nslow.delay(); print(1)")
    drain(project)
    said = project.python(ROWS + "print(json.dumps([rows['slow'].status, json.loads(rows['slow'].result)]))")
    assert (said[0], said[1].replace(" ", "")) == ("SUCCESS", '{"done":1}')


def test_results_wait_for_tables_that_are_not_there_yet(make_project: MakeProject) -> None:
    project = make_project(TASKS, DATABASE)
    project.python("from work.tasks import *\nadd.delay(1, 2); print(1)")
    drain(project)
    assert "results wait for the next worker" in project.said() and "Task work.tasks.add" in project.said()
    migrate(project)
    drain(project)
    assert project.python(ROWS + "print(json.dumps([rows['add'].status, rows['add'].result]))") == ["SUCCESS", "3"]


@pytest.mark.parametrize("cache", ["", "CELERY_CACHE_BACKEND = 'other'\n"])
def test_djangos_cache_gets_every_end(make_project: MakeProject, cache: str) -> None:
    kept = "{'BACKEND': 'django.core.cache.backends.filebased.FileBasedCache', 'LOCATION': BASE / '%s'}"
    project = make_project(
        TASKS,
        "from pathlib import Path\nBASE = Path(__file__).parent\nINSTALLED_APPS.append('django_celery_results')\n"
        f"CACHES = {{'default': {kept % 'one'}, 'other': {kept % 'two'}}}\nCELERY_RESULT_BACKEND = 'django-cache'\n"
        + cache,
    )
    project.python(
        "from work.tasks import *\nadd.apply_async((1, 2), task_id='a'); boom.apply_async(task_id='b'); print(1)"
    )
    drain(project)
    used = "other" if cache else "default"
    assert project.python(
        "from proj import celery_app as app\nfrom django.core.cache import caches\n"
        f"kept = caches['{used}'].get('celery-task-meta-a')\napp.engine.forget(['a', 'b'])\n"
        "print(json.dumps([kept['status'], kept['result'], app.AsyncResult('a').get(timeout=9), repr(app.AsyncResult('b').result)]))"
    ) == ["SUCCESS", 3, 3, "LookupError('not here', 3)"]


def test_a_backend_of_celerys_own_is_refused_where_celery_is_celery(make_project: MakeProject) -> None:
    project = make_project(TASKS, DATABASE)
    (project.folder / "proj" / "__init__.py").write_text("", encoding="utf-8")
    said = project.python(
        "import litetq\napp = litetq.LiteTQ('a', broker='jobs.sqlite', backend='django-db')\n"
        "try: app.results\n"
        "except Exception as error: print(json.dumps([type(error).__name__, str(error)]))"
    )
    assert said[0] == "ImproperlyConfigured" and "litetq.install_as_celery()" in said[1]


@pytest.mark.slow
def test_over_a_broker_the_ends_of_tasks_are_rows_of_django_and_nowhere_else(
    make_project: MakeProject, redis: Redis | BorrowedRedis
) -> None:
    tasks = TASKS + "@shared_task\ndef total(values): return sum(values)\n"
    project = make_project(tasks, DATABASE + f"CELERY_BROKER_URL = '{redis.url}'\n")
    migrate(project)
    sent = (
        "from work.tasks import *\nfrom celery import chain, chord, group\n"
        "saved = group(add.s(1, 1), add.s(2, 2)).delay(); saved.save(); boom.delay(); again.delay(); slow.delay()\n"
        "chord([add.s(3, 3), add.s(4, 4)], total.s()).apply_async(task_id='chord'); chain(add.s(1, 1), add.s(2)).apply_async()\n"
        "print(json.dumps([celery_app.AsyncResult('chord').get(timeout=60), saved.get(timeout=60),\n"
        "    [row.result for row in celery_app.GroupResult.restore(saved.id)]]))"
    )
    worker = project.start("-m", "litetq", "-A", "proj", "worker", "-P", "threads", "-l", "INFO")
    assert project.python("from proj import celery_app\n" + sent) == [14, [2, 4], [2, 4]]
    wanted = (
        ROWS
        + "print(json.dumps({name: [rows[name].status, rows[name].result] for name in ('boom', 'again', 'total', 'slow')}))"
    )
    eventually(lambda: "again" in project.said() and project.said().count("succeeded") >= 9, within=60)
    found = project.python(wanted)
    assert found["again"] == ["SUCCESS", '"at last"'] and found["slow"][0] == "SUCCESS" and "done" in found["slow"][1]
    assert found["boom"][0] == "FAILURE" and found["total"] == ["SUCCESS", "14"]
    worker.terminate()
    worker.wait(30)
