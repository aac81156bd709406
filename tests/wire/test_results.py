"""Results elsewhere than the tasks: each place is written and read by programs and workers of litetq and of real Celery."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.servers import Mariadb, Postgresql, Rabbit, Redis
from tests.waiting import eventually
from tests.wire.conftest import Programs
from tests.wire.test_interop import EXPECTED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

# A member cannot join a chord that is not counted in Redis; Celery refuses it, too.
COUNTED_ELSEWHERE = {name: value for name, value in EXPECTED.items() if name != "added to a chord"}

Place = Callable[[str], str]


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, server: Redis) -> Place:
    """Return the URL of an empty place of results of a kind."""

    def url(kind: str) -> str:
        if kind == "redis":
            return server.url.removesuffix("/0") + "/1"
        if kind == "folder":
            (tmp_path / "results").mkdir()
            return f"file://{tmp_path}/results"
        if kind == "memcached":
            return f"cache+memcached://{request.getfixturevalue('memcached')}/"
        return f"db+{request.getfixturevalue(kind)}"

    return url


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """Give the settings of a bucket, which a server that stands in for S3 has."""
    with servers.for_session(servers.Moto) as moto:
        urllib.request.urlopen(urllib.request.Request(f"{moto.url}/results", method="PUT"), timeout=20).close()
        yield {
            "s3_bucket": "results",
            "s3_endpoint_url": moto.url,
            "s3_access_key_id": "key",
            "s3_secret_access_key": "secret",
            "s3_region": "us-east-1",
        }


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Programs]]:
    made: list[Programs] = []

    monkeypatch.setenv("C_FORCE_ROOT", "1")  # Celery as root reads pickles only then

    def start(broker: str, results: str, **settings: object) -> Programs:
        monkeypatch.setenv("SETTINGS", json.dumps({"result_chord_retry_interval": 0.2, **settings}))
        made.append(Programs(broker, tmp_path, results))
        return made[-1]

    yield start
    for programs in made:
        programs.close()


@pytest.mark.parametrize("kind", ["redis", "postgresql", "mariadb", "memcached", "folder"])
def test_workflows_go_from_worker_to_worker_of_both(
    started: Callable[..., Programs], place: Place, server: Redis, kind: str
) -> None:
    programs = started(server.url, place(kind), result_extended=True)
    programs.worker("litetq", "-P", "threads")
    programs.worker("celery", "-P", "threads")
    expected = EXPECTED if kind == "redis" else COUNTED_ELSEWHERE
    for whose in ("litetq", "celery"):
        ends = programs.ask(whose, "answer(workflows())")
        if ends["chord that fails"] == "ChordError":  # which of the two Celery raises is a matter of moments
            ends["chord that fails"] = "ValueError"
        assert {name: ends[name] for name in expected} == expected


CROSSING = """
import time
kept = {"list": [1, None, "ä"], "moment": "2026-01-02"}
results = [echo.delay(kept), fail.delay()]
ends = [end(result) for result in results]
group_result = group(echo.s(n) for n in range(3)).apply_async()
values = group_result.get(timeout=FOR)
group_result.save()
answer([[result.id for result in results], ends, group_result.id, values])
"""
READ = """
ids, group_id = {ids!r}, {group!r}
found = [app.AsyncResult(id) for id in ids]
restored = app.GroupResult.restore(group_id)
answer([
    [end(one) for one in found],
    [one.state for one in found],
    "ValueError: no" in found[1].traceback,
    [one.name for one in found], [one.queue for one in found], list(found[0].args),
    [restored.id, restored.get(timeout=FOR)],
])
"""
ECHO = [{"list": [1, None, "ä"], "moment": "2026-01-02"}, ["ValueError", "no"]]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("redis", {"result_serializer": "json", "result_compression": "gzip"}),
        ("redis", {"result_serializer": "pickle", "accept_content": ["json", "pickle"], "result_compression": "bzip2"}),
        ("postgresql", {}),
        ("postgresql", {"result_serializer": "pickle", "accept_content": ["json", "pickle"]}),
        ("mariadb", {"result_serializer": "yaml", "accept_content": ["json", "yaml"]}),
        ("memcached", {"result_serializer": "yaml", "accept_content": ["json", "yaml"]}),
        ("folder", {"result_serializer": "pickle", "accept_content": ["json", "pickle"], "result_compression": "gzip"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())) or "json",
)
@pytest.mark.row("20.result_serializer", "20.result_compression", "20.result_extended")
def test_what_either_wrote_the_other_reads_with_all_that_is_kept_beside(
    started: Callable[..., Programs], place: Place, server: Redis, kind: str, settings: dict[str, object]
) -> None:
    programs = started(server.url, place(kind), result_extended=True, **settings)
    for writer, reader in (("litetq", "celery"), ("celery", "litetq")):
        worker = programs.worker(writer, "-P", "threads")
        ids, ends, group_id, values = programs.ask(writer, CROSSING)
        assert (ends, values) == (ECHO, [0, 1, 2])
        read = programs.ask(reader, READ.format(ids=ids, group=group_id))
        names = ["echo", "fail"]
        assert read == [
            ECHO, ["SUCCESS", "FAILURE"], True, names, ["celery"] * 2, [ECHO[0]], [group_id, [0, 1, 2]]
        ]  # fmt: skip
        worker.terminate()
        worker.wait(30)
        (programs.folder / f"{writer}.log").unlink()


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_place_of_results_that_is_away_costs_no_result_and_no_worker(
    started: Callable[..., Programs], server: Redis, request: pytest.FixtureRequest, kind: str
) -> None:
    place: Postgresql | Mariadb = request.getfixturevalue(f"{kind}_server")
    programs = started(server.url, f"db+{place.database()}")
    worker = programs.worker("litetq", "-P", "threads")
    assert programs.ask("litetq", "answer(end(add.delay(1, 1)))") == 2
    waits = "from program import *\nanswer(add.apply_async((20, 1), countdown=8).get(timeout=90))"
    waiting = programs.start("litetq", "-c", waits, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    eventually(lambda: server.ask("HLEN", "unacked") == ":1\r\n")  # the worker has it, and it is not due yet
    place.kill()
    ids = programs.ask("litetq", "answer([add.delay(n, n).id for n in range(20)])")
    eventually(lambda: "it tries again" in programs.log("litetq") or "cannot write" in programs.log("litetq"))
    told = programs.ask(
        "litetq",
        f"try: app.AsyncResult({ids[0]!r}).state\nexcept Exception as error: answer([type(error).__name__, str(error)])",
    )
    assert told[0] == "OperationalError"
    assert "is it running?" in told[1] and "SELECT" not in told[1]
    place.start()
    assert programs.ask("litetq", f"answer([end(app.AsyncResult(id)) for id in {ids!r}])") == [2 * n for n in range(20)]
    out, err = waiting.communicate(timeout=90)
    assert out == "ANSWER 21\n", err
    assert worker.poll() is None
    worker.terminate()
    assert worker.wait(30) == 0


def test_a_value_that_a_place_of_results_will_never_take_fails_its_task_and_nothing_else(
    started: Callable[..., Programs], server: Redis, mariadb: str, memcached: str
) -> None:
    code = "answer([end(made.delay(2_000_000)), end(add.delay(1, 2))])"
    for url, said in (
        (f"db+{mariadb}", "Data too long for column 'result'"),
        (f"cache+memcached://{memcached}/", "too large"),
    ):
        programs = started(server.url, url)
        (programs.folder / "litetq.log").unlink(missing_ok=True)
        worker = programs.worker("litetq", "-P", "threads")
        (kind, text), following = programs.ask("litetq", code)
        assert (kind, following) == ("BackendStoreError", 3)
        assert said in text
        worker.terminate()
        worker.wait(30)


FILE_PROGRAM = """
chain(add.s(1, 2), add.s(3)).apply_async()
chord([add.s(n, n) for n in range(3)], total.s()).apply_async(task_id="chord")
failed = fail.delay()
saved = group(echo.s(n) for n in range(2)).apply_async()
with app.run_embedded(2, pool="threads") as worker: worker.drain(30)
saved.save()
answer([app.AsyncResult("chord").get(timeout=FOR), end(failed), failed.id, saved.id])
"""
BESIDE = """
import time
failed, saved, deadline = {failed!r}, {saved!r}, time.monotonic() + FOR
wanted = [app.AsyncResult("chord"), app.AsyncResult(failed)]
while not all(one.ready() for one in wanted) and time.monotonic() < deadline: time.sleep(0.1)
answer([*map(end, wanted), app.GroupResult.restore(saved).get(timeout=FOR)])
"""


@pytest.mark.parametrize("alias", [False, True], ids=["beside Celery", "as Celery"])
def test_a_backend_of_celery_keeps_what_tasks_in_a_file_and_over_a_broker_returned(
    started: Callable[..., Programs], s3: dict[str, str], server: Redis, tmp_path: Path, alias: bool
) -> None:
    as_celery = "import sys, litetq; litetq.install_as_celery(); " if alias else ""
    ours = started(str(tmp_path / "jobs.sqlite"), "s3://", **s3)
    value, failure, failed, saved = ours.ask("litetq", FILE_PROGRAM, before=as_celery)
    assert (value, failure) == (6, ["ValueError", "no"])
    beside = started(server.url, "s3://", **s3)
    assert beside.ask("celery", BESIDE.format(failed=failed, saved=saved)) == [6, failure, [0, 1]]
    if not alias:
        beside.worker("litetq", "-P", "threads")
        code = "answer([end(add.delay(1, 2)), end(chord([add.s(1, 1), add.s(2, 2)], total.s()).apply_async())])"
        assert [beside.ask(whose, code) for whose in ("litetq", "celery")] == [[3, 6]] * 2


@pytest.mark.parametrize("kind", ["redis", "postgresql", "memcached", "folder"])
def test_what_tasks_in_a_file_returned_other_programs_read_where_result_backend_says(
    started: Callable[..., Programs], place: Place, server: Redis, tmp_path: Path, kind: str
) -> None:
    results = place(kind)
    programs = started(str(tmp_path / "jobs.sqlite"), results)
    value, failure, failed, saved = programs.ask("litetq", FILE_PROGRAM)
    assert (value, failure) == (6, ["ValueError", "no"])
    beside = started(server.url, results)
    assert beside.ask("celery", BESIDE.format(failed=failed, saved=saved)) == [6, failure, [0, 1]]


REPLIES = """
ends = {
    "call": end(add.delay(1, 2)),
    "failure": end(fail.delay()),
    "retries": end(third_time.delay()),
    "chain": [end(one) for one in (lambda last: (last, last.parent))(chain(add.s(1, 2), add.s(3)).apply_async())],
    "group": end(group(add.s(n, n) for n in range(4)).apply_async()),
    "chain that fails": end(chain(add.s(1, 1), fail.s(), add.s(1)).apply_async()),
    "many": sum(end(one) for one in [add.delay(n, 0) for n in range(50)]),
}
told = tells.delay()
if os.environ["WHOSE"] == "litetq":  # what Celery is told on the way, over RabbitMQ, it sees only while it waits
    deadline = __import__("time").monotonic() + FOR
    while told.state != "HALFWAY" and __import__("time").monotonic() < deadline: pass
    ends["told on the way"] = [told.state, told.info]
