"""The serializer that signs."""

from __future__ import annotations

from typing import Any

from litetq import security

__all__ = ["register_auth"]


def register_auth(
    key: Any, key_password: Any, cert: Any, store: str, digest: str = security.DIGEST, serializer: str = "json"
) -> None:
    """Register the serializer `auth`, with key and certificate as texts, and a directory or pattern of certificates."""
    signatures = security.Signatures(
        security.PrivateKey(key, key_password),
        security.Certificate(cert),
        security.certificates_in(store),
        digest,
        serializer,
    )
    security.register(signatures.encode, signatures.decode)
