"""What a type checker must understand of user code. Checked by test_typing.py, never run.

Each line marked `# wrong` must be an error, and no other line may be one (`warn_unused_ignores` sees to that).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from typing_extensions import assert_type

from litetq import AsyncResult, Celery, LiteTQ, Task, shared_task

app = LiteTQ("typed", broker="jobs.sqlite", durability="full", task_acks_late=True)
same: type[Celery] = LiteTQ


@app.task
def add(x: int, y: int = 0) -> int:
    return x + y


@app.task(name="named", queue="mail")
def greet(name: str, *, loud: bool = False) -> str:
    return name.upper() if loud else name


@app.task(bind=True, max_retries=5)
def bound(self: Any, x: int) -> list[int]:
    if self.request.retries < 2:
        raise self.retry(countdown=1)
    return [x]


@app.task(bind=True)
def typed_self(self: Task[..., Any], x: int) -> str | None:
    return self.request.id


@shared_task
def shared(x: int) -> float:
    return x / 2


@app.task
async def fetch(url: str) -> bytes:
    return url.encode()


@app.task(bind=True, queue="net")
async def bound_fetch(self: Any, url: str) -> list[bytes]:
    return [url.encode()]


@shared_task(name="named_fetch")
async def named_fetch(url: str) -> bytes:
    return url.encode()


async def program() -> None:
    assert_type(await fetch("x"), bytes)
    assert_type(fetch.delay("x"), AsyncResult[bytes])
    assert_type(await fetch.adelay("x"), AsyncResult[bytes])
    assert_type(await (await bound_fetch.adelay("x")), list[bytes])
    assert_type(await (await add.adelay(1)).aget(timeout=1), int)
    assert_type(named_fetch.delay("x").get(), bytes)
    await fetch.adelay(1)  # type: ignore[arg-type]  # wrong
    await fetch.aapply_async(("x",), count_down=3)  # type: ignore[call-arg]  # wrong


assert_type(add(1, 2), int)
assert_type(add.delay(1), AsyncResult[int])
assert_type(add.delay(1).get(timeout=1), int)
assert_type(greet.delay("you", loud=True).get(), str)
assert_type(bound.delay(1).get(), list[int])
assert_type(bound(1), list[int])
assert_type(typed_self.delay(1).get(), "str | None")
assert_type(shared.delay(1).get(), float)
assert_type(add.apply((1,)).get(), int)
assert_type(add.apply_async((1, 2), countdown=3, eta=datetime.now(), priority=3).get(), int)
assert_type(add.AsyncResult("id").get(), int)
assert_type(add.name, str)

add.delay("1")  # type: ignore[arg-type]  # wrong
add.delay()  # type: ignore[call-arg]  # wrong
add.delay(1, z=2)  # type: ignore[call-arg]  # wrong
greet.delay("you", True)  # type: ignore[call-arg]  # wrong
bound.delay("1")  # type: ignore[arg-type]  # wrong
shared.delay("1")  # type: ignore[arg-type]  # wrong
add.apply_async((1,), count_down=3)  # type: ignore[call-arg]  # wrong
add.apply_async((1,), countdown="soon")  # type: ignore[arg-type]  # wrong

with app.run_embedded(concurrency=2) as worker:
    worker.drain(timeout=5)
