"""Routes."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from typing import Any

from litetq.routing import Router

__all__ = ["MapRoute", "Router"]


class MapRoute:
    """A route from names of tasks, patterns with * among them, to options."""

    def __init__(self, map: Any) -> None:
        entries = list(map.items() if isinstance(map, Mapping) else map)
        self.map = {key: value for key, value in entries if isinstance(key, str) and "*" not in key}
        self.patterns = {
            re.compile(fnmatch.translate(key)) if isinstance(key, str) else key: value
            for key, value in entries
            if not (isinstance(key, str) and "*" not in key)
        }

    def __call__(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if name in self.map:
            return dict(self.map[name])
        for pattern, value in self.patterns.items():
            if pattern.match(name):
                return {"queue": value} if isinstance(value, str) else dict(value)
        return None
