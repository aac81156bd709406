"""The command `amqp`."""

from __future__ import annotations

from litetq.cli.amqp import command as amqp

__all__ = ["amqp"]