open(os.environ["LEDGER"] + ".go", "w").close()
ends["told at last"] = end(told)
try: chord([add.s(1, 1)], total.s()).apply_async()
except Exception as error: ends["chord"] = type(error).__name__
answer(ends)
"""
REPLIED = {
    "call": 3, "failure": ["ValueError", "no"], "retries": 2, "chain": [6, 3], "group": [0, 2, 4, 6],
    "chain that fails": ["ValueError", "no"], "many": 1225, "told at last": "whole",
}  # fmt: skip
BY_ASKER = {
    "litetq": {"told on the way": ["HALFWAY", {"done": 1}], "chord": "ImproperlyConfigured"},
    "celery": {"chord": "NotImplementedError"},
}


@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
def test_results_that_are_messages_come_to_programs_of_both_from_workers_of_both(
    started: Callable[..., Programs], request: pytest.FixtureRequest, kind: str
) -> None:
    programs = started(request.getfixturevalue("server" if kind == "redis" else kind).url, "rpc://")
    for whose in ("litetq", "celery"):
        worker = programs.worker(whose, "-P", "threads")
        for asker, more in BY_ASKER.items():
            assert programs.ask(asker, REPLIES) == {**REPLIED, **more}
            os.unlink(f"{programs.ledger}.go")
        worker.terminate()
        worker.wait(30)


def test_results_of_rabbitmq_may_lie_in_redis(
    started: Callable[..., Programs], server: Redis, rabbitmq: Rabbit
) -> None:
    programs = started(rabbitmq.url, server.url)
    programs.worker("litetq", "-P", "threads")
    programs.worker("celery", "-P", "threads")
    for whose in ("litetq", "celery"):
        assert programs.ask(whose, "answer(workflows())") == EXPECTED


def test_with_no_result_backend_rabbitmq_keeps_no_results_and_who_asks_is_told(
    started: Callable[..., Programs], rabbitmq: Rabbit
) -> None:
    programs = started(rabbitmq.url, "disabled://")
    programs.worker("litetq", "-P", "threads")
    code = (
        "quiet.delay(1); result = add.delay(1, 1)\n"
        "try: result.get(timeout=5)\n"
        "except Exception as error: answer([type(error).__name__, str(error)])"
    )
    kind, text = programs.ask("litetq", code)
    assert kind == "ImproperlyConfigured"
    assert "no result backend is configured" in text and "guest:guest" not in text
    eventually(lambda: programs.noted() == ["quiet-1"])


OLD_TABLE = """
import sqlalchemy as sa
from concurrent.futures import ThreadPoolExecutor
from litetq.adapters.metas import Codec
from litetq.adapters.results import Settings
from litetq.adapters.sql import SqlResults
from litetq.message import Record
import pickle

