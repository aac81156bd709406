"""The few things that differ between operating systems, each as one plain function.

Any room may call it; it touches nothing of ours. Nothing here is POSIX-only at import. `PORTABLE` forces every Windows
branch that can run elsewhere (UDP bell, no POSIX signals, no fork), so that they are tested without Windows. What only
Windows can run (LockFileEx, job objects) stands in one section below: it is type-checked for win32 and **unproven**, as
is what only macOS can run (the boot session's name).
"""

from __future__ import annotations

import errno
import functools
import importlib
import math
import os
import re
import stat
import sys
from pathlib import Path
from typing import Any, Final

PORTABLE: bool = sys.platform == "win32" or os.environ.get("LITETQ_PORTABLE") == "1"

# The longest name of a Unix socket, in bytes with the final zero: 108 on Linux, 104 on macOS (sys/un.h).
SOCKET_PATH_BYTES: Final = 104

_BUSY: Final = frozenset({errno.EACCES, errno.EAGAIN, errno.EDEADLK})


if sys.platform == "win32":
    # Unproven: written from the documentation of the Windows API, checked by mypy, never run.
    import ctypes
    import msvcrt
    from ctypes import wintypes

    _kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    _LOCKFILE_FAIL_IMMEDIATELY: Final = 1
    _LOCKFILE_EXCLUSIVE_LOCK: Final = 2
    _ERROR_IO_PENDING: Final = 997
    _ERROR_LOCK_VIOLATION: Final = 33
    _PROCESS_TERMINATE: Final = 0x0001
    _PROCESS_SET_QUOTA: Final = 0x0100
    _EXTENDED_LIMIT_INFORMATION: Final = 9
    _LIMIT_KILL_ON_JOB_CLOSE: Final = 0x2000

    class _Overlapped(ctypes.Structure):
        _fields_ = [
            ("Internal", ctypes.c_size_t),
            ("InternalHigh", ctypes.c_size_t),
            ("Offset", wintypes.DWORD),
            ("OffsetHigh", wintypes.DWORD),
            ("hEvent", wintypes.HANDLE),
        ]

    class _BasicLimits(ctypes.Structure):
        _fields_ = [
            ("PerProcessUserTimeLimit", ctypes.c_int64),
            ("PerJobUserTimeLimit", ctypes.c_int64),
            ("LimitFlags", wintypes.DWORD),
            ("MinimumWorkingSetSize", ctypes.c_size_t),
            ("MaximumWorkingSetSize", ctypes.c_size_t),
            ("ActiveProcessLimit", wintypes.DWORD),
            ("Affinity", ctypes.c_size_t),
            ("PriorityClass", wintypes.DWORD),
            ("SchedulingClass", wintypes.DWORD),
        ]

    class _ExtendedLimits(ctypes.Structure):
        _fields_ = [
            ("BasicLimitInformation", _BasicLimits),
            ("IoInfo", ctypes.c_uint64 * 6),
            ("ProcessMemoryLimit", ctypes.c_size_t),
            ("JobMemoryLimit", ctypes.c_size_t),
            ("PeakProcessMemoryUsed", ctypes.c_size_t),
            ("PeakJobMemoryUsed", ctypes.c_size_t),
        ]

    _kernel32.CreateJobObjectW.restype = wintypes.HANDLE
    _kernel32.CreateJobObjectW.argtypes = (wintypes.LPVOID, wintypes.LPCWSTR)
    _kernel32.OpenProcess.restype = wintypes.HANDLE
    _kernel32.OpenProcess.argtypes = (wintypes.DWORD, wintypes.BOOL, wintypes.DWORD)
    _kernel32.SetInformationJobObject.argtypes = (wintypes.HANDLE, ctypes.c_int, wintypes.LPVOID, wintypes.DWORD)
    _kernel32.AssignProcessToJobObject.argtypes = (wintypes.HANDLE, wintypes.HANDLE)
    _kernel32.CloseHandle.argtypes = (wintypes.HANDLE,)
    _LOCK_ARGUMENTS = (wintypes.HANDLE, wintypes.DWORD, wintypes.DWORD, wintypes.DWORD, wintypes.DWORD, wintypes.LPVOID)
    _kernel32.LockFileEx.argtypes = _LOCK_ARGUMENTS
    _kernel32.UnlockFileEx.argtypes = (_LOCK_ARGUMENTS[0], *_LOCK_ARGUMENTS[2:])

    _job: int | None = None

    def _overlapped(offset: int) -> Any:
        return ctypes.byref(_Overlapped(Offset=offset & 0xFFFFFFFF, OffsetHigh=offset >> 32))

    def _lock_byte(fd: int, offset: int) -> bool:
        flags = _LOCKFILE_EXCLUSIVE_LOCK | _LOCKFILE_FAIL_IMMEDIATELY
        if _kernel32.LockFileEx(msvcrt.get_osfhandle(fd), flags, 0, 1, 0, _overlapped(offset)):
            return True
        error = ctypes.get_last_error()
        if error in (_ERROR_LOCK_VIOLATION, _ERROR_IO_PENDING):
            return False
        raise ctypes.WinError(error)

    def _unlock_byte(fd: int, offset: int) -> None:
        if not _kernel32.UnlockFileEx(msvcrt.get_osfhandle(fd), 0, 1, 0, _overlapped(offset)):
            raise ctypes.WinError(ctypes.get_last_error())

    def _open_job() -> int:
        job = _kernel32.CreateJobObjectW(None, None)
        limits = _ExtendedLimits()
        limits.BasicLimitInformation.LimitFlags = _LIMIT_KILL_ON_JOB_CLOSE
        if not job or not _kernel32.SetInformationJobObject(
            job, _EXTENDED_LIMIT_INFORMATION, ctypes.byref(limits), ctypes.sizeof(limits)
        ):
            raise ctypes.WinError(ctypes.get_last_error())
        return int(job)

    def _adopt_child(pid: int) -> None:
        global _job
        if _job is None:
            _job = _open_job()  # never closed: Windows closes it, and with it ends the children, when this process ends
        process = _kernel32.OpenProcess(_PROCESS_SET_QUOTA | _PROCESS_TERMINATE, False, pid)
        if not process:
            raise ctypes.WinError(ctypes.get_last_error())
        try:
            if not _kernel32.AssignProcessToJobObject(_job, process):
                raise ctypes.WinError(ctypes.get_last_error())
        finally:
            _kernel32.CloseHandle(process)

    def _become(user: str | int | None, group: str | int | None) -> None:
        del user, group
        raise NotImplementedError(
            "Windows has no such change; start it as a service or a scheduled task of that account"
        )

