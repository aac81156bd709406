"""How a worker takes from Redis, and what happens when Redis stands still."""

from __future__ import annotations

import os
import re
import signal

import pytest

from tests.servers import Redis
from tests.waiting import eventually
from tests.wire.conftest import Programs

LIST = "celery\x06\x169"  # where Redis has, of the queue celery, what is least urgent: calls that name no priority


def looks(server: Redis) -> int:
    """Return how often workers have looked for messages and asked to be told of the next one."""
    found = re.search(r"cmdstat_client\|caching:calls=(\d+)", server.ask("INFO", "commandstats"))
    return int(found[1]) if found else 0


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "ours:"])
def test_a_worker_that_waits_takes_nothing_that_it_could_lose(programs: Programs, server: Redis, prefix: str) -> None:
    """Who waits with BRPOP is handed the next message even when it is dead, and nobody else ever sees that one."""
    settings = {"broker_transport_options": {"global_keyprefix": prefix}} if prefix else {}
    first = programs.worker("litetq", "-P", "threads", settings=settings)
    set_up = f"app.conf.update({settings!r})\n"
    assert programs.ask("litetq", f"{set_up}answer(end(add.delay(1, 1)))") == 2
    looked = looks(server)
    eventually(lambda: looks(server) > looked)  # it has found nothing more, and waits
    os.kill(first.pid, signal.SIGSTOP)
    id = programs.ask("litetq", f"{set_up}answer(late.delay(7).id)")
    assert server.ask("LLEN", prefix + LIST) == ":1\r\n"
    first.kill()
    first.wait()
    programs.worker("litetq", "-P", "threads", node="second", settings=settings)
    assert programs.ask("litetq", f"{set_up}answer(end(app.AsyncResult({id!r})))") == 7
    eventually(lambda: server.ask("HLEN", prefix + "unacked") == ":0\r\n")


@pytest.mark.slow
def test_a_redis_that_tells_nobody_of_new_messages_is_asked_for_them(programs: Programs, server: Redis) -> None:
    server.ask("ACL", "SETUSER", "default", "-client|tracking")
    programs.worker("litetq", "-P", "threads", "-l", "INFO")
    assert "does not tell of new messages" in programs.log("litetq")
    assert programs.ask("celery", "answer([end(add.delay(n, 1)) for n in range(5)])") == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_what_is_no_message_is_thrown_away_and_what_only_python_can_read_is_run(
    programs: Programs, server: Redis
) -> None:
    code = (
        "import redis, json\n"
        "client = redis.Redis.from_url(os.environ['BROKER'])\n"
        "quiet.apply_async((1,), headers={'half': 'HALF'})\n"
        f"message = client.rpop({LIST!r}).decode()\n"
        "assert '\"HALF\"' in message\n"
        f"for text in ('no json', '{{}}', message.replace('HALF', '\\\\ud800')): client.lpush({LIST!r}, text)\n"
        "answer(quiet.delay(2).id)"
    )
    programs.ask("litetq", code)
    programs.worker("litetq", "-P", "threads")
    eventually(lambda: sorted(programs.noted()) == ["quiet-1", "quiet-2"], within=30)
    assert programs.log("litetq").count("was refused, since it is not in kombu's form") == 2
    eventually(lambda: server.ask("HLEN", "unacked") == ":0\r\n")


@pytest.mark.slow
def test_what_is_broadcast_reaches_all_workers_and_what_is_sent_to_a_queue_one(programs: Programs) -> None:
    program = programs.folder / "program.py"
    program.write_text(
        program.read_text()
        + "\nfrom kombu import Queue\nfrom kombu.common import Broadcast\n"
        + "app.conf.task_queues = [Queue('celery'), Broadcast('everybody')]\n"
    )
    for name in ("one", "two"):
        programs.worker("litetq", "-P", "threads", node=name)
    programs.ask("litetq", "quiet.apply_async(('all',), queue='everybody'); quiet.delay('one'); answer(1)")
    eventually(lambda: sorted(programs.noted()) == ["quiet-all", "quiet-all", "quiet-one"], within=30)


@pytest.mark.slow
def test_messages_that_are_not_to_be_held_are_gone_when_they_are_taken(programs: Programs, server: Redis) -> None:
    settings = {"broker_transport_options": {"ack_emulation": False}}
    programs.worker("litetq", "-P", "threads", settings=settings)
    assert programs.ask("litetq", "answer([end(add.delay(n, 1)) for n in range(20)])") == list(range(1, 21))
    assert server.ask("HLEN", "unacked") == ":0\r\n"


@pytest.mark.slow
def test_a_redis_that_stands_still_is_noticed_by_a_worker_that_waits(programs: Programs, server: Redis) -> None:
    programs.worker("litetq", "-P", "threads")
    pid = int(server.ask("INFO", "server").partition("process_id:")[2].split()[0])
    os.kill(pid, signal.SIGSTOP)
    try:
        eventually(lambda: "is lost (Timeout" in programs.log("litetq"), within=40)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert programs.ask("litetq", "answer(end(add.delay(1, 1)))") == 2
    assert programs.ask("litetq", "answer(list(app.control.inspect(timeout=10).ping()))") == ["litetq@here"]
