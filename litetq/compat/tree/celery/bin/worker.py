"""The command `worker`."""

from __future__ import annotations

from litetq.cli.worker import command as worker

__all__ = ["worker"]
