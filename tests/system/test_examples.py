"""The programs in examples/, run as their readers run them: copied to a folder of one's own, started there."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import json
import os
import re
import shutil
import signal
import socketserver
import sqlite3
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, NeedTool, RunPython, missing
from tests.waiting import eventually

pytestmark = pytest.mark.system
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="interrupts as POSIX does")
x11_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="drives the window through an X server")
WITHIN = 60.0  # seconds for a program that takes one: the machine may be busy

Run = Callable[..., str]


@pytest.fixture
def example(tmp_path: Path) -> Callable[[str], Path]:
    """Copy an example to a folder of the test."""

    def copy(name: str) -> Path:
        to = tmp_path / "example"
        source = ROOT / "examples" / name
        if source.is_dir():
            shutil.copytree(source, to, ignore=shutil.ignore_patterns("__pycache__", "*.sqlite*"))
        else:
            to.mkdir()
            shutil.copy(source, to)
        return to

    return copy


@pytest.fixture
def run(run_python: RunPython) -> Run:
    """Run a program to its end and return what it printed."""

    def to_the_end(*words: str | Path, cwd: Path, code: int = 0, **popen: Any) -> str:
        process = run_python(*words, cwd=cwd, **popen)
        out, err = process.communicate(timeout=WITHIN)
        assert process.returncode == code, out + err
        assert "Traceback" not in err, err
        return out + err

    return to_the_end


@contextmanager
def worker(run_python: RunPython, file: str, *options: str, cwd: Path, **popen: Any) -> Iterator[None]:
    """A worker within the block; after it, it has ended in good order."""
    process = run_python(
        "-m", "litetq", "-q", "worker", file, "--until-eof", *options, cwd=cwd, stdin=subprocess.PIPE, **popen
    )
    try:
        yield
    finally:
        out, err = process.communicate(timeout=WITHIN)  # ends its standard input too
        print(out, err)  # of what fails within the block, too
    assert process.returncode == 0, out + err


@contextmanager
def serving(server: socketserver.TCPServer) -> Iterator[int]:
    """Serve in a thread; give the port."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# -- the quickstart ------------------------------------------------------------------------------------------------


def test_the_quickstart_is_six_lines_and_its_readme_works_as_written(
    example: Callable[[str], Path], run: Run, run_python: RunPython
) -> None:
    folder = example("quickstart")
    code = [line for line in (folder / "tasks.py").read_text().splitlines()[1:] if line]
    assert len(code) <= 6
    readme = (folder / "README.md").read_text()
    start, call = re.findall(r"^    (.+)$", readme, re.M)
    assert start == "litetq worker jobs.sqlite"
    words = re.fullmatch(r'python -c "(.+)"', call)
    assert words is not None
    with worker(run_python, "jobs.sqlite", cwd=folder):
        eventually((folder / "jobs.sqlite").exists, within=WITHIN)  # as the page says before the second terminal
        assert run(words[1], cwd=folder) == "5\n"


# -- the command-line tool -----------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    for number in range(20):
        (root / "sub" / f"file {number}.bin").write_bytes(os.urandom(1000 * number))
    return root


def expected_sums(root: Path) -> str:
    lines = []
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        lines.append(f"{digest.hexdigest()}  {path.relative_to(root).as_posix()}\n")
    return "".join(lines)


def test_the_tool_with_a_worker_inside_prints_the_sums_of_a_folder(
    example: Callable[[str], Path], run_python: RunPython, tree: Path
) -> None:
    folder = example("embedded_cli.py")
    for said in ("20/20", "20 of 20 were done before."):
        tool = run_python(folder / "embedded_cli.py", tree, cwd=folder)
        out, err = tool.communicate(timeout=WITHIN)
        assert tool.returncode == 0 and said in err, out + err
        assert out == expected_sums(tree)
    (tree / "sub" / "file 3.bin").write_bytes(b"changed since")
    tool = run_python(folder / "embedded_cli.py", tree, cwd=folder)
    out, err = tool.communicate(timeout=WITHIN)
    assert "19 of 20 were done before." in err and out == expected_sums(tree), out + err


