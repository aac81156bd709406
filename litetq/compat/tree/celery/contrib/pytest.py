"""Fixtures for tests of programs, by Celery's names: an app with a file of its own, and a worker in this process.

Turned on with `pytest_plugins = ("celery.contrib.pytest",)`, or `-p celery.contrib.pytest`.
"""

from __future__ import annotations

from litetq.contrib.pytest import (
    NO_WORKER,
    _create_app,
    celery_app,
    celery_class_tasks,
    celery_config,
    celery_enable_logging,
    celery_includes,
    celery_parameters,
    celery_session_app,
    celery_session_worker,
    celery_worker,
    celery_worker_parameters,
    celery_worker_pool,
    depends_on_current_app,
    pytest_configure,
    use_celery_app_trap,
)

__all__ = [
    "NO_WORKER", "_create_app", "celery_app", "celery_class_tasks", "celery_config", "celery_enable_logging", "celery_includes",
    "celery_parameters", "celery_session_app", "celery_session_worker", "celery_worker", "celery_worker_parameters",
    "celery_worker_pool", "depends_on_current_app", "pytest_configure", "use_celery_app_trap",
]  # fmt: skip
