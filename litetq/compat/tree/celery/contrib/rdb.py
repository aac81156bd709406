"""A debugger in a running task, reached over the network: `rdb.set_trace()`, then `telnet 127.0.0.1 6900`."""

from __future__ import annotations

import os
import socket
import sys
from pdb import Pdb
from typing import Any

__all__ = ["CELERY_RDB_HOST", "CELERY_RDB_PORT", "Rdb", "debugger", "set_trace"]

CELERY_RDB_HOST = os.environ.get("CELERY_RDB_HOST") or "127.0.0.1"
CELERY_RDB_PORT = int(os.environ.get("CELERY_RDB_PORT") or 6900)
_TRIED = 100  # ports, from the first one up


class Rdb(Pdb):
    """A debugger whose terminal is the first connection to a port of this machine."""

    def __init__(self, host: str = CELERY_RDB_HOST, port: int = CELERY_RDB_PORT, out: Any = None) -> None:
        self._listening, self.port = self._listen(host, port)
        print(
            f"Remote Debugger:{self.port}: Waiting for client: telnet {host} {self.port}",
            file=out or sys.__stderr__,
            flush=True,
        )
        self._client, _ = self._listening.accept()
        self._stream = self._client.makefile("rw")
        super().__init__(completekey="tab", stdin=self._stream, stdout=self._stream)
        self.prompt = f"({self.port}) "

    @staticmethod
    def _listen(host: str, port: int) -> tuple[socket.socket, int]:
        for number in range(port, port + _TRIED):
            try:
                return socket.create_server((host, number), backlog=1), number
            except OSError:
                continue
        raise OSError(f"no port from {port} to {port + _TRIED - 1} of {host} is free; set CELERY_RDB_PORT")

    def _end(self) -> None:
        self._stream.close()
        self._client.close()
        self._listening.close()

    def do_continue(self, arg: str) -> Any:
        """Let the task go on, and hang up."""
        self.set_continue()
        self._end()
        return True

    do_c = do_cont = do_continue

    def do_quit(self, arg: str) -> Any:
        """Stop debugging, and hang up."""
        self.set_quit()
        self._end()
        return True

    do_q = do_exit = do_quit


def debugger() -> Rdb:
    """Wait for somebody to connect, and return their debugger."""
    return Rdb()


def set_trace(frame: Any = None) -> None:
    """Stop here, and wait for somebody to connect."""
    return debugger().set_trace(frame or sys._getframe().f_back)
