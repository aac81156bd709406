"""Modules below a package, as attributes of it, also before anything has imported them.

Importing Celery and making an app brings many of its modules along, so programs write `celery.utils.time` after a plain
`import celery`. Here few are needed; the others come when they are asked for.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from types import ModuleType


def modules_below(package: str, path: Iterable[str]) -> Callable[[str], ModuleType]:
    """Return the `__getattr__` of a package that finds the modules below it; AttributeError for other names."""

    def find(name: str) -> ModuleType:
        if any(found.name == name for found in pkgutil.iter_modules(path)):
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find