else:
    import fcntl
    import grp
    import pwd

    def _user_entry(user: str | int) -> tuple[str, int, int]:
        """Return name ("": it has none), number and own group of a user; raises LookupError."""
        try:
            if isinstance(user, str) and not user.isdecimal():
                found = pwd.getpwnam(user)
            else:
                found = pwd.getpwuid(int(user))
        except KeyError:
            if isinstance(user, str) and not user.isdecimal():
                raise LookupError(f"there is no user {user!r} here") from None
            return "", int(user), int(user)  # a container may run as a number that has no name
        return found.pw_name, found.pw_uid, found.pw_gid

    def _group_number(group: str | int) -> int:
        if not isinstance(group, str) or group.isdecimal():
            return int(group)
        try:
            return grp.getgrnam(group).gr_gid
        except KeyError:
            raise LookupError(f"there is no group {group!r} here") from None

    def _lock_byte(fd: int, offset: int) -> bool:
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset, os.SEEK_SET)
        except OSError as error:
            if error.errno in _BUSY:
                return False
            raise
        return True

    def _unlock_byte(fd: int, offset: int) -> None:
        fcntl.lockf(fd, fcntl.LOCK_UN, 1, offset, os.SEEK_SET)

    def _adopt_child(pid: int) -> None:
        del pid  # POSIX children see to it themselves: die_with_parent, or the end of their pipe

    def _become(user: str | int | None, group: str | int | None) -> None:
        name, uid, gid = ("", os.getuid(), os.getgid()) if user is None else _user_entry(user)
        if group is not None:
            gid = _group_number(group)
        if (uid, gid) == (os.getuid(), os.getgid()):
            return
        try:
            if user is not None and os.getuid() == 0:
                os.initgroups(name, gid) if name else os.setgroups([gid])
            os.setgid(gid)
            os.setuid(uid)
        except PermissionError:
            wanted = f"user {user!r}" if user is not None else f"group {group!r}"
            raise PermissionError(
                f"only root can become {wanted}, and this process runs as user {os.getuid()}"
            ) from None


