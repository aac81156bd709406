"""The command `celery`, which is `litetq`."""

from __future__ import annotations

from litetq.cli import main
from litetq.cli.commands import litetq as celery

__all__ = ["celery", "main"]
