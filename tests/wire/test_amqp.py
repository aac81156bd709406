"""RabbitMQ: what it can do to programs and workers, and what it can do for them."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import BorrowedRedis, Rabbit, RabbitMQ, Redis, free_port
from tests.waiting import eventually
from tests.wire.conftest import Programs
from tests.wire.test_redis_family import certificates

pytestmark = pytest.mark.slow


@pytest.fixture
def programs(rabbitmq: Rabbit, redis: Redis | BorrowedRedis, tmp_path: Path) -> Iterator[Programs]:
    found = Programs(rabbitmq.url, tmp_path, redis.url)
    yield found
    found.close()


@pytest.fixture
def restarting(private_rabbitmq: RabbitMQ, redis: Redis | BorrowedRedis, tmp_path: Path) -> Iterator[Programs]:
    """Programs of a RabbitMQ that the test may stop."""
    found = Programs(private_rabbitmq.url, tmp_path, redis.url)
    yield found
    found.close()


def waiting(rabbit: Rabbit, queue: str) -> int:
    """Return how many messages lie in a queue, delivered or not; -1 without the queue."""
    about = rabbit.queues().get(queue)
    return -1 if about is None else about.get("messages", 0)


def settings(programs: Programs, lines: str) -> None:
    """Let programs of the test have further settings."""
    with open(programs.folder / "program.py", "a") as program:
        program.write(f"\n{lines}\n")


SEND = """
import time
from litetq.exceptions import OperationalError
sent = 0
while sent < {count}:
    try:
        late.delay(sent)
        sent += 1
    except OperationalError:
        time.sleep(0.1)
