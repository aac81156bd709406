"""Django: what an app does in a process whose environment names Django's settings (`DJANGO_SETTINGS_MODULE`).

Making such an app gives its tasks `delay_on_commit` and `apply_async_on_commit`, lets `autodiscover_tasks()` find the installed
apps, sets Django up before a worker imports tasks, and closes the database connections of a thread before and after each task
in it, so that no task finds one that the server has closed. Django is imported at the first use of any of this.

The file of tasks and a SQLite database of Django are two files: Django opens its own with another SQLite library, and two
libraries on one file lose commits.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any, Final

from litetq import context, signals
from litetq.exceptions import FixupWarning, ImproperlyConfigured
from litetq.task import Task

if TYPE_CHECKING:
    from litetq.app import LiteTQ

VARIABLE: Final = "DJANGO_SETTINGS_MODULE"
OLDEST: Final = (4, 2)  # of Django
_CLOSED: Final = ("closed", "not connected")  # what drivers say of a connection that is gone anyway


class DjangoTask(Task[..., Any]):
    """A task that can wait for the end of the transaction; if that is rolled back, it is never sent."""

    abstract = True

    def delay_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """Call `delay` once the transaction is committed; at once where there is none."""
        _transaction().on_commit(functools.partial(self.delay, *args, **kwargs))

    def apply_async_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """Call `apply_async` once the transaction is committed; at once where there is none."""
        _transaction().on_commit(functools.partial(self.apply_async, *args, **kwargs))


def fixup(app: LiteTQ, env: str = VARIABLE) -> DjangoFixup | None:
    """Fit an app into Django, if the environment names its settings; FixupWarning when Django is not installed."""
    if not os.environ.get(env):
        return None
    try:
        import django
    except ImportError:
        warnings.warn(
            FixupWarning(f"${env} is set, but Django is not installed: the app goes on without it"), stacklevel=2
        )
        return None
    if django.VERSION < OLDEST:
        raise ImproperlyConfigured(f"Django {django.__version__} is too old; install 4.2 or a later one")
    return DjangoFixup(app).install()


class DjangoFixup:
    """What is done for one app."""

    def __init__(self, app: LiteTQ) -> None:
        self.app = app
        self._is_set_up = False
        self._recycled = threading.local()  # connections belong to a thread, and so does the count of their tasks
        self._closing: set[Any] = set()  # what event loops have yet to do

    def install(self) -> DjangoFixup:
        """Begin; once per app."""
        with contextlib.suppress(OSError):  # the working directory may be gone
            if os.getcwd() not in sys.path:
                sys.path.insert(0, os.getcwd())  # the project's own modules, as manage.py finds them
        if context.get_current_app() is None:
            self.app.set_default()
        if not self.app.has_own_task_class:
            self.app.task_cls = DjangoTask
        signals.task_prerun.connect(self.on_task_prerun, weak=False)
        signals.task_postrun.connect(self.on_task_postrun, weak=False)
        return self

    def autodiscover_tasks(self) -> list[str]:
        """Return the packages of the installed apps."""
        from django.apps import apps

        return [config.name for config in apps.get_app_configs()]

    # -- before tasks are imported

    def set_up(self) -> None:
        """Set Django up, and warn of what its checks find, unless CELERY_SKIP_CHECKS is set; once in a process."""
        if self._is_set_up:
            return
        self._is_set_up = True
        import django
        from django.core import checks

        django.setup()
        if not os.environ.get("CELERY_SKIP_CHECKS"):
            for message in checks.run_checks():
                if message.is_serious() and not message.is_silenced():
                    # Logging is not set up yet.
                    warnings.warn(FixupWarning(f"Django's checks: {message}"), stacklevel=2)

    # -- around tasks

    def on_task_prerun(self, sender: Any, **_: Any) -> None:
        """Close what an earlier task, or the program, left open in this thread."""
        if self._concerns(sender):
            self._between_tasks()

    def on_task_postrun(self, sender: Any, **_: Any) -> None:
        """Close what the task has opened, unless CELERY_DB_REUSE_MAX says that more tasks may use it."""
        if self._concerns(sender):
            self._between_tasks(caches=True)

    def _concerns(self, task: Any) -> bool:
        # An eager task runs within somebody's transaction.
        return task.app is self.app and not task.request.is_eager

    def _between_tasks(self, caches: bool = False) -> None:
        loop = _running_loop()
        if loop is not None:
            # Asynchronous tasks share the connections of one thread, which belongs to asgiref; it does one thing at a time.
            from asgiref.sync import sync_to_async

            closing = loop.create_task(sync_to_async(self.close_database)())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            return
        self.close_database()
        if caches:
            from django.core.cache import close_caches

            close_caches()

    def close_database(self, **_: Any) -> None:
        """Close the connections of this thread, if it is time for that (`db_reuse_max`, in tasks)."""
        most = self.app.conf.db_reuse_max
        if most:
            used = getattr(self._recycled, "count", 0)
            self._recycled.count = used + 1
            if used < most * 2:  # asked before and after each task
                return
            self._recycled.count = 0
        self.release()

    def release(self) -> None:
        """Close the connections of this thread; the next use opens them again."""
        from django.db import DatabaseError, InterfaceError, connections

        for connection in connections.all(initialized_only=True):
            try:
                connection.close()
            except InterfaceError:
                pass  # it was gone
            except DatabaseError as error:
                if not any(word in str(error) for word in _CLOSED):
                    raise

    # -- the file

    def check_file(self, path: str) -> None:
        """Raise ImproperlyConfigured when the file of tasks is a database of Django's."""
        from django.conf import settings

        for alias, database in settings.DATABASES.items():
            name = database.get("NAME")
            if str(database.get("ENGINE", "")).endswith("sqlite3") and name and _is_same_file(path, name):
                raise ImproperlyConfigured(
                    f"the file of tasks is Django's database {alias!r} ({path}): two SQLite libraries on one file lose commits. "
                    "Give the tasks a file of their own beside it, like CELERY_BROKER_URL = 'sqlite:///jobs.sqlite'"
                )


def _is_same_file(path: str, name: Any) -> bool:
    try:
        return bool(os.path.realpath(path) == os.path.realpath(os.fspath(name)))
    except TypeError:
        return False  # no path


def _running_loop() -> Any:
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return None
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _transaction() -> Any:
    return importlib.import_module("django.db.transaction")