url = os.environ["BACKEND"]
engine = sa.create_engine(url.removeprefix("db+"))
with engine.begin() as connection:
    connection.execute(sa.text(
        "CREATE TABLE celery_taskmeta (id {key} PRIMARY KEY, task_id VARCHAR(155) UNIQUE, status VARCHAR(50), "
        "result {blob}, date_done TIMESTAMP NULL, traceback TEXT)"
    ))
    connection.execute(
        sa.text("INSERT INTO celery_taskmeta (task_id, status, result) VALUES ('old', 'SUCCESS', :value)"),
        {{"value": pickle.dumps([1, 2], 2)}},
    )
accept = frozenset({{"application/json", "application/x-python-serialize"}})
settings = Settings(Codec(accept=accept, is_extended=True), expires=60)


def many(number):
    store = SqlResults(url, settings)
    for n in range(10):
        store.write(Record(f"{{number}}-{{n}}", "SUCCESS", "DONE", str(n).encode(), done_at=1.0, name="add", body=b"[[1], {{}}]"))
        store.write(Record(f"shared-{{n}}", "STARTED", "CLAIMED", b"null"))
        store.write(Record(f"shared-{{n}}", "SUCCESS", "DONE", str(number).encode(), done_at=1.0))
        store.write(Record(f"shared-{{n}}", "FAILURE", "DONE", b"null", done_at=1.0))
    return len(store.read_many([f"{{number}}-{{n}}" for n in range(10)]))


