"""Result backends by name."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

from litetq.exceptions import ImproperlyConfigured

from ..utils.imports import symbol_by_name

__all__ = ["BACKEND_ALIASES", "by_name", "by_url"]

BACKEND_ALIASES: dict[str, str] = {
    "disabled": "celery.backends.base:DisabledBackend",
    "sqlite": "litetq.engine:FileEngine",
    "file": "litetq.engine:FileEngine",
    "rpc": "litetq.engine:FileEngine",
    "cache": "litetq.engine:FileEngine",
}


def by_name(backend: Any = None, loader: Any = None, extension_namespace: str = "celery.result_backends") -> Any:
    """Return the class of a backend: a name of an installed package's (entry points), or "module:Class"."""
    named = backend or "disabled"
    aliases: Mapping[str, str] = {
        **BACKEND_ALIASES,
        **{found.name: found.value for found in importlib.metadata.entry_points(group=extension_namespace)},
    }
    try:
        cls = symbol_by_name(named, aliases)
    except (ValueError, ImportError, AttributeError) as error:
        raise ImproperlyConfigured(
            f"Unknown result backend: {named!r}. Did you spell that correctly? ({error!r})"
        ) from error
    if not isinstance(cls, type):
        raise ImproperlyConfigured(
            f"Unknown result backend: {named!r}. Did you spell that correctly? ({cls!r} is no class)"
        )
    return cls


def by_url(backend: Any = None, loader: Any = None) -> tuple[Any, Any]:
    """Return the class of a backend given by URL, and the URL for its constructor."""
    url = None
    if isinstance(backend, str) and "://" in backend:
        url = backend
        scheme, _, rest = url.partition("://")
        if "+" in scheme:
            backend, url = url.split("+", 1)
        else:
            backend = scheme
    return by_name(backend, loader), url
