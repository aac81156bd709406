"""A pool's child process, from both ends: how the worker starts one, and what it does.

Children are started as new interpreters, on every platform: a fork of a program with threads and open files is a gamble.
The worker listens, the child calls back with a secret that came on its standard input, so no handle needs to be inherited.
A child dies with its worker: the kernel sees to it where it can (Linux), the end of the connection elsewhere.

In the child one thread listens and the main thread runs the tasks, so that a request to give back what has not begun is
heard while a task runs.
"""

from __future__ import annotations

import contextlib
import importlib
import marshal
import multiprocessing
import os
import pickle
import queue
import runpy
import secrets
import signal
import subprocess
import sys
import threading
import time
import types
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from litetq import context, execution, limits, log, platforms, presence, signals
from litetq.exceptions import CeleryWarning
from litetq.message import Delivery, Outcome
from litetq.pool import BATCH_MAX, QUICK_S, Child, Pace, tuples
from litetq.probes import reached

if TYPE_CHECKING:
    from litetq.app import LiteTQ

CALL_BACK_TIMEOUT_S: Final = 60.0  # for a new interpreter to start and call; generous: virus scanners look at it first
FROZEN_FLAG: Final = "--litetq-child"
# The path must be the worker's before anything of ours is imported: the worker may have been started from a zip or a checkout.
# The standard library comes first meanwhile: in the worker it was imported before the program's folder, which may have a queue.py.
_BOOT: Final = (
    "import sys; sys.path[:]=filter(None,sys.path); import os,pickle; path=pickle.load(sys.stdin.buffer); "
    "own=os.path.dirname(os.__file__); "
    "sys.path[:]=sorted(path,key=lambda p:not str(p).startswith(own) or str(p).endswith('-packages')); "
    "from litetq.child import main; sys.path[:]=path; main(pickle.load(sys.stdin.buffer))"
)


class Line(Protocol):
    """What connects a worker and a child; `multiprocessing` has one class for it on Windows and another elsewhere."""

    def send_bytes(self, buf: bytes, /) -> None: ...

    def recv_bytes(self) -> bytes: ...

    def close(self) -> None: ...


class Program(NamedTuple):
    """How a child finds the app of its worker."""

    module: str | None  # where the app is defined, to be imported; None: in the script `file`
    attribute: str
    file: str | None
    main_name: str | None  # the script was started with `python -m` under this name
    modules: tuple[str, ...]  # where tasks are defined
    broker: str | None  # the file, where the worker does not use the one that the app would find itself
    changes: bytes | None  # settings assigned in the worker's process, pickled


class Lifetime(NamedTuple):
    """After how much a child is replaced; None: never."""

    tasks: int | None
    memory_kib: float | None  # resident, after a task


# -- the worker's end


def own_command() -> list[str]:
    """Return the command that starts a child: the one place that knows whether `sys.executable` is Python."""
    if getattr(sys, "frozen", False):
        return [sys.executable, FROZEN_FLAG]
    return [sys.executable, *subprocess._args_from_interpreter_flags(), "-c", _BOOT]  # type: ignore[attr-defined]


def freeze_support() -> None:
    """In a frozen program that was started as a child: be the child, and end with it (`litetq.freeze_support`)."""
    if FROZEN_FLAG in sys.argv[1:2]:
        pickle.load(sys.stdin.buffer)  # the path, which is its own here
        main(pickle.load(sys.stdin.buffer))
        sys.exit(0)


