"""A worker as a program: `Worker(app=app).start()` runs until it is told to stop."""

from __future__ import annotations

from typing import Any

from litetq.app import current_or_default_app

__all__ = ["Worker"]


class Worker:
    """The worker that `litetq worker` runs, from code. Options have the names of the command's."""

    def __init__(self, app: Any = None, hostname: str | None = None, **options: Any) -> None:
        self.app = app or current_or_default_app()
        self.hostname = hostname
        self.options = options
        self.exitcode: int | None = None

    def start(self) -> None:
        """Run until a signal or a command ends it; `exitcode` tells how."""
        words = ["worker"]
        for name, value in {**self.options, "hostname": self.hostname}.items():
            flag = f"--{_FLAGS.get(name, name).replace('_', '-')}"
            if value is True:
                words.append(flag)
            elif value is not None and value is not False:
                words += [flag, ",".join(map(str, value)) if isinstance(value, (list, tuple, set)) else str(value)]
        self.exitcode = self.app.start(words)


_FLAGS = {"send_events": "events", "task_events": "events", "optimization": "O", "pool_cls": "pool"}
