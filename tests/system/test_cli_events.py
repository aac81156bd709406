"""`litetq events`: lines, pictures for a camera, and the live screen in a real pseudo-terminal."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, cli, platforms
from litetq.camera import Polaroid
from litetq.cli.events import Dumper
from litetq.cli.live import Screen
from litetq.cli.text import Paper, columns
from litetq.events import State
from tests.conftest import RunPython
from tests.waiting import eventually

LONG = 30.0  # seconds

PROGRAM = """
from litetq import LiteTQ
from litetq.camera import Polaroid

app = LiteTQ("tasks", broker="jobs.sqlite")


@app.task
def add(x, y):
    return x + y


@app.task
def fail():
    raise KeyError("gone")


class Counter(Polaroid):
    clear_after = True

    def on_shutter(self, state):
        if state.task_count:
            print(state.task_count, "tasks", flush=True)
"""


@pytest.fixture
def app(tmp_path: Path) -> Iterator[LiteTQ]:
    (tmp_path / "tasks.py").write_text(PROGRAM, encoding="utf-8")
    with LiteTQ("tasks", broker=tmp_path / "jobs.sqlite", set_as_current=False) as app:

        @app.task(name="tasks.add")
        def add(x: Any, y: Any) -> Any:
            return x + y

        @app.task(name="tasks.fail")
        def fail() -> None:
            raise KeyError("gone")

        yield app


@pytest.fixture
def worker(app: LiteTQ) -> Iterator[Any]:
    app.conf.worker_send_task_events = True
    with app.run_embedded(hostname="w@here", concurrency=1) as worker:
        yield worker


def lines_of(process: subprocess.Popen[str]) -> list[str]:
    """Return a list to which a thread adds what the process prints."""
    found: list[str] = []
    assert process.stdout is not None
    stream = process.stdout

    def collect() -> None:
        with contextlib.suppress(ValueError):  # the fixture closed it
            for line in iter(stream.readline, ""):
                found.append(line.rstrip("\n"))

    threading.Thread(target=collect, daemon=True).start()
    return found


# -- lines


def event(type: str, **fields: Any) -> dict[str, Any]:
    return {"type": type, "timestamp": 1_700_000_000.25, "hostname": "w@here", **fields}


def test_lines_are_those_of_celerys_dump() -> None:
    dumper = Dumper()
    assert [
        dumper.line(event("worker-online", freq=10.0, active=0)),
        dumper.line(event("worker-heartbeat", active=1)),
        dumper.line(event("worker-offline")),
        dumper.line(event("task-received", uuid="1", name="add", args="(1, 2)", kwargs="{}", clock=3)),
        dumper.line(event("task-started", uuid="1", pid=5)),
        dumper.line(event("task-succeeded", uuid="1", result="3", runtime=0.5)),
        dumper.line(event("task-progress", uuid="2", done=1)),
    ] == [
        "w@here [2023-11-14 22:13:20.250000+00:00] started: active=0, freq=10.0",
        "w@here [2023-11-14 22:13:20.250000+00:00] heartbeat: active=1",
        "w@here [2023-11-14 22:13:20.250000+00:00] shutdown ",
        "w@here [2023-11-14 22:13:20.250000+00:00] task received: add(1) args=(1, 2) kwargs={} clock=3",
        "w@here [2023-11-14 22:13:20.250000+00:00] task started: add(1) args=(1, 2) kwargs={} pid=5",
        "w@here [2023-11-14 22:13:20.250000+00:00] task succeeded: add(1) args=(1, 2) kwargs={} result=3, runtime=0.5",
        "w@here [2023-11-14 22:13:20.250000+00:00] task progress: (2) done=1",
    ]


def test_a_line_stays_a_line_whatever_a_task_says() -> None:
    line = Dumper().line(event("task-failed", uuid="1", exception="KeyError('\x1b[31m')", traceback="a\nb\r\x07"))
    assert line.endswith("task failed: (1) exception=KeyError('\\x1b[31m'), traceback=a\\nb\\r\\x07")


@pytest.mark.row("13.events")
@pytest.mark.system
def test_dump_tells_what_happens_while_it_happens(app: LiteTQ, worker: Any, run_python: RunPython) -> None:
    dump = run_python("-m", "litetq", "-A", "tasks", "events", "--dump")
    objects = run_python("-m", "litetq", "events", "jobs.sqlite", "--dump", "-j")
    lines, as_json = lines_of(dump), lines_of(objects)
    # Both ask for a heartbeat when they begin to listen.
    eventually(lambda: any(" heartbeat: " in line for line in lines) and as_json, within=LONG)
    id = app.send_task("tasks.add", (1, 2)).id
    eventually(lambda: any(" task succeeded: " in line for line in lines), within=LONG)
    eventually(lambda: any('"task-succeeded"' in line for line in as_json), within=LONG)
    assert lines[0] == "-> evdump: starting capture..."
    [received] = [line for line in lines if " task received: " in line]
    assert f"task received: tasks.add({id}) args=(1, 2) kwargs={{}} clock=" in received
    told = [json.loads(line) for line in as_json]
    assert [each["type"] for each in told if each.get("uuid") == id] == [
        "task-received",
        "task-started",
        "task-succeeded",
    ]
    if not platforms.PORTABLE:
        dump.send_signal(signal.SIGINT)
        assert dump.wait(LONG) == cli.INTERRUPTED


@pytest.mark.system
def test_dump_ends_when_nobody_reads_it_any_more(app: LiteTQ, worker: Any, run_python: RunPython) -> None:
    dump = run_python("-m", "litetq", "-A", "tasks", "events", "--dump")
    assert dump.stdout is not None
    assert dump.stdout.readline() == "-> evdump: starting capture...\n"
    dump.stdout.close()

    def has_ended() -> bool:
        app.send_task("tasks.add", (1, 2))  # it learns of it when it writes
        return dump.poll() is not None

    eventually(has_ended, within=LONG)
    assert dump.stderr is not None and dump.stderr.read() == ""


# -- pictures


@pytest.mark.row("14.cameras")
@pytest.mark.system
def test_a_camera_gets_pictures_until_it_is_told_to_stop(
    app: LiteTQ, worker: Any, run_python: RunPython, tmp_path: Path
) -> None:
    words = [
        "-A",
        "tasks",
        "events",
        "-c",
        "tasks.Counter",
        "-F",
        "0.05",
        "--pidfile",
        "cam.pid",
        "-f",
        "cam.log",
        "-l",
        "info",
    ]
    film = run_python("-m", "litetq", *words)
    lines = lines_of(film)

    def is_seen() -> list[str]:
        app.send_task("tasks.add", (1, 2))  # for every look, until the camera has begun
        return lines

    eventually(is_seen, within=LONG)
    assert re.fullmatch(r"\d+ tasks", lines[0])
    assert int((tmp_path / "cam.pid").read_text()) == film.pid and (tmp_path / "cam.log").exists()
    second = run_python("-m", "litetq", *words)
    assert second.wait(LONG) == cli.CANNOT_CREATE
    film.terminate()
    code = film.wait(LONG)
    if not platforms.PORTABLE:
        assert code == cli.OK and not (tmp_path / "cam.pid").exists()


def test_a_camera_takes_no_more_pictures_than_its_rate(app: LiteTQ) -> None:
    taken: list[int] = []

    class Camera(Polaroid):
        clear_after = True

        def on_shutter(self, state: State) -> None:
            taken.append(state.event_count)

    state = app.events.State()
    camera = Camera(state, maxrate="1/h", app=app)
    state.event({**event("worker-online"), "local_received": 1.0})
    camera.capture()
    camera.capture()
    assert taken == [1] and state.event_count == 0
    free = Camera(state, app=app)
    free.capture()
    free.capture()
    assert taken == [1, 0, 0]
    seen: list[Any] = []
    with free:
        Polaroid.shutter_signal.connect(lambda **told: seen.append(told["state"]), sender=free, weak=False)
        free.capture()
    assert seen == [state]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["-c", "nowhere:X"], "'nowhere:X' cannot be loaded: No module named 'nowhere'; write module:Class."),
        (["-c", "os.X"], "'os.X' cannot be loaded"),
        (["-c", "os:path"], "'os:path' is no class; write module:Class."),
        (["-c", "litetq.camera:Polaroid", "-r", "often"], "a rate limit is like"),
        ([], "The live screen needs a terminal; print lines with  --dump."),
        (["nothing.sqlite", "--dump"], "There is no file"),
    ],
)
def test_what_cannot_be_watched_ends_with_2(
    app: LiteTQ,
    db: Path,
    words: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app.engine.store.set_meta("some", "thing")
    monkeypatch.chdir(db.parent)
    given = [] if "nothing.sqlite" in words else ["-b", str(db)]
    assert cli.main([*given, "events", *words]) == cli.USAGE
    assert sentence in capsys.readouterr().err


def test_options_of_a_camera_without_one_say_that_they_have_no_effect(
    app: LiteTQ, db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app.engine.store.set_meta("some", "thing")
    cli.main(["-b", str(db), "events", "-r", "1/s", "--pidfile", "x", "--detach"])
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert [note.split()[5] for note in notes] == ["--detach:", "--pidfile:", "--maxrate:"]


# -- the screen, without a terminal


@pytest.fixture
def screen(app: LiteTQ) -> Screen:
    state = app.events.State()
    now = time.time()
    for n, told in enumerate(
        [
            event("worker-online", freq=10.0),
            event("task-received", uuid="id-1", name="add", args="(1, 2)", kwargs="{}"),
            event("task-succeeded", uuid="id-1", result="3", runtime=0.5),
            event("task-received", uuid="id-2", name="evil\x1b[31m", args="('[red]x',)", kwargs="{}"),
            event(
                "task-failed",
                uuid="id-2",
                exception="KeyError('x')",
                traceback="Traceback:\n" + "  line\n" * 40 + "last",
            ),
        ],
        1,
    ):
        state.event({**told, "clock": n, "timestamp": now, "local_received": now})
    return Screen(app, state, Paper(colour=False, width=80))


def test_a_frame_shows_tasks_workers_and_keys_and_fits(screen: Screen) -> None:
    lines = screen.frame(80, 12)
    assert len(lines) == 12 and all(len(plain(line)) <= 80 for line in lines)
    assert plain(lines[1]).split() == ["UUID", "WORKER", "TASK", "TIME", "STATE"]
    assert plain(lines[2]).split()[0::2] == ["id-2", "evil\\x1b[31m", "FAILURE"]
    assert plain(lines[3]).split()[0] == "id-1" and plain(lines[3]).rstrip().endswith("SUCCESS")
    assert lines[6] == "-" * 80 and lines[7] == "No task selected"
    assert lines[8] == "Workers online: w@here" and lines[9] == "Info: events: 5 tasks: 2 workers: 1/1"
    assert lines[11].startswith("Keys: j:down k:up i:info t:traceback r:result")


def plain(line: str) -> str:
    return re.sub(r"\x1b\[\d*m", "", line)


@pytest.mark.parametrize("size", [(20, 8), (40, 10), (200, 60)])
def test_a_frame_fits_into_any_terminal(screen: Screen, size: tuple[int, int]) -> None:
    for keys in ([], ["j"], ["j", "i"], ["c"]):
        for key in keys:
            screen.press(key)
        lines = screen.frame(*size)
        assert len(lines) <= size[1] and all(len(plain(line)) <= size[0] for line in lines)


def test_keys_select_and_look_closer(screen: Screen) -> None:
    for _ in range(3):
        screen.press("j")
    assert screen.frame(100, 12)[7] == "Selected: args=(1, 2) kwargs={} result=3 runtime=0.5"
    screen.press("up")
    screen.press("i")
    page = [plain(line) for line in screen.frame(100, 20)]
    assert page[0] == "Task details for id-2" and "  name: evil\\x1b[31m" in page and "  args: ('[red]x',)" in page
    screen.press("any")
    screen.press("t")
    page = [plain(line) for line in screen.frame(100, 20)]
    assert page[2:4] == ["  Traceback:", "    line"] and page[-1] == "Press any key to continue... (26 lines below: j)"
    for _ in range(100):
        screen.press("j")
    assert plain(screen.frame(100, 20)[-3]).strip() == "last"
    screen.press("q")
    screen.press("r")
    assert "  KeyError('x')" in screen.frame(100, 20)
    screen.press("q")
    assert not screen.is_over
    screen.press("q")
    assert screen.is_over


def test_keys_for_a_task_ring_the_bell_while_none_is_selected(screen: Screen) -> None:
    for key in "itrcxl":
        screen.beep = False
        screen.press(key)
        assert screen.beep


def test_a_task_is_revoked_after_a_question(app: LiteTQ) -> None:
    result = app.send_task("tasks.add", (1, 2))
    state = app.events.State()
    state.event({**event("task-sent", uuid=result.id, name="tasks.add"), "clock": 1, "local_received": 1.0})
    screen = Screen(app, state, Paper(colour=False, width=80))
    for keys, revoked in ((["c", "n", "enter"], False), (["c", "y", "escape"], False), (["x", "y", "enter"], True)):
        for key in ["j", *keys]:
            screen.press(key)
        assert (result.state == "REVOKED") is revoked
    assert plain(screen.frame(80, 12)[0]) == "Remote Control Command Replies"


def test_a_rate_limit_is_set_by_the_line_that_is_typed(app: LiteTQ, worker: Any) -> None:
    state = app.events.State()
    state.event({**event("task-sent", uuid="1", name="tasks.add"), "clock": 1, "local_received": 1.0})
    screen = Screen(app, state, Paper(colour=False, width=80))
    for key in ["j", "l", "1", "x", "delete", "/", "m", "enter"]:
        screen.press(key)
    assert "  w@here: new rate limit set successfully" in screen.frame(80, 12)
    assert app.tasks["tasks.add"].rate_limit == "1/m"


def test_a_rate_limit_needs_no_worker(screen: Screen) -> None:
    for rate, told in (("x", 'file: error: a rate limit is like "10/s"'), ("5", "file: new rate limit set")):
        for key in ["j", "l", rate, "enter"]:
            screen.press(key)
        shown = "\n".join(screen.frame(150, 12))
        assert told in shown
        screen.press("z")


def test_wide_letters_are_wrapped_by_the_columns_they_take(screen: Screen) -> None:
    text = "\u6d4b\u8bd5" * 30
    screen.state.event({**event("task-succeeded", uuid="id-1", result=text), "clock": 9, "local_received": 1.0})
    for key in "jr":
        screen.press(key)
    lines = screen.frame(40, 12)
    assert all(columns(plain(line)) <= 40 for line in lines)
    assert "".join(line.strip() for line in lines[2:-2]) == text


# -- the screen, in a terminal


class Seen:
    """A program in a pseudo-terminal: what it shows now, and its keys."""

    def __init__(self, run_python: RunPython, *words: str, columns: int = 100, lines: int = 24) -> None:
        import fcntl
        import pty
        import termios

        self.outer, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.before = termios.tcgetattr(inner)
        self.inner = inner
        self._text = b""
        self._lock = threading.Lock()
        env = {"TERM": "xterm", "COLUMNS": "", "LINES": ""}
        self.process = run_python("-m", "litetq", *words, stdin=inner, stdout=inner, stderr=inner, env=env)
        self._is_over = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while not self._is_over:
                if select.select([self.outer], [], [], 0.05)[0]:
                    data = os.read(self.outer, 65536)
                    with self._lock:
                        self._text += data

    @property
    def text(self) -> str:
        with self._lock:
            return self._text.decode("utf-8", "replace")

    @property
    def frame(self) -> list[str]:
        """The lines of the last frame that has come whole."""
        whole = re.findall(r"\x1b\[H((?:(?!\x1b\[H).)*)\x1b\[J", self.text, re.DOTALL)
        return [] if not whole else whole[-1].replace("\x1b[K", "").split("\r\n")

    def shows(self, *words: str) -> bool:
        frame = "\n".join(map(plain, self.frame))
        return all(word in frame for word in words)

    def press(self, keys: str) -> None:
        os.write(self.outer, keys.encode())

    def attributes(self) -> Any:
        import termios

        return termios.tcgetattr(self.inner)

    def close(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._reader.join()  # a descriptor that is being read stays open
            os.close(self.inner)
            os.close(self.outer)


@pytest.fixture
def see(run_python: RunPython) -> Iterator[Callable[..., Seen]]:
    seen: list[Seen] = []

    def start(*words: str, **size: int) -> Seen:
        seen.append(Seen(run_python, *words, **size))
        return seen[-1]

    yield start
    for each in seen:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()
        each.close()


@pytest.mark.row("14.cursesmon keys")
@pytest.mark.system
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals for tests")
def test_the_live_screen_in_a_terminal(app: LiteTQ, worker: Any, see: Callable[..., Seen]) -> None:
    before = app.send_task("tasks.add", (1, 2))
    before.get(timeout=LONG)
    seen = see("-A", "tasks", "events")
    eventually(lambda: seen.shows("Keys:", before.id, "SUCCESS", "Workers online: w@here"), within=LONG)
    assert seen.text.startswith("\x1b[?1049h\x1b[?25l") and len(seen.frame) == 24
    failed = app.send_task("tasks.fail")  # while it is watched
    eventually(lambda: seen.shows(failed.id, "FAILURE"), within=LONG)
    seen.press("j")
    eventually(lambda: seen.shows("Selected: ", "exception=KeyError('gone')"), within=LONG)
    seen.press("\x1b[B")  # the arrow
    eventually(lambda: seen.shows("Selected: args=(1, 2)"), within=LONG)
    seen.press("k")
    seen.press("t")
    eventually(lambda: seen.shows(f"Task Exception Traceback for {failed.id}", "KeyError: 'gone'"), within=LONG)
    seen.press(" ")
    seen.press("z")
    eventually(lambda: seen.shows("Keys:"), within=LONG)
    seen.press("\r")
    eventually(lambda: seen.shows(f"Task details for {failed.id}", "worker: w@here"), within=LONG)
    seen.press("z")
    assert seen.attributes() != seen.before  # keys are not echoed
    seen.press("q")
    assert seen.process.wait(LONG) == cli.OK
    eventually(lambda: seen.text.endswith("\x1b[?25h\x1b[?1049l"), within=LONG)
    assert seen.attributes() == seen.before


@pytest.mark.system
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals for tests")
@pytest.mark.parametrize("how", ["Ctrl-C", "error"])
def test_the_terminal_is_as_before_however_the_screen_ends(
    app: LiteTQ, see: Callable[..., Seen], how: str, tmp_path: Path
) -> None:
    app.engine.store.set_meta("some", "thing")
    words = ["-A", "tasks", "events"]
    if how == "error":
        (tmp_path / "tasks.py").write_text(
            "from litetq import LiteTQ\nfrom litetq.cli.live import Screen\n"
            "app = LiteTQ('tasks', broker='jobs.sqlite')\n"
            "def press(self, key):\n    raise RuntimeError('made to fail')\nScreen.press = press\n"
        )
    seen = see(*words)
    eventually(lambda: seen.shows("No workers discovered. Do they run with -E?"), within=LONG)
    if how == "Ctrl-C":
        os.kill(seen.process.pid, signal.SIGINT)
        assert seen.process.wait(LONG) == cli.OK
    else:
        seen.press("j")
        assert seen.process.wait(LONG) != cli.OK
    eventually(lambda: "\x1b[?25h\x1b[?1049l" in seen.text, within=LONG)
    assert seen.attributes() == seen.before


@pytest.mark.system
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals for tests")
def test_the_screen_ends_when_its_terminal_is_gone(app: LiteTQ, see: Callable[..., Seen]) -> None:
    app.engine.store.set_meta("some", "thing")
    seen = see("-A", "tasks", "events")
    eventually(lambda: seen.shows("Keys:"), within=LONG)
    seen.close()
    assert seen.process.wait(LONG) == cli.OK


@pytest.mark.system
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals for tests")
@pytest.mark.parametrize(("words", "coloured"), [([], True), (["-C"], False)])
def test_answers_have_colours_on_a_terminal_unless_they_are_unwanted(
    app: LiteTQ, worker: Any, see: Callable[..., Seen], words: list[str], coloured: bool
) -> None:
    seen = see("-A", "tasks", *words, "inspect", "ping")
    assert seen.process.wait(LONG) == cli.OK
    eventually(lambda: "1 node online." in seen.text, within=LONG)
    assert ("\x1b[" in seen.text) is coloured and "w@here:" in seen.text
