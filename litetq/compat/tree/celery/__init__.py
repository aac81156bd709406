"""litetq under Celery's name."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any, NamedTuple

from litetq.app import LiteTQ as Celery
from litetq.app import bugreport, current_app, current_task, shared_task
from litetq.canvas import Signature, chain, chord, chunks, group, maybe_signature, signature, subtask, xmap, xstarmap
from litetq.compat.alias import VERSION as __version__
from litetq.message import uuid
from litetq.task import Task


class version_info_t(NamedTuple):
    """A version, comparable."""

    major: int
    minor: int
    micro: int
    releaselevel: str = ""
    serial: str = ""


VERSION = version_info = version_info_t(5, 7, 0)
SERIES = "litetq"
VERSION_BANNER = f"{__version__} ({SERIES})"

__all__ = [
    "VERSION", "Celery", "Signature", "Task", "bugreport", "chain", "chord", "chunks", "current_app", "current_task", "group",
    "maybe_patch_concurrency", "maybe_signature", "shared_task", "signature", "subtask", "uuid", "version_info", "xmap",
    "xstarmap",
]  # fmt: skip

_MODULES = frozenset(
    "_state app backends beat bin bootsteps canvas concurrency contrib events exceptions fixups loaders local platforms registry "
    "result schedules signals states utils worker".split()
)


def __getattr__(name: str) -> ModuleType:
    """Return a module below, which need not have been imported."""
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def maybe_patch_concurrency(argv: Any = None, **_: Any) -> None:
    """Do what `litetq` does when it starts: a pool of green threads patches the program first."""
    import sys

    from litetq import cli

    patch = getattr(cli, "patch_first", None)
    if patch is not None:
        patch(list(sys.argv[1:] if argv is None else argv))
