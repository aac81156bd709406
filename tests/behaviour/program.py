"""The tasks of these tests; `make` gives an app that has them, in the program that calls and in each worker."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from litetq import LiteTQ, chain, group
from litetq.exceptions import Ignore, Reject, SoftTimeLimitExceeded

WAIT = 60.0  # seconds that a held task waits at most


def make(broker: str, results: str | None, folder: Path, **conf: Any) -> LiteTQ:
    """Return an app at these places; its tasks leave notes in `folder`, and wait for files there."""
    app = LiteTQ("behaviour", broker=broker, backend=results, set_as_current=False)
    app.conf.update(
        worker_hijack_root_logger=False,
        worker_send_task_events=True,
        task_queue_max_priority=9,
        task_create_missing_queues=True,
        task_routes={"routed": {"queue": "elsewhere"}},
        beat_schedule={"tick": {"task": "noted", "schedule": 0.3, "args": ("tick",)}},
        **conf,
    )
    ledger = folder / "ledger"
    lock = threading.Lock()

    def note(*words: object) -> None:
        with lock, open(ledger, "a", encoding="utf-8") as notes:
            notes.write("-".join(map(str, words)) + "\n")

    def wait_for(name: object) -> None:
        until = time.monotonic() + WAIT
        while not (folder / f"{name}.go").exists():
            if time.monotonic() > until:
                raise AssertionError(f"nobody let {name} go")
            time.sleep(0.005)

    # -- values

    @app.task(name="add")
    def add(a: Any, b: Any) -> Any:
        return a + b

    @app.task(name="total")
    def total(values: list[int]) -> int:
        return sum(values)

    @app.task(name="same")
    def same(value: Any = None, **named: Any) -> Any:
        return {**named, "value": value} if named else value

    @app.task(name="noted")
    def noted(value: Any) -> Any:
        note(value)
        return value

    @app.task(name="quiet", ignore_result=True)
    def quiet(value: Any) -> Any:
        note("quiet", value)
        return value

    @app.task(name="routed")
    def routed(value: Any) -> Any:
        note("routed", value)
        return value

    @app.task(name="request", bind=True)
    def request(self: Any, *_: Any, **__: Any) -> dict[str, Any]:
        found = self.request
        return {
            "id": found.id,
            "root": found.root_id,
            "parent": found.parent_id,
            "retries": found.retries,
            "queue": found.delivery_info["routing_key"],
            "priority": found.delivery_info["priority"],
            "args": list(found.args),
            "hostname": found.hostname,
            "headers": found.headers and found.headers.get("colour"),
            "group": bool(found.group),
        }

    @app.task(name="calls", bind=True)
    def calls(self: Any) -> str:
        return str(add.delay(1, 1).id)

    # -- ends

    @app.task(name="fail")
    def fail(*args: Any) -> None:
        raise ValueError(*(args or ("no",)))

    @app.task(name="told")
    def told(id: str) -> None:
        note("told", id)

    @app.task(name="told_all")
    def told_all(request: Any, exc: BaseException, traceback: Any) -> None:
        note("told", request.id, type(exc).__name__, *exc.args)

    @app.task(name="ignored")
    def ignored() -> None:
        note("ignored")
        raise Ignore

    @app.task(name="rejected", bind=True, acks_late=True)
    def rejected(self: Any, name: str, requeue: bool) -> str:
        note("rejected", name)
        if not (folder / f"{name}.go").exists():
            (folder / f"{name}.go").touch()
            raise Reject("not now", requeue=requeue)
        return "taken"

    @app.task(name="late", acks_late=True)
    def late(value: Any) -> Any:
        note("late", value)
        return value

    @app.task(name="progress", bind=True)
    def progress(self: Any, name: str) -> str:
        self.update_state(state="HALFWAY", meta={"done": 1})
        wait_for(name)
        return "whole"

    @app.task(name="held", track_started=True)
    def held(name: str) -> str:
        note("began", name)
        wait_for(name)
        note("ended", name)
        return name

    # -- retries

    @app.task(name="stubborn", bind=True, max_retries=2, default_retry_delay=0)
    def stubborn(self: Any, name: str) -> None:
        note(name, self.request.retries)
        raise self.retry()

    @app.task(name="raises_last", bind=True, max_retries=1, default_retry_delay=0)
    def raises_last(self: Any) -> None:
        try:
            raise KeyError("live")
        except KeyError as error:
            raise self.retry(exc=error) from error

    @app.task(name="third_time", bind=True)
    def third_time(self: Any, delay: float = 0) -> int:
        if self.request.retries < 2:
            raise self.retry(countdown=delay)
        return int(self.request.retries)

    @app.task(name="other_arguments", bind=True)
    def other_arguments(self: Any, value: int, more: int = 0) -> Any:
        if not self.request.retries:
            raise self.retry(args=(value + 1,), kwargs={"more": 5}, countdown=0)
        return [value, more]

    @app.task(name="by_itself", bind=True, autoretry_for=(OSError,), retry_backoff=1, retry_jitter=False, max_retries=3)
    def by_itself(self: Any, kind: str) -> int:
        if self.request.retries < 1:
            raise OSError("disk") if kind == "disk" else ValueError("bug")
        return int(self.request.retries)

    @app.task(name="waits_to_retry", bind=True)
    def waits_to_retry(self: Any, name: str) -> str:
        if not self.request.retries:
            raise self.retry(exc=ValueError("busy"), countdown=600 if name == "long" else 1)
        return name

    # -- limits

    @app.task(name="too_long")
    def too_long(cleans: bool = False) -> str:
        try:
            until = time.monotonic() + WAIT
            while time.monotonic() < until:
                time.sleep(0.01)
        except SoftTimeLimitExceeded:
            if not cleans:
                raise
            return "cleaned"
        return "never"

    @app.task(name="dies")
    def dies() -> None:
        os._exit(3)

    @app.task(name="dies_once", acks_late=True, reject_on_worker_lost=True)
    def dies_once(name: str) -> str:
        note("dies", name)
        if not (folder / f"{name}.go").exists():
            (folder / f"{name}.go").touch()
            os._exit(3)
        return "back"

    # -- workflows that are changed while they run

    @app.task(name="swap", bind=True)
    def swap(self: Any, value: int) -> None:
        raise self.replace(add.s(value, 1000))

    @app.task(name="swap_for_chain", bind=True)
    def swap_for_chain(self: Any, value: int) -> None:
        raise self.replace(chain(add.s(value, 1000), add.s(1)))

    @app.task(name="swap_for_chord", bind=True)
    def swap_for_chord(self: Any, value: int) -> None:
        raise self.replace(group(add.s(value, 1), add.s(value, 2)) | total.s())

    @app.task(name="joins_in", bind=True)
    def joins_in(self: Any, value: int) -> int:
        self.add_to_chord(add.s(value, 1))
        return value

    return app


if "BEHAVIOUR_BROKER" in os.environ:  # in a worker
    app = make(
        os.environ["BEHAVIOUR_BROKER"], os.environ.get("BEHAVIOUR_RESULTS"), Path(os.environ["BEHAVIOUR_FOLDER"])
    )