answer(sent)
"""


# -- what can happen to it


@pytest.mark.timeout(300)
def test_a_rabbitmq_that_is_restarted_three_times_under_load_loses_nothing(
    restarting: Programs, private_rabbitmq: RabbitMQ
) -> None:
    worker = restarting.worker("litetq", "-P", "threads")
    sender = restarting.start("litetq", "-c", "from program import *\n" + SEND.format(count=300))
    for part in (40, 120, 200):
        eventually(lambda part=part: len(set(restarting.noted())) >= part, within=60)
        private_rabbitmq.restart()
        back = time.monotonic()
        before = len(restarting.noted())
        eventually(lambda before=before: len(restarting.noted()) > before, within=40)
        assert time.monotonic() - back < 40
    eventually(lambda: set(restarting.noted()) == {str(number) for number in range(300)}, within=60)
    assert sender.wait(30) == 0
    assert worker.poll() is None


@pytest.mark.timeout(300)
def test_workers_with_processes_that_are_killed_under_load_lose_nothing_that_acknowledges_late(
    programs: Programs, rabbitmq: Rabbit
) -> None:
    first = programs.worker("litetq", "-P", "processes")
    assert programs.ask("litetq", SEND.format(count=400)) == 400
    for part in (40, 140):
        eventually(lambda part=part: len(set(programs.noted())) >= part, within=60)
        first.kill()
        first.wait()
        (programs.folder / "litetq.log").unlink()
        first = programs.worker("litetq", "-P", "processes")
    eventually(lambda: set(programs.noted()) == {str(number) for number in range(400)}, within=60)
    eventually(lambda: waiting(rabbitmq, "celery") == 0, within=30)
    twice = [number for number, times in Counter(programs.noted()).items() if times > 1]
    assert len(twice) <= 2 * 4  # of two kills: what each had in hand, two that run and two that end


@pytest.mark.parametrize("pool", ["threads", "processes"])
def test_connections_that_the_server_closes_make_nothing_run_twice(
    programs: Programs, rabbitmq: Rabbit, pool: str
) -> None:
    programs.worker("litetq", "-P", pool)
    code = (
        "[hold.delay(n) for n in range(2)]\nanswer([late.apply_async((n,), countdown=1 + n / 4).id for n in range(12)])"
    )
    ids = programs.ask("litetq", code)
    eventually(lambda: sorted(programs.noted()) == ["began-0", "began-1"])
    for _ in range(3):
        eventually(rabbitmq.close_connections, within=30)
        eventually(lambda: rabbitmq.queues()["celery"].get("consumers") == 1, within=30)
    (programs.folder / "ledger.go").touch()
    ends = programs.ask("litetq", f"answer([end(app.AsyncResult(id)) for id in {ids!r}])")
    assert ends == list(range(12))
    expected = ["began-0", "began-1", "ended-0", "ended-1", *map(str, range(12))]
    assert sorted(programs.noted()) == sorted(expected)
    eventually(lambda: waiting(rabbitmq, "celery") == 0, within=30)


@pytest.mark.row("20.broker_connection_timeout")
def test_a_broker_that_is_down_costs_a_caller_a_bounded_time(restarting: Programs, private_rabbitmq: RabbitMQ) -> None:
    code = (
        "import time\n"
        "def tried():\n"
        "    began = time.monotonic()\n"
        "    try:\n"
        "        add.delay(1, 1)\n"
        "    except Exception as error:\n"
        "        return [type(error).__name__, time.monotonic() - began, str(error)]\n"
        "add.delay(1, 1)\n"  # over a connection that is open by then
        "open('ready', 'w').close()\n"
        "while not os.path.exists('stopped'): time.sleep(0.05)\n"
        "answer([tried(), tried()])"
    )
    asking = restarting.start("litetq", "-c", f"from program import *\n{code}", stdout=-1)
    eventually((restarting.folder / "ready").exists, within=60)
    private_rabbitmq.stop()
    (restarting.folder / "stopped").touch()
    out, _ = asking.communicate(timeout=90)
    for name, took, text in json.loads(out.partition("ANSWER ")[2]):
        assert name == "OperationalError"
        assert took < 20
        assert "guest:**@" in text
        assert "is it running?" in text


def test_a_worker_that_is_stopped_gives_back_what_it_has_not_begun(programs: Programs, rabbitmq: Rabbit) -> None:
    worker = programs.worker("litetq", "-P", "threads")
    programs.ask("litetq", "answer([add.apply_async((n, n), countdown=600).id for n in range(9)])")
    eventually(lambda: rabbitmq.queues()["celery"].get("messages_unacknowledged") == 9, within=30)
    assert programs.ask("litetq", "answer(end(add.delay(1, 1)))") == 2  # what waits holds up nothing
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    eventually(lambda: rabbitmq.queues()["celery"].get("messages_ready") == 9, within=30)
    assert programs.command("litetq", "purge", "-f").returncode == 0
    eventually(lambda: waiting(rabbitmq, "celery") == 0, within=30)


@pytest.mark.row("20.worker_prefetch_multiplier")
def test_a_worker_holds_no_more_than_it_has_places_for(programs: Programs, rabbitmq: Rabbit) -> None:
    programs.worker("litetq", "-P", "threads")
    by_name = "app.conf.broker_url = app.conf.broker_url.replace('127.0.0.1', 'localhost')\n"
    programs.ask("litetq", by_name + "answer([hold.delay(n).id for n in range(10)])")
    eventually(lambda: len(programs.noted()) == 2)
    eventually(lambda: rabbitmq.queues()["celery"].get("messages_ready") == 8, within=30)
    (programs.folder / "ledger.go").touch()
    eventually(lambda: len(programs.noted()) == 20, within=30)


class Impatient(RabbitMQ):
    """It takes back what is not acknowledged within three seconds; RabbitMQ's own configuration knows half an hour."""

    def environment(self) -> dict[str, str]:
        path = self.folder / "advanced.config"
        path.write_text("[{rabbit, [{consumer_timeout, 3000}, {channel_tick_interval, 1000}]}].\n", encoding="utf-8")
        return {**super().environment(), "RABBITMQ_ADVANCED_CONFIG_FILE": str(path)}


