"""An app within a test."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from litetq import context
from litetq.app import LiteTQ as Celery

__all__ = ["DEFAULT_TEST_CONFIG", "TestApp", "Trap", "set_trap", "setup_default_app"]

DEFAULT_TEST_CONFIG: Mapping[str, Any] = {
    "worker_hijack_root_logger": False,
    "worker_log_color": False,
    "accept_content": {"json"},
    "enable_utc": True,
    "timezone": "UTC",
}


class Trap:
    """Stands where the current app is; every use of it is an error."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("Test depends on current_app")


def TestApp(
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    enable_logging: bool = False,
    set_as_current: bool = False,
    log: Any = None,
    backend: Any = None,
    broker: Any = None,
    **kwargs: Any,
) -> Any:
    """Return an app with a file of its own, which goes with it, unless `broker` or the config names one."""
    config = {**DEFAULT_TEST_CONFIG, **(config or {})}
    own = None
    asked_for = broker or config.get("broker_url")
    if asked_for is None or str(asked_for).startswith("memory:"):
        own = tempfile.TemporaryDirectory(prefix="litetq-test-", ignore_cleanup_errors=True)
        broker = Path(own.name) / "jobs.sqlite"
        config.pop("broker_url", None)
    if str(config.get("result_backend") or "").startswith(("cache", "memory")):
        config.pop("result_backend", None)
    app = Celery(name or "celery.tests", set_as_current=set_as_current, broker=broker, backend=backend, **kwargs)
    app.add_defaults(config)
    if own is not None:
        weakref.finalize(app, own.cleanup)
    return app


@contextmanager
def set_trap(app: Any) -> Iterator[None]:
    """Make every use of `current_app` within the block an error."""
    before = context._default_app, context._current_app.get()
    trap: Any = Trap()
    context.set_default_app(trap)
    context.set_current_app(None)
    try:
        yield
    finally:
        context.set_default_app(before[0])
        context.set_current_app(before[1])


@contextmanager
def setup_default_app(app: Any, use_trap: bool = False) -> Iterator[None]:
    """Make `app` the current one within the block; with `use_trap` there is none, and using it is an error."""
    before = context._default_app, context._current_app.get()
    try:
        if use_trap:
            with set_trap(app):
                yield
        else:
            app.set_default()
            app.set_current()
            yield
    finally:
        context.set_default_app(before[0])
        context.set_current_app(before[1])
        app.close()
