"""Settings, and apps by name."""

from __future__ import annotations

from typing import Any

from litetq.app import bugreport as bugreport
from litetq.conf import Settings
from litetq.task import app_label as appstr

__all__ = ["Settings", "appstr", "bugreport", "find_app"]


def find_app(app: Any, symbol_by_name: Any = None, imp: Any = None) -> Any:
    """Return the app that `-A` would find under this name; an app as it is."""
    if not isinstance(app, str):
        return app
    from litetq.cli.find import ModuleMissing, load

    try:
        return load(app)[0]
    except ModuleMissing as error:
        raise ModuleNotFoundError(str(error)) from error