def test_what_is_held_for_longer_than_rabbitmq_allows_runs_once(redis: Redis | BorrowedRedis, tmp_path: Path) -> None:
    server = Impatient(tmp_path / "rabbitmq")
    programs = Programs(server.url, tmp_path, redis.url)
    server.start()
    try:
        programs.worker("litetq", "-P", "threads")
        ids = programs.ask("litetq", "answer([hold.delay(0).id, late.apply_async(('due',), countdown=9).id])")
        eventually(lambda: programs.log("litetq").count("consumer_timeout (half an hour by default)") >= 2, within=60)
        (programs.folder / "ledger.go").touch()
        assert programs.ask("litetq", f"answer([end(app.AsyncResult(id)) for id in {ids!r}])") == [0, "due"]
        assert sorted(programs.noted()) == ["began-0", "due", "ended-0"]
        eventually(lambda: programs.log("litetq").count("connected to") >= 2, within=30)
    finally:
        programs.close()
        server.close()


# -- queues, exchanges, priorities


def test_both_declare_the_same_queues_without_a_quarrel(programs: Programs, rabbitmq: Rabbit) -> None:
    settings(
        programs,
        "from kombu import Exchange, Queue\n"
        "app.conf.task_queues = [\n"
        "    Queue('celery'),\n"
        "    Queue('urgent', Exchange('urgent', 'topic'), routing_key='urgent.#', max_priority=10),\n"
        "    Queue('short', message_ttl=3600, queue_arguments={'x-dead-letter-exchange': 'dead'}),\n"
        "]\n"
        "app.conf.task_default_queue_type = 'classic'\n"
        "app.conf.task_queue_max_priority = 5",
    )
    both = ("litetq", "celery")
    for worker, client in (both, both[::-1]):
        process = programs.worker(worker, "-P", "threads")
        for queue in ("celery", "urgent", "short", "other"):
            asked = f"answer(end(add.apply_async((1, 2), queue={queue!r})))" if queue != "other" else "answer(3)"
            assert programs.ask(client, asked) == 3, queue
        assert "used as it is" not in programs.log("litetq") if worker == "litetq" else True
        assert "PRECONDITION" not in programs.log(worker)
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    arguments = {name: about["arguments"] for name, about in rabbitmq.queues().items() if "pidbox" not in name}
    assert arguments["celery"] == {"x-max-priority": 5}
    assert arguments["urgent"] == {"x-max-priority": 10}
    assert arguments["short"] == {"x-max-priority": 5, "x-message-ttl": 3_600_000, "x-dead-letter-exchange": "dead"}


def test_a_queue_that_is_there_with_other_arguments_is_used_and_the_log_says_so_once(
    programs: Programs, rabbitmq: Rabbit
) -> None:
    rabbitmq.server.api("PUT", f"queues/{rabbitmq.name}/celery", {"durable": True, "arguments": {"x-max-priority": 3}})
    programs.worker("litetq", "-P", "threads")
    assert programs.ask("litetq", "answer([end(add.delay(n, n)) for n in range(3)])") == [0, 2, 4]
    said = [line for line in programs.log("litetq").splitlines() if "used as it is" in line]
    assert len(said) == 1
    assert "x-max-priority" in said[0]
    assert "Traceback" not in programs.log("litetq")


def test_of_what_waits_the_highest_priority_comes_first(programs: Programs, rabbitmq: Rabbit) -> None:
    settings(programs, "app.conf.task_queue_max_priority = 10")
    code = "[late.apply_async((n,), priority=n) for n in (1, 9, 5, 0, 7)]\nanswer(late.delay('none').id)"
    programs.ask("litetq", code)
    programs.worker("litetq", "-P", "threads", "-c", "1")
    eventually(lambda: len(programs.noted()) == 6, within=30)
    assert programs.noted()[:4] == ["9", "7", "5", "1"]