def spawn(
    number: int,
    name: str,
    run_folder: Path,
    hostname: str,
    program: Program,
    log: dict[str, Any] | None,
    lifetime: Lifetime,
) -> Child:
    """Start a child under a run file name that nobody used before; it says ("ready", pid) once it has the program."""
    key = secrets.token_bytes(32)
    with Listener(None, backlog=1, authkey=key) as listener:
        spec = {
            "address": listener.address,
            "key": key,
            "parent": os.getpid(),
            "number": number,
            "name": name,
            "run_folder": str(run_folder),
            "hostname": hostname,
            "program": program,
            "log": log,
            "lifetime": lifetime,
            "argv": sys.argv,
        }
        process = subprocess.Popen(own_command(), stdin=subprocess.PIPE, close_fds=True)
        platforms.adopt_child(process.pid)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(pickle.dumps([path or os.getcwd() for path in sys.path]) + pickle.dumps(spec))
            process.stdin.close()
        connection = _accept(listener, process)
    lock = threading.Lock()
    run_file = run_folder / f"{name}.run"

    def send(kind: str, value: Any) -> None:
        data = marshal.dumps((kind, tuples(value) if kind == "run" else value))
        with lock:
            connection.send_bytes(data)

    def receive() -> tuple[str, Any]:
        kind, value = marshal.loads(connection.recv_bytes())
        if kind == "done":
            value = [_unpack(outcome) for outcome in value]
        return kind, value

    def wait(timeout: float | None) -> int | None:
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def close() -> None:
        connection.close()
        with contextlib.suppress(OSError):
            run_file.unlink()

    return Child(
        process.pid, send, receive, lambda: presence.begun(run_file), wait, process.kill, process.send_signal, close
    )


def _accept(listener: Listener, process: subprocess.Popen[bytes]) -> Line:
    """Wait for the child's call; one that ends first gives a connection that is at its end."""
    accepted: queue.SimpleQueue[Line | None] = queue.SimpleQueue()

    def accept() -> None:
        try:
            accepted.put(listener.accept())
        except (OSError, EOFError):
            accepted.put(None)

    threading.Thread(target=accept, name="PoolAccept", daemon=True).start()
    deadline = time.monotonic() + CALL_BACK_TIMEOUT_S
    while True:
        try:
            connection = accepted.get(timeout=0.05)
        except queue.Empty:
            if process.poll() is None and time.monotonic() < deadline:
                continue
            connection = None
        if connection is not None:
            return connection
        process.kill()
        return _Ended()


class _Ended:
    """The connection of a child that never called."""

    def send_bytes(self, data: bytes) -> None:
        raise BrokenPipeError("the child has ended")

    def recv_bytes(self) -> bytes:
        raise EOFError("the child has ended")

    def close(self) -> None:
        pass


def describe(app: LiteTQ, broker: str | None) -> Program:
    """Return how a child finds this app.

    Raises RuntimeError when it cannot: the app is not a global of a module or script that can be imported again.
    """
    home = app.home()
    if home is None:
        raise RuntimeError(
            f"pool=processes: the app {app!r} cannot be found by a new process; make it a global variable of a module "
            f"or script, or use pool='threads'"
        )
    modules = {task.__module__ for task in app.tasks.values()} | set(app.named_in)
    modules -= {"__main__", "__mp_main__", home["module"]}
    try:
        changes = pickle.dumps(dict(app.conf.changes))
    except Exception:  # whatever a user's value raises: such settings stay the worker's own
        changes = None
    return Program(
        None if home["is_main"] else home["module"],
        home["attribute"],
        home["file"],
        home["main_name"],
        tuple(sorted(name for name in modules if not name.startswith("litetq."))),
        broker,
        changes,
    )


# -- the child's end


