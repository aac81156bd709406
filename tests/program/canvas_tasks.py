"""Tasks that the tests of canvases put together; `register` gives them to an app."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from litetq import LiteTQ


def register(app: LiteTQ) -> SimpleNamespace:
    """Return add, mul, subtract, tsum, same, fail, info, replaced_by and three kinds of errbacks; `seen` is what those saw."""
    seen: list[Any] = []

    @app.task(name="tasks.add")
    def add(x: Any, y: Any, debug: bool = False) -> Any:
        return x + y

    @app.task(name="tasks.mul")
    def mul(x: Any, y: Any) -> Any:
        return x * y

    @app.task(name="tasks.subtract")
    def subtract(x: Any, y: Any) -> Any:
        return x - y

    @app.task(name="tasks.tsum")
    def tsum(numbers: Any) -> Any:
        return sum(numbers)

    @app.task(name="tasks.same")
    def same(value: Any = None) -> Any:
        return value

    @app.task(name="tasks.fail")
    def fail(*args: Any) -> Any:
        raise ValueError("boom")

    @app.task(name="tasks.info", bind=True)
    def info(self: Any, *args: Any) -> Any:
        request = self.request
        return {
            "id": request.id,
            "root": request.root_id,
            "parent": request.parent_id,
            "group": request.group,
            "index": request.group_index,
            "args": list(args),
        }

    @app.task(name="tasks.replaced_by", bind=True)
    def replaced_by(self: Any, *args: Any) -> Any:
        raise self.replace(app.signature(args[-1]))

    @app.task(name="tasks.errback")
    def errback(request: Any, exc: BaseException, traceback: str | None, *more: Any) -> None:
        seen.append((request.id, repr(exc), bool(traceback), *more))

    @app.task(name="tasks.old_errback")
    def old_errback(id: str) -> None:
        seen.append(id)

    @app.task(name="tasks.note")
    def note(*args: Any) -> Any:
        seen.append(args)
        return list(args)

    return SimpleNamespace(**{name: value for name, value in locals().items() if name != "app"})