def test_an_exchange_serves_the_queues_that_are_bound_to_it(programs: Programs, rabbitmq: Rabbit) -> None:
    settings(
        programs,
        "from litetq import Queue\n"
        "class news: name, type = 'news', 'topic'\n"
        "class all_: name, type = 'all', 'fanout'\n"
        "app.conf.task_queues = [\n"
        "    Queue('sport', news, routing_key='sport.#'), Queue('local', news, routing_key='*.local'),\n"
        "    Queue('one', all_), Queue('two', all_),\n"
        "]\n"
        "app.conf.task_default_queue = 'sport'",
    )
    programs.worker("litetq", "-P", "threads")
    code = (
        "late.apply_async(('both',), exchange='news', routing_key='sport.local')\n"
        "late.apply_async(('sport',), exchange='news', routing_key='sport.far')\n"
        "late.apply_async(('fanned',), queue='one')\n"
        "late.apply_async(('straight',), queue='sport', routing_key='sport.x')\n"
        "answer(1)"
    )
    programs.ask("litetq", code)
    expected = ["both", "both", "fanned", "fanned", "sport", "straight"]
    eventually(lambda: sorted(programs.noted()) == expected, within=30)


def test_a_broadcast_reaches_every_worker(programs: Programs, rabbitmq: Rabbit) -> None:
    settings(
        programs,
        "if os.environ['WHOSE'] == 'litetq':\n"
        "    from litetq import Queue\n"
        "    from litetq.routing import Broadcast\n"
        "else:\n"
        "    from kombu import Queue\n"
        "    from kombu.common import Broadcast\n"
        "app.conf.task_queues = [Queue('celery'), Broadcast('everybody')]\n"
        "app.conf.task_routes = {'late': {'queue': 'everybody', 'exchange': 'everybody'}}",
    )
    programs.worker("litetq", "-P", "threads")
    programs.worker("celery", "-P", "threads")
    for whose in ("litetq", "celery"):
        before = len(programs.noted())
        programs.ask(whose, "late.delay('heard')\nanswer(1)")
        eventually(lambda before=before: len(programs.noted()) == before + 2, within=30)
    assert programs.noted() == ["heard"] * 4


def test_a_worker_is_told_which_queues_it_serves(programs: Programs, rabbitmq: Rabbit) -> None:
    programs.worker("litetq", "-P", "threads")
    code = (
        "seen = lambda: sorted((q['name'], q['exchange']['name'], q['exchange']['type'], q['routing_key']) for q in "
        "app.control.inspect(timeout=5).active_queues()['litetq@here'])\n"
        "before = seen()\n"
        "held = hold.delay(0)\n"
        "app.control.add_consumer('second', exchange='things', exchange_type='topic', routing_key='thing.#', reply=True, timeout=5)\n"
        "during = seen()\n"
        "value = end(add.apply_async((1, 2), queue='second'))\n"
        "app.control.cancel_consumer('second', reply=True, timeout=5)\n"
        "answer([before, during, value, seen()])"
    )
    before, during, value, after = programs.ask("litetq", code)
    assert before == after == [["celery", "celery", "direct", "celery"]]
    assert during == [*before, ["second", "things", "topic", "thing.#"]]
    assert value == 3
    eventually(lambda: rabbitmq.queues()["second"].get("consumers") == 0, within=30)
    (programs.folder / "ledger.go").touch()
    eventually(lambda: programs.noted() == ["began-0", "ended-0"], within=30)


def test_what_a_task_rejects_becomes_a_dead_letter_of_rabbitmq(programs: Programs, rabbitmq: Rabbit) -> None:
    settings(
        programs,
        "from kombu import Queue\n"
        "app.conf.task_queues = [Queue('celery', queue_arguments={'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': 'dead'})]\n"
        "if os.environ['WHOSE'] == 'celery':\n"
        "    from celery.exceptions import Reject\n"
        "else:\n"
        "    from litetq.exceptions import Reject\n"
        "@app.task(name='refuses', acks_late=True, bind=True)\n"
        "def refuses(self, again):\n"
        "    note('seen')\n"
        "    raise Reject('no', requeue=again and not self.request.delivery_info.get('redelivered'))",
    )
    rabbitmq.server.api("PUT", f"queues/{rabbitmq.name}/dead", {"durable": True})
    programs.worker("litetq", "-P", "threads")
    programs.ask("litetq", "answer([refuses.delay(False).id, refuses.delay(True).id])")
    eventually(lambda: waiting(rabbitmq, "dead") == 2, within=30)
    assert programs.noted() == ["seen"] * 3
    eventually(lambda: waiting(rabbitmq, "celery") == 0, within=30)


