"""Who lives and what began, without a write to the queue file: one small file per executing process in the run folder.

An executor holds a record lock on its file while it lives and notes there, memory mapped, the number of each claim
before user code is entered. Both survive `kill -9` as facts that any process can read: the kernel frees the lock, the map
is in the page cache. Right across pid namespaces, and no pid is reused here, because no pid is looked at.

The folder is disposable. Where it is missing or cannot be written, nothing fails: the executor works unseen, `is_alive`
and `begun` answer None ("cannot be known"), and the caller judges by heartbeat and counts work as begun. Outside of this
promise: a file that somebody truncates while it is mapped (SIGBUS).
"""

from __future__ import annotations

import errno
import glob
import itertools
import logging
import mmap
import os
import struct
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from litetq import platforms

logger = logging.getLogger(__name__)

# How many claims an executor remembers; of older ones it is taken that they began. 32 KiB, else arbitrary.
RING: Final = 4096

# The file: byte 0 for the lock (Windows refuses reads of locked bytes: the first 8 are never read), header, ring.
_LOCK: Final = 0
_HEADER_AT: Final = 8
_HEADER: Final = struct.Struct("=8sBx70s")  # mark, whether the ring is complete, boot id
_MARK: Final = b"litetq-1"
_PID_AT: Final = 96  # for display only; after it free bytes up to the ring
_PID: Final = struct.Struct("=q")
_RING_AT: Final = 128  # a multiple of 8, so that a claim number is stored by one machine instruction and never half
_BYTES: Final = _RING_AT + 8 * RING
_SUFFIX: Final = ".run"

_BIRTH_TIMEOUT: Final = 5.0  # seconds in which the lock of a new file must be had; somebody may just be probing it
_UNBORN_AFTER: Final = 60.0  # seconds after which a file without a header is swept; arbitrary

_FLAGS: Final = os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)


class Claims(frozenset[int]):
    """The claims that an executor notes as begun, and by `in` also those whose notes it may have given up.

    A claim that runs for long is older than all notes of a full ring: where nothing can be known of one, it counts as begun.
    """

    __slots__ = ("floor",)
    floor: int  # whatever is below may have begun

    def __new__(cls, ring: Iterable[int]) -> Claims:
        notes = frozenset(ring)
        claims = super().__new__(cls, notes - {0})
        claims.floor = min(notes)  # 0 while a place is free
        return claims

    def __contains__(self, claim: object) -> bool:
        return super().__contains__(claim) or (isinstance(claim, int) and claim < self.floor)


class _Look(NamedTuple):
    """What a run file said at one moment."""

    locked: bool
    content: bytes  # from the header on


