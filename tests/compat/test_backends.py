"""`celery.backends.base`: a backend written for Celery does the same under the alias."""

from __future__ import annotations

import json

from tests.compat.test_packages import RunHere, run_there

__all__ = ["run_there"]  # the fixture

KEPT = """
from celery import Celery
from celery.backends.base import BaseBackend, DisabledBackend, KeyValueStoreBackend
from celery.result import AsyncResult, GroupResult


class Kept(KeyValueStoreBackend):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.rows = {}

    def get(self, key): return self.rows.get(key)
    def mget(self, keys): return [self.rows.get(key) for key in keys]
    def set(self, key, value): self.rows[key] = value
    def delete(self, key): self.rows.pop(key, None)


app = Celery("x", broker=BROKER, result_expires=60)
"""
ASK = """
kept = Kept(app=app, url="kept://me:hush@host/1")
kept.store_result("a", {"x": [1, None]}, "SUCCESS")
kept.store_result("b", LookupError("no", 3), "FAILURE", traceback="tb")
kept.mark_as_started("c", pid=7)
kept.mark_as_revoked("d", "enough")
group = GroupResult("g", [AsyncResult("a", app=app), AsyncResult("b", app=app)], app=app)
kept.save_group("g", group)


def shown(meta):
    return {key: repr(value) for key, value in sorted(meta.items()) if key != "date_done"}


answers = [
    sorted(key.decode() for key in kept.rows),
    [{k: v for k, v in json.loads(kept.rows[kept.get_key_for_task(id)]).items() if k != "date_done"} for id in "abcd"],
    [shown(kept.get_task_meta(id)) for id in "abcd"] + [kept.get_task_meta("e")],
    [kept.get_state("b"), repr(kept.get_result("b")), kept.get_traceback("b"), kept.get_children("a")],
    [kept.restore_group("g").id, len(kept.restore_group("g")), kept.restore_group("h")],
    sorted((id, meta["status"]) for id, meta in kept.get_many(["a", "b"], timeout=5)),
    [kept.as_uri(), kept.expires, kept.decode(kept.encode({"y": 2})), kept.wait_for("a", timeout=5)["result"]],
    [kept._encode([1])[:2], kept.prepare_expires(None, int), kept.get_key_for_group("g").decode()],
]
try: kept.wait_for("e", timeout=0.01, interval=0.001)
except Exception as error: answers.append(type(error).__name__)
try: list(kept.get_many(["e"], timeout=0.01, interval=0.001))
except Exception as error: answers.append(type(error).__name__)
try: DisabledBackend(app=app).get_state("a")
except Exception as error: answers.append(type(error).__name__)
kept.forget("a"); kept.delete_group("g")
answers += [kept.get_state("a"), kept.restore_group("g", cache=False)]
print(json.dumps(answers))
"""


def test_a_backend_of_keys_and_values_writes_and_reads_the_same_as_under_celery(run_there: RunHere) -> None:
    ours = run_there(KEPT.replace("BROKER", "'jobs.sqlite'") + ASK)
    theirs = run_there(KEPT.replace("BROKER", "'memory://'") + ASK, alias=False)
    for mine, other in zip(ours, theirs, strict=True):
        # Exceptions say where they are defined (docs/from-celery.md).
        assert json.loads(json.dumps(mine).replace("litetq.exceptions", "celery.exceptions")) == other


def test_such_a_backend_gets_the_ends_of_tasks(run_there: RunHere) -> None:
    told = run_there(
        KEPT.replace("BROKER", "'jobs.sqlite', backend='program:Kept'")
        + "import sys; sys.modules['program'] = sys.modules['__main__']\n"
        "@app.task\n"
        "def double(x): return x * 2\n"
        "sent = double.delay(4)\n"
        "with app.run_embedded(1, pool='solo') as worker: worker.drain(30)\n"
        "print(json.dumps([type(app.backend).__name__, app.backend.get_task_meta(sent.id)['result']]))"
    )
    assert told == ["Kept", 8]
