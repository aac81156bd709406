"""Beat: schedulers, entries and the service of `litetq.beat`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NoReturn

from litetq import beat
from litetq.compat.mirror import mirror
from litetq.entries import BeatLazyFunc

if TYPE_CHECKING:
    from types import TracebackType


class _Thread(threading.Thread):
    """A beat in a thread."""

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(name="Beat", daemon=True)
        self.app = app
        self.service = beat.Service(app, **options)

    def run(self) -> None:
        self.app.set_current()
        self.service.start(embedded_process=True)

    def stop(self) -> None:
        """End it and wait until it has ended."""
        self.service.stop(wait=True)


def EmbeddedService(app: Any, max_interval: float | None = None, **options: Any) -> _Thread:
    """Return a beat for this program, not yet started; it has `start` and `stop`. Always a thread here."""
    options.pop("thread", None)
    return _Thread(app, max_interval=max_interval, **options)


def _evaluate_entry_args(entry_args: Any) -> list[Any]:
    if not entry_args:
        return []
    return [value() if isinstance(value, BeatLazyFunc) else value for value in getattr(entry_args, "args", entry_args)]


def _evaluate_entry_kwargs(entry_kwargs: Any) -> dict[str, Any]:
    return {
        name: value() if isinstance(value, BeatLazyFunc) else value for name, value in dict(entry_kwargs or {}).items()
    }


def reraise(tp: type[BaseException], value: BaseException, tb: TracebackType | None = None) -> NoReturn:
    """Raise an exception with a traceback of one's choice."""
    raise value.with_traceback(tb) if value.__traceback__ is not tb else value


mirror(__name__, beat)
