"""Cameras: classes of one's own that get a picture of workers and tasks every so often, as Celery's snapshots.

    class Counter(Polaroid):
        clear_after = True

        def on_shutter(self, state):
            print(state.event_count, "events", state.task_count, "tasks")

`litetq events --camera module:Counter --frequency 2` takes one every two seconds.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from litetq import context
from litetq.lanes import interval_of
from litetq.signals import Signal

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.events import State

logger = logging.getLogger("celery.evcam")


class Polaroid:
    """Takes a picture every `freq` seconds between `install` and `cancel`, or within a `with` block.

    Args:
        state: the picture, `app.events.State()`.
        freq: seconds between two pictures.
        maxrate: no more pictures than that, like "10/m"; None: as many as `freq` says.
        cleanup_freq: seconds between two calls of `on_cleanup`.
        timer: accepted for Celery's sake.
    """

    clear_after = False  # forget the tasks that have ended, and the counts, after each picture
    shutter_signal = Signal(name="shutter_signal", providing_args={"state"})
    cleanup_signal = Signal(name="cleanup_signal")

    def __init__(
        self,
        state: State,
        freq: float = 1.0,
        maxrate: str | float | None = None,
        cleanup_freq: float = 3600.0,
        timer: Any = None,
        app: LiteTQ | None = None,
    ) -> None:
        self.app = app or context.get_current_app()
        self.state = state
        self.freq = freq
        self.cleanup_freq = cleanup_freq
        self.maxrate = interval_of(maxrate)  # seconds between two pictures at least; None: no limit
        self._taken_at: float | None = None
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def on_shutter(self, state: State) -> None:
        """Do something with the picture; no event is taken in meanwhile. For subclasses."""

    def on_cleanup(self) -> None:
        """Tidy up, every `cleanup_freq` seconds. For subclasses."""

    def install(self) -> None:
        """Begin to take pictures."""
        self._is_over.clear()
        self._thread = threading.Thread(target=self._run, name="litetq-camera", daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """Take no more pictures; one that is being taken is finished."""
        self._is_over.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        cleanup_at = time.monotonic() + self.cleanup_freq
        while not self._is_over.wait(self.freq):
            try:
                self.capture()
                if time.monotonic() >= cleanup_at:
                    cleanup_at = time.monotonic() + self.cleanup_freq
                    self.cleanup()
            except Exception:
                # A camera that fails once must not blind the next picture.
                logger.exception("camera %s raised; it goes on", type(self).__name__)

    def capture(self) -> None:
        """Take a picture now, unless `maxrate` forbids it."""
        self.state.freeze_while(self.shutter, clear_after=self.clear_after)

    def shutter(self) -> None:
        now = time.monotonic()
        if self.maxrate is not None and self._taken_at is not None and now < self._taken_at + self.maxrate:
            return
        self._taken_at = now
        self.shutter_signal.send(sender=self, state=self.state)
        self.on_shutter(self.state)

    def cleanup(self) -> None:
        self.cleanup_signal.send(sender=self)
        self.on_cleanup()

    def __enter__(self) -> Polaroid:
        self.install()
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()
