"""Programs that gevent or eventlet has patched: whatever one greenlet waits for, the others go on."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.conftest import RunPython, missing


@pytest.fixture(params=["gevent", pytest.param("eventlet", marks=pytest.mark.slow)])
def library(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if importlib.util.find_spec(name) is None:
        missing(f"{name} is not installed")
    return name


# A program as a web server with greenlets is one: patched before anything else is imported. `go_on` proves that the others
# are not held up: it comes back only when a greenlet beside has had a hundred turns.
PROGRAM = """
import sys, warnings
warnings.simplefilter("ignore")
library, path = sys.argv[1:3]
if library == "gevent":
    from gevent import monkey; monkey.patch_all()
else:
    import eventlet; eventlet.monkey_patch()
import threading, time
from litetq import LiteTQ
app = LiteTQ("tasks", broker=path)
@app.task(name="add")
def add(a, b):
    return a + b
def say(word):
    print(word, flush=True)
def go_on():
    for turn in range(100):
        time.sleep(0.001)
def start(function, *args):
    thread = threading.Thread(target=function, args=args)
    thread.start()
    return thread
"""

# Another process holds the write lock until its input ends.
HOLDER = """
import apsw, sys
connection = apsw.Connection(sys.argv[1])
cursor = connection.cursor()
cursor.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
cursor.execute("ROLLBACK")
connection.close()
"""


def make_file(db: Path) -> None:
    from litetq import LiteTQ

    app = LiteTQ("tasks", broker=db, set_as_current=False)
    app.engine.purge()
    app.close()


def test_greenlets_go_on_while_others_wait_for_the_write_lock_of_another_process(
    library: str, db: Path, run_python: RunPython
) -> None:
    make_file(db)
    holder = run_python(HOLDER, db, stdin=-1)
    assert holder.stdout is not None and holder.stdin is not None
    assert holder.stdout.readline() == "held\n"
    program = run_python(
        PROGRAM
        + """
sent = []
threads = [start(lambda: sent.append(add.delay(1, 1).id)) for _ in range(20)]
go_on()
say(f"sent {len(sent)} while it was locked")
for thread in threads:
    thread.join()
say(f"sent {len(set(sent))}")
""",
        library,
        db,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "sent 0 while it was locked\n"
    holder.stdin.close()
    out, err = program.communicate(timeout=60)
    assert (out, err) == ("sent 20\n", "")


def test_greenlets_go_on_while_others_wait_for_results(library: str, db: Path, run_python: RunPython) -> None:
    program = run_python(
        PROGRAM
        + """
results = [add.delay(n, n) for n in range(20)]
got = []
threads = [start(lambda result=result: got.append(result.get(timeout=60))) for result in results]
go_on()
say(f"{len(got)} have ended")
for thread in threads:
    thread.join()
say(sorted(got) == [2 * n for n in range(20)])
""",
        library,
        db,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "0 have ended\n"
    (db.parent / "tasks.py").write_text(
        "from litetq import LiteTQ\napp = LiteTQ('tasks')\n@app.task(name='add')\ndef add(a, b):\n    return a + b\n"
    )
    worker = run_python("-m", "litetq", "-A", "tasks", "worker", db, "-P", "solo", "--drain")
    out, err = program.communicate(timeout=60)
    assert (out, err) == ("True\n", ""), worker.communicate(timeout=30)


def test_a_commit_that_waits_for_the_disk_holds_up_no_greenlet(library: str, db: Path, run_python: RunPython) -> None:
    """A slow disk is played by a wait in the native thread in which such a commit runs."""
    program = run_python(
        PROGRAM
        + """
import ctypes
from litetq import green
apart, released = green.apart, []
def slow(function):
    def wait_and_commit():
        while not released:
            ctypes.CDLL(None).usleep(1000)
        return function()
    return apart(wait_and_commit)
add.delay(1, 1)  # the file is open
green.apart = slow
sent = []
thread = start(lambda: sent.append(add.apply_async((1, 1), durability="full")))
go_on()
say(f"sent {len(sent)} while the disk worked")
released.append(True)
thread.join()
say(f"sent {len(sent)}")
""",
        library,
        db,
    )
    out, err = program.communicate(timeout=60)
    assert (out, err) == ("sent 0 while the disk worked\nsent 1\n", "")


def test_a_greenlet_that_is_killed_while_it_waits_for_the_lock_leaves_the_file_usable(
    library: str, db: Path, run_python: RunPython
) -> None:
    make_file(db)
    holder = run_python(HOLDER, db, stdin=-1)
    assert holder.stdout is not None and holder.stdin is not None
    assert holder.stdout.readline() == "held\n"
    program = run_python(
        PROGRAM
        + """
from litetq import green
def impatient():
    alarm = green.Alarm(0.05, TimeoutError("enough"))
    try:
        add.delay(1, 1)
    except TimeoutError as error:
        say(error)
    finally:
        alarm.cancel()
patient = []
threads = [start(impatient), start(lambda: patient.append(add.delay(2, 2)))]
threads[0].join()
sys.stdin.readline()
threads[1].join()
say(f"{len(patient)} {app.engine.purge()}")
""",
        library,
        db,
        stdin=-1,
    )
    assert program.stdout is not None and program.stdin is not None
    assert program.stdout.readline() == "enough\n"
    holder.stdin.close()
    assert holder.wait(timeout=30) == 0
    out, err = program.communicate("\n", timeout=60)
    assert (out.split()[0], err) == ("1", "")


def test_a_program_with_greenlets_runs_a_worker_inside(library: str, db: Path, run_python: RunPython) -> None:
    program = run_python(
        PROGRAM
        + """
for pool in ("threads", library, "asyncio", "solo"):
    with app.run_embedded(pool=pool) as worker:
        say(worker.statistics().pool == pool)
        say(sorted(result.get(timeout=30) for result in [add.delay(n, 1) for n in range(50)]) == list(range(1, 51)))
        say([list(answer.values()) for answer in app.control.ping(timeout=5, limit=1)])
""",
        library,
        db,
    )
    out, err = program.communicate(timeout=60)
    assert (out, err) == (4 * "True\nTrue\n[[{'ok': 'pong'}]]\n", "")


def test_a_patched_program_is_told_that_it_cannot_have_child_processes(
    library: str, db: Path, run_python: RunPython
) -> None:
    program = run_python(
        PROGRAM
        + """
from litetq.exceptions import ImproperlyConfigured
try:
    app.run_embedded(pool="processes")
except ImproperlyConfigured as error:
    say(error)
""",
        library,
        db,
    )
    out, err = program.communicate(timeout=60)
    assert out.startswith(f"pool processes: {library} has patched this program") and f"-P {library}" in out and not err