@posix_only
def test_the_tool_interrupted_goes_on_with_what_waits(
    example: Callable[[str], Path], run_python: RunPython, tmp_path: Path
) -> None:
    folder = example("embedded_cli.py")
    large = tmp_path / "large"
    large.mkdir()
    for number in range(150):
        with (large / f"{number:03}.bin").open("wb") as file:
            file.truncate(20_000_000)  # a hole: no room on the disk, and work for the hash all the same
    tool = run_python(folder / "embedded_cli.py", large, cwd=folder)
    eventually(lambda: finished(folder / "checksums.sqlite") >= 5, within=WITHIN)
    tool.send_signal(signal.SIGINT)
    out, err = tool.communicate(timeout=WITHIN)
    told = re.search(r"Interrupted: (\d+) of 150 are done", err)
    assert tool.returncode == 130 and told and "Traceback" not in err, out + err
    done = int(told[1])
    on_record = finished(folder / "checksums.sqlite")
    assert 0 < done <= on_record < 150 and out == ""

    for path in sorted(large.iterdir())[10:]:
        stamps = path.stat()
        with path.open("r+b") as file:
            file.truncate(1000)  # their tasks are in the file under the old name: the rest is quick
        os.utime(path, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
    tool = run_python(folder / "embedded_cli.py", large, cwd=folder)
    out, err = tool.communicate(timeout=WITHIN)
    assert tool.returncode == 0, out + err
    before = re.search(r"(\d+) of 150 were done before", err)
    assert before and 0 < int(before[1]) <= on_record
    assert out == expected_sums(large)


def finished(path: Path) -> int:
    """Count the results, from outside."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
            return int(connection.execute("SELECT count(*) FROM litetq_result").fetchone()[0])
    except sqlite3.OperationalError:
        return 0  # not made yet


# -- the desktop window --------------------------------------------------------------------------------------------


def fill(folder: Path, count: int, size: int) -> dict[Path, bytes]:
    folder.mkdir()
    words = [os.urandom(20).hex().encode() for _ in range(1000)]
    contents = {}
    for number in range(count):
        line = b" ".join(words[number:] + words[:number])
        contents[folder / f"notes {number}.txt"] = (line * (size // len(line) + 1))[:size]
    for path, content in contents.items():
        path.write_bytes(content)
    return contents


def unpacked(contents: dict[Path, bytes]) -> dict[Path, bytes]:
    return {path: gzip.decompress(path.with_name(path.name + ".gz").read_bytes()) for path in contents}


ADD_ONLY = """
import sys; from pathlib import Path; from jobs import Packing
packing = Packing()
print(packing.add(Path(sys.argv[1])), {row.words for row in packing.look()})
"""
PACK = """
import sys; from pathlib import Path; from jobs import Packing, app
packing = Packing()
packing.add(Path(sys.argv[1]))
with app.run_embedded() as worker:
    worker.drain(30)
    print(sum(worker.statistics().total.values()), *(row.words for row in packing.look()), sep="\\n")
"""


def test_the_logic_of_the_window_packs_what_an_earlier_run_left(
    example: Callable[[str], Path], run: Run, tmp_path: Path
) -> None:
    folder = example("desktop")
    contents = fill(tmp_path / "notes", 4, 50_000)
    assert run("-c", ADD_ONLY, tmp_path / "notes", cwd=folder) == "4 {'waiting'}\n"
    count, *rows = run("-c", PACK, tmp_path / "notes", cwd=folder).splitlines()
    assert count == "4", "a file that waited was enqueued twice"
    assert len(rows) == 4 and all(re.fullmatch(r"50,000 -> [\d,]+ bytes", row) for row in rows)
    assert unpacked(contents) == contents
    assert run("-c", ADD_ONLY, tmp_path / "notes", cwd=folder) == "0 set()\n"


@pytest.fixture
def display(need_tool: NeedTool) -> Iterator[dict[str, str]]:
    """A screen that nobody sees: the environment for programs that use it."""
    try:
        import tkinter  # noqa: F401
    except ImportError as error:
        missing(f"this Python has no Tk: {error}")
    server = subprocess.Popen(
        [
            need_tool("Xvfb", "a screen for the window"),
            "-displayfd",
            "1",
            "-screen",
            "0",
            "800x600x24",
            "-nolisten",
            "tcp",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert server.stdout is not None
    number = server.stdout.readline().decode().strip()
    try:
        if not number:
            missing("Xvfb does not start here")
        yield {"DISPLAY": f":{number}"}
    finally:
        server.terminate()
        server.wait(10)
        server.stdout.close()


WATCHED = """
import sys, time, tkinter
from window import Window
root = tkinter.Tk()
window = Window(root)
gaps, times = [], [time.monotonic()]

def tick():
    times.append(time.monotonic())
    gaps.append(times[-1] - times[-2])
    if not (rows := window.packing.look()) or not all(row.ended for row in rows):
        root.after(5, tick)
    else:
        print(max(gaps) / (times[-1] - times[0]))
        window.close()

window.folder.set(sys.argv[1])
window.add()
tick()
root.mainloop()
"""


@x11_only
def test_the_window_stays_responsive_while_tasks_run(
    example: Callable[[str], Path], run: Run, tmp_path: Path, display: dict[str, str]
) -> None:
    folder = example("desktop")
    contents = fill(tmp_path / "notes", 6, 12_000_000)
    longest_gap = float(run("-c", WATCHED, tmp_path / "notes", cwd=folder, env=display))
    assert longest_gap < 0.25, f"the window stood still for {longest_gap:.0%} of the time"
    assert unpacked(contents) == contents


@x11_only
def test_the_window_does_what_is_typed_and_goes_on_at_the_next_start(
    example: Callable[[str], Path],
    run: Run,
    run_python: RunPython,
    display: dict[str, str],
    need_tool: NeedTool,
) -> None:
    xdotool = need_tool("xdotool", "types into the window")

    def do(*words: str) -> str:
        done = subprocess.run([xdotool, *words], env={**os.environ, **display}, capture_output=True, text=True)
        return done.stdout.strip()

    folder = example("desktop")
    contents = fill(folder / "notes", 5, 100_000)
    window = run_python(Path("window.py"), cwd=folder, env=display)
    eventually(lambda: do("search", "--onlyvisible", "--name", "^Pack$"), within=WITHIN)
    do("mousemove", "100", "20", "click", "1", "type", "--delay", "5", "notes")
    do("key", "Return")
    eventually(lambda: do("search", "--name", "^Pack: 5 of 5 done$"), within=WITHIN)
    do("key", "Escape")
    out, err = window.communicate(timeout=WITHIN)
    assert window.returncode == 0 and out + err == ""
    assert unpacked(contents) == contents

    later = fill(folder / "later", 3, 1000)
    assert run("-c", ADD_ONLY, "later", cwd=folder) == "3 {'waiting'}\n"
    window = run_python(Path("window.py"), cwd=folder, env=display)
    eventually(lambda: all(path.with_name(path.name + ".gz").exists() for path in later), within=WITHIN)
    eventually(lambda: do("search", "--onlyvisible", "--name", "^Pack$"), within=WITHIN)
    do("key", "Escape")
    out, err = window.communicate(timeout=WITHIN)
    assert window.returncode == 0 and out + err == ""


# -- mail and chat -------------------------------------------------------------------------------------------------


class MailServer(socketserver.ThreadingTCPServer):
    """A mail server as a test wants it: it keeps what it gets, and has its moods about some addresses."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), MailSession)
        self.inbox: list[tuple[str, str, float]] = []  # recipient, text, when
        self.asked: Counter[str] = Counter()


class MailSession(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self.say("220 ready")
        to = ""
        for raw in self.rfile:
            line = raw.decode().strip()
            verb = line[:4].upper()
            if verb == "RCPT":
                to = line.partition("<")[2].rstrip(">")
                self.server.asked[to] += 1
                first = self.server.asked[to] == 1
                if to.startswith("lost") and first:
                    return
                greylisted = to.startswith("grey") and first
                self.say("451 later" if greylisted else "550 no such user" if to.startswith("nobody") else "250 ok")
            elif verb == "DATA":
                self.say("354 go on")
                text = b"".join(iter(self.rfile.readline, b".\r\n")).decode()
                self.server.inbox.append((to, text, time.monotonic()))
                self.say("250 kept")
            else:
                self.say("221 bye" if verb == "QUIT" else "250 ok")

    def say(self, words: str) -> None:
        self.wfile.write(words.encode() + b"\r\n")


class Site(http.server.ThreadingHTTPServer):
    """Pages by path, or how often to answer 503 first; keeps what is posted and what was asked for."""

    daemon_threads = True

    def __init__(self, pages: dict[str, str], busy: dict[str, int] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), SiteVisit)
        self.pages, self.busy = pages, dict(busy or {})
        self.asked: Counter[str] = Counter()
        self.posted: list[Any] = []


class SiteVisit(http.server.BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.asked[self.path] += 1
        if self.server.busy.get(self.path, 0) >= self.server.asked[self.path]:
            self.send_error(503)
        elif self.path not in self.server.pages:
            self.send_error(404)
        else:
            self._answer(self.server.pages[self.path].encode())

    def do_POST(self) -> None:
        self.server.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self._answer(b"ok")

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def test_everybody_gets_the_newsletter_once_whatever_the_server_does(
    example: Callable[[str], Path], run: Run, run_python: RunPython
) -> None:
    folder = example("mail")
    names = ["ada", "grey", "lost", "nobody", "zoe"]
    (folder / "people.csv").write_text("name,email\n" + "".join(f"{n.title()},{n}@example.org\n" for n in names))
    (folder / "letter.txt").write_text("News of the day\n\nDear $name,\nit costs $5.\n")
    mail, chat = MailServer(), Site({})
    with serving(mail) as port, serving(chat) as chat_port:
        send = [Path("newsletter.py"), "people.csv", "letter.txt", "--sender", "me@example.org", "--per-minute", "600"]
        began = time.monotonic()
        out = run(*send, "--tell", f"http://127.0.0.1:{chat_port}/hook", cwd=folder)
        assert "5 enqueued now" in out
        environment = {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(port)}
        with worker(run_python, "mail.sqlite", "-P", "threads", "-c", "2", cwd=folder, env=environment):
            eventually(lambda: len(mail.inbox) == 4 and mail.asked["nobody@example.org"] and chat.posted, within=WITHIN)
        out = run(*send, cwd=folder)
    assert "0 enqueued now; of 5: 1 FAILURE, 4 SUCCESS" in out
    assert "nobody@example.org: 550 no such user" in out
    assert sorted(to for to, _, _ in mail.inbox) == [f"{n}@example.org" for n in names if n != "nobody"]
    assert mail.asked == {f"{n}@example.org": 2 if n in ("grey", "lost") else 1 for n in names}
    text = {to: text for to, text, _ in mail.inbox}["zoe@example.org"]
    assert "Subject: News of the day" in text and "Dear Zoe," in text and "it costs $5." in text
    assert next(when for to, _, when in mail.inbox if to.startswith("zoe")) - began >= 0.4  # the fifth, ten a second
    assert chat.posted == [{"text": "5 letters are on their way: News of the day"}]


# -- crawling ------------------------------------------------------------------------------------------------------

PAGES = {
    "/": "<title>Home</title><p>apples pears apples <a href=a.html>a</a><a href='b.html#end'>b</a><a href=/gone>g</a>",
    "/a.html": "<title>A</title>apples <script>var hidden</script><a href=/>up</a><a href=b.html>b</a><a href=c.html>",
    "/b.html": "<title>B</title>plums <a href=http://example.invalid/>away</a>",
    "/c.html": "<title>C</title>apples <a href=deep.html>deep</a>",
    "/deep.html": "too deep",
}


def test_the_crawler_reads_each_page_once_and_counts_words(example: Callable[[str], Path], run: Run) -> None:
    folder = example("crawl")
    site = Site(PAGES, busy={"/b.html": 1})
    with serving(site) as port:
        url = f"http://127.0.0.1:{port}/"
        out = run(Path("crawl.py"), url, "--depth", "2", cwd=folder)
        again = run(Path("crawl.py"), url, "--depth", "2", cwd=folder)
    assert site.asked == {"/": 1, "/a.html": 1, "/b.html": 2, "/c.html": 1, "/gone": 1}
    assert f"failed  {url}gone: 404 Not Found" in out
    assert f"  1 links  {url}c.html  C" in out
    assert "4 pages; most frequent: apples 4, pears 1, plums 1, away 1, deep 1" in out and "hidden" not in out
    assert again == out


# -- ports ---------------------------------------------------------------------------------------------------------


def test_the_port_scanner_finds_the_open_port_among_hundreds(example: Callable[[str], Path], run: Run) -> None:
    folder = example("ports")
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as server:
        port = server.server_address[1]
        first = max(1, min(port, 65_235) - 300)
        out = run(Path("ports.py"), "127.0.0.1", f"{first}-{first + 599}", cwd=folder)
    assert f"{port} open" in out.splitlines() and "600 ports of 127.0.0.1" in out


# -- pictures ------------------------------------------------------------------------------------------------------


def gradient(width: int, height: int) -> bytes:
    return bytes(value for y in range(height) for x in range(width) for value in (x * 2 % 256, y * 3 % 256, 77))


def as_png_of_all_filters(width: int, height: int, pixels: bytes) -> bytes:
    """Return the pixels as a PNG with alpha whose rows use each of PNG's five predictions in turn."""
    rows = b""
    above = bytes(width * 4)
    for y in range(height):
        row = b"".join(pixels[i : i + 3] + b"\x80" for i in range(y * width * 3, (y + 1) * width * 3, 3))
        filtered = bytearray()
        for x in range(len(row)):
            a, b, c = row[x - 4] if x > 3 else 0, above[x], above[x - 4] if x > 3 else 0
            p = a + b - c
            paeth = a if abs(p - a) <= min(abs(p - b), abs(p - c)) else b if abs(p - b) <= abs(p - c) else c
            filtered.append((row[x] - (0, a, b, (a + b) // 2, paeth)[y % 5]) & 0xFF)
        rows += bytes([y % 5]) + filtered
        above = row

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    packed = zlib.compress(rows)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", packed[:100]), chunk(b"IDAT", packed[100:]), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_thumbnails_are_made_in_child_processes_and_a_bad_picture_stops_nobody(
    example: Callable[[str], Path], run: Run
) -> None:
    folder = example("image")
    photos = folder / "photos"
    photos.mkdir()
    pixels = gradient(120, 80)
    (photos / "a.ppm").write_bytes(b"P6\n# by hand\n120 80\n255\n" + pixels)
    (photos / "b.png").write_bytes(as_png_of_all_filters(120, 80, pixels))
    (photos / "c.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (photos / "d.ppm").write_bytes(b"P6 500 400 255\n" + b"\x0a\x14\x1e" * 200_000)
    out = run(Path("thumbs.py"), "photos", "thumbs", "--size", "60", cwd=folder, code=1)
    assert "a.ppm: 60 x 40" in out and "b.png: 60 x 40" in out and "d.ppm: 60 x 48" in out
    assert re.search(r"^c\.png: c\.png ", out, re.M)
    assert sorted(path.name for path in (folder / "thumbs").iterdir()) == [
        "a.ppm.thumb.png", "b.png.thumb.png", "d.ppm.thumb.png"
    ]  # fmt: skip
    first, second, flat = (path.read_bytes() for path in sorted((folder / "thumbs").iterdir()))
    assert first == second
    assert struct.unpack(">II", first[16:24]) == (60, 40)
    data = zlib.decompress(flat[flat.index(b"IDAT") + 4 : -16])
    assert data == (b"\0" + b"\x0a\x14\x1e" * 60) * 48
    top_left = zlib.decompress(first[first.index(b"IDAT") + 4 : -16])[1:4]
    assert top_left == bytes([1, 1, 77])  # the mean of 0 and 2, of 0 and 3


# -- the report ----------------------------------------------------------------------------------------------------


def test_the_report_is_built_after_a_worker_that_ends_when_the_work_is_done(
    example: Callable[[str], Path], run: Run
) -> None:
    folder = example("report")
    sales = folder / "sales"
    sales.mkdir()
    (sales / "may.csv").write_text("region,amount\nNorth,10.10\nSouth & East,5\n")
    (sales / "june.csv").write_text("region,amount\nNorth,1.15\n")
    (sales / "july.csv").write_text("region,amount\nNorth,much\n")
    report, drain = (Path("report.py"), "sales"), ("-m", "litetq", "-q", "worker", "report.sqlite", "--drain")
    assert run(*report, cwd=folder) == "3 files, 3 of them wait to be added up.\n"
    assert "call this again" in run(*report, "sales.html", cwd=folder, code=1)
    run(*drain, cwd=folder)
    assert run(*report, "sales.html", cwd=folder) == "3 files, 0 of them wait to be added up.\n"
    page = (folder / "sales.html").read_text(encoding="utf-8")
    assert "<td>North<td align=right>11.25" in page and "<td>South &amp; East<td align=right>5.00" in page
    assert "all of 2 files<th align=right>16.25" in page
    assert "july.csv is not in the sums: july.csv, line 2" in page

    (sales / "july.csv").write_text("region,amount\nNorth,100\n")
    assert run(*report, cwd=folder) == "3 files, 1 of them wait to be added up.\n"
    run(*drain, "-P", "solo", cwd=folder)
    run(*report, "sales.html", cwd=folder)
    assert "all of 3 files<th align=right>116.25" in (folder / "sales.html").read_text(encoding="utf-8")
