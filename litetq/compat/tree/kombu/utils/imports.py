"""Objects by name."""

from __future__ import annotations

import pkgutil
from typing import Any

__all__ = ["symbol_by_name"]


def symbol_by_name(name: Any, aliases: Any = None, **_: Any) -> Any:
    """Return the object that "module:name" means; what is no text as it is."""
    return pkgutil.resolve_name((aliases or {}).get(name) or name) if isinstance(name, str) else name
