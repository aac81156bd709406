"""Beat inside one process, at a time that the test moves: what it enqueues, when, and what it does when something is wrong."""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, clock, signals
from litetq.beat import BeatLazyFunc, PersistentScheduler, ScheduleEntry, Scheduler, SchedulingError, Service
from litetq.canvas import chord, group
from litetq.exceptions import ImproperlyConfigured
from litetq.message import Disposition, Outcome
from litetq.schedules import BaseSchedule, cron, crontab, schedstate, schedule
from litetq.task import Task
from litetq.timetable import FiringRow
from tests.waiting import eventually

START = datetime(2026, 6, 1, 9, 0, tzinfo=timezone.utc).timestamp()
HOUR = 3600.0


class Time:
    """The time of day, which stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = START


@pytest.fixture
def time() -> Iterator[Time]:
    time = Time()
    clock.set_source(lambda: time.now)
    yield time
    clock.set_source(None)


def new_app(db: Path, **conf: Any) -> LiteTQ:
    app = LiteTQ("tasks", broker=db, set_as_current=False, **conf)
    app.task(name="tasks.add")(lambda x, y=0: x + y)
    return app


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    app = new_app(db)
    yield app
    app.close()


def beat(app: LiteTQ, **entries: Any) -> PersistentScheduler:
    if entries:
        app.conf.beat_schedule = {
            name: {"task": "tasks.add", "args": (1, 2), **entry} for name, entry in entries.items()
        }
    return PersistentScheduler(app)


def tick(scheduler: PersistentScheduler) -> float:
    """Let beat deal with all that is due now; return how long it would rest."""
    while not (rest := scheduler.tick()):
        pass
    return rest


def run_until(scheduler: PersistentScheduler, time: Time, end: float) -> None:
    """Let beat live for a while."""
    while time.now < end:
        rest = tick(scheduler)
        time.now = min(end, time.now + rest)
    tick(scheduler)


def enqueued(app: LiteTQ) -> list[tuple[Any, ...]]:
    return app.engine.database.read(
        lambda tx: tx.execute("SELECT name, body, expires_at, headers, id FROM litetq_task ORDER BY seq").fetchall()
    )


def fired(app: LiteTQ, name: str) -> list[float]:
    """Return the due times that were enqueued, as seconds after the start."""
    rows = app.schedule.firings(name, 10_000)
    return sorted(round(row.due_at - START, 3) for row in rows if row.outcome == "SENT")


def last(app: LiteTQ, name: str) -> FiringRow:
    return app.schedule.firings(name, 1)[0]


# -- when -----------------------------------------------------------------------------------------------------------


@pytest.mark.row("20.beat_schedule")
@pytest.mark.row("10.first run of an interval")
def test_an_interval_comes_first_one_interval_after_the_start_and_then_each_time_once(app: LiteTQ, time: Time) -> None:
    scheduler = beat(app, thirty={"schedule": 30.0}, delta={"schedule": timedelta(minutes=1)})
    assert tick(scheduler) == 1.0 and not enqueued(app)
    run_until(scheduler, time, START + 120)
    assert fired(app, "thirty") == [30, 60, 90, 120] and fired(app, "delta") == [60, 120]
    assert {(name, body) for name, body, *_ in enqueued(app)} == {("tasks.add", b"[[1,2],{}]")}


@pytest.mark.row("20.timezone")
@pytest.mark.row("10.schedule types: crontab in the app's zone")
def test_a_crontab_comes_at_the_wall_time_of_the_apps_zone(db: Path, time: Time) -> None:
    app = new_app(db, timezone="Asia/Shanghai")  # 17:00 there at the start
    scheduler = beat(app, daily={"schedule": crontab(hour=17, minute=50)}, line={"schedule": "*/30 17 * * *"})
    run_until(scheduler, time, START + 25 * HOUR)
    assert fired(app, "daily") == [50 * 60, 50 * 60 + 24 * HOUR]
    assert fired(app, "line") == [1800, 24 * HOUR, 24 * HOUR + 1800]
    app.close()


@pytest.mark.row("10.entry fields under CELERYBEAT_SCHEDULE")
def test_the_old_name_of_the_setting_works(db: Path, time: Time) -> None:
    class Config:
        CELERY_TIMEZONE = "Asia/Shanghai"
        CELERYBEAT_SCHEDULE = {"add": {"task": "tasks.add", "schedule": timedelta(seconds=30), "args": (16, 4)}}

    app = LiteTQ("tasks", broker=db, set_as_current=False, config_source=Config)
    run_until(beat(app), time, START + 60)
    assert fired(app, "add") == [30, 60]
    app.close()


@pytest.mark.row("10.first run: overdue after a restart")
def test_an_overdue_entry_fires_once_at_the_start_and_keeps_its_rhythm(app: LiteTQ, time: Time) -> None:
    tick(beat(app, hourly={"schedule": HOUR}))
    time.now += 3.25 * HOUR
    scheduler = beat(app)
    run_until(scheduler, time, START + 4 * HOUR)
    assert fired(app, "hourly") == [3 * HOUR, 4 * HOUR]


@pytest.mark.parametrize("kind", [schedule(300), crontab(minute="*/5"), cron("*/5 * * * *")], ids=repr)
@pytest.mark.parametrize(("catch_up", "made_up"), [("none", 0), ("last", 1), ("all", 36)])
def test_after_a_stop_of_three_hours_runs_are_made_up_for_as_asked(
    app: LiteTQ, time: Time, kind: Any, catch_up: str, made_up: int
) -> None:
    run_until(beat(app, five={"schedule": kind, "catch_up": catch_up}), time, START + 600)
    time.now += 3 * HOUR + 20
    before, scheduler = len(fired(app, "five")), beat(app)
    tick(scheduler)
    assert before == 2 and len(fired(app, "five")) - before == made_up
    run_until(scheduler, time, START + 3 * HOUR + 900)
    assert fired(app, "five")[-1] == 3 * HOUR + 900 and len(fired(app, "five")) == before + made_up + 1
    if made_up < 36:
        assert sum(row.missed + (row.outcome == "SKIPPED") for row in app.schedule.firings("five")) == 36 - made_up


@pytest.mark.row("20.beat_cron_starting_deadline")
@pytest.mark.row("10.beat_cron_starting_deadline")
def test_a_run_beyond_the_cron_starting_deadline_is_left_out_and_said_so(app: LiteTQ, time: Time) -> None:
    app.conf.beat_cron_starting_deadline = 1800
    entries = {"cron": {"schedule": crontab(minute=0)}, "interval": {"schedule": HOUR}}
    beat(app, **entries)
    time.now += 1.75 * HOUR
    tick(beat(app))
    assert fired(app, "cron") == [] and fired(app, "interval") == [HOUR]
    note = app.schedule.get("cron").note
    assert note is not None and "1800 s late (deadline)" in note
    time.now += HOUR / 2
    tick(beat(app))
    assert fired(app, "cron") == [2 * HOUR]


def test_jitter_start_and_end_move_and_bound_the_runs(app: LiteTQ, time: Time) -> None:
    from_ = schedule_at(START + 3 * HOUR)
    scheduler = beat(
        app,
        jitter={"schedule": HOUR, "jitter": 600},
        bounded={"schedule": HOUR, "starts_at": from_, "ends_at": from_ + timedelta(hours=2)},
    )
    run_until(scheduler, time, START + 8.5 * HOUR)
    assert fired(app, "bounded") == [3 * HOUR, 4 * HOUR, 5 * HOUR]
    assert app.schedule.get("bounded").due_at is None
    late = [row.at - row.due_at for row in app.schedule.firings("jitter")]
    assert len(late) == 8 and 0 <= min(late) and max(late) <= 601 and len(set(late)) > 4


def schedule_at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def test_the_preview_is_what_then_runs(app: LiteTQ, time: Time) -> None:
    scheduler = beat(app, a={"schedule": 600}, b={"schedule": crontab(minute="*/7")}, c={"schedule": "0 10 * * *"})
    wanted = [(run.name, run.at.timestamp()) for run in app.schedule.next(20)]
    run_until(scheduler, time, wanted[-1][1])
    rows = [row for name in "abc" for row in app.schedule.firings(name)]
    assert sorted((row.entry, row.due_at) for row in rows) == sorted(wanted)
    assert [run.name for run in app.schedule.next(3, "c")] == ["c"] * 3


# -- many beats -----------------------------------------------------------------------------------------------------


@pytest.mark.row("10.only one beat allowed: any number here")
def test_two_beats_enqueue_each_due_time_once(db: Path, app: LiteTQ, time: Time) -> None:
    other = new_app(db)
    entries = {f"e{n}": {"schedule": 1.0 + n} for n in range(5)}
    one, two = beat(app, **entries), beat(other, **entries)
    for step in range(40):
        time.now = START + step
        for scheduler in (one, two) if step % 2 else (two, one):
            tick(scheduler)
    for n in range(5):
        assert fired(app, f"e{n}") == [float(due) for due in range(1 + n, 40, 1 + n)]
    assert len(enqueued(app)) == sum(len(fired(app, f"e{n}")) for n in range(5))
    other.close()


def test_beats_in_threads_at_the_same_instants_enqueue_once(db: Path, app: LiteTQ) -> None:
    """At true speed: three beats on entries that are all due at once, ten times a second."""
    entries = {f"e{n}": {"schedule": 0.1, "task": "tasks.add", "args": (1,)} for n in range(10)}
    apps = [app, new_app(db), new_app(db)]
    services = []
    for each in apps:
        each.conf.beat_schedule = entries
        services.append(Service(each))
        services[-1].start_in_thread()
    try:
        eventually(lambda: all(app.schedule.get(name).runs >= 15 for name in entries), within=20)
    finally:
        for service in services:
            service.stop()
    for name in entries:
        dues = sorted(row.due_at for row in app.schedule.firings(name))
        steps = {round(after - before, 3) for before, after in zip(dues, dues[1:], strict=False)}
        assert steps == {0.1}
    ids = [row.task_id for name in entries for row in app.schedule.firings(name)]
    assert len(ids) == len(set(ids)) == len(enqueued(app))
    for each in apps[1:]:
        each.close()


# -- the configuration ----------------------------------------------------------------------------------------------


@pytest.mark.row("1.on_after_finalize")
@pytest.mark.row("10.add_periodic_task in on_after_configure and on_after_finalize")
def test_set_up_functions_add_periodic_tasks(app: LiteTQ, time: Time) -> None:
    @app.task(name="tasks.say")
    def say(text: str) -> str:
        return text

    @app.on_after_configure.connect
    def first(sender: LiteTQ, **_: Any) -> None:
        sender.add_periodic_task(10.0, say.s("hello"), name="add every 10")
        sender.add_periodic_task(30.0, say.s("world"), expires=10)

    @app.on_after_finalize.connect
    def second(sender: LiteTQ, **_: Any) -> None:
        sender.add_periodic_task(crontab(hour=7, minute=30, day_of_week=1), say.s("Happy Mondays!"))

    service = Service(app)
    service.prepare()
    names = {entry.name: entry.words for entry in app.schedule.entries()}
    assert names == {
        "add every 10": "every 10 seconds",
        "tasks.say('world')": "every 30 seconds",
        "tasks.say('Happy Mondays!')": "crontab 30 7 * * 1",
    }
    assert set(app.conf.beat_schedule) == set(names)
    run_until(service.scheduler, time, START + 30)
    [world] = [row for row in enqueued(app) if b"world" in row[1]]
    assert world[2] == START + 30 + 10


@pytest.mark.row("1.add_periodic_task")
@pytest.mark.row("10.add_periodic_task: default name")
def test_equal_calls_without_names_replace_each_other_and_with_names_do_not(app: LiteTQ) -> None:
    add = app.tasks["tasks.add"]
    assert app.add_periodic_task(10, add.s(1)) == app.add_periodic_task(20, add.s(1), name="tasks.add(1)")
    assert app.add_periodic_task(30, add.s(1), name="third") == "third"
    assert {name: entry["schedule"] for name, entry in app.conf.beat_schedule.items()} == {
        "tasks.add(1)": 20,
        "third": 30,
    }
    with pytest.warns(UserWarning, match="replaces an equal one"):
        app.add_periodic_task(40, add.s(1))


def test_the_short_form_makes_task_and_entry(app: LiteTQ, time: Time) -> None:
    @app.periodic(60.0, overlap="skip", queue="slow")
    def clean() -> str:
        return "clean"

    assert clean() == "clean" and isinstance(clean, Task)
    run_until(beat(app), time, START + 60)
    assert [name for name, *_ in enqueued(app)] == [clean.name]
    entry = app.schedule.get(clean.name)
    assert entry.policy == '{"overlap": "skip"}' and json.loads(entry.definition)["options"] == {"queue": "slow"}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"args": (16)}, "args must be a list or tuple, found 16"),
        ({"task": None}, "names no task"),
        ({"schedule": None}, "has no schedule"),
        ({"schedule": "every minute"}, "no cron line"),
        ({"schedule": object()}, "is no schedule"),
        ({"schedule": 0}, "more than 0"),
        ({"overlap": "never"}, "overlap='never'"),
        ({"catchup": "all"}, "no option 'catchup'"),
        ({"options": {"expire": 10}}, "did you mean 'expires'"),
    ],
)
def test_a_wrong_entry_is_refused_at_the_start_by_its_name(app: LiteTQ, entry: dict[str, Any], said: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"(?s)'wrong'.*{said}"):
        beat(app, wrong={"schedule": 10, **entry})


def test_what_left_the_configuration_leaves_the_file_and_what_was_made_at_run_time_stays(
    app: LiteTQ, time: Time
) -> None:
    beat(app, old={"schedule": 10}, same={"schedule": 60})
    app.schedule.add("mine", "tasks.add", 20, [1])
    time.now += 30
    beat(app, same={"schedule": 60}, new={"schedule": 10})
    assert {entry.name: entry.due_at for entry in app.schedule.entries()} == {
        "mine": START + 20, "new": START + 40, "same": START + 60,
    }  # fmt: skip


def test_a_changed_schedule_counts_from_the_change_and_a_changed_argument_keeps_the_due_time(
    app: LiteTQ, time: Time
) -> None:
    beat(app, a={"schedule": HOUR}, b={"schedule": crontab(minute=0, hour=10)})
    time.now += 1.5 * HOUR
    beat(app, a={"schedule": HOUR, "args": (5,)}, b={"schedule": crontab(minute=0, hour=8)})
    assert app.schedule.get("a").due_at == START + HOUR
    assert app.schedule.get("b").due_at == START + 23 * HOUR, "08:00 of today was never promised"


@pytest.mark.row("10.timezone/UTC change")
def test_a_new_time_zone_moves_wall_times_and_no_intervals(db: Path, app: LiteTQ, time: Time) -> None:
    entries = {"daily": {"schedule": crontab(minute=0, hour=12)}, "often": {"schedule": 5 * HOUR}}
    beat(app, **entries)
    app.schedule.add("mine", "tasks.add", "0 12 * * *", [1])
    other = new_app(db, timezone="America/New_York")
    beat(other, **entries)
    dues = {entry.name: (entry.due_at, entry.zone) for entry in app.schedule.entries()}
    noon = (START + 7 * HOUR, "America/New_York")
    assert dues["daily"] == dues["mine"] == noon and dues["often"][0] == START + 5 * HOUR
    other.close()


def test_an_entry_that_a_newer_program_changed_is_left_to_it(
    db: Path, app: LiteTQ, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    older = beat(app, a={"schedule": 10}, b={"schedule": 10})
    newer_app = new_app(db)
    newer = beat(newer_app, a={"schedule": 10, "args": (9, 9)}, b={"schedule": 10})
    time.now += 10
    tick(older)
    assert [body for _, body, *_ in enqueued(app)] == [b"[[1,2],{}]"] and "changed by another process" in caplog.text
    tick(newer)
    assert fired(app, "a") == fired(app, "b") == [10]
    newer_app.close()


def test_an_entry_that_has_ended_goes_on_when_its_end_is_moved(app: LiteTQ, time: Time) -> None:
    entry = {"schedule": 600, "ends_at": schedule_at(START + 900)}
    run_until(beat(app, a=entry), time, START + 3000)
    assert fired(app, "a") == [600] and app.schedule.get("a").due_at is None
    beat(app, a={**entry, "ends_at": schedule_at(START + HOUR)})
    assert app.schedule.get("a").due_at == START + 3600


def test_of_beats_that_start_together_the_first_says_when_an_entry_begins(
    db: Path, app: LiteTQ, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one has read the file before the first one wrote to it."""
    other = new_app(db)
    timetable, real = other.engine.timetable, other.engine.timetable.entries
    other.conf.beat_schedule = app.conf.beat_schedule = {"a": {"task": "tasks.add", "schedule": 10.0, "args": (1, 2)}}

    def entries_then_another_beat() -> Any:
        found = real()
        monkeypatch.setattr(timetable, "entries", real)
        PersistentScheduler(app)
        time.now += 5
        return found

    monkeypatch.setattr(timetable, "entries", entries_then_another_beat)
    run_until(PersistentScheduler(other), time, START + 20)
    assert fired(app, "a") == [10, 20]
    other.close()


