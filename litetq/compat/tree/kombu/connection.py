"""A broker by its URL."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from litetq.address import mask
from litetq.exceptions import ImproperlyConfigured

__all__ = ["Connection"]

NOT_INSTALLED = "kombu is not installed, so there is no connection to a broker: pip install kombu"


class Connection:
    """The address of a broker. What would speak with it raises ImproperlyConfigured."""

    def __init__(self, hostname: str = "localhost", **more: Any) -> None:
        self._url = hostname
        parts = urlsplit(hostname)
        self.transport_cls, self.hostname, self.port = parts.scheme, parts.hostname, parts.port
        self.userid, self.password, self.virtual_host = parts.username, parts.password, parts.path.lstrip("/")

    def as_uri(self, include_password: bool = False, **_: Any) -> str:
        """Return the URL."""
        return self._url if include_password else mask(self._url)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ImproperlyConfigured(NOT_INSTALLED)
