"""The few differences between operating systems, as far as this one shows them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from litetq import platforms
from tests.waiting import eventually

posix = pytest.mark.skipif(sys.platform == "win32", reason="owners and modes are POSIX's")
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has it")

HOLDER = """
import os, sys
from litetq.platforms import lock_byte
fd = os.open(sys.argv[1], os.O_RDWR)
print(lock_byte(fd, int(sys.argv[2])), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "locks"
    path.write_bytes(b"")
    return path


def test_a_byte_is_locked_by_one_process_until_it_dies(file: Path, run_python: Any) -> None:
    holder = run_python(HOLDER, file, "300", stdin=subprocess.PIPE)
    assert holder.stdout.readline() == "True\n"
    fd = os.open(file, os.O_RDWR)
    assert platforms.lock_byte(fd, 300) is False
    assert platforms.lock_byte(fd, 301) is True, "every byte has its own lock, also beyond the end"
    holder.kill()
    holder.wait(10)
    assert platforms.lock_byte(fd, 300) is True
    os.close(fd)


def test_an_unlocked_byte_is_free_for_others(file: Path, run_python: Any) -> None:
    fd = os.open(file, os.O_RDWR)
    assert platforms.lock_byte(fd, 7)
    platforms.unlock_byte(fd, 7)
    assert run_python(HOLDER, file, "7").communicate(timeout=30)[0] == "True\n"
    os.close(fd)


def test_a_lock_on_no_file_is_an_error() -> None:
    with pytest.raises(OSError):
        platforms.lock_byte(10_000, 0)


def test_all_processes_of_one_boot_know_it_by_one_name(run_python: Any) -> None:
    out, _ = run_python("from litetq.platforms import boot_id; print(boot_id())").communicate(timeout=30)
    assert out.strip() == platforms.boot_id() != ""


@linux
def test_a_child_dies_with_its_parent(run_python: Any) -> None:
    child = "import os, sys; from litetq.platforms import die_with_parent\n"
    child += "die_with_parent(int(sys.argv[1])); print(os.getpid(), flush=True); sys.stdin.read()"
    parent = run_python(
        "import os, subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}, str(os.getpid())], stdin=subprocess.PIPE)\n"
        "time.sleep(60)"
    )
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    os.kill(parent.pid, signal.SIGKILL)
    eventually(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


@linux
def test_a_child_whose_parent_is_gone_already_ends_at_once(run_python: Any) -> None:
    child = run_python("from litetq.platforms import die_with_parent; die_with_parent(1 << 30); print('alive')")
    assert child.communicate(timeout=30) == ("", "") and child.returncode == 1


@linux
def test_the_file_system_of_a_path_is_that_of_its_nearest_mount(tmp_path: Path) -> None:
    assert platforms.file_system_of("/proc/self/status") == "proc"
    root = platforms.file_system_of("/")
    assert root and platforms.file_system_of("/not/there/yet.sqlite") == root
    (tmp_path / "link").symlink_to("/proc")
    assert platforms.file_system_of(tmp_path / "link" / "stat") == "proc"
    assert platforms.file_system_of("/procession") == root


def test_mounts_may_have_any_name_and_lie_over_each_other() -> None:
    lines = [
        rb"36 35 98:0 /a /mnt/my\040disk rw,noatime master:1 - ext4 /dev/sda rw",
        rb"37 36 0:52 / /mnt/my\040disk/nfs rw shared:2 master:3 - nfs4 host:/x rw",
        rb"38 36 0:53 / /mnt/my\040disk/nfs rw - cifs //host/x rw",
        rb"22 1 8:1 / / rw - btrfs /dev/sda1 rw",
        b"39 22 0:54 / /\xe9 rw - 9p x rw",
    ]
    mounts = [platforms._mount(line) for line in lines]
    for path, kind in {
        "/mnt/my disk/jobs.sqlite": "ext4",
        "/mnt/my disk/nfs/jobs.sqlite": "cifs",
        "/mnt/my disk/nfs2": "ext4",
        "/mnt": "btrfs",
        os.fsdecode(b"/\xe9/x"): "9p",
    }.items():
        assert platforms._type_at(path, mounts) == kind


@posix
def test_a_file_is_private_when_only_its_owner_can_write_it(file: Path) -> None:
    for mode, private in {0o644: True, 0o600: True, 0o664: False, 0o646: False}.items():
        file.chmod(mode)
        assert platforms.owned_and_private(file) is private
    assert not platforms.owned_and_private(file.parent / "missing")
    if os.geteuid() == 0:
        file.chmod(0o600)
        os.chown(file, 12345, -1)
        assert not platforms.owned_and_private(file)


@posix
def test_the_runtime_folder_is_private_and_has_a_short_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fallback = Path(f"/tmp/litetq-{os.getuid()}")
    (tmp_path / "r").mkdir()
    monkeypatch.chdir(tmp_path)
    for given, expected in {
        "": fallback,
        "r": fallback,  # not absolute
        "/not/there": fallback,
        "/tmp/" + "x" * 60: fallback,  # too long for a socket
    }.items():
        monkeypatch.setenv("XDG_RUNTIME_DIR", given)
        assert platforms.runtime_folder() == expected
    assert fallback.stat().st_mode & 0o777 == 0o700


@posix
def test_a_runtime_folder_that_others_can_write_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    short = Path(f"/tmp/lt{os.getpid()}")
    short.mkdir(0o700)
    try:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
        assert platforms.runtime_folder() == short / "litetq"
        (short / "litetq").chmod(0o777)
        assert platforms.runtime_folder() == Path(f"/tmp/litetq-{os.getuid()}")
        (short / "litetq").rmdir()
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        (short / "litetq").symlink_to(tmp_path / "elsewhere")
        assert platforms.runtime_folder() == Path(f"/tmp/litetq-{os.getuid()}")
        (short / "litetq").unlink()
    finally:
        short.rmdir()


def test_without_gevent_a_native_name_is_the_ordinary_one() -> None:
    import threading

    assert not platforms.is_green()
    assert platforms.native("threading", "Thread") is threading.Thread


# -- processors


def groups_of(folder: Path, lines: str, files: dict[str, str]) -> float | None:
    """Return the quota that control groups with these lines and files give."""
    (folder / "cgroup").write_text(lines)
    for name, text in files.items():
        file = folder / "fs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return platforms.processor_quota(str(folder / "cgroup"), str(folder / "fs"))


@pytest.mark.parametrize(
    ("lines", "files", "wanted"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n", "cpu.max": "300000 100000"}, 2.0),
        ("0::/host/path\n", {"cpu.max": "50000 100000"}, 0.5),  # in a container, which sees its own group as the root
        ("4:memory:/\n2:cpu,cpuacct:/x\n", {"cpu,cpuacct/x/cpu.cfs_quota_us": "400000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"}, 4.0),
        ("1:cpu:/\n0::/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
        ("nonsense\n", {}, None),
    ],
)  # fmt: skip
def test_a_quota_of_processors_is_the_least_of_all_groups_above(
    tmp_path: Path, lines: str, files: dict[str, str], wanted: float | None
) -> None:
    assert groups_of(tmp_path, lines, files) == wanted


def test_where_there_are_no_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert platforms.processor_quota(str(tmp_path / "none")) is None
    assert platforms.processors() >= 1