# -- overlap --------------------------------------------------------------------------------------------------------


class Worker:
    """Runs a task of nearly three seconds in as many places as there is work."""

    def __init__(self, app: LiteTQ, time: Time) -> None:
        self.seat, self.time = app.engine.seat("w@here"), time
        self.running: dict[float, Any] = {}
        self.most = 0
        self.runs: list[tuple[float, float]] = []

    def look(self) -> None:
        over = [begun for begun in self.running if self.time.now - begun > 2.9]
        ended = [self.running.pop(begun) for begun in over]
        self.runs += [(begun - START, self.time.now - START) for begun in over]
        outcomes = [Outcome(d.claim, d.seq, d.id, Disposition.COMPLETE, "SUCCESS", b"null") for d in ended]
        for number, delivery in enumerate(self.seat.take(10, outcomes).deliveries):
            self.running[self.time.now + number / 1000] = delivery
        self.most = max(self.most, len(self.running))


@pytest.mark.parametrize(("overlap", "most", "starts"), [
    ("allow", 3, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ("skip", 1, [1, 4, 7]),
    ("queue_one", 1, [1, 3.9, 6.8, 9.8]),
])  # fmt: skip
def test_a_job_of_three_seconds_each_second(
    app: LiteTQ, time: Time, overlap: str, most: int, starts: list[float]
) -> None:
    scheduler, worker = beat(app, job={"schedule": 1.0, "overlap": overlap}), Worker(app, time)
    while time.now < START + 9.9:
        tick(scheduler)
        worker.look()
        tick(scheduler)
        worker.look()
        time.now = round(time.now + 0.05, 2)
    begun = sorted([begun for begun, _ in worker.runs] + [begun - START for begun in worker.running])
    assert worker.most == most and [round(at, 1) for at in begun] == starts
    if overlap == "queue_one":
        assert fired(app, "job") == [1, 2, 4, 7], "what waits is the due time that came first"
    if overlap == "skip":
        assert Counter(row.outcome for row in app.schedule.firings("job")) == {"SENT": 3, "SKIPPED": 6}


def test_a_run_that_is_retried_counts_as_unfinished(app: LiteTQ, time: Time) -> None:
    scheduler, seat = beat(app, job={"schedule": 10.0, "overlap": "skip"}), app.engine.seat("w@here")
    run_until(scheduler, time, START + 10)
    [delivery] = seat.take(1).deliveries
    seat.take(0, [Outcome(delivery.claim, delivery.seq, delivery.id, Disposition.RETRY, "RETRY", due_at=time.now + 15)])
    run_until(scheduler, time, START + 20)
    assert fired(app, "job") == [10] and last(app, "job").outcome == "SKIPPED"


def test_the_run_of_a_dead_worker_does_not_block_for_ever(app: LiteTQ, time: Time) -> None:
    scheduler, dead = beat(app, job={"schedule": 10.0, "overlap": "skip"}), app.engine.seat("dead@here")
    run_until(scheduler, time, START + 10)
    assert len(dead.take(1).deliveries) == 1
    run_until(scheduler, time, START + 20)
    app.engine.store.roster.rescue(dead.id, None, time.now)
    run_until(scheduler, time, START + 30)
    assert fired(app, "job") == [10, 30]


@pytest.mark.row("10.workflows in entries")
def test_a_chain_is_unfinished_until_its_last_task_has_ended(app: LiteTQ, time: Time) -> None:
    add = app.tasks["tasks.add"]
    app.add_periodic_task(10.0, add.s(1) | add.s(2), name="chain", overlap="skip")
    scheduler, seat = beat(app), app.engine.seat("w@here")
    run_until(scheduler, time, START + 10)
    assert len(enqueued(app)) == 2
    for at, runs in ((20, [10]), (30, [10]), (40, [10, 40])):
        run_until(scheduler, time, START + at)
        assert fired(app, "chain") == runs
        if at < 40:
            [d] = seat.take(1).deliveries
            seat.take(0, [Outcome(d.claim, d.seq, d.id, Disposition.COMPLETE, "SUCCESS", b"1", linked=d.linked)])


@pytest.mark.parametrize(("kind", "order"), [("group", [1, 1]), ("chord", [2, 1])])
def test_a_canvas_is_unfinished_until_all_that_ends_it_has_ended(
    app: LiteTQ, time: Time, kind: str, order: list[int]
) -> None:
    add = app.tasks["tasks.add"]
    members = group([add.s(1), add.s(2)])
    app.conf.beat_schedule = {
        "canvas": {
            "task": members if kind == "group" else chord(members, add.si(3)),
            "schedule": 10.0,
            "overlap": "skip",
        }
    }
    scheduler, seat = beat(app), app.engine.seat("w@here")
    run_until(scheduler, time, START + 10)
    for step, claims in enumerate(order):
        run_until(scheduler, time, START + 20 + 10 * step)
        assert fired(app, "canvas") == [10]
        deliveries = seat.take(claims).deliveries
        assert len(deliveries) == claims
        for d in deliveries:
            seat.take(0, [Outcome(d.claim, d.seq, d.id, Disposition.COMPLETE, "SUCCESS", b"1", linked=d.linked)])
    run_until(scheduler, time, START + 40)
    assert fired(app, "canvas") == [10, 40]


# -- at run time ----------------------------------------------------------------------------------------------------


def test_changes_take_effect_while_beat_runs(app: LiteTQ) -> None:
    service = Service(app)
    service.start_in_thread()
    try:
        app.schedule.add("quick", "tasks.add", 0.05, [1, 2])
        eventually(lambda: app.schedule.get("quick").runs > 2)
        app.schedule.edit("quick", args=[7])
        eventually(lambda: enqueued(app)[-1][1] == b"[[7],{}]")
        app.schedule.pause("quick")
        runs = app.schedule.get("quick").runs
        assert app.schedule.get("quick").paused
        resumed = app.schedule.resume("quick")
        assert resumed.runs == runs
        eventually(lambda: app.schedule.get("quick").runs > runs)
        app.schedule.remove("quick")
        with pytest.raises(ImproperlyConfigured, match="no entry 'quick'"):
            app.schedule.get("quick")
    finally:
        service.stop()


def test_a_paused_entry_rests_and_goes_on_without_making_up(app: LiteTQ, time: Time) -> None:
    scheduler = beat(app, hourly={"schedule": crontab(minute=0)})
    app.schedule.pause("hourly")
    run_until(scheduler, time, START + 5.5 * HOUR)
    assert not enqueued(app) and not app.schedule.next(1)
    beat(app)
    assert app.schedule.get("hourly").paused, "also after a new start"
    app.schedule.resume("hourly")
    run_until(scheduler, time, START + 6 * HOUR)
    assert fired(app, "hourly") == [6 * HOUR]


def test_a_run_out_of_turn_is_enqueued_at_once_and_moves_no_due_time(app: LiteTQ, time: Time) -> None:
    scheduler = beat(app, hourly={"schedule": HOUR})
    result = app.schedule.run_now("hourly")
    assert [row[4] for row in enqueued(app)] == [result.id]
    run_until(scheduler, time, START + HOUR)
    assert fired(app, "hourly") == [0, HOUR] and app.schedule.get("hourly").runs == 2


def test_entries_of_the_configuration_are_changed_there(app: LiteTQ) -> None:
    beat(app, mine={"schedule": 10})
    for change in (lambda: app.schedule.edit("mine", schedule=5), lambda: app.schedule.remove("mine")):
        with pytest.raises(ImproperlyConfigured, match="comes from the configuration of tasks"):
            change()
    with pytest.raises(ImproperlyConfigured, match="there is an entry 'mine' already"):
        app.schedule.add("mine", "tasks.add", 5)
    with pytest.raises(ImproperlyConfigured, match="did you mean 'mine'"):
        app.schedule.pause("mein")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"schedule": BaseSchedule()}, "a schedule of its own program"),
        ({"schedule": 5, "args": [object()]}, "kept as JSON"),
        ({"schedule": 5, "args": "abc"}, "args must be a list"),
        ({"schedule": 5, "deadline": -1}, "deadline=-1"),
    ],
)
def test_what_the_file_cannot_keep_is_refused(app: LiteTQ, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"'x'.*{said}"):
        app.schedule.add("x", "tasks.add", **given)
    assert app.schedule.entries() == []


