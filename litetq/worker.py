"""A worker: one thread claims, hands to the pool, and settles; beside it runs the upkeep.

    wait for the bell or an outcome -> take (settle what ended, claim what can start) -> put into the pool -> again

Nothing else writes for it: pools and children hand their outcomes here, and everything of one round is one transaction.
Losing a claim is a normal end of an outcome: it is logged, counted, and nothing of it is in the file.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import logging
import math
import os
import signal as os_signals
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from litetq import autoscale as autoscaling  # so called, because workers have an argument of that name
from litetq import (
    beat,
    child,
    clock,
    context,
    events,
    execution,
    green,
    limits,
    panel,
    pools,
    signals,
    states,
    steps,
    strategies,
    upkeep,
)
from litetq.engine import BACKSTOP_S, DEAF_S, FileEngine
from litetq.exceptions import (
    ImproperlyConfigured,
    OperationalError,
    Retry,
    StoreBusy,
    StoreError,
    TaskRevokedError,
    TimeLimitExceeded,
    WorkerLostError,
)
from litetq.lanes import OwnPace, interval_of
from litetq.message import Delivery, Disposition, Outcome
from litetq.parts import Request
from litetq.pool import HELD_MAX, STALL_S, Lost, Pool, ProcessPool, SoloPool, ThreadPool
from litetq.pool_green import GreenPool
from litetq.probes import reached
from litetq.serialization import JSON, accept_set, decode_exception, encode_exception, loads_args

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.engine import Seat
    from litetq.task import Task

logger = logging.getLogger("celery.worker")
request_logger = logging.getLogger("celery.worker.request")
received_logger = upkeep.received_logger

EXIT_TIMEOUT_S: Final = 5.0  # at the end of a program that did not stop its worker; arbitrary
_RANK: Final = {None: 0, "warm": 1, "soft": 2, "cold": 3}  # a stop is made harder, never softer
RESCALE_S: Final = 0.5  # between two looks of autoscale at how busy the pool is; arbitrary
KEEPALIVE_S: Final = 30.0  # without being full before a pool shrinks; Celery's AUTOSCALE_KEEPALIVE
STORE_RETRY_S: Final = 0.5  # between two tries to settle when the file cannot be written (full disk, a stranger's lock)


class Program(Protocol):
    """What a worker wants of an app."""

    tasks: Mapping[str, Task[..., Any]]
    conf: Any


class Statistics(NamedTuple):
    """What a worker has done so far; a snapshot."""

    name: str
    pool: str
    concurrency: int
    processes: list[int]
    held: int  # claimed, not yet settled
    total: dict[str, int]  # settled, by name of the task
    states: dict[str, int]  # settled, by state
    lost: int  # outcomes that came too late
    released: int  # given back without having begun
    uptime: float  # seconds
    abandoned: int = 0  # threads that run past their hard time limit; what they do counts for nothing any more


class Worker:
    """Runs the tasks of one file until stopped. Start it once; stop it from any thread, more than once if need be.

    Args:
        app: the program whose tasks are run.
        engine: the file.
        pool: "threads", "solo", "processes" ("prefork" is the same), "asyncio", "gevent", "eventlet", or a class of one's own
            (`pools.find`).
        concurrency: tasks at a time; default: one per processor, but more where tasks only wait (`pools.USUAL`).
        queues: names of the queues to serve; None: the app's default queue(s).
        hostname: node name, shown in results and lists; default `celery@<host>`.
        embedded: run inside of a program: no signal handlers, nothing printed.
        log: how children are to log (`litetq.log`); None: not at all.
        beat: send periodic tasks, too, in a thread of its own.
        autoscale: (largest, smallest) number of tasks at a time, between which the pool follows the work; replaces
            `concurrency`.
        options: what the command line said, for the app's own steps (`litetq.steps`).

    What a crash leaves: claims of this worker, which any other worker of the file gives back or ends within about a second,
    or else the next one that starts.
    """

    def __init__(
        self,
        app: LiteTQ,
        *,
        engine: FileEngine,
        pool: str | type[Any] = "processes",
        concurrency: int | None = None,
        queues: Iterable[str] | None = None,
        hostname: str | None = None,
        embedded: bool = False,
        log: Any = None,
        beat: bool = False,
        autoscale: tuple[int, int] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        context.refuse_while_importing("a worker is started")
        self._found = pools.find(pool)
        if concurrency is not None and concurrency < 1:
            raise ImproperlyConfigured(f"concurrency={concurrency}: a worker needs room for at least one task")
        if autoscale is not None:
            concurrency = _checked_scale(autoscale, self._found.name)[1]
        self._scale = autoscale
        self._rescale_at = 0.0  # monotonic
        keepalive = float(os.environ.get("AUTOSCALE_KEEPALIVE", KEEPALIVE_S))
        self._make_autoscaler = functools.partial(autoscaling.make, app.conf.worker_autoscaler, keepalive)
        self._autoscaler = None if autoscale is None else self._make_autoscaler()
        self.app = app
        self.engine = engine
        self.hostname = hostname or default_hostname()
        self.embedded = embedded
        wanted = app.selected_queues if queues is None else queues
        self.queues = app.router.served_by(self.hostname, wanted, direct=bool(app.conf.worker_direct))
        self._pool_name = self._found.name
        self._concurrency = 1 if self._pool_name == "solo" else concurrency or pools.concurrency_of(self._pool_name)
        self._log = log
        self._has_beat = beat
        self._timer = steps.Timer(f"litetq-timer-{self.hostname}")
        self._strategies: strategies.Strategies | None = None  # of tasks that decide themselves how they run
        self._steps = steps.Steps(app.steps, self, options or {})
        self._thread = threading.Thread(target=self._run, name=f"litetq-worker-{self.hostname}", daemon=True)
        self._ready = threading.Event()
        self._ended = threading.Event()
        self._how: str | None = None  # how it is to stop: None, "warm", "soft" or "cold"
        self._cold_at = math.inf  # monotonic: when a soft stop becomes a cold one
        self._draining = False
        self._failed: BaseException | None = None
        self._names: dict[int, Delivery] = {}  # what is held, by claim
        self._since: dict[int, float] = {}  # when it was given to the pool, UTC seconds
        self._events: events.Recorder | None = None  # while it sends events
        self._relay: upkeep.Duty | None = None  # where results are copied to another place
        self._relaying: upkeep.Upkeep | None = None
        self._known: frozenset[str] = frozenset()  # the tasks that existed when `late` was last put on record
        self._tracers: dict[str, execution.Trace] = {}
        self._async_tracers: dict[str, execution.AsyncTrace | None] = {}
        self._requests: dict[str, type[Request]] = {}  # of tasks that want to know in this process how they ended
        self._limits: dict[str, limits.Limits] = {}  # of tasks, by name, for the hard one
        self._unlimited: set[str] = set()  # the names among them without a hard one
        self._warned: set[str] = set()  # names of tasks whose hard limit cannot be kept here
        self._pending: list[Outcome] = []  # ended, not yet committed
        self._total: Counter[str] = Counter()
        self._states: Counter[str] = Counter()
        self._lost = 0
        self._released = 0
        self._started_at = clock.monotonic()
        self._next_due: float | None = None
        self._orders: deque[Callable[[], object]] = deque()  # from other threads, for the next round

    # -- for its owner

    def start(self) -> None:
        """Start and return when tasks can run. Raises what kept it from starting; then nothing of it is left."""
        self._thread.start()
        self._ready.wait()
        atexit.register(self._at_exit)
        if self._failed is not None:
            self._thread.join()
            raise self._failed

    def stop(self, timeout: float | None = None, how: str = "warm") -> bool:
        """Stop claiming, let what runs finish, give back what has not begun; return whether it ended within `timeout`.

        Args:
            timeout: seconds; None waits as long as it takes, 0 only asks.
            how: "warm", or "cold": do not wait for what runs. Children are killed; what they ran ends as
                FAILURE(WorkerLostError), or runs again elsewhere if it acknowledges late. Threads cannot be killed: they
                go on until the process ends, and their outcome comes too late. Or "soft": warm for so long as the
                setting worker_soft_shutdown_timeout says, then cold, but what acknowledges late goes back unspent.
        """
        if how not in _RANK:
            raise ValueError(f"how={how!r}: a worker is stopped 'warm', 'soft' or 'cold'")
        if _RANK[how] > _RANK[self._how]:
            if how == "soft":
                self._cold_at = clock.monotonic() + limits.seconds(self.app.conf.worker_soft_shutdown_timeout)
            self._how = how
        self._wake()
        return self.join(timeout)

    def drain(self, timeout: float | None = None) -> bool:
        """Run until nothing is due in its queues and nothing runs, then stop; return whether that was within `timeout`."""
        self._draining = True
        self._wake()
        return self.join(timeout)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until it has ended; return whether it has."""
        if not self._thread.is_alive():
            return True
        ended = self._ended.wait(timeout)
        if ended and self._thread is not threading.current_thread():
            self._thread.join()
        return ended

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _at_exit(self) -> None:
        # A program that ends without stopping its worker: give it a moment to finish and to give back what it holds.
        self.stop(EXIT_TIMEOUT_S)

    def set_time_limit(self, name: str, hard: float | None, soft: float | None) -> bool:
        """Give a task other time limits in this worker, from its next start on; return whether there is such a task."""
        task = self.app.tasks.get(name)
        if task is None:
            return False
        task.time_limit, task.soft_time_limit = hard, soft
        self._order(lambda: self._forget_limits(name, hard, soft))
        return True

    def _forget_limits(self, name: str, hard: float | None, soft: float | None) -> None:
        self._limits.pop(name, None)
        self._unlimited.discard(name)
        self._tracers.pop(name, None)
        self._async_tracers.pop(name, None)
        if isinstance(self._pool, ProcessPool):
            self._pool.tell(f"limits of {name}", "limits", (name, hard, soft))

    def _order(self, order: Callable[[], object]) -> None:
        """Let the worker's own thread do something in its next round: the pool belongs to it."""
        self._orders.append(order)
        self._wake()

    @property
    def seat(self) -> Seat:
        """Its place at the file; from its start on."""
        return self._seat

    def held(self) -> list[Delivery]:
        """Return what it has claimed and not settled yet."""
        return list(self._names.copy().values())

    def began_at(self, claim: int) -> float | None:
        """Return when a task that it holds was given to the pool, UTC seconds."""
        return self._since.get(claim)

    def serve(self, queues: frozenset[str]) -> None:
        """Claim from these queues, from the next claim on."""
        self.queues = queues
        self._order(self._follow_queues)

    def _follow_queues(self) -> None:
        try:
            self._seat.serve(self.queues, self._waiter)
        except OperationalError as error:
            logger.error("worker %s cannot change its queues: %s", self.hostname, error)

    # -- for whoever controls it while it runs

    def pool_grow(self, number: int = 1) -> None:
        """Run so many tasks more at a time, a moment later. Raises NotImplementedError in pool solo."""
        self._refuse_solo("grow")
        self._order(lambda: self._resize(number))

    def pool_shrink(self, number: int = 1) -> None:
        """Run so many tasks less at a time, once some of what runs has ended.

        Raises ValueError when nothing would be left, NotImplementedError in pool solo.
        """
        self._refuse_solo("shrink")
        if number >= self._concurrency:
            raise ValueError(f"the pool has room for {self._concurrency}; less by {number}, none would be left")
        self._order(lambda: self._resize(-number))

    def pool_restart(self) -> None:
        """Replace all child processes, each once it has finished what it runs; other pools have none."""
        self._order(lambda: self._pool.restart())

    def reload(self, modules: Iterable[str] | None = None, reload: bool = False, reloader: Any = None) -> None:
        """Import modules, anew where asked for, and replace all child processes; Celery's tests call it after adding tasks."""
        for name in modules or ():
            module = importlib.import_module(name)
            if reload:
                (reloader or importlib.reload)(module)
        self.pool_restart()

    def autoscale(self, largest: int, smallest: int) -> None:
        """Let the pool follow the work between these bounds from now on. Raises as the argument does at the start."""
        self._scale = _checked_scale((largest, smallest), self._pool_name)
        self._order(self._fit_bounds)

    def terminate(self, id: str, signal: str | int = "TERM") -> bool:
        """End a running task by a signal to its child process: it ends as REVOKED, and the child is replaced.

        In the pools gevent and eventlet the greenlet is killed instead. In pool asyncio the coroutine of an async task is
        cancelled; a plain function there goes on to its end.

        Returns whether this worker holds the task. What it holds and has not begun goes back: revoke it first, so that
        it ends there. SIGUSR1 raises SoftTimeLimitExceeded in the task and kills nothing, as in Celery.

        Raises NotImplementedError in pools that cannot end what runs, ValueError for an unknown signal.
        """
        number = _signal_number(signal)
        if not self._pool.ends_attempts:
            raise NotImplementedError(
                f"pool {self._pool_name}: a running task cannot be terminated, only one in a process, a greenlet or a coroutine"
            )
        claims = [claim for claim, delivery in self._names.copy().items() if delivery.id == id]
        for claim in claims:
            self._order(functools.partial(self._pool.terminate, claim, number))
        return bool(claims)

    def _refuse_solo(self, what: str) -> None:
        if self._pool_name == "solo":
            raise NotImplementedError(f"pool solo cannot {what}: it runs one task at a time")

    def _resize(self, by: int) -> None:
        if by > 0:
            self._pool.grow(by)
        elif by < 0:
            self._pool.shrink(-by)
        self._concurrency = self._pool.concurrency

    def _fit_bounds(self) -> None:
        if self._scale is not None:
            largest, smallest = self._scale
            self._resize(max(smallest, min(largest, self._concurrency)) - self._concurrency)

    def _rescale(self, scale: tuple[int, int]) -> None:
        """Make the pool as large as the autoscaler wants it, between the bounds; one that raises changes nothing."""
        now = clock.monotonic()
        if now < self._rescale_at:
            return
        self._rescale_at = now + RESCALE_S
        largest, smallest = scale
        size = self._concurrency
        try:
            load = autoscaling.Load(size, self._pool.held(), self._look, now, largest, smallest)
            self._autoscaler = self._autoscaler or self._make_autoscaler()
            wanted = max(smallest, min(largest, int(self._autoscaler.wanted(load))))
        except Exception:
            logger.exception("worker %s: its autoscaler raised; it is asked again", self.hostname)
            return
        if wanted != size:
            self._resize(wanted - size)
            grown = self._concurrency - size
            logger.info("Scaling %s %s processes.", "up" if grown > 0 else "down", abs(grown))

    @property
    def scale(self) -> tuple[int, int] | None:
        """Between which numbers of tasks at a time the pool follows the work, the largest first; None: it does not."""
        return self._scale

    @property
    def sends_events(self) -> bool:
        return self._events is not None

    def send_events(self, wanted: bool) -> None:
        """Send events from now on, or no more."""
        self._seat.set_info(events=wanted)
        if wanted:
            self._events = events.Recorder(self.app, self.engine, self.hostname)
            self._tell("worker-online")
        else:
            self._tell("worker-offline")
            self._events = None

    def heartbeat(self) -> None:
        """Send the event worker-heartbeat, if it sends events."""
        self._tell("worker-heartbeat")

    def tell_begun(self) -> None:
        """Send task-started, a moment later, of what had to wait in the pool and has begun since, if it sends events."""
        if self._events is not None:
            self._order(self._tell_begun)

    def _tell_begun(self) -> None:
        if self._events is not None:
            self._events.begun(self._names, self._seat.begun)

    def _tell(self, type: str) -> None:
        recorder = self._events
        if recorder is not None:
            recorder.worker(type, len(self._names), sum(self._total.copy().values()))

    @property
    def stopping(self) -> str | None:
        """Return how it stops or has stopped: "warm", "soft", "cold"; None: it has not been asked to."""
        return self._how

    @property
    def failure(self) -> BaseException | None:
        """Return what ended the worker against its will, or None."""
        return self._failed

    @property
    def is_running(self) -> bool:
        return self._ready.is_set() and not self._ended.is_set()

    @property
    def timer(self) -> steps.Timer:
        """Calls functions later or again and again, until the worker ends; for the app's own steps."""
        return self._timer

    def statistics(self) -> Statistics:
        pool: Pool | None = getattr(self, "_pool", None)
        return Statistics(
            self.hostname, self._pool_name, self._concurrency, pool.processes() if pool is not None else [],
            len(self._names), dict(self._total), dict(self._states), self._lost, self._released,
            clock.monotonic() - self._started_at, pool.abandoned() if pool is not None else 0,
        )  # fmt: skip

    # -- start and end, in order

    def _run(self) -> None:
        try:
            self._open()
        except BaseException as error:
            self._failed = error
            self._ended.set()
            self._ready.set()
            return
        self._ready.set()
        if signals.worker_ready.receivers:
            signals.worker_ready.send(sender=self)
        try:
            self._loop()
        except OperationalError as error:
            logger.critical("worker %s ends: %s", self.hostname, error)
            self._failed, self._how = error, "cold"
        except BaseException as error:
            logger.exception("worker %s ends: its loop raised", self.hostname)
            self._failed, self._how = error, "cold"
        finally:
            try:
                self._close()
            except Exception as error:
                logger.critical(
                    "worker %s could not end in order: %s; the next worker will clean up", self.hostname, error
                )
                self._failed = self._failed or error
            finally:
                self._ended.set()
                atexit.unregister(self._at_exit)

    def _open(self) -> None:
        """Seat, pool, upkeep, beat: a row only with its lock held, children only with a seat, upkeep when both live."""
        context.set_current_app(self.app)
        self.app.finalize()
        wanted = {name: Request.class_for(task) for name, task in self.app.tasks.items()}
        self._requests = {name: kind for name, kind in wanted.items() if kind is not None}
        answers = bool(self.app.conf.worker_enable_remote_control)
        tells = bool(self.app.conf.worker_send_task_events)
        info = {"pool": self._pool_name, "concurrency": self._concurrency, "control": answers, "events": tells}
        last_command = self.engine.mailbox.last_command()  # before it signs on: from then on it is expected to answer
        is_at_server = not self.engine.knows_workers or hasattr(self.app.results, "archive")
        for key, why in self.app.conf.without_effect(is_at_server=is_at_server).items():
            logger.log(
                logging.INFO if self.embedded else logging.WARNING, "setting %s has no effect here: %s", key, why
            )
        most = self._most_running()
        rates = self._rate_limits()  # one that is wrong shows before anything is signed on
        pace = own_pace(self.app)
        if strategies.wanted(self.app):
            # What a strategy keeps takes no place in the pool, and a broker is to deliver more meanwhile.
            ahead = self.app.conf.worker_prefetch_multiplier or HELD_MAX
            info["places"] = min(self._concurrency * ahead, HELD_MAX)
        self._seat = self.engine.seat(self.hostname, queues=self.queues, info=info, pace=pace)
        try:
            self._waiter = self._seat.waiter()
            self._record_late()
            if pace is None or pace.limited:
                self.engine.declare_limits(rates)
            self.engine.declare_max_running(most)
            self._beat = beat.Service(self.app) if self._has_beat else None
            if self._beat is not None:
                self._beat.prepare()  # an entry that is wrong shows before anything runs
            results = self.app.results  # a backend that cannot be loaded, likewise
            self._pool = self._make_pool()
            if not self._pool.keeps_hard_limits:
                self._refuse_hard_limits()
            self._pool.start()
            if strategies.wanted(self.app):
                self._strategies = self._make_strategies()
            duties = upkeep.duties(self._seat, lambda delivery: self._tell_refused(delivery, "expired"))
            duties.append(upkeep.watch_file(self.engine, self._leave_file))
            self._upkeep = upkeep.Upkeep(duties, f"litetq-upkeep-{self.hostname}")
            elsewhere = self._duties_elsewhere(results)
            if elsewhere:
                self._relaying = upkeep.Upkeep(elsewhere, f"litetq-relay-{self.hostname}")
                self._relaying.start()
            upkeep.rescue_from_dead(self._seat)
            self._upkeep.start()
            if self._beat is not None:
                self._beat.start_in_thread()
            self._desk = panel.Desk(self, last_command, answers=answers)
            if tells:
                self._events = events.Recorder(self.app, self.engine, self.hostname)
                self._tell("worker-online")
            self._desk.start()
            self._steps.start()
        except BaseException:
            self._steps.stop()
            self._seat.leave()
            raise

    def _close(self) -> None:
        """The reverse of `_open`; what was never begun goes back with the seat."""
        self._steps.stop(cold=self._how == "cold")
        self._timer.stop()
        if self._beat is not None:
            self._beat.stop()
        if self._how == "cold":
            self._pool.stop(kill=True)
            self._settle_cut_off()
        else:
            self._pool.stop()
        self._upkeep.stop()
        self._relay_rest()
        self._desk.stop()  # it has answered while the pool stopped
        self._tell("worker-offline")
        try:
            self._seat.leave()
        except OperationalError as error:
            logger.error("worker %s cannot sign off: %s; the next worker will clean up", self.hostname, error)
        self._waiter.close()

    def _leave_file(self) -> None:
        """End warmly: whoever sends tasks now sends them elsewhere. What runs ends in the file that it came from."""
        error = StoreError(
            f"cannot go on with {self.engine.path}",
            "the file was moved or deleted, or another one put in its place, while it was in use",
            "stop workers before, and start one now",
            path=str(self.engine.path),
        )
        logger.critical("worker %s ends: %s", self.hostname, error)
        self._failed = error
        self.stop(0)

    def _duties_elsewhere(self, results: Any) -> list[upkeep.Duty]:
        """Return what there is to do where results are beside the file of the tasks, or instead of it."""
        duties = []
        if results is not self.engine:
            self._relay = upkeep.relay(self.engine.store.records, results)
            duties.append(self._relay)
        archive = getattr(results, "archive", None)
        if archive is not None:
            duties.append(upkeep.tidy(archive.cleanup, self.app.release))
        return duties

    def _relay_rest(self) -> None:
        if self._relaying is not None:
            self._relaying.stop()
        if self._relay is not None:
            upkeep.relay_rest(self._relay)

    def _make_pool(self) -> Pool:
        if self._pool_name != "processes":
            for key in ("worker_max_tasks_per_child", "worker_max_memory_per_child"):
                if self.app.conf[key]:
                    logger.warning("%s has no effect in pool %s: it has no child processes", key, self._pool_name)
        if self._pool_name == "solo":
            if signals.worker_process_init.receivers:
                signals.worker_process_init.send(sender=self.hostname)
            return SoloPool(self._execute, self._seat.executor.begin)
        if self._pool_name == "threads":
            return ThreadPool(self._execute, self._seat.executor.begin, self._wake, self._concurrency)
        if self._pool_name in green.LIBRARIES:
            self._tell_bound()
            return GreenPool(self._execute, self._seat.executor.begin, self._wake, self._concurrency)
        if self._pool_name == "asyncio":
            return self._make_asyncio_pool()
        if self._found.make is not None:
            return pools.make(self._found, self._execute, self._seat.executor.begin, self._wake, self._concurrency)
        lifetime = child.Lifetime(self.app.conf.worker_max_tasks_per_child, self.app.conf.worker_max_memory_per_child)
        program = child.describe(self.app, self.engine.place if self.app.is_broker_overridden else None)

        def spawn(number: int) -> Any:
            if signals.worker_before_create_process.receivers:
                signals.worker_before_create_process.send(sender=self._pool)
            name = self._seat.child_name(number)
            return child.spawn(number, name, self.engine.run_folder, self.hostname, program, self._log, lifetime)

        return ProcessPool(spawn, self._wake, self._concurrency)

    def _make_strategies(self) -> strategies.Strategies:
        return strategies.Strategies(
            self.app,
            self.hostname,
            self._timer,
            self._concurrency,
            begin=self._seat.executor.begin,
            order=self._order,
            put=lambda delivery: self._start([delivery]),
        )

    def _make_asyncio_pool(self) -> Pool:
        from litetq.pool_asyncio import AsyncioPool  # here: it imports asyncio

        self._tell_bound()
        return AsyncioPool(self._execute, self._async_tracer, self._seat.executor.begin, self._wake, self._concurrency)

    def _tell_bound(self) -> None:
        if self._concurrency > HELD_MAX:
            logger.warning("concurrency=%d: one process runs at most %d tasks at once", self._concurrency, HELD_MAX)

    def _refuse_hard_limits(self) -> None:
        """Raise ImproperlyConfigured for hard time limits that nobody would be here to keep."""
        found = [
            f"task {name} (time_limit={task.time_limit})" for name, task in self.app.tasks.items() if task.time_limit
        ]
        if self.app.conf.task_time_limit:
            found.insert(0, f"the setting task_time_limit={limits.seconds(self.app.conf.task_time_limit):g}")
        if found:
            raise ImproperlyConfigured(
                f"pool={self._pool_name} cannot stop a task at a hard time limit, and {found[0]} has one; "
                f"use pool processes or threads, or a soft_time_limit"
            )

    def _record_late(self) -> None:
        self._known = frozenset(self.app.tasks)
        self._seat.set_late(frozenset(name for name, task in self.app.tasks.items() if task.acks_late))

    def _most_running(self) -> dict[str, int | None]:
        """Return how many of each task may run at once, in all workers together."""
        counts = {name: task.max_running for name, task in self.app.tasks.items()}
        for name, count in counts.items():
            if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
                raise ImproperlyConfigured(
                    f"task {name!r}: max_running must be a whole number from 1 up, found {count!r}"
                )
        return counts

    def _rate_limits(self) -> dict[str, float | None]:
        """Return the rate limits of all tasks, in seconds between two starts; ours have none unless they say so."""
        rates: dict[str, float | None] = {}
        for name, task in self.app.tasks.items():
            rate = task.__dict__.get("rate_limit") if name.startswith("celery.") else task.rate_limit
            try:
                rates[name] = interval_of(rate)
            except ValueError as error:
                raise ImproperlyConfigured(f"task {name!r}: {error}") from error
        return rates

    # -- the loop

    def _loop(self) -> None:
        pool = self._pool
        hungry = True  # a claim may find something: worth the write lock without looking first
        while True:
            while self._orders:
                self._orders.popleft()()
            self._collect()
            if self._is_over():
                return
            if self._scale is not None and self._how is None:
                self._rescale(self._scale)
            free = self._room() if self._how is None else 0
            # The look, and the one in `_sleep`, also are the time in which a short task ends: without them, or where they were
            # made cheaper, a round trip took 0.1 to 0.2 ms more, because the thread slept and was woken (measured).
            if self._pending or (free and (hungry or self._look())):
                hungry = self._exchange(free)
                if isinstance(pool, SoloPool):
                    pool.work()
            elif not (isinstance(pool, SoloPool) and pool.work()):
                hungry = self._sleep(free)

    def _sleep(self, free: int) -> bool:
        """Wait for the bell, an outcome, or until something is due; return whether there may be something to do."""
        # Announced first, then looked again: what is committed or ends after the look rings. Without room, work does not
        # concern this worker, and whoever sends need not ring for it.
        if free:
            self._waiter.announce()
        else:
            self._waiter.clear()
        self._collect()
        if self._pending or self._orders or self._is_over() or (free and self._look()):
            self._waiter.clear()
            return True
        return self._waiter.wait(self._rest())

    def _is_over(self) -> bool:
        """Return whether everything is done that the way of stopping asks for."""
        if self._how == "cold":
            return True
        if self._pending:
            return False
        if self._how == "soft" and clock.monotonic() >= self._cold_at:
            logger.warning(
                "worker %s: the time of its soft shutdown is over; what still runs is cut off", self.hostname
            )
            self._how = "cold"
            return True
        if self._how is not None:
            return self._held() == 0
        return self._draining and self._held() == 0 and not self._seat.has_unfinished()

    def _room(self) -> int:
        """Return how many may be claimed; what a strategy keeps takes no place in the pool."""
        room = self._pool.room()
        return room if self._strategies is None else min(room, self._strategies.room())

    def _held(self) -> int:
        held = self._pool.held()
        return held if self._strategies is None else held + self._strategies.held()

    def _look(self) -> bool:
        """Return whether there is something to claim, by a read: an idle worker writes nothing."""
        found, self._next_due = self._seat.probe()
        return found

    def _rest(self) -> float:
        """Return how long to sleep at most: until something is due, and never longer than the backstop."""
        rest = DEAF_S if self.engine.bell.is_deaf else BACKSTOP_S
        if self._pool.held() > self._concurrency:
            rest = min(rest, STALL_S)  # something waits behind another task: see in time if that one is slow
        if self._next_due is not None and self._how is None:
            rest = min(rest, max(0.0, self._next_due - clock.now()))
        deadline = self._pool.next_deadline()
        if deadline is not None or self._how == "soft":
            at = min(self._cold_at, math.inf if deadline is None else deadline)
            rest = min(rest, max(0.0, at - clock.monotonic()))
        return rest

    def _wake(self) -> None:
        waiter = getattr(self, "_waiter", None)
        if waiter is not None:
            waiter.set()

    def _collect(self) -> None:
        """Turn what the pool has to say into outcomes to commit."""
        self._pool.recall(everything=self._how is not None)
        outcomes, returned, lost = self._pool.drain()
        self._pending += outcomes
        if self._strategies is not None:
            self._pending += self._strategies.drain()
            if self._how is not None:
                returned += self._strategies.recall()
        for delivery in returned:
            self._pending.append(release(delivery))
        for one in lost:
            self._pending.append(self._lost_outcome(one))

    def _exchange(self, free: int) -> bool:
        """Commit what ended, claim and start what fits; return whether more may be waiting."""
        outcomes, self._pending = self._pending, []
        told = self._events.ended(outcomes, self._names) if self._events is not None else ()
        try:
            taken = self._seat.take(free, outcomes, told)
        except StoreBusy as error:
            logger.warning("worker %s: %s; it tries again", self.hostname, error)
            self._pending = outcomes + self._pending
            return False
        except OperationalError as error:
            # Full disk and the like: outcomes are kept, nothing more is claimed, and the settle is tried again.
            logger.error("worker %s cannot write: %s", self.hostname, error)
            self._pending = outcomes + self._pending
            self._waiter.clear()
            self._waiter.wait(STORE_RETRY_S)
            return False
        except Exception:
            if not outcomes:
                raise
            self._settle_one_by_one(outcomes)
            return True
        self._count(outcomes, taken.lost)
        for delivery, reason in taken.refused:
            self._tell_refused(delivery, reason)
        self._next_due = taken.next_due_at
        if taken.deliveries:
            reached("claimed")
            self._dispatch(taken.deliveries)
        return len(taken.deliveries) >= free > 0

    def _tell_refused(self, delivery: Delivery, reason: str) -> None:
        """Log a task that came too late, and tell who listens."""
        received_logger.info("Discarding revoked task: %s[%s]", delivery.name, delivery.id)
        if signals.task_revoked.receivers:
            signals.task_revoked.send(
                sender=self.app.tasks.get(delivery.name),
                request=context.Context(delivery, self.hostname),
                terminated=False,
                signum=None,
                expired=reason == "expired",
            )

    def _settle_one_by_one(self, outcomes: Sequence[Outcome]) -> None:
        """One outcome cannot be written (a value that the schema refuses): it fails its task, its neighbours stand."""
        for outcome in outcomes:
            try:
                taken = self._seat.take(0, [outcome])
            except OperationalError:
                self._pending.append(outcome)
                continue
            except Exception as error:
                logger.exception("the end of task %s cannot be written; it ends as FAILURE", outcome.id)
                instead = Outcome(
                    outcome.claim, outcome.seq, outcome.id, Disposition.FAIL, states.FAILURE, encode_exception(error),
                    linked=outcome.linked,
                )  # fmt: skip
                taken = self._seat.take(0, [instead])
            self._count([outcome], taken.lost)

    def _dispatch(self, deliveries: Sequence[Delivery]) -> None:
        if received_logger.isEnabledFor(logging.INFO):
            for delivery in deliveries:
                received_logger.info("Task %s[%s] received", delivery.name, delivery.id)
        if signals.task_received.receivers:
            for delivery in deliveries:
                if self._strategies is not None and self._strategies.has(delivery.name):
                    continue  # the strategy sends it
                signals.task_received.send(sender=self, request=self._request(delivery))
        if any(delivery.name not in self._known for delivery in deliveries):
            self._record_late()  # before one of them begins
        now = clock.now()
        for delivery in deliveries:
            self._names[delivery.claim] = delivery
            self._since[delivery.claim] = now
        self._start(deliveries if self._strategies is None else self._hand_over(deliveries, self._strategies))

    def _hand_over(self, deliveries: Sequence[Delivery], strategies: strategies.Strategies) -> list[Delivery]:
        """Give to strategies what is theirs; return the rest."""
        theirs = [delivery for delivery in deliveries if strategies.has(delivery.name)]
        if self._events is not None:
            self._events.dispatched(theirs, 0)
        return [delivery for delivery in deliveries if not strategies.has(delivery.name)] + strategies.take(theirs)

    def _start(self, deliveries: Sequence[Delivery]) -> None:
        """Put into the pool; what finds no place goes back."""
        idle = self._pool.concurrency - self._pool.held()
        back = self._pool.put(deliveries, self._hard_limits(deliveries))
        self._pending += map(release, back)
        if self._events is not None:
            self._events.dispatched([delivery for delivery in deliveries if delivery not in back], idle)

    def _hard_limits(self, deliveries: Sequence[Delivery]) -> dict[int, float]:
        """Return the hard time limits, by claim, of those that have one."""
        unlimited = self._unlimited
        found = {}
        for delivery in deliveries:
            if delivery.headers is None and delivery.name in unlimited:
                continue
            own = self._limits.get(delivery.name)
            if own is None:
                own = self._limits[delivery.name] = limits.of_task(self.app.tasks.get(delivery.name), self.app.conf)
                if own.hard is None:
                    unlimited.add(delivery.name)
            hard = limits.of_call(delivery.headers, own).hard
            if hard is not None:
                found[delivery.claim] = hard
                if not self._pool.keeps_hard_limits:
                    self._warn_of_limit(delivery, hard)
        return found

    def _warn_of_limit(self, delivery: Delivery, hard: float) -> None:
        if delivery.name not in self._warned:
            self._warned.add(delivery.name)
            logger.warning(
                "Task %s[%s]: its hard time limit (%gs) cannot be kept by pool %s, which runs it to its end; "
                "said once for this task",
                delivery.name, delivery.id, hard, self._pool_name,
            )  # fmt: skip

    def _count(self, outcomes: Sequence[Outcome], lost: Sequence[int]) -> None:
        late = set(lost)
        for outcome in outcomes:
            delivery = self._names.pop(outcome.claim, None)
            self._since.pop(outcome.claim, None)
            if outcome.claim in late:
                self._lost += 1
                logger.warning(
                    "Task %s[%s]: its end (%s) came too late; the claim had been taken from this worker",
                    delivery.name if delivery else "?", outcome.id, outcome.state,
                )  # fmt: skip
            elif outcome.disposition in (Disposition.RELEASE, Disposition.INTERRUPT):
                self._released += 1
            elif delivery is not None:
                self._total[delivery.name] += 1
                self._states[outcome.state] += 1
                if outcome.state == states.FAILURE and delivery.name in self._requests:
                    self._tell_request(delivery, outcome)

    def _tell_request(self, delivery: Delivery, outcome: Outcome) -> None:
        error: BaseException = Exception("the cause cannot be read")
        if outcome.result is not None:
            accept = frozenset({outcome.content_type or JSON})  # written by this program
            error = decode_exception(outcome.result, outcome.content_type, accept)
        info = execution.ExceptionInfo(error)
        info.traceback = outcome.traceback or info.traceback
        self._call_request(delivery, "on_failure", info)

    def _request(self, delivery: Delivery) -> Request:
        kind = self._requests.get(delivery.name, Request)
        return kind(delivery, task=self.app.tasks.get(delivery.name), app=self.app, hostname=self.hostname)

    def _call_request(self, delivery: Delivery, method: str, *args: Any) -> None:
        try:
            getattr(self._request(delivery), method)(*args)
        except Exception:
            logger.exception("Task %s[%s]: %s of its request raised", delivery.name, delivery.id, method)

    # -- running tasks in this process

    def _execute(self, delivery: Delivery) -> Outcome:
        return self._tracer(delivery.name)(delivery)

    def _tracer(self, name: str) -> execution.Trace:
        trace = self._tracers.get(name)
        if trace is None:
            trace = execution.tracer_for(self.app, name, self.hostname)
            if name in self.app.tasks:
                self._tracers[name] = trace  # an unknown name may become known: a notebook defines tasks as it goes
        return trace

    def _async_tracer(self, name: str) -> execution.AsyncTrace | None:
        if name in self._async_tracers:
            return self._async_tracers[name]
        trace = execution.async_tracer_for(self.app, name, self.hostname)
        if name in self.app.tasks:
            self._async_tracers[name] = trace
        return trace

    # -- what died

    def _lost_outcome(self, lost: Lost) -> Outcome:
        """Return the end of an attempt that was ended from outside while the worker lives."""
        if lost.limit is not None:
            return self._timed_out(lost.delivery, lost.limit)
        if lost.signum is not None:
            return self._terminated(lost.delivery, lost.signum)
        if self._how == "cold":
            return self._cut_off(lost.delivery, has_ended=True)
        delivery = lost.delivery
        error = WorkerLostError(lost.cause)
        task = self.app.tasks.get(delivery.name)
        has_tries_left = True
        if task is not None and task.retry_on_worker_lost:
            has_tries_left = task.max_retries is None or delivery.retries < task.max_retries
            if has_tries_left:
                return self._retried(task, delivery, error)
        if task is not None and task.acks_late and task.reject_on_worker_lost and has_tries_left:
            return self._given_back(delivery, error)
        if task is None:
            logger.error("Task %s[%s]: %s", delivery.name, delivery.id, error)
        else:
            self._report_loss(task, delivery, error)
        return _ended_outside(delivery, Disposition.FAIL, states.FAILURE, error)

    def _timed_out(self, delivery: Delivery, limit: float) -> Outcome:
        """Return the end of an attempt past its hard limit: a failure, or with `acks_on_timeout` off it runs again."""
        shown = int(limit) if limit == int(limit) else limit
        error = TimeLimitExceeded(shown)
        request_logger.error("Hard time limit (%ss) exceeded for %s[%s]", shown, delivery.name, delivery.id)
        task = self.app.tasks.get(delivery.name)
        if task is not None:
            self._report_loss(task, delivery, error)
            if delivery.name in self._requests:
                self._call_request(delivery, "on_timeout", False, limit)
            if task.acks_late and not _acks_on_timeout(task):
                return _ended_outside(delivery, Disposition.REQUEUE, states.RETRY, error)
        return _ended_outside(delivery, Disposition.FAIL, states.FAILURE, error)

    def _terminated(self, delivery: Delivery, signum: int) -> Outcome:
        request_logger.info("Task %s[%s] terminated by signal %d", delivery.name, delivery.id, signum)
        task = self.app.tasks.get(delivery.name)
        if task is not None and signals.task_revoked.receivers:
            signals.task_revoked.send(
                sender=task,
                request=context.Context(delivery, self.hostname),
                terminated=True,
                signum=signum,
                expired=False,
            )
        return _ended_outside(delivery, Disposition.REVOKE, states.REVOKED, TaskRevokedError("terminated"))

    def _retried(self, task: Task[..., Any], delivery: Delivery, error: WorkerLostError) -> Outcome:
        """Return the end of an attempt whose process died, and which counts as one that asked for a retry."""
        delay = task.default_retry_delay
        request = context.Context(delivery, self.hostname)
        retry = Retry(exc=error, when=delay)
        ended = execution.Ended(states.RETRY, error, None, retry, Disposition.RETRY)
        execution.report(task, execution.Handlers.of(task), request, ended, *self._arguments(delivery))
        return _ended_outside(delivery, Disposition.RETRY, states.RETRY, error)._replace(due_at=clock.now() + delay)

    def _report_loss(self, task: Task[..., Any], delivery: Delivery, error: Exception) -> None:
        """Call the failure handlers here: the process or thread that would have called them is gone."""
        request = context.Context(delivery, self.hostname)
        ended = execution.Ended(states.FAILURE, error, None, None, Disposition.FAIL)
        execution.report(task, execution.Handlers.of(task), request, ended, *self._arguments(delivery))

    def _arguments(self, delivery: Delivery) -> tuple[Any, Any]:
        """Return args and kwargs for the handlers; empty ones where they cannot be read."""
        try:
            accept = accept_set(self.app.conf.accept_content)
            args, kwargs = loads_args(delivery.body, delivery.content_type, accept)
        except Exception:
            return (), {}
        return args, kwargs

    def _given_back(self, delivery: Delivery, error: WorkerLostError) -> Outcome:
        """Return that a begun attempt is to run again, and say so, or that it has done so too often by now."""
        is_over = delivery.deliveries >= self.engine.store.redelivery_bound
        then = "It rests as a dead letter." if is_over else "It runs again."
        logger.error("Task %s[%s]: %s %s", delivery.name, delivery.id, error, then)
        return _ended_outside(delivery, Disposition.REQUEUE, states.RETRY, error)

    def _settle_cut_off(self) -> None:
        """After a cold stop: end or give back what was running; what had not begun goes back with the seat."""
        self._collect()
        ended = {outcome.claim for outcome in self._pending}
        begun = self._seat.executor.claims() if not isinstance(self._pool, ProcessPool) else frozenset()
        for claim, delivery in list(self._names.items()):
            if claim in ended or (begun is not None and claim not in begun):
                continue
            self._pending.append(self._cut_off(delivery, has_ended=False))
        if self._pending:
            self._exchange(0)

    def _cut_off(self, delivery: Delivery, *, has_ended: bool) -> Outcome:
        """Return the end of an attempt that a cold stop ends: by the rule for lost workers.

        One that has not ended goes on in its thread, and calls its handlers there.
        """
        task = self.app.tasks.get(delivery.name)
        error = WorkerLostError("Worker was stopped cold while the task ran.")
        if task is not None and task.acks_late:
            if self._cold_at != math.inf:
                # A soft shutdown belongs to every deployment: it does not count against the task.
                logger.warning("Task %s[%s]: %s It runs again.", delivery.name, delivery.id, error)
                return release(delivery)._replace(disposition=Disposition.INTERRUPT)
            return self._given_back(delivery, error)
        if task is not None and has_ended:
            self._report_loss(task, delivery, error)
        else:
            logger.error("Task %s[%s]: %s It ends as FAILURE.", delivery.name, delivery.id, error)
        return _ended_outside(delivery, Disposition.FAIL, states.FAILURE, error)


