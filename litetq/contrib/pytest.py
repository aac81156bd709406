"""Celery's fixtures for pytest: an app on a file of its own, and a worker of it in this process.

Turned on with `pytest_plugins = ("litetq.contrib.pytest",)` in `conftest.py`, or `-p litetq.contrib.pytest`; under the alias it is
`celery.contrib.pytest`, too. They are what Celery's are: the apps run tasks in a temporary file instead of in memory.
litetq's own fixtures need no turning on; they are in `pytest_litetq`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from litetq.testing import start_worker, temporary_app, visiting_app

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.worker import Worker

NO_WORKER = os.environ.get("NO_WORKER")  # set: no worker is started, because one runs elsewhere


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker `celery`."""
    config.addinivalue_line("markers", "celery(**overrides): override celery configuration for a test case")


@contextmanager
def _create_app(
    enable_logging: bool = False, use_trap: bool = False, parameters: Mapping[str, Any] | None = None, **config: Any
) -> Iterator[LiteTQ]:
    """Give a new app within the block."""
    app = temporary_app(set_as_current=False, enable_logging=enable_logging, config=config, **(parameters or {}))
    with visiting_app(app, use_trap):
        yield app


def _config(request: pytest.FixtureRequest, config: Mapping[str, Any]) -> dict[str, Any]:
    mark = request.node.get_closest_marker("celery")
    return {**config, **(mark.kwargs if mark else {})}


@contextmanager
def _worker(
    app: LiteTQ, includes: Sequence[str], class_tasks: Sequence[Any], pool: Any, parameters: Mapping[str, Any]
) -> Iterator[Worker | None]:
    if NO_WORKER:
        yield None
        return
    for module in includes:
        app.loader.import_task_module(module)
    for task in class_tasks:
        app.register_task(task)
    with start_worker(app, **{"pool": pool, **parameters}) as worker:
        yield worker


@pytest.fixture(scope="session")
def use_celery_app_trap() -> bool:
    """Redefine it to return True: then every use of the current app is an error, unless a worker runs or a test asks for it."""
    return False


@pytest.fixture(scope="session")
def celery_enable_logging() -> bool:
    """Redefine it to return True: then workers set up logging."""
    return False


@pytest.fixture(scope="session")
def celery_includes() -> Sequence[str]:
    """Redefine it to name the modules that are imported before a worker starts."""
    return ()


@pytest.fixture(scope="session")
def celery_worker_pool() -> Any:
    """Redefine it to choose another pool for the workers."""
    return "solo"


@pytest.fixture(scope="session")
def celery_config() -> Mapping[str, Any]:
    """Redefine it to give the apps settings."""
    return {}


@pytest.fixture(scope="session")
def celery_parameters() -> Mapping[str, Any]:
    """Redefine it to give the apps' constructor arguments."""
    return {}


@pytest.fixture(scope="session")
def celery_worker_parameters() -> Mapping[str, Any]:
    """Redefine it to give `start_worker` arguments."""
    return {}


@pytest.fixture(scope="session")
def celery_class_tasks() -> Sequence[Any]:
    """Redefine it to give the session's app class-based tasks."""
    return []


@pytest.fixture(scope="session")
def celery_session_app(
    request: pytest.FixtureRequest,
    celery_config: Mapping[str, Any],
    celery_parameters: Mapping[str, Any],
    celery_enable_logging: bool,
    use_celery_app_trap: bool,
) -> Iterator[LiteTQ]:
    """The app of all tests of the session; the current one, unless there is a trap."""
    config = _config(request, celery_config)
    with _create_app(celery_enable_logging, use_celery_app_trap, celery_parameters, **config) as app:
        if not use_celery_app_trap:
            app.set_default()
            app.set_current()
        yield app


@pytest.fixture(scope="session")
def celery_session_worker(
    celery_session_app: LiteTQ,
    celery_includes: Sequence[str],
    celery_class_tasks: Sequence[Any],
    celery_worker_pool: Any,
    celery_worker_parameters: Mapping[str, Any],
) -> Iterator[Worker | None]:
    """A worker for all tests of the session."""
    with _worker(
        celery_session_app, celery_includes, celery_class_tasks, celery_worker_pool, celery_worker_parameters
    ) as worker:
        yield worker


@pytest.fixture
def celery_app(
    request: pytest.FixtureRequest,
    celery_config: Mapping[str, Any],
    celery_parameters: Mapping[str, Any],
    celery_enable_logging: bool,
    use_celery_app_trap: bool,
) -> Iterator[LiteTQ]:
    """An app for one test, not the current one; `@pytest.mark.celery(setting=value)` gives it settings."""
    config = _config(request, celery_config)
    with _create_app(celery_enable_logging, use_celery_app_trap, celery_parameters, **config) as app:
        yield app


@pytest.fixture
def celery_worker(
    celery_app: LiteTQ,
    celery_includes: Sequence[str],
    celery_worker_pool: Any,
    celery_worker_parameters: Mapping[str, Any],
) -> Iterator[Worker | None]:
    """A worker for one test."""
    with _worker(celery_app, celery_includes, (), celery_worker_pool, celery_worker_parameters) as worker:
        yield worker


@pytest.fixture
def depends_on_current_app(celery_app: LiteTQ) -> None:
    """Make the test's app the current one."""
    celery_app.set_current()