class Executor:
    """The calling process as one that runs tasks, visible to all others until `close()` or death.

    Args:
        folder: the run folder, created (mode 0700) if it is missing.
        name: a token that nobody used before; children of worker `abc` are called `abc.1-<random>`.

    Raises FileExistsError when the name is taken. Where the file cannot be made for another reason (read-only or full
    disk, no locks) the executor works unseen and a warning is logged.

    Safety: any thread may call any method. In a forked child it is dead: `begin` raises, `close` does nothing.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.path = Path(os.path.abspath(folder), name + _SUFFIX)
        self._turn = itertools.count()
        self._file: _RunFile | None = None
        self._is_open = True
        with _probing:
            try:
                self._file = _RunFile(self.path, is_complete=True)
            except FileExistsError:
                raise
            except OSError as error:
                logger.warning("%s: cannot be written (%s); work lost here will count as begun", self.path, error)
            self._ring = self._file.ring if self._file else memoryview(bytearray(8 * RING)).cast("q")
            _executors.add(self)

    def begin(self, claim: int) -> None:
        """Note that the work of this claim begins; call it before user code is entered.

        The note survives `kill -9` of this process. The oldest of RING notes is given up for it; what is older than all that
        are left still counts as begun. So let no claim wait while RING later ones begin.

        Raises RuntimeError when the executor is closed, or belongs to the process that this one was forked from.
        """
        # 0.07 us (CPython 3.11, two cores). The item is stored whole; struct.pack_into goes byte by byte, and a kill
        # could halve it. Threads: next() of a count and the store of an item are one step each under the GIL.
        try:
            self._ring[next(self._turn) % RING] = claim
        except ValueError as error:
            if self._is_open:
                raise ValueError(f"claim {claim!r} is not a 64-bit number") from error
            raise RuntimeError(f"executor {self.name} is closed, or of the process that this one came from") from None

    def claims(self) -> frozenset[int] | None:
        """Return the numbers that `begun` would read of this executor."""
        return self._claims()

    def heal(self) -> None:
        """Make the run file again if it was deleted, so that this executor is seen to live. One stat if it was not.

        What began before cannot be known from the new file: `begun` stays None for it.
        """
        with _probing:
            if not self._is_open or (self._file and self._file.is_in_place()):
                return
            try:
                fresh = _RunFile(self.path, is_complete=False)
            except OSError as error:
                logger.debug("%s: still cannot be made: %s", self.path, error)
                return
            if self._file:
                self._file.leave()
            self._file, self._ring = fresh, fresh.ring

    def close(self, remove: bool = True) -> None:
        """Stop being an executor: lock free, file gone (remove=False: it stays, as of a dead one). May be repeated."""
        with _probing:
            _executors.discard(self)
            if self._is_open:
                self._is_open = False
                self._ring.release()
                if self._file:
                    self._file.close(remove)

    def _claims(self) -> frozenset[int] | None:
        if self._file and not self._file.is_complete:
            return None
        return Claims(self._ring)

    def _is_at(self, path: str, found: os.stat_result | None) -> bool:
        if self._file and found and self._file.is_same(found):
            return True  # also under another spelling of the path: opening it a second time would drop the lock
        return found is None and path == str(self.path)

    def _abandon(self) -> None:
        """In a forked child: let the inherited map and descriptor go. The lock is the parent's and stays."""
        self.close(remove=False)


class _RunFile:
    """One run file of this process: open, locked, mapped. Raises FileExistsError, OSError."""

    def __init__(self, path: Path, is_complete: bool) -> None:
        self._path = path
        self.is_complete = is_complete
        try:
            path.parent.mkdir(mode=0o700)
        except FileExistsError:
            pass
        fd = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            # All bytes are written, so that a full disk says so here and not as SIGBUS at a store into the map.
            if os.write(fd, bytes(_BYTES)) < _BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            self._map = mmap.mmap(fd, _BYTES)
            found = os.fstat(fd)
            self._identity = (found.st_dev, found.st_ino)
            _lock_new(fd)
            # After the lock: whoever finds the lock free and this header there has found a dead one, not an unborn one.
            _PID.pack_into(self._map, _PID_AT, os.getpid())
            _HEADER.pack_into(self._map, _HEADER_AT, _MARK, is_complete, platforms.boot_id().encode())
        except BaseException:
            os.close(fd)
            _unlink(path)
            raise
        self._fd = fd
        self.ring = memoryview(self._map)[_RING_AT:].cast("q")

    def is_same(self, found: os.stat_result) -> bool:
        return (found.st_dev, found.st_ino) == self._identity

    def is_in_place(self) -> bool:
        found = _stat(self._path)
        return found is not None and self.is_same(found)

    def leave(self) -> None:
        """Give up a file that is no longer in place. The map goes when the last thread inside `begin` is through."""
        os.close(self._fd)

    def close(self, remove: bool) -> None:
        """Unlink first where the system allows it: nobody shall find the file with a free lock and take us for killed."""
        is_ours = remove and self.is_in_place()
        if is_ours:
            _unlink(self._path)
        # Descriptor and map go together: either, closed alone, would drop the lock (the map holds a duplicate of its own).
        os.close(self._fd)
        self._map.close()
        if is_ours:
            _unlink(self._path)  # Windows: only now


def is_alive(path: Path) -> bool | None:
    """Say whether the executor of a run file lives; None when that cannot be known (file missing, unreadable, unborn).

    Safety: any process and thread. It never opens a file of this process's own executors, which would drop their locks.
    """
    with _probing:
        if _own(path):
            return True
        look = _look(path, len(_MARK))
    if look is None:
        return None
    if look.locked:
        return True
    return False if look.content == _MARK else None