# -- what is due later, kept by RabbitMQ


QUORUM = "app.conf.task_default_queue_type = 'quorum'\napp.conf.task_default_exchange_type = {kind!r}"


@pytest.mark.parametrize("kind", ["topic", "direct"])
@pytest.mark.row(
    "20.broker_native_delayed_delivery_queue_type", "20.task_default_queue_type", "20.worker_detect_quorum_queues"
)
def test_with_quorum_queues_rabbitmq_keeps_what_is_due_later(programs: Programs, rabbitmq: Rabbit, kind: str) -> None:
    settings(programs, QUORUM.format(kind=kind))
    programs.worker("litetq", "-P", "threads")
    code = (
        "import time\n"
        "began = time.time()\n"
        "far = [add.apply_async((1, 1), countdown=3600) for _ in range(8)]\n"
        "late_by = []\n"
        "for span in (0.3, 2.2, 3):\n"
        "    began = time.time()\n"
        "    end(add.apply_async((1, 1), countdown=span))\n"
        "    late_by.append(time.time() - began - span)\n"
        "answer([late_by, end(third_time.delay())])"
    )
    late_by, retries = programs.ask("litetq", code)
    assert all(-0.1 < by < 5 for by in late_by), late_by
    assert retries == 2
    found = rabbitmq.queues()
    assert found["celery"]["arguments"] == {"x-queue-type": "quorum"}
    assert found["celery"].get("messages", 0) == 0
    eventually(lambda: sum(waiting(rabbitmq, f"celery_delayed_{n}") for n in range(12)) == 8, within=30)


def test_delays_of_quorum_queues_are_those_of_celery(programs: Programs, rabbitmq: Rabbit) -> None:
    settings(programs, QUORUM.format(kind="topic"))
    for worker, client in (("celery", "litetq"), ("litetq", "celery")):
        process = programs.worker(worker, "-P", "threads")
        code = "import time\nbegan = time.time()\nvalue = end(add.apply_async((1, 2), countdown=2))\nanswer([value, time.time() - began])"
        value, took = programs.ask(client, code)
        assert value == 3
        assert took > 1.9
        process.send_signal(signal.SIGTERM)
        process.wait(30)


# -- TLS


@pytest.mark.row("20.broker_use_ssl")
def test_over_tls_rabbitmq_is_verified_unless_somebody_says_otherwise(
    redis: Redis | BorrowedRedis, tmp_path: Path
) -> None:
    authority, port = certificates(tmp_path), free_port()
    server = RabbitMQ(tmp_path / "rabbitmq")
    with open(server.folder / "rabbitmq.conf", "a") as conf:
        conf.write(
            f"listeners.ssl.default = 127.0.0.1:{port}\nssl_options.certfile = {authority}\nssl_options.verify = verify_none\n"
            f"ssl_options.keyfile = {tmp_path / 'key.pem'}\nssl_options.cacertfile = {authority}\n"
        )
    programs = Programs(f"amqps://guest:guest@127.0.0.1:{port}//", tmp_path, redis.url)
    server.start()
    try:
        code = "try: add.delay(1, 1)\nexcept Exception as error: answer([type(error).__name__, str(error)])"
        kind, text = programs.ask("litetq", code)
        assert kind == "OperationalError"
        assert "CERTIFICATE_VERIFY_FAILED" in text
        settings(programs, f"app.conf.broker_use_ssl = {{'ca_certs': {str(authority)!r}}}")
        programs.worker("litetq", "-P", "threads")
        sent = "answer([end(add.delay(n, n)) for n in range(20)])"
        assert programs.ask("litetq", sent) == [2 * n for n in range(20)]
        unverified = "import ssl\napp.conf.broker_use_ssl = {'cert_reqs': ssl.CERT_NONE}\nanswer(end(add.delay(1, 1)))"
        assert programs.ask("litetq", unverified) == 2
    finally:
        programs.close()
        server.close()