def lock_byte(fd: int, offset: int) -> bool:
    """Take the exclusive record lock on one byte of an open file, or return False at once when another process has it.

    The byte need not exist. The kernel frees the lock when the process ends, however it ends, and a fork does not inherit
    it. POSIX: the process that holds it gets it again (True), and loses it when it closes *any* descriptor on the same
    file, so keep one descriptor per file and process. Windows: a locked byte cannot be read except through a memory map.

    Raises OSError where the file system has no locks.
    """
    return _lock_byte(fd, offset)


def unlock_byte(fd: int, offset: int) -> None:
    """Free the record lock on one byte, taken by `lock_byte`."""
    _unlock_byte(fd, offset)


def adopt_child(pid: int) -> None:
    """Windows: let this child end when the calling process ends, however it ends (job object). Elsewhere nothing.

    Raises OSError when the child is gone or Windows refuses.
    """
    _adopt_child(pid)


def die_with_parent(parent: int) -> None:
    """Let the calling process be killed (SIGKILL) when its parent dies, and end it now if that has happened already.

    Linux only; elsewhere nothing happens, and the end of the pipe to the parent must serve.

    Args:
        parent: pid that the parent told its child, as the child sees it.

    Safety: the kernel takes "the parent" to be the *thread* that started this process (prctl(2), PR_SET_PDEATHSIG):
    start children from a thread that lives as long as they may.
    """
    if sys.platform != "linux":
        return
    import ctypes

    set_parent_death_signal, sigkill = 1, 9
    ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, sigkill, 0, 0, 0)
    if os.getppid() != parent:  # it died before the call above: no signal will come
        os._exit(1)


@functools.cache
def boot_id() -> str:
    """Return a name for the present run of the machine, the same in all its processes; "" where none can be had.

    Linux: the kernel's random boot id. macOS: the boot session's UUID. Windows and the rest: the time of boot to the
    minute, which a change of the clock moves; a reader then takes a run file for one of an earlier boot, which is safe.
    """
    if sys.platform == "linux":
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        except OSError:
            pass  # a sandbox without it (gVisor)
    if sys.platform == "darwin":
        session = _macos_boot_session()
        if session:
            return session
    psutil = _psutil()
    return f"booted-{round(psutil.boot_time() / 60)}" if psutil else ""


def _macos_boot_session() -> str:
    import ctypes

    text = ctypes.create_string_buffer(64)
    size = ctypes.c_size_t(len(text))
    failed = ctypes.CDLL(None).sysctlbyname(b"kern.bootsessionuuid", text, ctypes.byref(size), None, 0)
    return "" if failed else text.value.decode("ascii", "replace")


def _psutil() -> Any:
    """Return the module psutil, or None where it is not installed."""
    try:
        return importlib.import_module("psutil")
    except ImportError:
        return None


def runtime_folder() -> Path:
    """Return this user's private folder for sockets, and create it: $XDG_RUNTIME_DIR/litetq, else /tmp/litetq-<uid>.

    Names in it stay short enough for a socket (a long $XDG_RUNTIME_DIR is passed over).

    Raises OSError when neither can be created or trusted, e.g. because /tmp/litetq-<uid> belongs to somebody else.
    """
    if sys.platform == "win32":
        raise NotImplementedError("Windows has no sockets in folders; the bell speaks UDP there")
    fallback = Path(f"/tmp/litetq-{os.getuid()}")
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    if given.startswith("/") and len(os.fsencode(given)) + len("/litetq/") + 32 <= SOCKET_PATH_BYTES:
        try:
            return _private_folder(Path(given, "litetq"))
        except OSError:
            pass  # left over from another session or user (su, sudo -E): the other place serves as well
    return _private_folder(fallback)


def _private_folder(path: Path) -> Path:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    found = os.lstat(path)  # not stat: in /tmp anybody may have laid a link there
    if not stat.S_ISDIR(found.st_mode) or not _is_private(found):
        raise PermissionError(
            errno.EACCES, "is not a folder that belongs to this user alone; remove it or set XDG_RUNTIME_DIR", str(path)
        )
    return path


def owned_and_private(path: str | os.PathLike[str]) -> bool:
    """Say whether a file (links followed) belongs to this user and can be written neither by its group nor by others.

    False when it is missing or cannot be looked at. Windows: True for every file that is there, since its access lists
    are not read.
    """
    try:
        return _is_private(os.stat(path))
    except OSError:
        return False


def _is_private(found: os.stat_result) -> bool:
    if sys.platform == "win32":
        return True
    return found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def is_root() -> bool:
    """Say whether this process may do anything on this system; on Windows False, where nobody is root."""
    return sys.platform != "win32" and os.geteuid() == 0


