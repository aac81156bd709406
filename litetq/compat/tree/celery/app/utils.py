"""Settings, and apps by name."""

from __future__ import annotations

from typing import Any

from litetq.app import bugreport as bugreport
from litetq.conf import Settings
from litetq.task import app_label as appstr

__all__ = ["Settings", "appstr", "bugreport", "find_app"]


def find_app(app: Any, symbol_by_name: Any = None, imp: Any = None) -> Any:
    """Return the app that `-A` would find under this name; an app as it is."""
    from litetq.cli.find import load

    return load(app)[0] if isinstance(app, str) else app
