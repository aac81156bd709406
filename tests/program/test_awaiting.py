"""What a program with an event loop of its own does: enqueue and await without holding the loop, eagerly or not."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, chain, chord, group, shared_task
from litetq.exceptions import TimeoutError
from litetq.result import allow_join_result
from tests.conftest import RunPython
from tests.waiting import eventually


@pytest.fixture
def tasks(app: LiteTQ) -> LiteTQ:
    @app.task(name="add")
    async def add(x: int, y: int) -> int:
        await asyncio.sleep(0)
        return x + y

    @app.task(name="plain")
    def plain(n: int) -> int:
        return n

    @app.task(name="fails")
    def fails() -> None:
        raise KeyError("lost")

    app.task(name="total")(lambda values: sum(values))
    return app


# -- enqueueing ----------------------------------------------------------------------------------------------------


def test_what_adelay_returns_is_committed(tasks: LiteTQ) -> None:
    async def main() -> list[Any]:
        plain = tasks.tasks["plain"]
        return [
            await plain.adelay(1),
            await plain.aapply_async((2,), queue="other", task_id="mine"),
            await plain.s(3).adelay(),
            await tasks.asend_task("plain", (4,), countdown=60),
            await shared_task(name="shared")(lambda: None).adelay(),
        ]

    sent = asyncio.run(main())
    assert [result.exists() for result in sent] == [True] * 5
    assert sent[1].id == "mine" and sent[1].queue == "other"


def test_wrong_calls_are_refused_before_anything_is_written(tasks: LiteTQ) -> None:
    async def main() -> None:
        with pytest.raises(TypeError):
            await tasks.tasks["plain"].adelay(1, 2)
        with pytest.raises(TypeError, match="count_down"):
            await tasks.tasks["plain"].aapply_async((1,), count_down=3)

    asyncio.run(main())
    assert not tasks.engine.store.has_unfinished(time.time(), None)


def test_a_loop_goes_on_while_another_process_holds_the_write_lock(
    tasks: LiteTQ, db: Path, run_python: RunPython
) -> None:
    tasks.tasks["plain"].delay(0)
    holder = run_python(
        "import apsw, sys, time; c = apsw.Connection(sys.argv[1]); c.execute('BEGIN IMMEDIATE'); print('held', flush=True); "
        "sys.stdin.readline(); c.execute('COMMIT')",
        db,
        stdin=-1,
    )
    assert holder.stdout is not None and holder.stdin is not None
    assert holder.stdout.readline() == "held\n"

    async def main() -> None:
        sending = asyncio.ensure_future(tasks.tasks["plain"].adelay(1))
        for _ in range(50):  # the loop turns, and the call waits
            await asyncio.sleep(0.002)
        assert not sending.done()
        assert holder.stdin is not None
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert (await sending).exists()

    asyncio.run(main())


def test_eager_calls_run_async_tasks_inside_of_a_loop_and_outside(tasks: LiteTQ) -> None:
    add = tasks.tasks["add"]
    assert add.apply((1, 2)).get() == 3
    tasks.conf.task_always_eager = True
    assert add.delay(2, 3).get() == 5
    assert chord([add.s(n, n) for n in range(3)], tasks.signature("total")).delay().get() == 6

    @tasks.task(name="outer")
    async def outer(n: int) -> int:
        with allow_join_result():
            inner = await add.adelay(n, 1)
            return int(await inner) + add.apply((n, 1)).get()

    @tasks.task(name="outermost")
    async def outermost() -> int:
        return outer.apply((3,)).get(disable_sync_subtasks=False)

    async def main() -> list[int]:
        return [add.apply((3, 4)).get(), await (await add.adelay(4, 5)), await (await outer.adelay(1))]

    assert asyncio.run(main()) == [7, 9, 4]
    assert outermost.delay().get() == 8


def test_called_directly_an_async_task_is_its_coroutine(tasks: LiteTQ) -> None:
    async def main() -> int:
        return await tasks.tasks["add"](2, 2)

    assert asyncio.run(main()) == 4


# -- awaiting ------------------------------------------------------------------------------------------------------


def test_results_are_awaited_in_a_loop_of_the_programs_own(tasks: LiteTQ) -> None:
    add, plain = tasks.tasks["add"], tasks.tasks["plain"]

    async def main() -> None:
        first = await add.adelay(1, 2)
        assert await first == 3
        assert await first == 3, "a second time, and now it is known"
        assert await first.aget(timeout=0) == 3
        workflow = await chain(add.s(1, 1), add.s(3)).adelay()
        assert await workflow.aget(timeout=20) == 5
        members = await group(plain.s(n) for n in range(20)).adelay()
        assert await members == list(range(20))
        nested = await group(group(plain.s(1), plain.s(2)), plain.s(3)).adelay()
        assert await nested.aget(timeout=20) == nested.get() == [1, 2, 3]
        assert await (await plain.aapply_async((1,), ignore_result=True)) is None

    with tasks.run_embedded(concurrency=2):
        asyncio.run(main())


def test_what_a_task_raised_is_raised_where_it_is_awaited(tasks: LiteTQ) -> None:
    fails, plain = tasks.tasks["fails"], tasks.tasks["plain"]

    async def main() -> None:
        with pytest.raises(KeyError, match="lost"):
            await (await fails.adelay())
        assert isinstance(await (await fails.adelay()).aget(propagate=False), KeyError)
        mixed = await group(plain.s(1), fails.si(), plain.si(2)).adelay()
        with pytest.raises(KeyError):
            await mixed
        assert [type(value) for value in await mixed.aget(propagate=False)] == [int, KeyError, int]

    with tasks.run_embedded(concurrency=2):
        asyncio.run(main())


def test_a_wait_in_vain_says_why_and_leaves_nothing_behind(tasks: LiteTQ) -> None:
    plain = tasks.tasks["plain"]

    async def main() -> None:
        result = await plain.adelay(1)
        with pytest.raises(TimeoutError, match=r"plain\[.*\] is PENDING after 0.05 s, and no worker runs on"):
            await result.aget(timeout=0.05)
        with pytest.raises(TimeoutError):
            await (await group(plain.s(n) for n in range(3)).adelay()).aget(timeout=0.05)
        waiting = asyncio.ensure_future(result.aget())
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
    eventually(lambda: "litetq-results" not in {thread.name for thread in threading.enumerate()})


def test_a_thousand_awaits_share_one_thread(tasks: LiteTQ) -> None:
    plain = tasks.tasks["plain"]

    async def main() -> tuple[list[int], int]:
        results = await asyncio.gather(*(plain.adelay(n) for n in range(1000)))
        waits = [asyncio.ensure_future(result.aget(timeout=60)) for result in results]
        await asyncio.sleep(0.01)
        threads = threading.active_count()
        with tasks.run_embedded(concurrency=1):
            return await asyncio.gather(*waits), threads

    before = threading.active_count()
    values, threads = asyncio.run(main())
    assert values == list(range(1000)) and threads <= before + 3  # the sender, the watcher, the bell


def test_loops_of_several_threads_await_one_result(tasks: LiteTQ) -> None:
    result = tasks.tasks["plain"].delay(7)
    values: list[int] = []

    def run() -> None:
        async def main() -> int:
            return await tasks.AsyncResult(result.id).aget(timeout=20)

        values.append(asyncio.run(main()))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    with tasks.run_embedded(concurrency=1):
        for thread in threads:
            thread.join(30)
    assert values == [7, 7, 7]


def test_inside_a_task_awaiting_is_refused_unless_it_is_allowed(tasks: LiteTQ) -> None:
    plain = tasks.tasks["plain"]

    @tasks.task(name="waits")
    async def waits(how: str) -> int:
        called = await plain.adelay(5)
        if how == "argument":
            return await called.aget(disable_sync_subtasks=False)
        if how == "block":
            with allow_join_result():
                return await called
        return await called

    with tasks.run_embedded(pool="asyncio"):
        with pytest.raises(RuntimeError, match=r"Never call result.get\(\) within a task"):
            waits.delay("bare").get(timeout=20)
        assert waits.delay("argument").get(timeout=20) == 5
        assert waits.delay("block").get(timeout=20) == 5


def test_a_task_may_not_stand_still_on_the_loop_of_all_tasks(tasks: LiteTQ) -> None:
    @tasks.task(name="holds")
    async def holds() -> int:
        return (await tasks.tasks["add"].adelay(1, 2)).get(timeout=20, disable_sync_subtasks=False)

    with tasks.run_embedded(pool="asyncio"):
        with pytest.raises(
            RuntimeError, match="would hold up the event loop that runs all async tasks; use  await result"
        ):
            holds.delay().get(timeout=20)


def test_a_web_program_awaits_what_its_worker_does(run_python: RunPython, tmp_path: Path) -> None:
    """As FastAPI has it: handlers in one loop, a worker in another process."""
    (tmp_path / "tasks.py").write_text(
        "import asyncio\n"
        "from litetq import LiteTQ\n"
        "app = LiteTQ('tasks', broker='jobs.sqlite')\n"
        "@app.task\n"
        "async def render(n):\n"
        "    await asyncio.sleep(0.05)\n"
        "    return f'page {n}'\n"
    )
    (tmp_path / "web.py").write_text(
        "import asyncio\n"
        "from tasks import render\n"
        "async def handle(n):\n"
        "    result = await render.adelay(n)\n"
        "    return await result.aget(timeout=30)\n"
        "async def main():\n"
        "    pages = await asyncio.gather(*(handle(n) for n in range(100)))\n"
        "    assert pages == [f'page {n}' for n in range(100)]\n"
        "    print('served', len(pages))\n"
        "asyncio.run(main())\n"
    )
    run_python("-m", "litetq", "-A", "tasks", "worker", "-P", "asyncio")
    out, err = run_python(tmp_path / "web.py").communicate(timeout=60)
    assert out == "served 100\n", err