def become(user: str | int | None, group: str | int | None) -> None:
    """Let the calling process be of this user and group from now on, with no way back; what is None stays.

    A user alone brings the user's own group and all that the user is a member of. Both are names or numbers.

    Raises LookupError for one that this system does not know, PermissionError where this process may not (only root may),
    NotImplementedError on Windows.
    """
    if user is not None or group is not None:
        _become(user, group)


def file_system_of(path: str | os.PathLike[str]) -> str:
    """Return the type of the file system that holds `path` or would hold it ("ext4", "nfs4", "9p"); "" is unknown."""
    full = os.path.realpath(path)
    if sys.platform == "linux":
        try:
            lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
        except OSError:
            return ""
        return _type_at(full, [_mount(line) for line in lines])
    psutil = _psutil()
    if psutil is None:
        return ""
    return _type_at(full, [(part.mountpoint, part.fstype) for part in psutil.disk_partitions(all=True)])


def _mount(line: bytes) -> tuple[str, str]:
    """Return (mount point, type) of a line of mountinfo (proc_pid_mountinfo(5)), where blanks are octal escapes."""
    fields, _, rest = line.partition(b" - ")
    point = re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8)]), fields.split()[4])
    return os.fsdecode(point), os.fsdecode(rest.split()[0])


def _type_at(path: str, mounts: list[tuple[str, str]]) -> str:
    """Return the type of the mount with the longest matching mount point; of several there, the last hides the rest."""
    best, found = -1, ""
    folded = os.path.normcase(path)
    for point, kind in mounts:
        root = os.path.normcase(point)
        inside = folded == root or folded.startswith(root if root.endswith(os.sep) else root + os.sep)
        if inside and len(root) >= best:
            best, found = len(root), kind
    return found


def green() -> str:
    """Return the library that has replaced threads by greenlets in this process: "gevent", "eventlet" or "" (none)."""
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        return "gevent"
    patcher: Any = sys.modules.get("eventlet.patcher")
    if patcher is not None and patcher.is_monkey_patched("thread"):
        return "eventlet"
    return ""


def is_green() -> bool:
    """Say whether gevent or eventlet has replaced threads by greenlets in this process."""
    return green() != ""


def native(module: str, name: str) -> Any:
    """Return a name of a standard module as it was before it was monkey-patched: native locks and threads, plain sockets."""
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is not None:
        return monkey.get_original(module, name)
    patcher: Any = sys.modules.get("eventlet.patcher")
    if patcher is not None and patcher.already_patched:
        return getattr(patcher.original(module), name)
    return getattr(importlib.import_module(module), name)


def processors() -> int:
    """Return how many processors this process may keep busy: those it may run on, or what a container's quota allows of them."""
    if hasattr(os, "sched_getaffinity"):
        there = len(os.sched_getaffinity(0))
    else:
        there = os.cpu_count() or 1
    quota = processor_quota()
    return max(1, there if quota is None else min(there, math.ceil(quota)))


def processor_quota(groups: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> float | None:
    """Return the quota of the control groups (Linux) that this process is in, in processors; None: there is none.

    A group is bound by those above it, so the least of all of them counts.
    """
    try:
        lines = Path(groups).read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    found: list[float] = []
    for line in lines:
        number, controllers, path = ([*line.split(":", 2), "", ""])[:3]
        if number == "0" and not controllers:
            folder, read = Path(root), _quota_of_v2
        elif "cpu" in controllers.split(","):
            mounts = [Path(root, name) for name in (controllers, "cpu")]
            folder, read = next((mount for mount in mounts if mount.is_dir()), mounts[0]), _quota_of_v1
        else:
            continue
        group = folder / path.lstrip("/")
        above = [place for place in group.parents if folder in place.parents]
        # A container sees its own group as the root, though the path is that of the host.
        found += [quota for place in (group, *above, folder) if (quota := read(place)) is not None]
    return min(found, default=None)


def _quota_of_v2(folder: Path) -> float | None:
    words = _words(folder / "cpu.max")
    return _share(*words[:2]) if len(words) > 1 else None


def _quota_of_v1(folder: Path) -> float | None:
    words = [*_words(folder / "cpu.cfs_quota_us"), *_words(folder / "cpu.cfs_period_us")]
    return _share(*words) if len(words) == 2 else None


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return []


def _share(quota: str, period: str) -> float | None:
    try:
        share = int(quota) / int(period)  # "max" and -1 are no quota
    except (ValueError, ZeroDivisionError):
        return None
    return share if share > 0 else None
