"""Tasks in greenlets of gevent."""

from __future__ import annotations

from litetq.pool_green import GreenPool as TaskPool

__all__ = ["TaskPool"]