def test_a_signature_gives_task_arguments_and_options(app: LiteTQ, time: Time) -> None:
    app.schedule.add("s", app.tasks["tasks.add"].s(1, y=2).set(queue="slow"), 10)
    assert json.loads(app.schedule.get("s").definition) == {
        "task": "tasks.add", "args": [1], "kwargs": {"y": 2}, "options": {"queue": "slow"},
    }  # fmt: skip
    run_until(beat(app), time, START + 10)
    assert [body for _, body, *_ in enqueued(app)] == [b'[[1],{"y":2}]']


# -- guards ---------------------------------------------------------------------------------------------------------


def test_a_clock_put_back_stops_no_interval_and_repeats_no_due_time(app: LiteTQ, time: Time) -> None:
    scheduler = beat(app, often={"schedule": 10.0}, hourly={"schedule": crontab(minute=0)})
    run_until(scheduler, time, START + 2 * HOUR)
    time.now = START + HOUR - 30  # one and a half hours back; 10:00 has been
    run_until(scheduler, time, START + HOUR + 30)
    assert fired(app, "hourly") == [HOUR, 2 * HOUR]
    note = app.schedule.get("hourly").note
    assert note is not None and "dealt with before" in note
    assert [row.at - START - HOUR for row in app.schedule.firings("often", 6)] == [30, 20, 10, 0, -10, -20]
    assert app.schedule.get("often").runs == 720 + 6


