"""A beat as a program: `Beat(app=app).run()` runs until it is told to stop."""

from __future__ import annotations

from typing import Any

from litetq.app import current_or_default_app
from litetq.beat import Service

__all__ = ["Beat"]


class Beat:
    """The beat that `litetq beat` runs, from code."""

    Service = Service

    def __init__(
        self,
        max_interval: float | None = None,
        app: Any = None,
        socket_timeout: float = 30,
        pidfile: str | None = None,
        no_color: bool | None = None,
        loglevel: Any = "WARN",
        logfile: str | None = None,
        schedule: str | None = None,
        scheduler: str | None = None,
        **options: Any,
    ) -> None:
        self.app = app or current_or_default_app()
        self.said = {
            "--max-interval": max_interval,
            "--pidfile": pidfile,
            "--loglevel": {"WARN": "WARNING"}.get(loglevel, loglevel),
            "--logfile": logfile,
            "--schedule": schedule,
            "--scheduler": scheduler,
        }

    def run(self) -> Any:
        """Run until a signal ends it; return the exit code."""
        words = [word for flag, value in self.said.items() if value is not None for word in (flag, str(value))]
        return self.app.start(["beat", *words])