def begun(path: Path) -> frozenset[int] | None:
    """Return the claims that an executor began; None when they cannot be known.

    They cannot be known when the file is missing, unreadable or truncated, was made again after a loss, or comes from
    before a reboot (a map is in the file only once the kernel wrote it). Count such work as begun.
    """
    with _probing:
        own = _own(path)
        if own:
            return own._claims()
        look = _look(path, _BYTES - _HEADER_AT)
    if look is None or len(look.content) < _BYTES - _HEADER_AT:
        return None
    mark, is_complete, boot = _HEADER.unpack_from(look.content)
    here = platforms.boot_id()
    if mark != _MARK or not is_complete or not here or boot.rstrip(b"\0").decode("ascii", "replace") != here:
        return None
    return Claims(memoryview(look.content)[_RING_AT - _HEADER_AT :].cast("q"))


def pid_of(path: Path) -> int | None:
    """Return the pid that an executor had, for display; None when it cannot be known."""
    with _probing:
        if _own(path):
            return os.getpid()
        look = _look(path, _PID_AT + _PID.size - _HEADER_AT)
    if look is None or len(look.content) < _PID_AT + _PID.size - _HEADER_AT:
        return None
    (pid,) = _PID.unpack_from(look.content, _PID_AT - _HEADER_AT)
    return pid or None


def children_of(folder: Path, name: str) -> list[Path]:
    """Return the run files of the children of the executor `name`, living and dead, by name."""
    return sorted(Path(folder).glob(f"{glob.escape(name)}.*{_SUFFIX}"))


def sweep(folder: Path, known: set[str]) -> list[Path]:
    """Remove the run files of dead executors whose names are not in `known`, and return their paths.

    `known` are the names whose claims are still in the file: rescue has yet to read what they began.
    """
    removed = []
    for path in sorted(Path(folder).glob(f"*{_SUFFIX}")):
        if path.name[: -len(_SUFFIX)] in known:
            continue
        alive = is_alive(path)
        if (alive is False or (alive is None and _was_never_born(path))) and _unlink(path):
            removed.append(path)
    return removed


# One look at a time: closing the descriptor of one look would drop the lock that another look of this process took.
# It also guards the set, so that no look ever falls between the making of an own file and its entry. A native lock also
# under gevent: native threads take it, and no greenlet switches while it holds it.
_probing = platforms.native("_thread", "RLock")()
_executors: set[Executor] = set()


def _own(path: Path) -> Executor | None:
    found = _stat(path)
    full = os.path.abspath(path)
    return next((executor for executor in list(_executors) if executor._is_at(full, found)), None)


def _look(path: Path, length: int) -> _Look | None:
    """Open a foreign run file, try its lock, and read *while the lock is held*; None when that cannot be done."""
    try:
        fd = os.open(path, _FLAGS)
    except OSError:
        return None
    try:
        locked = not platforms.lock_byte(fd, _LOCK)
        os.lseek(fd, _HEADER_AT, os.SEEK_SET)
        return _Look(locked, os.read(fd, length))
    except OSError as error:
        logger.debug("%s: cannot be looked at: %s", path, error)
        return None
    finally:
        os.close(fd)  # frees the lock if we took it


def _lock_new(fd: int) -> None:
    """Lock a new file; another process that looks at it in this moment holds the lock for some microseconds."""
    deadline = time.monotonic() + _BIRTH_TIMEOUT
    while not platforms.lock_byte(fd, _LOCK):
        if time.monotonic() > deadline:
            raise TimeoutError(errno.ETIMEDOUT, "somebody keeps the lock of a file that is just being made")
        platforms.native("time", "sleep")(0.0005)


def _was_never_born(path: Path) -> bool:
    """Say whether a file is there that got no header for a minute: its maker died in the middle, or stands still."""
    found = _stat(path)
    return found is not None and time.time() - found.st_mtime > _UNBORN_AFTER


def _stat(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _unlink(path: Path) -> bool:
    try:
        os.unlink(path)
    except OSError:
        return False  # gone already, or (Windows) open in another process: the next sweep takes it
    return True


def _after_fork_in_child() -> None:
    global _probing
    _probing = platforms.native("_thread", "RLock")()  # another thread of the parent may have held it
    for executor in list(_executors):
        executor._abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
