"""Commands that workers know: those of `litetq.panel`, and yours."""

from __future__ import annotations

from typing import Any

from litetq import panel
from litetq.compat.mirror import mirror
from litetq.panel import (
    active_tasks,
    control_command,
    reserved_tasks,
    revoked_ids,
    scheduled_tasks,
)

ok = panel._ok
nok = panel._error
active = active_tasks
reserved = reserved_tasks
scheduled = scheduled_tasks
revoked = revoked_ids
dump_active, dump_reserved, dump_schedule, dump_revoked = active, reserved, scheduled, revoked


class _Commands(dict[str, Any]):
    """The functions of all commands by name, as they are now."""

    def __getitem__(self, name: str) -> Any:
        return panel.PANEL[name].function

    def __contains__(self, name: object) -> bool:
        return name in panel.PANEL

    def __iter__(self) -> Any:
        return iter(panel.PANEL)

    def __len__(self) -> int:
        return len(panel.PANEL)

    def keys(self) -> Any:
        """Return the names."""
        return panel.PANEL.keys()


class Panel:
    """The register of commands."""

    data = _Commands()
    meta = panel.PANEL

    @staticmethod
    def register(*args: Any, **options: Any) -> Any:
        """Make a function a command; with or without options, as a decorator."""
        return control_command(*args, **options)


mirror(__name__, panel)
