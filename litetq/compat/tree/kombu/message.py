"""A message of a broker, for programs that name its class."""

from __future__ import annotations

from typing import Any

from litetq.exceptions import ImproperlyConfigured

from .connection import NOT_INSTALLED

__all__ = ["Message"]


class Message:
    """What a broker delivers, as plain attributes; none comes, since there is no broker."""

    def __init__(
        self,
        body: Any = None,
        delivery_tag: Any = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        delivery_info: Any = None,
        properties: Any = None,
        headers: Any = None,
        **more: Any,
    ) -> None:
        self.body = body
        self.delivery_tag = delivery_tag
        self.content_type = content_type
        self.content_encoding = content_encoding
        self.delivery_info = delivery_info or {}
        self.properties = properties or {}
        self.headers = headers or {}
        self.__dict__.update(more)

    @property
    def payload(self) -> Any:
        """The body, decoded."""
        return self.decode()

    def decode(self) -> Any:
        """Return the body, decoded by its content type."""
        if not self.content_type:
            return self.body
        from .serialization import loads

        return loads(self.body, self.content_type, self.content_encoding or "utf-8", accept=[self.content_type])

    def ack(self, *_: Any, **__: Any) -> Any:
        """Raise ImproperlyConfigured: there is no broker that would hear it."""
        raise ImproperlyConfigured(NOT_INSTALLED)

    reject = requeue = ack
