"""Events as lines."""

from __future__ import annotations

from litetq.cli.events import Dumper

__all__ = ["Dumper"]
