"""Redis in its other forms: TLS, a socket, sentinels, several servers, a prefix; and what a priority means there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from litetq.adapters import urgency
from tests.servers import LOCAL, Redis, free_port, program
from tests.waiting import eventually
from tests.wire.conftest import Programs

# A call, a chord, and what a worker answers, in one process; `app` is configured before.
ROUND = """
with app.run_embedded(concurrency=2) as worker:
    ends = [end(add.delay(1, 2)), end(chord([add.s(n, n) for n in range(3)], total.s()).apply_async())]
    answer([ends, [list(one.values()) for one in app.control.ping(timeout=2)]])
"""
DONE = [[3, 6], [[{"ok": "pong"}]]]


class RedisWith(Redis):
    """A Redis with further options on its command line; `url` may be another one than that of its port."""

    def __init__(self, folder: Path, *words: str) -> None:
        super().__init__(folder)
        self._words = words

    def command(self) -> list[str]:
        return [*super().command(), *self._words]


@contextmanager
def running(*servers: Redis) -> Iterator[None]:
    try:
        for server in servers:
            server.start()
        yield
    finally:
        for server in servers:
            server.close()


@contextmanager
def programs_at(broker: str, folder: Path, results: str | None = None) -> Iterator[Programs]:
    found = Programs(broker, folder, results)
    try:
        yield found
    finally:
        found.close()


def certificates(folder: Path) -> Path:
    """Make a certificate that vouches for itself, for this machine's loopback address."""
    tool = program("openssl", "openssl")
    words = [tool, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    words += ["-addext", f"subjectAltName=IP:{LOCAL},DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    return folder / "cert.pem"


@pytest.mark.slow
@pytest.mark.row("20.broker_use_ssl", "20.redis_backend_use_ssl")
def test_over_tls_a_server_is_verified_unless_somebody_says_otherwise(tmp_path: Path) -> None:
    authority = certificates(tmp_path)
    port = free_port()
    server = RedisWith(
        tmp_path / "redis", "--tls-port", str(port), "--tls-auth-clients", "no",
        "--tls-cert-file", str(authority), "--tls-key-file", str(tmp_path / "key.pem"),
        "--tls-ca-cert-file", str(authority),
    )  # fmt: skip
    url = f"rediss://{LOCAL}:{port}/0"
    with running(server):
        with programs_at(url, tmp_path) as programs:
            own = f"app.conf.broker_use_ssl = app.conf.redis_backend_use_ssl = {{'ssl_ca_certs': {str(authority)!r}}}\n"
            assert programs.ask("litetq", own + ROUND) == DONE
            code = "try: add.delay(1, 1)\nexcept Exception as error: answer([type(error).__name__, str(error)])"
            kind, text = programs.ask("litetq", code)
            assert kind == "OperationalError" and "certificate" in text and url in text
        with programs_at(f"{url}?ssl_cert_reqs=CERT_NONE", tmp_path) as programs:
            assert programs.ask("litetq", ROUND) == DONE
        with programs_at(url, tmp_path, f"{url}?ssl_ca_certs={authority}") as programs:  # each by its own words
            set_up = f"app.conf.broker_use_ssl = {{'ssl_ca_certs': {str(authority)!r}, 'ssl_cert_reqs': 'required'}}\n"
            assert programs.ask("litetq", set_up + ROUND) == DONE


@pytest.mark.slow
@pytest.mark.row("20.broker_transport_options", "20.result_backend_transport_options")
def test_a_socket_and_a_prefix_are_as_good_as_a_port(tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = RedisWith(tmp_path / "redis", "--unixsocket", str(path))
    with running(server), programs_at(f"redis+socket://{path}?virtual_host=2", tmp_path) as programs:
        prefix = (
            "app.conf.broker_transport_options = {'global_keyprefix': 'mine:', 'visibility_timeout': 4}\n"
            "app.conf.result_backend_transport_options = {'global_keyprefix': 'mine:'}\n"
        )
        held = (
            "import time\n"
            "with app.run_embedded(concurrency=1):\n"
            "    result = hold.delay(0)\n"
            "    deadline = time.monotonic() + 9\n"  # longer than the visibility timeout, which is extended
            "    while time.monotonic() < deadline: time.sleep(0.05)\n"
            "    open(os.environ['LEDGER'] + '.go', 'w').close()\n"
            "    end(result)\n"
        )
        assert programs.ask("litetq", prefix + held + ROUND) == DONE
        assert programs.noted() == ["began-0", "ended-0"]
        server.words_first = ("SELECT 2",)
        keys = {word for word in server.ask("KEYS", "*").split("\r\n") if word[:1] not in ("*", "$", "")}
        assert keys and {key for key in keys if not key.startswith("mine:")} == set()


@pytest.mark.slow
@pytest.mark.row("20.broker_failover_strategy")
def test_of_several_servers_the_next_one_serves_when_the_first_is_gone(tmp_path: Path) -> None:
    first, second, results = (Redis(tmp_path / name) for name in ("first", "second", "results"))
    dead = f"redis://{LOCAL}:{free_port()}/0"
    with running(first, second, results):
        with programs_at(f"{dead};{first.url};{second.url}", tmp_path, results.url) as programs:
            worker = programs.worker("litetq", "-P", "threads")
            assert programs.ask("litetq", "answer(end(add.delay(1, 1)))") == 2
            assert [one.ask("PUBSUB", "NUMPAT") for one in (first, second)] == [":1\r\n", ":0\r\n"]
            first.stop()
            assert programs.ask("litetq", "answer(end(add.delay(2, 2)))") == 4
            assert worker.poll() is None
            first.start()


@pytest.mark.slow
def test_sentinels_lead_to_the_server_that_is_master_now(tmp_path: Path) -> None:
    master = Redis(tmp_path / "master")
    replica = RedisWith(tmp_path / "replica", "--replicaof", f"{LOCAL} {master.port}")
    sentinel_port = free_port()
    settings = tmp_path / "sentinel.conf"
    settings.write_text(
        f"port {sentinel_port}\nbind {LOCAL}\ndir {tmp_path}\nsentinel monitor ours {LOCAL} {master.port} 1\n"
        "sentinel down-after-milliseconds ours 1000\nsentinel failover-timeout ours 3000\n",
        encoding="utf-8",
    )
    with running(master, replica):
        eventually(lambda: "master_link_status:up" in replica.ask("INFO", "replication"), within=30)
        with open(tmp_path / "sentinel.log", "w") as log:
            words = [program("redis-server", "redis-server"), str(settings), "--sentinel"]
            process = subprocess.Popen(words, stdout=log, stderr=log)
        try:
            eventually(lambda: "+slave" in (tmp_path / "sentinel.log").read_text(), within=40)
            url = f"sentinel://{LOCAL}:{sentinel_port}/0;sentinel://{LOCAL}:{free_port()}/0"
            with programs_at(url, tmp_path) as programs:
                set_up = "app.conf.broker_transport_options = app.conf.result_backend_transport_options = {'master_name': 'ours'}\n"
                assert programs.ask("litetq", set_up + ROUND) == DONE
                program_of = programs.folder / "program.py"
                program_of.write_text(program_of.read_text() + "\n" + set_up)
                programs.worker("litetq", "-P", "threads")
                assert programs.ask("litetq", "answer(end(add.delay(1, 1)))") == 2
                master.stop()
                eventually(lambda: "role:master" in replica.ask("INFO", "replication"), within=60)
                code = "import time\nwhile True:\n    try: answer(end(add.delay(2, 2))); break\n    except Exception: time.sleep(0.2)"
                assert programs.ask("litetq", code) == 4
        finally:
            process.terminate()
            process.wait()


def test_an_address_that_cannot_be_meant_is_refused_in_a_sentence(redis: Redis, tmp_path: Path) -> None:
    with programs_at(redis.url, tmp_path) as programs:
        code = """
def told(**settings):
    from litetq import LiteTQ
    app = LiteTQ("x", set_as_current=False, **settings)
    try: app.send_task("t"); app.AsyncResult("1").state
    except Exception as error: return [type(error).__name__, str(error)]

def again():
    try: app.AsyncResult("1").retry()
    except Exception as error: return [type(error).__name__, str(error)]

answer([
    told(broker=os.environ["BROKER"], backend="redis://localhost/first"),
    told(broker="redis://localhost/0", broker_use_ssl="yes"),
    told(broker="redis://localhost/0", broker_use_ssl={"ssl_cert_reqs": "perhaps"}),
    told(broker="sentinel://localhost:1/0"),
    told(broker="redis://localhost/first"),
    told(broker=os.environ["BROKER"] + "?db=3"),
    again(),
])
"""
        told = programs.ask("litetq", code)
        assert [kind for kind, _ in told] == ["ImproperlyConfigured"] * 6 + ["NotOnRecord"], told
        assert "databases of Redis are numbers" in told[0][1]
        assert "broker_use_ssl is 'yes'" in told[1][1]
        assert "ssl_cert_reqs of broker_use_ssl is 'perhaps'" in told[2][1]
        assert "master_name" in told[3][1]
        assert "redis://localhost/first names the database 'first'" in told[4][1]
        assert "an option that kombu does not take" in told[5][1]
        assert "keeps no task that has ended" in told[6][1]


@pytest.mark.slow
@pytest.mark.row(
    "20.redis_backend_credential_provider", "20.redis_backend_health_check_interval", "20.redis_client_name",
    "20.redis_max_connections", "20.redis_retry_on_timeout", "20.redis_socket_connect_timeout", "20.redis_socket_keepalive",
    "20.redis_socket_timeout",
)  # fmt: skip
def test_settings_of_results_in_redis_reach_its_client(redis: Redis, tmp_path: Path) -> None:
    with programs_at(redis.url, tmp_path) as programs:
        code = """
from datetime import timedelta
import redis
from litetq import LiteTQ

class Known(redis.CredentialProvider):
    def get_credentials(self):
        return ("default", "any")

def told(backend=os.environ["BACKEND"], **settings):
    app = LiteTQ("x", set_as_current=False, broker=os.environ["BROKER"], backend=backend, **settings)
    try:
        app.AsyncResult("1").state
        client = app.engine.archive.client
        options = client.connection_pool.connection_kwargs
        return [options.get(name) for name in ("socket_timeout", "socket_connect_timeout", "client_name")]
    except Exception as error:
        return [type(error).__name__, str(error)]

answer([
    told(),
    told(redis_socket_timeout=timedelta(seconds=5), redis_socket_connect_timeout="2", redis_client_name="ours"),
    told(redis_retry_on_timeout=True, redis_backend_health_check_interval=7, redis_socket_keepalive=True, redis_max_connections=1),
    told(redis_backend_credential_provider=Known())[:1],
    told(redis_backend_credential_provider="nowhere.Known"),
    told(redis_backend_credential_provider=3),
    told(os.environ["BACKEND"] + "?nonsense=5"),
    told("redis+socket:///nowhere", redis_socket_keepalive=True),
])
"""
        told = programs.ask("litetq", code)
        assert told[:4] == [[30.0, 4.0, None], [5.0, 2.0, "ours"], [30.0, 4.0, None], [30.0]]
        assert [kind for kind, _ in told[4:]] == ["ImproperlyConfigured"] * 3 + ["OperationalError"], told
        assert "cannot be imported" in told[4][1]
        assert "redis.CredentialProvider" in told[5][1]
        assert "nonsense" in told[6][1] and "redis takes no such option" in told[6][1]


# -- priorities


def test_a_priority_is_turned_at_the_edge_and_back_as_deep_as_signatures_lie() -> None:
    step = {"task": "a", "args": [], "kwargs": {"tasks": 1}, "options": {"priority": 7}}
    plain = {"task": "b", "args": [], "kwargs": {}, "options": {"link": [step]}}
    group = {"task": "celery.group", "args": [], "kwargs": {"tasks": [step, plain]}, "options": {}}
    chord = {"task": "celery.chord", "args": [], "kwargs": {"header": group, "body": plain}, "options": {}}
    sent = urgency.REDIS.sigs_to_wire([chord, None])
    header = sent[0]["kwargs"]["header"]["kwargs"]["tasks"]
    assert [one["options"]["priority"] for one in header] == [2, 9]
    assert header[1]["options"]["link"][0]["options"]["priority"] == 2
    assert sent[0]["options"] == {} and sent[1] is None and header[0]["kwargs"] == {"tasks": 1}
    back: Any = urgency.REDIS.sigs_from_wire(sent)
    assert back[0]["kwargs"]["body"]["options"]["priority"] == 0
    assert [urgency.REDIS.to_wire(given) for given in (0, 9, 255)] == [9, 0, 0]
    assert urgency.AS_GIVEN.sigs_to_wire(back) is back


@pytest.mark.slow
@pytest.mark.parametrize("runs", ["litetq", "celery"])
def test_what_is_urgent_runs_first_whoever_sent_it_and_whoever_runs_it(programs: Programs, runs: str) -> None:
    """On Redis, kombu has lists for 0-2, 3-5, 6-8 and 9; within one of them the order is that of sending."""
    send = "answer([quiet.apply_async((name,), priority=p).id for name, p in {!r}])"
    programs.ask("litetq", send.format([("ours-least", 0), ("ours-middle", 5), ("ours-most", 9)]))
    programs.ask("celery", send.format([("theirs-least", 9), ("theirs-middle", 5), ("theirs-most", 0)]))
    unsaid = "quiet.delay('ours-unsaid'); (quiet.si('chain').set(priority=9) | quiet.si('chained').set(priority=9)).delay(); answer(1)"
    programs.ask("litetq", unsaid)
    programs.worker(runs, "-c", "1", "-P", "threads", "--prefetch-multiplier", "1")
    eventually(lambda: len(programs.noted()) == 9, within=60)
    order = [line.removeprefix("quiet-") for line in programs.noted()]
    places = {name: order.index(name) for name in order}
    most = ["ours-most", "theirs-most", "chain"]
    middle = ["ours-middle", "theirs-middle"]
    least = ["ours-least", "theirs-least", "ours-unsaid"]
    assert max(places[name] for name in most) < min(places[name] for name in middle), order
    assert max(places[name] for name in [*middle, "chained"]) < min(places[name] for name in least), order
    assert [name for name in order if name in middle] == middle
