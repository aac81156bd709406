"""The project. Whatever part of it a process imports first, it comes through here: so `celery` means litetq everywhere."""

import litetq

litetq.install_as_celery()

from .celery import app as celery_app  # noqa: E402  (after the line above)

__all__ = ("celery_app",)
