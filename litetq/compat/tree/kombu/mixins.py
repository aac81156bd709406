"""Programs that consume messages of their own."""

from __future__ import annotations

from typing import Any

from litetq.exceptions import ImproperlyConfigured

from .connection import NOT_INSTALLED

__all__ = ["ConsumerMixin", "ConsumerProducerMixin"]


class ConsumerMixin:
    """Would consume from a broker."""

    def run(self, *_: Any, **__: Any) -> Any:
        """Raise ImproperlyConfigured: there is none."""
        raise ImproperlyConfigured(NOT_INSTALLED)


class ConsumerProducerMixin(ConsumerMixin):
    """Would consume and publish."""
