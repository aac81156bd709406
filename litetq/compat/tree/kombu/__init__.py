"""Stands in for kombu where it is not installed: what programs name in their settings, and what tools look at.

There is no broker behind it. A Connection is a URL; asking it for more says that kombu has to be installed.
"""

from __future__ import annotations

from litetq.compat.below import modules_below
from litetq.message import uuid

from .connection import Connection
from .entity import Exchange, Queue
from .messaging import Consumer, Producer

__all__ = ["Connection", "Consumer", "Exchange", "Producer", "Queue", "uuid"]

VERSION = (5, 4, 0)
__version__ = "5.4.0"

__getattr__ = modules_below(__name__, __path__)
