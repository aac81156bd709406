"""Addresses."""

from __future__ import annotations

from litetq.address import mask

__all__ = ["maybe_sanitize_url", "sanitize_url"]


def sanitize_url(url: str, mask_with: str = "**") -> str:
    """Return an address without its password."""
    return mask(url)


def maybe_sanitize_url(url: str, mask_with: str = "**") -> str:
    """Return an address without its password; what is none as it is."""
    return mask(url) if "://" in url else url
