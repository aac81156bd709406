"""Signed tasks."""

from __future__ import annotations

from typing import Any

from litetq.app import current_or_default_app

__all__ = ["setup_security"]


def setup_security(
    allowed_serializers: Any = None,
    key: str | None = None,
    key_password: Any = None,
    cert: str | None = None,
    store: str | None = None,
    digest: str | None = None,
    serializer: str = "json",
    app: Any = None,
) -> None:
    """Do what `app.setup_security` does, by default for the current app."""
    (app or current_or_default_app()).setup_security(
        allowed_serializers, key, key_password, cert, store, digest, serializer
    )