def main(spec: dict[str, Any]) -> None:
    """Be a child: call back, load the program, run what comes until told to stop or the worker is gone."""
    platforms.die_with_parent(spec["parent"])
    sys.argv = spec["argv"]
    sys.stdin = open(os.devnull)
    # Ctrl-C goes to the whole group of a terminal; the worker decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGBREAK"):
        signal.signal(signal.SIGBREAK, signal.SIG_IGN)
    connection = Client(spec["address"], authkey=spec["key"])
    executor = presence.Executor(Path(spec["run_folder"]), spec["name"])
    try:
        with _no_warnings_of_ours():
            app = load(spec["program"])
    except context.TopLevelStart as error:
        # One sentence is all that the user needs.
        print(error, file=sys.stderr, flush=True)
        os._exit(1)
    process = multiprocessing.current_process()
    process.name = f"PoolWorker-{spec['number']}"  # as log lines show it
    vars(process)["index"] = spec["number"] - 1  # Celery's: which of its pool's places this is; some choose a GPU by it
    if spec["log"] is not None:
        log.set_up(spec["log"].of_child(spec["number"]))
    app.on_after_fork.send(sender=app)
    if signals.worker_process_init.receivers:
        signals.worker_process_init.send(sender=spec["hostname"])
    limits.hear_signal(execution.call.__code__)
    _Runner(connection, executor, app, spec["hostname"], spec["lifetime"]).run()
    if signals.worker_process_shutdown.receivers:
        signals.worker_process_shutdown.send(sender=None, pid=os.getpid(), exitcode=0)
    executor.close()
    app.close()


