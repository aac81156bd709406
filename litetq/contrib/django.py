"""Django: what an app does in a process whose environment names Django's settings (`DJANGO_SETTINGS_MODULE`).

Making such an app gives its tasks `delay_on_commit` and `apply_async_on_commit`, lets `autodiscover_tasks()` find the installed
apps, makes the app follow `override_settings`, sets Django up before a worker imports tasks, and closes the database connections
of a thread before and after each task in it, so that no task finds one that the server has closed. Django is imported at the
first use of any of this.

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
        self._running = 0  # tasks on the event loop

    def install(self) -> DjangoFixup:
        """Begin; once per app."""
        with contextlib.suppress(OSError):  # the working directory may be gone
            if os.getcwd() not in sys.path:
                sys.path.insert(0, os.getcwd())  # the project's own modules, as manage.py finds them
        if context.get_current_app() is None:
            self.app.set_default()
        if not self.app.has_own_task_class:
            self.app.task_cls = DjangoTask
        from django.core.signals import setting_changed

        setting_changed.connect(self.on_setting_changed, weak=False)
        signals.task_prerun.connect(self.on_task_prerun, weak=False)
        signals.task_postrun.connect(self.on_task_postrun, weak=False)
        return self

    def autodiscover_tasks(self) -> list[str]:
        """Return the packages of the installed apps."""
        from django.apps import apps

        return [config.name for config in apps.get_app_configs()]

    def on_setting_changed(self, setting: str, **_: Any) -> None:
        """Follow what tests change: `override_settings(CELERY_TASK_ALWAYS_EAGER=True)`, and back."""
        if setting.startswith(self.app.conf.namespace or ""):
            self.app.conf.reread()

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
        if not self._concerns(sender):
            return
        if _is_on_a_loop():
            self._close_shared()
            self._running += 1
        else:
            self.close_database()

    def on_task_postrun(self, sender: Any, **_: Any) -> None:
        """Close what the task has opened, unless CELERY_DB_REUSE_MAX says that more tasks may use it."""
        if not self._concerns(sender):
            return
        if _is_on_a_loop():
            self._running -= 1
            self._close_shared()
        else:
            from django.core.cache import close_caches

            self.close_database()
            close_caches()

    def _concerns(self, task: Any) -> bool:
        # An eager task runs within somebody's transaction.
        return task.app is self.app and not task.request.is_eager

    def _close_shared(self) -> None:
        """Close the connections that asynchronous tasks share: all of them while none runs, else those that are broken.

        They belong to one thread of asgiref, which does one thing after the other: what the next task wants of it comes later.
        """
        from asgiref.sync import SyncToAsync

        SyncToAsync.single_thread_executor.submit(self._close_broken if self._running else self.close_database)

    def _close_broken(self) -> None:
        from django.db import connections

        for connection in connections.all(initialized_only=True):
            if connection.errors_occurred and not connection.in_atomic_block and not connection.is_usable():
                connection.close()

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
            if connection.in_atomic_block:
                continue  # a task that is run within somebody's transaction: a test's (`litetq.testing.drain`)
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


def _is_on_a_loop() -> bool:
    asyncio = sys.modules.get("asyncio")
    try:
        return asyncio is not None and asyncio.get_running_loop() is not None
    except RuntimeError:
        return False


def _transaction() -> Any:
    return importlib.import_module("django.db.transaction")
