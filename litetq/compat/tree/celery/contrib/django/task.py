"""Tasks that are sent when the database transaction of a Django project has been committed."""

from __future__ import annotations

import functools
import importlib
from typing import Any

from litetq.task import Task

__all__ = ["DjangoTask"]


class DjangoTask(Task[..., Any]):
    """A task that can wait for the end of the transaction; if that is rolled back, it is never sent."""

    abstract = True

    def delay_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """Call `delay` once the transaction is committed; at once where there is none."""
        _transaction().on_commit(functools.partial(self.delay, *args, **kwargs))

    def apply_async_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """Call `apply_async` once the transaction is committed; at once where there is none."""
        _transaction().on_commit(functools.partial(self.apply_async, *args, **kwargs))


def _transaction() -> Any:
    return importlib.import_module("django.db.transaction")
