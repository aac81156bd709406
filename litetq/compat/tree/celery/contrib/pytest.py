"""Fixtures for tests of programs, by Celery's names: an app with a file of its own, and a worker in this process.

Turned on with `pytest_plugins = ("celery.contrib.pytest",)`, or `-p celery.contrib.pytest`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from .testing.app import TestApp, setup_default_app
from .testing.worker import start_worker

NO_WORKER = "the fixture celery_worker needs the app of celery_app"


def pytest_configure(config: Any) -> None:
    """Declare the marker `celery`."""
    config.addinivalue_line("markers", "celery(**overrides): override celery configuration for a test case")


@contextmanager
def _create_app(
    enable_logging: bool = False, use_trap: bool = False, parameters: Mapping[str, Any] | None = None, **config: Any
) -> Iterator[Any]:
    """Give an app of its own within the block."""
    app = TestApp(set_as_current=False, enable_logging=enable_logging, config=config, **(parameters or {}))
    with setup_default_app(app, use_trap=use_trap):
        yield app


@pytest.fixture(scope="session")
def use_celery_app_trap() -> bool:
    """Whether using `current_app` without `depends_on_current_app` is an error."""
    return False


@pytest.fixture(scope="session")
def celery_enable_logging() -> bool:
    """Whether the app sets up logging."""
    return False


@pytest.fixture(scope="session")
def celery_includes() -> Sequence[str]:
    """Modules that the session's worker imports."""
    return ()


@pytest.fixture(scope="session")
def celery_worker_pool() -> str:
    """The pool of the workers."""
    return "solo"


@pytest.fixture(scope="session")
def celery_config() -> Mapping[str, Any]:
    """Settings of the app."""
    return {}


@pytest.fixture(scope="session")
def celery_parameters() -> Mapping[str, Any]:
    """Arguments of the app's constructor."""
    return {}


@pytest.fixture(scope="session")
def celery_worker_parameters() -> Mapping[str, Any]:
    """Arguments of `start_worker`."""
    return {}


@pytest.fixture(scope="session")
def celery_session_app(
    request: Any, celery_config: Any, celery_parameters: Any, celery_enable_logging: Any, use_celery_app_trap: Any
) -> Iterator[Any]:
    """The app of all tests of the session."""
    with _create_app(
        enable_logging=celery_enable_logging,
        use_trap=use_celery_app_trap,
        parameters=celery_parameters,
        **celery_config,
    ) as app:
        yield app


@pytest.fixture(scope="session")
def celery_session_worker(
    request: Any,
    celery_session_app: Any,
    celery_includes: Any,
    celery_class_tasks: Any,
    celery_worker_pool: Any,
    celery_worker_parameters: Any,
) -> Iterator[Any]:
    """A worker for all tests of the session."""
    from .testing import tasks  # noqa: F401  # the task that the worker is tried with

    for module in celery_includes:
        celery_session_app.loader.import_task_module(module)
    for class_task in celery_class_tasks:
        celery_session_app.register_task(class_task)
    with start_worker(celery_session_app, pool=celery_worker_pool, **celery_worker_parameters) as worker:
        yield worker


@pytest.fixture(scope="session")
def celery_class_tasks() -> list[Any]:
    """Class-based tasks that the session's app is to have."""
    return []


@pytest.fixture
def celery_app(
    request: Any, celery_config: Any, celery_parameters: Any, celery_enable_logging: Any, use_celery_app_trap: Any
) -> Iterator[Any]:
    """An app for one test."""
    mark = request.node.get_closest_marker("celery")
    config = {**celery_config, **(mark.kwargs if mark else {})}
    with _create_app(
        enable_logging=celery_enable_logging, use_trap=use_celery_app_trap, parameters=celery_parameters, **config
    ) as app:
        yield app


@pytest.fixture
def celery_worker(
    request: Any, celery_app: Any, celery_includes: Any, celery_worker_pool: Any, celery_worker_parameters: Any
) -> Iterator[Any]:
    """A worker for one test."""
    from .testing import tasks  # noqa: F401  # the task that the worker is tried with

    for module in celery_includes:
        celery_app.loader.import_task_module(module)
    with start_worker(celery_app, pool=celery_worker_pool, **celery_worker_parameters) as worker:
        yield worker


@pytest.fixture
def depends_on_current_app(celery_app: Any) -> None:
    """Make the test's app the current one."""
    celery_app.set_current()
