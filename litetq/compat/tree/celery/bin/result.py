"""The command `result`."""

from __future__ import annotations

from litetq.cli.result import command as result

__all__ = ["result"]
