"""The bell: whoever commits wakes whoever sleeps, in this process and in others, within tens of microseconds.

Correctness never depends on it. Every sleeper has a deadline of its own and looks again when it wakes; a ring may be
lost (a process killed with the datagram unread, a run folder deleted, another mount namespace) and may come for nothing.
A ring never blocks and never raises.

How: `<run folder>/board` is mapped by all. It has one slot for each process that sleeps: what its sleepers wait for,
and the address of its one listening socket. Nobody asleep is a comparison of 256 bytes, without a system call. The slot
is held by a record lock, so a slot of the dead is known by a free lock and cleared by whoever wants to ring it.

A sleeper does three things in this order: `announce()`, look whether there is work already, `wait()`. Work committed
before the look is seen by it; work committed after it is rung, since the announcement is on the board by then. When the
look finds enough to do, `clear()`: rings then go to those who sleep.

    with bell_for(folder) as bell, bell.waiter(WORK) as waiter:
        while not stopping:
            waiter.announce()
            if not claim_and_start():
                waiter.wait(0.02 if bell.is_deaf else seconds_until_next_due)

Measured (2 cores, CPython 3.11): `ring()` with nobody asleep for the topic 0.4 us, past sleepers with other masks 2 us; announce,
ring and wait in one thread 5.5 us; ping-pong of two processes p50 55 us, p99 0.1 ms, by UDP the same.
"""

from __future__ import annotations

import atexit
import errno
import logging
import mmap
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Final

from litetq import clock, green, platforms

if TYPE_CHECKING:
    import asyncio

logger = logging.getLogger(__name__)

WORK: Final = 1  # a task became ready
RESULT: Final = 2  # a task ended
CONTROL: Final = 4  # a command or an answer to one lies in the file
TOPICS: Final = (WORK, RESULT, CONTROL)
ALL: Final = 2**64 - 1  # the mask that intersects every other

# Processes that can sleep on one file and be woken; more of them poll. Arbitrary; 256 bytes compare at once.
SLOTS: Final = 256
CHECK_INTERVAL: Final = 1.0  # seconds between looks whether board and socket are still in place

# The board: lock bytes, one per slot (never read: Windows refuses that); one byte of topics per slot; a record per slot.
# A new layout takes a new file name: processes of two versions may share the folder.
_BOARD: Final = "board"
_FLAGS_AT: Final = SLOTS
_RECORDS_AT: Final = 2 * SLOTS
_RECORD: Final = 160
_MASKS: Final = struct.Struct("=3Q")  # one mask per topic, so that a counted ring never goes where nobody matches
_ADDRESS: Final = struct.Struct(f"=16sH{platforms.SOCKET_PATH_BYTES}s")  # secret, UDP port or 0, path of the socket
_BYTES: Final = _RECORDS_AT + SLOTS * _RECORD
_NO_BOARD: Final = bytes(_BYTES)  # what a process without a board sees: nobody
_HAS: Final = [bytes(bool(flags & topics) for flags in range(256)) for topics in range(8)]  # for bytes.translate

_RING: Final = struct.Struct("=16sBBQi")  # secret, topics, hops, mask, how many to wake at most (-1: all)
_MANY: Final = 2**31 - 1  # the largest count that a datagram holds
_MAX_HOPS: Final = 16  # arbitrary; a counted ring that finds nobody awake goes on to the next process so many times
_SOCKET_SUFFIX: Final = ".bell"
_STALE_AFTER: Final = 10.0  # seconds; a younger socket without an owner may be one between bind and its first listen
_END_TIMEOUT: Final = 1.0  # seconds for a listening thread to end; arbitrary, it takes some 50 us
_SLICE: Final = 0.2  # seconds; Windows cannot interrupt a lock, so Ctrl-C is seen that late in the main thread
_UNIX: Final[int] = getattr(socket, "AF_UNIX", -1)