def _ended_outside(delivery: Delivery, disposition: int, state: str, error: BaseException) -> Outcome:
    return Outcome(
        delivery.claim, delivery.seq, delivery.id, disposition, state, encode_exception(error), linked=delivery.linked
    )


def _acks_on_timeout(task: Task[..., Any]) -> bool:
    """Return whether a late acknowledging task is done with when it hits its hard limit."""
    value = task.acks_on_timeout
    return bool(task.acks_on_failure_or_timeout if value is None else value)


def _checked_scale(scale: tuple[int, int], pool: str) -> tuple[int, int]:
    """Return bounds that a pool can have; raises ImproperlyConfigured."""
    largest, smallest = scale
    if pool == "solo":
        raise ImproperlyConfigured("autoscale: pool solo runs one task at a time; use processes or threads")
    if not 1 <= smallest <= largest:
        raise ImproperlyConfigured(
            f"autoscale={largest},{smallest}: give the largest number first and then the smallest, which is at least 1"
        )
    return scale


def _signal_number(signal: str | int) -> int:
    """Return the number of a signal, given as `TERM`, `SIGTERM` or a number; raises ValueError."""
    try:
        if isinstance(signal, int):
            return int(os_signals.Signals(signal))
        name = signal.upper()
        return int(os_signals.Signals[name if name.startswith("SIG") else f"SIG{name}"])
    except (KeyError, ValueError):
        raise ValueError(f"signal={signal!r}: this system has no such signal; name one like 'TERM' or 'KILL'") from None


def release(delivery: Delivery) -> Outcome:
    """Return the outcome of a claim whose task never began: it goes back to its place, the attempt unspent."""
    return Outcome(
        delivery.claim, delivery.seq, delivery.id, Disposition.RELEASE, states.PENDING, linked=delivery.linked
    )


def own_pace(app: LiteTQ) -> OwnPace | None:
    """Return how a worker of this app counts rate limits by itself; None: they are counted in the file."""
    if app.conf.worker_disable_rate_limits:
        return OwnPace(limited=False)
    return OwnPace() if app.conf.litetq_rate_limit_scope == "worker" else None


def default_hostname() -> str:
    import socket

    return f"celery@{socket.gethostname()}"


def default_queues(app: LiteTQ) -> frozenset[str]:
    """Return the queues that a worker serves when none are named: those selected or of the settings, else the default one."""
    return frozenset(app.selected_queues or app.router.queues or [app.router.default])
