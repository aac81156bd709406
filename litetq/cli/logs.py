"""What the command line and an app's settings say together about a worker's log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from litetq import log
from litetq.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.log import LogSettings


def settings_of(app: LiteTQ, level: str, path: str | None, no_colour: bool) -> LogSettings:
    """Return what the command line and the app's configuration say together.

    Raises ImproperlyConfigured when the log file cannot be written.
    """
    if path is not None:
        path = str(Path(path).absolute())
        try:
            open(path, "ab").close()
        except OSError as error:
            raise ImproperlyConfigured(
                f"the log file {path} cannot be written: {error.strerror}; give another one with -f"
            ) from error
    colour = False if no_colour else app.conf.worker_log_color
    return log.settings_of(app.conf, log.level_number(level), path, colour)
