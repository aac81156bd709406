"""What commands of other packages are made of."""

from __future__ import annotations

from functools import wraps
from typing import Any

import click

from litetq.cli.plugins import Surroundings

__all__ = ["CLIContext", "CeleryCommand", "CeleryDaemonCommand", "CeleryOption", "handle_preload_options"]

CLIContext = Surroundings


class CeleryCommand(click.Command):
    """A command of another package. The options of every command, which stand before its name, are read already."""


CeleryDaemonCommand = CeleryCommand


class CeleryOption(click.Option):
    """An option that may name the group it stands in; all stand in one list here."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.help_group = options.pop("help_group", None)
        default_from = options.pop("default_value_from_context", None)
        if default_from is not None:
            options.setdefault("default", lambda: getattr(click.get_current_context().obj, default_from, None))
        super().__init__(*args, **options)


def handle_preload_options(f: Any) -> Any:
    """Find the app before the command runs, which tells `user_preload_options`."""

    @wraps(f)
    def caller(ctx: click.Context, *args: Any, **kwargs: Any) -> Any:
        _ = ctx.obj.app
        return f(ctx, *args, **kwargs)

    return caller
