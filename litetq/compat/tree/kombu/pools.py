"""Pools of connections and producers, by connection."""

from __future__ import annotations

from typing import Any, NoReturn

from litetq.exceptions import ImproperlyConfigured

from .connection import NOT_INSTALLED

__all__ = ["connections", "producers"]


class _Pools:
    """Would have a pool for each connection."""

    def __getitem__(self, connection: Any) -> NoReturn:
        raise ImproperlyConfigured(NOT_INSTALLED)


connections = _Pools()
producers = _Pools()
