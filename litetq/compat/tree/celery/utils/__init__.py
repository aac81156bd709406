"""What Celery's users take from `celery.utils` itself."""

from __future__ import annotations

from functools import cached_property

from litetq.compat.below import modules_below
from litetq.message import uuid
from litetq.routing import worker_direct

from .functional import chunks, memoize, noop
from .imports import gen_task_name, import_from_cwd, instantiate, qualname, symbol_by_name
from .log import LOG_LEVELS
from .nodenames import nodename, nodesplit

__all__ = [
    "LOG_LEVELS", "cached_property", "chunks", "gen_task_name", "gen_unique_id", "get_cls_by_name", "get_full_cls_name",
    "import_from_cwd", "instantiate", "memoize", "nodename", "nodesplit", "noop", "uuid", "worker_direct",
]  # fmt: skip

__getattr__ = modules_below(__name__, __path__)

gen_unique_id = uuid
get_cls_by_name = symbol_by_name
get_full_cls_name = qualname