@contextlib.contextmanager
def _no_warnings_of_ours() -> Iterator[None]:
    """Within the block, show no CeleryWarning: the worker has imported the same, and said it once for all its children."""
    shown = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if not issubclass(category, CeleryWarning):
            shown(message, category, *where, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        if warnings.showwarning is show:  # else the program has set another one meanwhile
            warnings.showwarning = shown


def load(program: Program) -> LiteTQ:
    """Import what the worker had imported and return its app."""
    with context.importing_module(program.module or program.file or "__main__"):
        if program.module is None and getattr(sys, "frozen", False):
            module = sys.modules["__main__"]  # the same program, which has come as far as freeze_support()
        elif program.module is None:
            module = _run_script(program)
        else:
            module = importlib.import_module(program.module)
        app: Any = module
        for part in program.attribute.split("."):
            app = getattr(app, part)
        app.adopt_script()
        app.set_up_framework()
        for name in program.modules:
            importlib.import_module(name)
        if program.changes is not None:
            app.conf.update(pickle.loads(program.changes))
        if program.broker is not None:
            app.override_broker(program.broker)
        app.import_default_modules()
        app.finalize()
    context.set_default_app(app)
    return app  # type: ignore[no-any-return]


def _run_script(program: Program) -> types.ModuleType:
    """Run the worker's script once more under another name, as `multiprocessing` does, so that its tasks are known."""
    module = types.ModuleType("__mp_main__")
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
    if program.main_name is not None:
        content = runpy.run_module(program.main_name, run_name="__mp_main__", alter_sys=True)
    else:
        assert program.file is not None
        content = runpy.run_path(program.file, run_name="__mp_main__")
    module.__dict__.update(content)
    # runpy gave its own module back to sys.modules
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
    return module


class _Runner:
    """Runs deliveries one after the other and sends their outcomes: a quick one's together, a slow one's at once."""

    def __init__(
        self,
        connection: Line,
        executor: presence.Executor,
        app: LiteTQ,
        hostname: str,
        lifetime: Lifetime,
    ) -> None:
        self._connection = connection
        self._executor = executor
        self._app = app
        self._hostname = hostname
        self._todo: deque[Delivery] = deque()
        self._done: deque[Outcome] = deque()
        self._sending = threading.Lock()
        self._news = threading.Semaphore(0)
        self._stopping = False
        self._lifetime = lifetime if any(lifetime) else None
        self._count = 0  # of tasks, where they are counted
        self._is_retired = False  # takes no more work, and waits to be told to stop
        self._tracers: dict[str, execution.Trace] = {}
        self._pace = Pace()
        if hasattr(os, "register_at_fork"):
            # What a task forks off may outlive this process, whose end the worker learns from the end of the connection.
            os.register_at_fork(after_in_child=connection.close)

    def run(self) -> None:
        threading.Thread(target=self._listen, name="PoolListener", daemon=True).start()
        self._send("ready", os.getpid())
        todo = self._todo
        while True:
            if self._is_retired and todo:
                self._give_back()  # waits here, or was on its way
            try:
                delivery = todo.popleft()
            except IndexError:
                if self._done:
                    self._flush()
                    continue
                if self._stopping:
                    return
                self._news.acquire()
                continue
            if self._done and not self._pace.is_quick(delivery.name):
                self._flush()  # what is done must not wait for what may take long
            self._run_one(delivery)
            if self._lifetime is not None and not self._is_retired:
                self._retire_if_worn_out(self._lifetime)

    def _retire_if_worn_out(self, lifetime: Lifetime) -> None:
        """Ask to be replaced when enough has been run here, or too much memory is used."""
        self._count += 1
        why = None
        if lifetime.tasks and self._count >= lifetime.tasks:
            why = f"it has run {self._count} tasks"
        elif lifetime.memory_kib and not self._done:  # quick ones are looked at together: a look takes 20 us
            used = resident_kib()
            if used > lifetime.memory_kib:
                why = f"it uses {used} KiB of memory, more than {lifetime.memory_kib:g}"
        if why is not None:
            self._is_retired = True
            self._send("retire", why)

    def _run_one(self, delivery: Delivery) -> None:
        trace = self._tracers.get(delivery.name)
        if trace is None:
            trace = execution.tracer_for(self._app, delivery.name, self._hostname)
            self._tracers[delivery.name] = trace
        self._executor.begin(delivery.claim)
        reached("child.begun")
        outcome = trace(delivery)
        reached("child.ended")
        runtime = outcome.runtime or 0.0
        self._pace.note(delivery.name, runtime)
        self._done.append(outcome)
        if runtime >= QUICK_S or len(self._done) >= BATCH_MAX // 4:
            self._flush()

    def _listen(self) -> None:
        receive = self._connection.recv_bytes
        while True:
            try:
                kind, value = marshal.loads(receive())
            except (EOFError, OSError):
                os._exit(1)  # the worker is gone; what runs here is judged lost, so it must not go on
            if kind == "run":
                self._todo.extend(Delivery(*delivery) for delivery in value)
            elif kind == "recall":
                self._give_back()
            elif kind == "limits":
                self._set_limits(*value)
            elif kind == "stop":
                self._stopping = True
            self._news.release()

    def _set_limits(self, name: str, hard: float | None, soft: float | None) -> None:
        """Set the limits of a task (remote control); they hold from its next start on."""
        task = self._app.tasks.get(name)
        if task is not None:
            task.time_limit, task.soft_time_limit = hard, soft
            self._tracers.pop(name, None)

    def _give_back(self) -> None:
        back = []
        while self._todo:
            try:
                back.append(self._todo.pop().claim)
            except IndexError:
                break
        self._flush()
        self._send("back", back)

    def _flush(self) -> None:
        with self._sending:
            done = []
            while self._done:
                done.append(_pack(self._done.popleft()))
            if done:
                self._connection.send_bytes(marshal.dumps(("done", done)))

    def _send(self, kind: str, value: Any) -> None:
        with self._sending:
            self._connection.send_bytes(marshal.dumps((kind, value)))


def resident_kib() -> int:
    """Return how much memory this process uses; a function of its own, for what it costs to import psutil."""
    import psutil

    return int(psutil.Process().memory_info().rss) // 1024


_MESSAGE: Final = Outcome._fields.index("message")
_PLAN: Final = Outcome._fields.index("plan")


def _pack(outcome: Outcome) -> tuple[Any, ...]:
    """Return an outcome as a plain tuple; what marshal cannot take in it is rare, and pickled."""
    if outcome.message is None and outcome.plan is None:
        return tuple(outcome)
    return tuple(
        pickle.dumps(part) if place in (_MESSAGE, _PLAN) and part is not None else part
        for place, part in enumerate(outcome)
    )


def _unpack(parts: Sequence[Any]) -> Outcome:
    if parts[_MESSAGE] is None and parts[_PLAN] is None:
        return Outcome(*parts)
    return Outcome(
        *(
            pickle.loads(part) if place in (_MESSAGE, _PLAN) and part is not None else part
            for place, part in enumerate(parts)
        )
    )