with ThreadPoolExecutor(8) as pool:
    counts = list(pool.map(many, range(8)))
store = SqlResults(url, settings)
shared = store.read_many([f"shared-{{n}}" for n in range(10)])
old = store.read_many(["old"])["old"]
one = store.read_many(["3-4"])["3-4"]
refused = SqlResults(url, Settings())
try: refused.read_many(["old"])
except Exception as error: refusal = type(error).__name__
answer([
    counts, sorted({{record.state for record in shared.values()}}), len(shared), old.result.decode(), [one.name, one.body.decode()],
    refusal, store.cleanup(), len(store.read_many(["old", "3-4", "shared-1"])),
])
"""


TABLES = """
import sqlalchemy as sa
sizes = []
app.conf.update(
    database_engine_options={"pool_size": 3}, database_engine_callback=lambda engine: sizes.append(engine.pool.size())
)
result = group(add.s(n, 1) for n in range(2)).apply_async()
values = result.get(timeout=FOR)
result.save()
there = sa.inspect(sa.create_engine(os.environ["BACKEND"].removeprefix("db+"))).get_table_names("public")
answer([values, app.GroupResult.restore(result.id).get(timeout=FOR), sorted(there), sizes])
"""


@pytest.mark.row(
    "20.database_table_names", "20.database_table_schemas", "20.database_engine_options", "20.database_engine_callback"
)
def test_tables_have_the_names_of_the_settings(started: Callable[..., Programs], place: Place, server: Redis) -> None:
    names, schemas = {"task": "my_tasks", "group": "my_groups"}, {"task": "public", "group": "public"}
    url = place("postgresql")
    programs = started(server.url, url, database_table_names=names, database_table_schemas=schemas)
    programs.worker("celery", "-P", "threads")
    assert programs.ask("litetq", TABLES) == [[1, 2], [1, 2], ["my_groups", "my_tasks"], [3]]


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_tables_of_an_old_celery_are_brought_up_to_date_while_many_write(
    started: Callable[..., Programs], place: Place, server: Redis, kind: str
) -> None:
    programs = started(server.url, place(kind))
    is_postgresql = kind == "postgresql"
    blob, key = ("BYTEA", "SERIAL") if is_postgresql else ("BLOB", "INTEGER NOT NULL AUTO_INCREMENT")
    code = OLD_TABLE.format(blob=blob, key=key)
    assert programs.ask("litetq", code) == [
        [10] * 8, ["SUCCESS"], 10, "[1, 2]", ["add", "[[1], {}]"], "ContentDisallowed", 90, 1,
    ]  # fmt: skip


@pytest.mark.row("20.result_expires", "20.result_failure_expires")
def test_results_in_redis_live_as_long_as_the_settings_say(started: Callable[..., Programs], server: Redis) -> None:
    programs = started(server.url, server.url, result_expires=500, result_failure_expires=50)
    programs.worker("litetq", "-P", "threads")
    ids = programs.ask(
        "litetq", "sent = [add.delay(1, 1), fail.delay()]\n[end(one) for one in sent]\nanswer([one.id for one in sent])"
    )
    lives = [int(server.ask("TTL", f"celery-task-meta-{id}").strip()[1:]) for id in ids]
    assert 400 < lives[0] <= 500 and 0 < lives[1] <= 50
