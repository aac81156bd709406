"""Objects and modules by name."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

__all__ = [
    "NotAPackage", "cwd_in_path", "find_module", "gen_task_name", "import_from_cwd", "instantiate", "qualname",
    "symbol_by_name",
]  # fmt: skip


class NotAPackage(Exception):
    """A module stands where a package is wanted."""


def qualname(obj: Any) -> str:
    """Return module and name of an object, or of the class of one without a name."""
    named = obj if hasattr(obj, "__name__") else type(obj)
    return f"{named.__module__}.{getattr(named, '__qualname__', named.__name__)}"


def symbol_by_name(
    name: Any,
    aliases: Mapping[str, str] | None = None,
    imp: Any = None,
    package: str | None = None,
    sep: str = ".",
    default: Any = None,
    **_: Any,
) -> Any:
    """Return the object that "module:name" or "module.name" means; what is no text is returned as it is.

    Raises ImportError or AttributeError where there is none, unless `default` is given.
    """
    if not isinstance(name, str):
        return name
    full = str((aliases or {}).get(name) or name)
    path, __, attribute = full.rpartition(":") if ":" in full else full.rpartition(sep)
    try:
        if not path:
            path, attribute = (attribute, "") if package is None else (package, attribute)
        module: Any = (imp or importlib.import_module)(path, package=package)
        return getattr(module, attribute) if attribute else module
    except (ImportError, AttributeError):
        if default is not None:
            return default
        raise


def instantiate(name: Any, *args: Any, **kwargs: Any) -> Any:
    """Return an instance of the class of this name."""
    return symbol_by_name(name)(*args, **kwargs)


@contextmanager
def cwd_in_path() -> Iterator[None]:
    """Have the working directory first on the import path within the block."""
    directory = os.getcwd()
    if directory in sys.path:
        yield
        return
    sys.path.insert(0, directory)
    try:
        yield
    finally:
        if directory in sys.path:
            sys.path.remove(directory)


def find_module(module: str, path: Any = None, imp: Any = None) -> Any:
    """Return the spec of a module that can be imported with the working directory on the path, or None; imports its parents."""
    with cwd_in_path():
        parent, _, _ = module.rpartition(".")
        if parent and not hasattr(importlib.import_module(parent), "__path__"):
            raise NotAPackage(parent)
        return importlib.util.find_spec(module)


def import_from_cwd(module: str, imp: Any = None, package: str | None = None) -> ModuleType:
    """Import a module with the working directory on the path."""
    with cwd_in_path():
        return importlib.import_module(module, package=package)


def gen_task_name(app: Any, name: str, module_name: str | None) -> str:
    """Return the name that a task of this function has by default."""
    return str(app.gen_task_name(name, module_name))
