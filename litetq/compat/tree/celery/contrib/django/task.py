"""Tasks that are sent when the database transaction of a Django project has been committed."""

from __future__ import annotations

from litetq.contrib.django import DjangoTask

__all__ = ["DjangoTask"]