class Waiter:
    """One sleeper. Made by `Bell.waiter`; used by one thread or coroutine at a time, except `set`, which anyone may call.

    Under gevent and eventlet it belongs to the thread that made it.
    """

    def __init__(self, bell: Bell, topics: int, mask: int, loop: asyncio.AbstractEventLoop | None) -> None:
        self.topics = topics
        self.mask = mask
        self._bell = bell
        self._loop = loop
        self._gate = new_gate()
        self._hook: Callable[[], object] | None = None

    def announce(self) -> None:
        """Let rings wake this waiter from now on, and forget older ones. Look for work after this, then `wait`."""
        self._gate.clear()
        self._bell._announce(self)

    def wait(self, timeout: float | None) -> bool:
        """Sleep until a ring or `set()`; afterwards the waiter is no longer announced.

        Args:
            timeout: seconds, 0 looks only, None waits without end (nothing guarantees a ring: give a deadline).

        Returns True when rung or set since the last `announce`, `clear` or True.
        """
        try:
            return self._gate.wait(timeout)
        finally:
            self._bell._withdraw(self)

    async def wait_async(self, timeout: float | None) -> bool:
        """Do as `wait` does, without holding the event loop."""
        import asyncio  # not at the top: 30 ms that only its users pay, and they have paid already

        loop = self._loop or asyncio.get_running_loop()
        rung: asyncio.Future[None] = loop.create_future()
        timer = None
        # The hook first, the gate second: whoever opens the gate in between is either seen here or sees the hook.
        self._hook = lambda: loop.call_soon_threadsafe(_finish, rung)
        try:
            if self._gate.wait(0):
                return True
            if timeout is not None:
                timer = loop.call_later(max(0.0, timeout), _finish, rung)
            await rung
            return self._gate.wait(0)
        finally:
            self._hook = None
            if timer is not None:
                timer.cancel()
            self._bell._withdraw(self)

    def set(self) -> None:
        """Wake this waiter, or keep its next `wait` from sleeping. Any thread, a signal handler too; never blocks."""
        self._gate.open()
        hook = self._hook
        if hook is not None:
            try:
                hook()
            except RuntimeError:
                pass  # its loop was closed in the meantime: nobody is left to wake

    def clear(self) -> None:
        """Forget rings and `set()` so far, and be announced no longer."""
        self._bell._withdraw(self)
        self._gate.clear()

    def close(self) -> None:
        """Be announced no longer. May be repeated."""
        self._bell._withdraw(self)
        self._gate.close()

    def __enter__(self) -> Waiter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Bell:
    """The bell of one run folder in this process. Get it from `bell_for`, and `close()` it once for each time.

    Safety: every method may be called from any thread, and from native threads under gevent. A forked child finds its
    bell silent and without sleepers, and makes its own slot and socket at the next use.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._users = 0
        self._is_closed = False
        self._start()

    def _start(self) -> None:
        """Be new: at first, and in a forked child."""
        # Reentrant: a signal handler may ring, too. Native under gevent; nothing switches greenlets while it is held.
        self._lock = platforms.native("_thread", "RLock")()
        self._announced: dict[Waiter, None] = {}
        self._groups: dict[int, dict[int, dict[Waiter, None]]] = {topic: {} for topic in TOPICS}  # topic, mask
        self._board: _Board | None = None
        self._map: mmap.mmap | bytes = _NO_BOARD
        self._slot: int | None = None
        self._ear: _Ear | None = None
        self._mouths: dict[int, socket.socket] = {}  # by address family
        self._is_sleeper = False  # only who ever slept needs slot, socket and thread
        self._check_at = 0.0  # monotonic seconds
        self._turn = 0
        self._trouble = ""

    @property
    def is_deaf(self) -> bool:
        """Say whether other processes cannot wake this one (no folder, no slot, no socket): sleep 20 ms at a time then.

        Known after an `announce`; while deaf, an announce tries again once a second.
        """
        return self._slot is None

    def waiter(self, topics: int, mask: int = ALL, loop: asyncio.AbstractEventLoop | None = None) -> Waiter:
        """Return a sleeper for rings of any of these topics whose mask has a bit in common with this one.

        Args:
            loop: the event loop to wake in `wait_async`; None: the one running then.

        Raises ValueError for no topic or an empty mask.
        """
        if not 0 < topics < 8:
            raise ValueError(f"topics must be a sum of WORK, RESULT and CONTROL, got {topics!r}")
        if not 0 < mask <= ALL:
            raise ValueError(f"a mask must have 1 to 64 bits set, got {mask!r}")
        return Waiter(self, topics, mask, loop)

    def ring(self, topic: int, mask: int = ALL, count: int | None = None) -> None:
        """Wake announced sleepers of this topic whose mask intersects: those of this process first, then of others.

        Args:
            count: wake at most so many; None wakes all.

        Call it after the commit. It never blocks and never raises; a ring that cannot be delivered is lost. Where nobody waits
        for it, it makes no system call (a look at the board's place once a second aside).
        """
        try:
            if (
                monotonic() < self._check_at
                and (
                    (
                        not self._groups.get(topic, self._announced)  # several topics at once: whoever sleeps
                        and self._map[_FLAGS_AT:_RECORDS_AT].translate(_HAS[topic & 7]).find(1) < 0
                    )
                    or not self._is_awaited(topic, mask & ALL)
                )
            ):
                return
        except ValueError:
            pass  # another thread just closed this map, for a new board
        with self._lock:
            self._check()
        self._ring(topic, mask & ALL, count if count is None else min(count, _MANY), hops=0)

    def close(self) -> None:
        """Give the bell back; when the last user has, its sleepers wake, its socket is gone and its slot is free."""
        with _registry_lock:
            self._users -= 1
            if self._users > 0:
                return
            for key in [key for key, bell in _registry.items() if bell is self]:
                del _registry[key]
        self._shut()

    def __enter__(self) -> Bell:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # Sleepers of this process

    def _announce(self, waiter: Waiter) -> None:
        with self._lock:
            if self._is_closed:
                return
            if not self._is_sleeper:
                self._is_sleeper, self._check_at = True, 0.0
            self._announced[waiter] = None
            is_news = False
            for topic in TOPICS:
                if waiter.topics & topic:
                    group = self._groups[topic].setdefault(waiter.mask, {})
                    is_news = is_news or not group
                    group[waiter] = None
            if is_news:
                self._publish()
            self._check()

    def _withdraw(self, waiter: Waiter) -> None:
        if waiter in self._announced:  # else a ring took it off already
            with self._lock:
                self._remove([waiter])

    def _remove(self, waiters: list[Waiter]) -> None:
        is_news = False
        for waiter in waiters:
            self._announced.pop(waiter, None)
            for topic in TOPICS:
                group = self._groups[topic].get(waiter.mask)
                if group is not None and group.pop(waiter, self) is None and not group:
                    del self._groups[topic][waiter.mask]
                    is_news = True
        if is_news:
            self._publish()

    def _publish(self) -> None:
        """Write on the board what the sleepers of this process wait for. Only the owner of a slot writes there."""
        if self._board is not None and self._slot is not None:
            masks = [0, 0, 0]
            for place, topic in enumerate(TOPICS):
                for mask in self._groups[topic]:
                    masks[place] |= mask
            self._board.publish(self._slot, masks)

    def _is_awaited(self, topics: int, mask: int) -> bool:
        """Say whether anybody sleeps who matches, without the lock: who comes just now has still to look for himself."""
        for topic in TOPICS:
            if topics & topic and any(wanted & mask for wanted in list(self._groups[topic])):
                return True
        board = self._board
        return board is not None and bool(board.asleep(topics, mask, self._slot))

    def _take(self, topics: int, mask: int, count: int | None) -> list[Waiter]:
        """Take at most `count` matching sleepers off the board, those asleep longest in their group first."""
        found: dict[Waiter, None] = {}
        for topic in TOPICS:
            if topics & topic:
                for wanted, group in self._groups[topic].items():
                    if wanted & mask:
                        found.update(group)
        waiters = list(found)[:count]
        self._remove(waiters)
        return waiters

    # Ringing

    def _ring(self, topics: int, mask: int, count: int | None, hops: int) -> None:
        with self._lock:
            waiters = self._take(topics, mask, count)
            if count is None:
                self._ring_others(topics, mask, None, hops)
            elif len(waiters) < count:
                self._ring_others(topics, mask, count - len(waiters), hops)
        for waiter in waiters:
            waiter.set()

    def _ring_others(self, topics: int, mask: int, count: int | None, hops: int) -> None:
        if self._board is None or hops > _MAX_HOPS:
            return
        slots = self._board.asleep(topics, mask, but=self._slot)
        if count is None:
            for slot in slots:
                self._send(slot, topics, mask, -1, hops)
            return
        # Another one first each time: a stopped process would swallow every ring.
        self._turn += 1
        start = self._turn % len(slots) if slots else 0
        for place, slot in enumerate(slots[start:] + slots[:start]):
            # Rounded up. What it cannot use it hands on; what was not sent is shared anew.
            share = -(-count // (len(slots) - place))
            if share > 0 and self._send(slot, topics, mask, share, hops):
                count -= share

    def _send(self, slot: int, topics: int, mask: int, count: int, hops: int) -> bool:
        """Send a ring to the process that holds a slot; False when it is dead (which clears its slot) or not reached."""
        board = self._board
        if board is None or board.clear_if_dead(slot):
            return False
        secret, port, path = board.address(slot)
        try:
            mouth = self._mouth(socket.AF_INET if port else _UNIX)
            mouth.sendto(_RING.pack(secret, topics, hops, mask, count), ("127.0.0.1", port) if port else path)
        except OSError:
            # Its queue is full (it is stopped: somebody else shall wake), or it lives in another mount namespace
            # (deadlines serve there), or it left a moment ago.
            return False
        return True

    def _mouth(self, family: int) -> socket.socket:
        """Return the sending socket. Not the listening one: that blocks, and two that block on each other hang."""
        mouth = self._mouths.get(family)
        if mouth is None:
            mouth = self._mouths[family] = platforms.native("socket", "socket")(family, socket.SOCK_DGRAM)
            mouth.setblocking(False)
        return mouth

    def _hear(self, topics: int, mask: int, count: int, hops: int) -> None:
        """In the listening thread: a ring came. Counted, it goes on to other processes where it finds nobody asleep."""
        if count < 0:
            with self._lock:
                waiters = self._take(topics, mask, None)
            for waiter in waiters:
                waiter.set()
        else:
            self._ring(topics, mask, count, hops + 1)

    # Board, slot and socket

    def _check(self) -> None:
        """See at most once a second that board and socket are in place, and make what is missing. Lock held."""
        now = monotonic()
        if now < self._check_at or self._is_closed:
            return
        self._check_at = now + CHECK_INTERVAL
        try:
            self._make_what_is_missing()
            trouble = "" if self._slot is not None or not self._is_sleeper else f"all {SLOTS} slots are taken"
        except (OSError, RuntimeError) as error:  # RuntimeError: no thread can be started
            trouble = str(error)
        if trouble and trouble != self._trouble:
            logger.warning(
                "%s: other processes cannot wake this one, it looks more often instead: %s", self.folder, trouble
            )
        self._trouble = trouble

    def _make_what_is_missing(self) -> None:
        if self._board is None or not self._board.is_in_place():
            self._leave_board()
            self._board = _Board(self.folder)
            self._map = self._board.map
        if not self._is_sleeper:
            return
        if self._ear is not None and not self._ear.is_in_place():
            self._ear.leave()
            self._ear = None
        if self._ear is None:
            self._ear = _Ear(self._hear)
            if self._slot is not None:
                self._board.write_address(self._slot, self._ear.address)
        if self._slot is None:
            self._slot = self._board.take_slot(self._ear.address)
            self._publish()

    def _leave_board(self) -> None:
        board, slot = self._board, self._slot
        self._board, self._map, self._slot = None, _NO_BOARD, None
        if board is not None:
            board.close(slot)

    def _shut(self) -> None:
        with self._lock:
            self._is_closed, self._check_at = True, float("inf")
            waiters = list(self._announced)
            self._remove(waiters)
        for waiter in waiters:
            waiter.set()
        if self._ear is not None:
            self._ear.close()  # without the lock, and with the board: its thread hands on the rings that it still finds
        with self._lock:
            self._ear = None
            self._leave_board()
            self._close_mouths()

    def _close_mouths(self) -> None:
        for mouth in self._mouths.values():
            mouth.close()
        self._mouths.clear()

    def _forget_parent(self) -> None:
        """In a forked child: let go what is the parent's. Record locks are by process, so its slot stays taken."""
        board, ear = self._board, self._ear
        self._close_mouths()
        self._start()
        if board is not None:
            board.close(None)
        if ear is not None:
            ear.abandon()


class _Board:
    """The board file, mapped. One object per process and file: closing any descriptor on it frees the slot.

    Raises OSError when it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _BOARD
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            pass
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
        self._fd = os.open(self._path, flags, 0o600)
        try:
            _extend(self._fd)
            self.map = mmap.mmap(self._fd, _BYTES)
            found = os.fstat(self._fd)
        except BaseException:
            os.close(self._fd)
            raise
        self._identity = (found.st_dev, found.st_ino)

    def is_in_place(self) -> bool:
        try:
            found = os.stat(self._path)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def take_slot(self, address: bytes) -> int | None:
        """Take the first slot that nobody living has; None when there is none."""
        for slot in range(SLOTS):
            if platforms.lock_byte(self._fd, slot):
                self.map[_FLAGS_AT + slot] = 0  # first: nobody shall ring the dead one at the new address
                self.write_address(slot, address)
                return slot
        return None

    def write_address(self, slot: int, address: bytes) -> None:
        at = _RECORDS_AT + slot * _RECORD + _MASKS.size
        self.map[at : at + len(address)] = address

    def publish(self, slot: int, masks: list[int]) -> None:
        _MASKS.pack_into(self.map, _RECORDS_AT + slot * _RECORD, *masks)
        self.map[_FLAGS_AT + slot] = sum(topic for topic, mask in zip(TOPICS, masks, strict=True) if mask)

    def asleep(self, topics: int, mask: int, but: int | None) -> list[int]:
        """Return the slots of other processes where somebody sleeps who matches."""
        hits = self.map[_FLAGS_AT:_RECORDS_AT].translate(_HAS[topics & 7])
        places = [place for place, topic in enumerate(TOPICS) if topics & topic]
        slots = []
        slot = hits.find(1)
        while slot >= 0:
            masks = _MASKS.unpack_from(self.map, _RECORDS_AT + slot * _RECORD)
            for place in places:
                if mask & masks[place] and slot != but:
                    slots.append(slot)
                    break
            slot = hits.find(1, slot + 1)
        return slots

    def clear_if_dead(self, slot: int) -> bool:
        """Say whether nobody holds a slot, and take its announcements off the board then. Not for the own slot."""
        try:
            if not platforms.lock_byte(self._fd, slot):
                return False
            self.map[_FLAGS_AT + slot] = 0
            platforms.unlock_byte(self._fd, slot)
        except OSError:
            return False
        return True

    def address(self, slot: int) -> tuple[bytes, int, bytes]:
        """Return (secret, UDP port or 0, path of the Unix socket or b"")."""
        secret, port, path = _ADDRESS.unpack_from(self.map, _RECORDS_AT + slot * _RECORD + _MASKS.size)
        return secret, port, path.rstrip(b"\0")

    def close(self, slot: int | None) -> None:
        """Take the slot's announcements off the board and let file and slot go."""
        if slot is not None:
            self.map[_FLAGS_AT + slot] = 0
        os.close(self._fd)
        self.map.close()  # not when collected: closing its duplicate descriptor would free the slot of the next board


def _extend(fd: int) -> None:
    """Give a new board its length, destroying nothing that others wrote meanwhile. Raises OSError on a full disk."""
    if os.fstat(fd).st_size >= _BYTES:
        return
    if sys.platform == "linux":
        try:
            os.posix_fallocate(fd, 0, _BYTES)  # really there: a full disk must not show itself as SIGBUS at a store
            return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
    os.ftruncate(fd, _BYTES)


class _Ear:
    """The listening socket of a bell and the native thread that reads it. Raises OSError, RuntimeError (no thread)."""

    def __init__(self, hear: Callable[[int, int, int, int], None]) -> None:
        self._hear = hear
        self._secret = os.urandom(16)
        self._path = b""
        self._is_open = True
        self._ended = platforms.native("_thread", "allocate_lock")()
        self._ended.acquire()
        port = 0
        make = platforms.native("socket", "socket")
        if platforms.PORTABLE:
            self._socket: socket.socket = make(socket.AF_INET, socket.SOCK_DGRAM)
        else:
            self._path = _new_socket_path()
            self._socket = make(_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.bind(self._path or ("127.0.0.1", 0))
            if not self._path:
                port = self._socket.getsockname()[1]
            self._self = self._path or ("127.0.0.1", port)
            self.address = _ADDRESS.pack(self._secret, port, self._path)
            green.start_thread(self._listen, "litetq-bell")
        except BaseException:
            self._socket.close()
            self._remove_file()
            raise

    def is_in_place(self) -> bool:
        return self._is_open and (not self._path or os.path.exists(self._path))

    def _listen(self) -> None:
        try:
            while self._is_open:
                self._receive()
            # Rings that came before the socket's end were meant for somebody: the bell hands them on.
            self._socket.setblocking(False)
            while True:
                self._receive()
        except OSError:
            self._is_open = False
        finally:
            self._socket.close()
            self._ended.release()

    def _receive(self) -> None:
        try:
            ring = self._socket.recv(_RING.size + 1)
        except OSError as error:
            # Windows says here that a stranger's datagram was too long, or that one of ours found no receiver.
            if isinstance(error, ConnectionError) or error.errno == errno.EMSGSIZE:
                return
            raise
        if len(ring) == _RING.size and ring.startswith(self._secret):
            _, topics, hops, mask, count = _RING.unpack(ring)
            self._hear(topics, mask, count, hops)

    def close(self) -> None:
        """Do as `leave` does, and wait for the thread (1 s at most). Not under the bell's lock: the thread needs it."""
        self.leave()
        self._ended.acquire(True, _END_TIMEOUT)

    def leave(self) -> None:
        """Let the thread hand on what it has and end, and remove the socket's file."""
        self._is_open = False
        try:
            with platforms.native("socket", "socket")(self._socket.family, socket.SOCK_DGRAM) as farewell:
                farewell.setblocking(False)
                farewell.sendto(b"", self._self)
        except BlockingIOError:
            pass  # its queue is full, so it is not asleep
        except OSError:
            self._wake_by_shutdown()
        self._remove_file()

    def _wake_by_shutdown(self) -> None:
        """Wake the thread when somebody removed the socket's file. On other systems than Linux it may sleep on."""
        try:
            self._socket.shutdown(socket.SHUT_RD)
        except OSError:
            pass

    def abandon(self) -> None:
        """In a forked child, which has no listening thread: close the inherited descriptor; the parent's stays."""
        self._is_open = False
        self._socket.close()

    def _remove_file(self) -> None:
        if self._path:
            try:
                os.unlink(self._path)
            except OSError:
                pass  # gone already


def _new_socket_path() -> bytes:
    """Return a name for a socket in the user's runtime folder, cleared of what dead processes left there."""
    folder = platforms.runtime_folder()
    for path in folder.glob(f"*{_SOCKET_SUFFIX}"):
        _unlink_if_stale(path)
    return os.fsencode(folder / (os.urandom(8).hex() + _SOCKET_SUFFIX))


def _unlink_if_stale(path: Path) -> None:
    try:
        if clock.now() - path.stat().st_mtime < _STALE_AFTER:
            return
        with platforms.native("socket", "socket")(_UNIX, socket.SOCK_DGRAM) as probe:
            probe.setblocking(False)
            probe.connect(os.fsencode(path))
    except ConnectionRefusedError:  # the file is there, the socket is not
        path.unlink(missing_ok=True)
    except OSError:
        pass


def new_gate() -> green.Gate:
    """Return what the calling thread or greenlet may wait at, and native threads may open."""
    return green.gate() if green.is_greenlet() else _NativeGate()


class _NativeGate:
    """A lock as a gate: held while shut, so that waiting is one call (threading.Event takes two locks and a list)."""

    def __init__(self) -> None:
        self._lock = platforms.native("_thread", "allocate_lock")()
        self._lock.acquire()

    def open(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:
            pass  # open already

    def clear(self) -> None:
        self._lock.acquire(False)

    def close(self) -> None:
        pass

    def wait(self, timeout: float | None) -> bool:
        if not platforms.PORTABLE or threading.current_thread() is not threading.main_thread():
            seconds = -1 if timeout is None else max(0.0, min(timeout, threading.TIMEOUT_MAX))
            return bool(self._lock.acquire(True, seconds))
        deadline = float("inf") if timeout is None else monotonic() + timeout
        while not self._lock.acquire(True, max(0.0, min(_SLICE, deadline - monotonic()))):
            if monotonic() >= deadline:
                return False
        return True


_registry: dict[str, Bell] = {}
_registry_lock = platforms.native("_thread", "RLock")()


def bell_for(folder: Path) -> Bell:
    """Return the one bell of this process for a run folder. Close it when done; the last `close` ends it.

    Nothing is opened before the first ring or announce. The folder need not exist.
    """
    key = os.path.realpath(folder)
    with _registry_lock:
        bell = _registry.get(key) or next((bell for bell in _registry.values() if _same(bell.folder, key)), None)
        if bell is None:
            bell = _registry[key] = Bell(Path(key))
        bell._users += 1
        return bell


def _same(folder: Path, other: str) -> bool:
    """Say whether two names mean one folder (a bind mount, letters of another case): two bells would share one slot."""
    try:
        return os.path.samefile(folder, other)
    except OSError:
        return False


def _close_all() -> None:
    with _registry_lock:
        bells = list(_registry.values())
        _registry.clear()
    for bell in bells:
        bell._shut()


def _after_fork_in_child() -> None:
    global _registry_lock
    _registry_lock = platforms.native("_thread", "RLock")()
    for bell in list(_registry.values()):
        bell._forget_parent()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
