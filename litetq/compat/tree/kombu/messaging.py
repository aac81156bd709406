"""What tools wrap: messages go into the file, not through these."""

from __future__ import annotations

from typing import Any

from litetq.exceptions import ImproperlyConfigured

from .connection import NOT_INSTALLED

__all__ = ["Consumer", "Producer"]


class Producer:
    """Would publish to a broker."""

    def __init__(self, channel: Any = None, *args: Any, **kwargs: Any) -> None:
        self.channel = channel

    def publish(self, *args: Any, **kwargs: Any) -> Any:
        """Raise ImproperlyConfigured: there is none."""
        raise ImproperlyConfigured(NOT_INSTALLED)


class Consumer:
    """Would read from a broker."""

    def __init__(self, channel: Any = None, *args: Any, **kwargs: Any) -> None:
        self.channel = channel

    def consume(self, *args: Any, **kwargs: Any) -> Any:
        """Raise ImproperlyConfigured: there is none."""
        raise ImproperlyConfigured(NOT_INSTALLED)
