"""The fixtures of Celery's unit tests, over litetq: `tests.compat.suite` puts this in the place of their conftest.

Theirs replaces parts of Celery by mocks, for all tests, and looks after threads; with these each test has an app on a file of its
own. What tests ask for by name is theirs, which lies beside this file.
"""

# mypy: ignore-errors
# These imports are those of the environment of the suite, under the alias.

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import _state, result
from celery.contrib.pytest import (
    celery_app,
    celery_enable_logging,
    celery_parameters,
    depends_on_current_app,
)
from celery.contrib.testing.app import TestApp
from celery.contrib.testing.mocks import TaskMessage, task_message_from_sig
from kombu import Queue

from . import theirs
from .theirs import (
    environ,
    mask_modules,
    module,
    patching,
    restore_logging,
    sleepdeprived,
)

__all__ = [
    "celery_app",
    "celery_enable_logging",
    "celery_parameters",
    "depends_on_current_app",
    "environ",
    "mask_modules",
    "module",
    "patching",
    "restore_logging",
    "sleepdeprived",
]

_state.orig_task_join_will_block = result.task_join_will_block  # as theirs leaves it


def __getattr__(name: str) -> Any:
    """Tests take what helps them from `t.unit.conftest`: theirs has it."""
    return getattr(theirs, name)


@pytest.fixture(scope="session")
def celery_config() -> dict[str, Any]:
    return {
        "task_default_queue": "testcelery",
        "task_default_exchange": "testcelery",
        "task_default_routing_key": "testcelery",
        "task_queues": (Queue("testcelery", routing_key="testcelery"),),
        "accept_content": ("json", "pickle"),
    }


@pytest.fixture(scope="session")
def use_celery_app_trap() -> bool:
    return True


@pytest.fixture
def app(celery_app: Any) -> Any:
    return celery_app


@pytest.fixture(autouse=True)
def attributes_of_test_classes(
    request: pytest.FixtureRequest, app: Any, celery_config: dict[str, Any]
) -> Iterator[None]:
    """Classes of Celery's unit tests find these on themselves, before their own `setup_method` runs."""
    found = request.instance
    if found is None:
        yield
        return

    @app.task(name="t.unit.conftest.add")
    def add(x: Any, y: Any) -> Any:
        return x + y

    found.app, found.Celery, found.add = app, TestApp, add
    found.TaskMessage, found.task_message_from_sig = TaskMessage, task_message_from_sig
    found.CELERY_TEST_CONFIG, found.patching = celery_config, request.getfixturevalue("patching")
    found.assert_signal_called = theirs.assert_signal_called
    yield
    found.app = None
