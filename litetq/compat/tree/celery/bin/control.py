"""The commands `control`, `inspect` and `status`."""

from __future__ import annotations

from litetq.cli.control import command as control
from litetq.cli.inspect import command as inspect
from litetq.cli.status import command as status

__all__ = ["control", "inspect", "status"]