def test_a_clock_put_back_while_no_beat_ran_is_seen_at_the_start(app: LiteTQ, time: Time) -> None:
    run_until(beat(app, often={"schedule": 10.0}), time, START + 20)
    time.now = START - 400 * 24 * HOUR
    scheduler = beat(app)
    run_until(scheduler, time, START - 400 * 24 * HOUR + 10)
    assert app.schedule.get("often").runs == 3


def test_a_clock_put_forward_by_years_and_back_again_leaves_beat_in_step(
    app: LiteTQ, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = beat(app, often={"schedule": 10.0}, daily={"schedule": crontab(minute=0, hour=4)})
    run_until(scheduler, time, START + 20)
    time.now += 3650 * 24 * HOUR
    tick(scheduler)
    assert len(fired(app, "often")) == 3 and len(fired(app, "daily")) == 1 and "the clock went ahead" in caplog.text
    time.now = START + 30
    tick(scheduler)
    assert "the clock was put back" in caplog.text
    run_until(scheduler, time, START + 50)
    assert fired(app, "often") == [10, 20, 40, 50] and app.schedule.get("often").runs == 5
    assert app.schedule.get("daily").due_at == START + 19 * HOUR


def test_a_machine_that_slept_catches_up_like_a_beat_that_was_away(app: LiteTQ, time: Time) -> None:
    scheduler = beat(app, often={"schedule": 60.0}, all={"schedule": 600.0, "catch_up": "all"})
    run_until(scheduler, time, START + 60)
    time.now += 3 * HOUR
    tick(scheduler)
    assert len(fired(app, "often")) == 2 and len(fired(app, "all")) == 18


class Broken(BaseSchedule):
    def is_due(self, last_run_at: datetime) -> tuple[bool, float]:
        raise ArithmeticError("no idea")


@pytest.mark.row("10.failing entry")
def test_an_entry_that_raises_is_tried_again_and_keeps_nobody_from_running(
    app: LiteTQ, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    def no_value() -> int:
        raise LookupError("no value")

    scheduler = beat(
        app,
        broken={"schedule": Broken(app=app)},
        lazy={"schedule": 10.0, "args": (BeatLazyFunc(no_value),)},
        bad={"schedule": 10.0, "args": (object(),)},
        good={"schedule": 10.0},
    )
    run_until(scheduler, time, START + 30)
    assert fired(app, "good") == [10, 20, 30] and fired(app, "bad") == fired(app, "lazy") == []
    assert last(app, "lazy").outcome == "FAILED" and "no value" in (last(app, "lazy").reason or "")
    assert "it raised ArithmeticError: no idea" in (app.schedule.get("broken").note or "")
    assert caplog.text.count("entry broken cannot run; it is tried again in 60 s") == 1


def test_a_task_that_is_not_registered_is_sent_by_its_name_with_a_warning_once(
    app: LiteTQ, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    run_until(beat(app, far={"schedule": 10.0, "task": "elsewhere.work"}), time, START + 30)
    assert [name for name, *_ in enqueued(app)] == ["elsewhere.work"] * 3
    assert caplog.text.count("task elsewhere.work of entry far is not registered here") == 1


# -- what a run is --------------------------------------------------------------------------------------------------


@pytest.mark.row("10.BeatLazyFunc; header celery_beat_task")
def test_a_run_says_which_entry_sent_it_and_lazy_arguments_are_made_for_each(app: LiteTQ, time: Time) -> None:
    count = iter(range(100))
    scheduler = beat(app, lazy={"schedule": 10.0, "args": (BeatLazyFunc(lambda: next(count)),), "kwargs": {"y": 1}})
    run_until(scheduler, time, START + 20)
    rows = enqueued(app)
    assert [body for _, body, *_ in rows] == [b'[[0],{"y":1}]', b'[[1],{"y":1}]']
    assert json.loads(rows[0][3])["headers"] == {"celery_beat_task": True, "periodic_task_name": "lazy"}


def test_signals_and_a_tasks_own_apply_async_take_part(app: LiteTQ, time: Time) -> None:
    seen: list[str] = []

    class Own(Task):  # type: ignore[type-arg]
        def apply_async(self, *args: Any, **options: Any) -> Any:
            seen.append("own")
            return super().apply_async(*args, **{**options, "queue": "own"})

    def before(sender: str, headers: dict[str, Any], **_: Any) -> None:
        seen.append("before")
        headers["tag"] = "x"

    def after(sender: str, headers: dict[str, Any], **_: Any) -> None:
        assert headers["id"] in {row[4] for row in enqueued(app)}, "told when it is in the file"
        seen.append("after")

    app.task(name="tasks.own", base=Own)(lambda: 1)
    signals.before_task_publish.connect(before, sender="tasks.own")
    signals.after_task_publish.connect(after, sender="tasks.own")
    try:
        run_until(beat(app, own={"schedule": 10.0, "task": "tasks.own", "args": ()}), time, START + 10)
    finally:
        signals.before_task_publish.disconnect(before, sender="tasks.own")
        signals.after_task_publish.disconnect(after, sender="tasks.own")
    assert seen == ["own", "before", "after"]
    assert json.loads(enqueued(app)[0][3])["headers"]["tag"] == "x"


# -- extensions -----------------------------------------------------------------------------------------------------


class Twice(BaseSchedule):
    """Due in the first second of each full minute; knows nothing ahead."""

    def is_due(self, last_run_at: datetime) -> tuple[bool, float]:
        now = self.now()
        return schedstate(now.second == 0 and (now - last_run_at).total_seconds() > 30, 1.0)


@pytest.mark.row("10.schedule types: own subclass with is_due")
def test_a_schedule_of_ones_own_is_asked_and_obeyed(db: Path, app: LiteTQ, time: Time) -> None:
    other = new_app(db)
    beats = [beat(each, own={"schedule": Twice(app=each)}) for each in (app, other)]
    for _ in range(150):
        for scheduler in beats:
            tick(scheduler)
        time.now += 1
    assert fired(app, "own") == [60, 120]
    other.close()


def test_an_entry_class_of_ones_own_decides_when(app: LiteTQ, time: Time) -> None:
    class Lucky(ScheduleEntry):
        def is_due(self) -> Any:
            return schedstate(self.total_run_count < 2, 5)

    class Own(PersistentScheduler):
        Entry = Lucky

    app.conf.beat_schedule = {"x": {"task": "tasks.add", "schedule": 1000, "args": (1,)}}
    run_until(Own(app), time, START + 60)
    assert app.schedule.get("x").runs == 2


def test_tools_that_wrap_apply_entry_see_each_run_and_may_change_it(
    app: LiteTQ, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    original: Callable[..., Any] = Scheduler.apply_entry

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        scheduler, entry = args
        entry.options["headers"] = {**entry.options.get("headers", {}), "trace": entry.name}
        return original(*args, **kwargs)

    monkeypatch.setattr(Scheduler, "apply_entry", wrapped)
    run_until(beat(app, a={"schedule": 10.0}), time, START + 20)
    assert [json.loads(row[3])["headers"]["trace"] for row in enqueued(app)] == ["a", "a"]


class InMemory(Scheduler):
    """A scheduler as other packages write them."""

    synced = 0

    def setup_schedule(self) -> None:
        self.install_default_entries(self.schedule)
        self.update_from_dict(self.app.conf.beat_schedule)

    def sync(self) -> None:
        type(self).synced += 1


@pytest.mark.row("10.Scheduler API")
def test_a_scheduler_in_memory_ticks_as_celerys_does(app: LiteTQ, time: Time) -> None:
    app.conf.beat_schedule = {
        "a": {"task": "tasks.add", "schedule": 10.0, "args": (1, 2)},
        "b": {"task": "tasks.add", "schedule": crontab(minute="*"), "args": (3, 4)},
    }
    scheduler = InMemory(app)
    assert scheduler.max_interval == 300 and sorted(scheduler.schedule) == ["a", "b"]
    assert 9 < scheduler.tick() <= 10
    while time.now < START + 60.5:
        time.now += scheduler.tick() or 0.01
    counts = {name: entry.total_run_count for name, entry in scheduler.schedule.items()}
    assert counts["b"] == 1 and counts["a"] in (5, 6) and len(enqueued(app)) == sum(counts.values())
    scheduler.add(name="c", task="tasks.add", schedule=1.0, args=(5,))
    time.now += 1.1
    while scheduler.tick() == 0:
        pass
    assert scheduler.schedule["c"].total_run_count == 1
    with pytest.raises(SchedulingError, match="scheduled task bad"):
        scheduler.apply_async(ScheduleEntry("bad", "tasks.add", schedule=1, args=(object(),), app=app))


def test_notes_that_an_entry_of_a_package_has_among_its_options_do_not_keep_it_from_being_sent(app: LiteTQ) -> None:
    class Noted(ScheduleEntry):
        """sqlalchemy-celery-beat puts `periodic_task_name` there."""

    scheduler = InMemory(app, lazy=True)
    options = {"periodic_task_name": "a", "queue": "mail"}
    entry = Noted("a", "tasks.add", schedule=1, args=(1,), options=options, app=app)
    assert scheduler.apply_async(entry, advance=False).queue == "mail"
    with pytest.raises(SchedulingError, match="unknown option 'periodic_task_name'"):
        own = ScheduleEntry("a", "tasks.add", schedule=1, args=(1,), options=options, app=app)
        scheduler.apply_async(own, advance=False)


@pytest.mark.row("12.beat_init, beat_embedded_init")
@pytest.mark.row("20.beat_scheduler")
@pytest.mark.row("20.beat_max_loop_interval")
@pytest.mark.row("10.signals beat_init, beat_embedded_init; beat_scheduler; beat_max_loop_interval")
def test_a_service_runs_the_scheduler_that_is_named(app: LiteTQ) -> None:
    started = threading.Event()
    told: list[str] = []

    def note(signal: Any, sender: Service, **_: Any) -> None:
        assert isinstance(sender.scheduler, InMemory)
        told.append(signal.name)
        if signal is signals.beat_embedded_init:
            started.set()

    app.conf.beat_schedule = {"a": {"task": "tasks.add", "schedule": 0.05, "args": (1,)}}
    both = (signals.beat_init, signals.beat_embedded_init)
    for signal in both:
        signal.connect(note)
    service = app.Beat(max_interval=0.05, scheduler=f"{__name__}:InMemory", loglevel="INFO")
    service.start_in_thread()
    try:
        assert started.wait(10)
        eventually(lambda: len(enqueued(app)) > 3)
    finally:
        service.stop()
        for signal in both:
            signal.disconnect(note)
    assert told == [signal.name for signal in both]
    assert InMemory.synced
    with pytest.raises(TypeError, match="beat has no option 'shedule'"):
        app.Beat(shedule="x")
    for wrong in ("nowhere:Class", "litetq.beat:Nothing", "unknown"):
        with pytest.raises(ImproperlyConfigured, match=f"no scheduler '{wrong}'"):
            app.Beat(scheduler_cls=wrong)
    for known in ("celery.beat:PersistentScheduler", "litetq.beat:PersistentScheduler", PersistentScheduler):
        assert app.Beat(scheduler_cls=known).scheduler_cls is PersistentScheduler


def test_an_entry_can_be_copied_compared_and_pickled(app: LiteTQ) -> None:
    import pickle

    entry = ScheduleEntry(
        "a", "tasks.add", schedule=crontab(minute=1), args=(1,), kwargs={"y": 2}, overlap="skip", app=app
    )
    again = pickle.loads(pickle.dumps(entry))
    assert again == entry and again.policy == entry.policy and again.last_run_at == entry.last_run_at
    after = next(entry)
    assert after.total_run_count == 1 and after.policy == entry.policy and after == entry
    assert repr(entry) == "<ScheduleEntry: a tasks.add(1, y=2) <crontab: 1 * * * * (m/h/dM/MY/d)>>"


# -- within a worker ------------------------------------------------------------------------------------------------


@pytest.mark.row("10.beat within a worker")
def test_a_worker_with_a_beat_runs_what_it_sends(app: LiteTQ) -> None:
    seen: list[Any] = []
    app.task(name="tasks.note", bind=True)(lambda self, x: seen.append((x, self.request.headers)))
    app.conf.beat_schedule = {"note": {"task": "tasks.note", "schedule": 0.05, "args": ("hello",)}}
    with app.run_embedded(beat=True):
        eventually(lambda: len(seen) > 3)
    before = len(app.schedule.firings("note", 1000))
    assert seen[0][0] == "hello" and seen[0][1]["periodic_task_name"] == "note"
    assert len(app.schedule.firings("note", 1000)) == before and not [
        thread for thread in threading.enumerate() if thread.name == "litetq-beat"
    ]


def test_a_worker_whose_beat_cannot_start_does_not_start(app: LiteTQ) -> None:
    app.conf.beat_schedule = {"wrong": {"task": "tasks.add"}}
    with pytest.raises(ImproperlyConfigured, match="'wrong' of the schedule: it has no schedule"):
        app.run_embedded(beat=True)
    assert app.engine.store.roster.workers() == []


def test_a_beat_that_cannot_reach_the_file_tries_again(
    app: LiteTQ, time: Time, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from litetq.exceptions import StoreFull

    service = Service(app, max_interval=0.01)
    service.prepare()
    raises = iter([StoreFull("cannot write", "the disk is full", path="x"), ZeroDivisionError("bug")])
    monkeypatch.setattr("litetq.beat.LOOK_S", 0.01)
    monkeypatch.setattr("litetq.beat.ERROR_S", 0.01)
    real = service.scheduler.tick
    ticks = threading.Semaphore(0)

    def tick_once() -> float:
        ticks.release()
        for error in raises:
            raise error
        return real()  # type: ignore[no-any-return]

    monkeypatch.setattr(service.scheduler, "tick", tick_once)
    with caplog.at_level(logging.ERROR):
        service.start_in_thread()
        try:
            assert all(ticks.acquire(timeout=10) for _ in range(5))
        finally:
            service.stop()
    assert "the disk is full" in caplog.text and "the scheduler raised" in caplog.text
