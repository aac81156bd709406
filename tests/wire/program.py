"""Tasks that litetq and real Celery run alike; `WHOSE` says whose the process is."""

import json
import os

if os.environ["WHOSE"] == "celery":
    from celery import Celery, chain, chord, group

    app = Celery("program", broker=os.environ["BROKER"], backend=os.environ["BACKEND"])
else:
    from litetq import LiteTQ, chain, chord, group

    app = LiteTQ("program", broker=os.environ["BROKER"], backend=os.environ["BACKEND"])

if "VISIBILITY" in os.environ:
    app.conf.broker_transport_options = {"visibility_timeout": float(os.environ["VISIBILITY"])}
app.conf.worker_hijack_root_logger = True
app.conf.update(json.loads(os.environ.get("SETTINGS", "{}")))
FOR = 30  # seconds that a result is waited for


def note(line):
    with open(os.environ["LEDGER"], "a") as ledger:
        ledger.write(f"{line}\n")


def answer(value):
    print("ANSWER " + json.dumps(value, default=repr), flush=True)


def end(result):
    """Return what becomes of a task, in words that are the same everywhere."""
    try:
        return result.get(timeout=FOR)
    except Exception as error:
        return [type(error).__name__, *map(str, error.args)]


@app.task(name="add")
def add(a, b):
    return a + b


@app.task(name="made")
def made(size):
    return "x" * size


@app.task(name="echo")
def echo(value):
    return value


@app.task(name="total")
def total(values):
    return sum(values)


@app.task(name="fail")
def fail(*_):
    raise ValueError("no")


@app.task(name="third_time", bind=True, max_retries=3)
def third_time(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)
    return self.request.retries


@app.task(name="told")
def told(id):
    note("told")


@app.task(name="quiet", ignore_result=True)
def quiet(value):
    note(f"quiet-{value}")


@app.task(name="swap", bind=True)
def swap(self, value):
    raise self.replace(add.s(value, 1000))


@app.task(name="swap_for_chain", bind=True)
def swap_for_chain(self, value):
    raise self.replace(chain(add.s(value, 1000), add.s(1)))


@app.task(name="shown", bind=True)
def shown(self, *_, **__):
    request = self.request
    chained = [step["task"] for step in request.chain or ()]
    return [request.retries, request.root_id == request.id, request.delivery_info["routing_key"], chained]


@app.task(name="late", acks_late=True)
def late(value):
    note(value)
    return value


@app.task(name="hold", acks_late=True)
def hold(value):
    import time

    note(f"began-{value}")
    while not os.path.exists(os.environ["LEDGER"] + ".go"):
        time.sleep(0.01)
    note(f"ended-{value}")
    return value


@app.task(name="dies")
def dies():
    os._exit(3)


@app.task(name="tells", bind=True)
def tells(self):
    import time

    self.update_state(state="HALFWAY", meta={"done": 1})
    while not os.path.exists(os.environ["LEDGER"] + ".go"):
        time.sleep(0.01)
    return "whole"


@app.task(name="too_long", time_limit=1)
def too_long():
    import time

    time.sleep(60)


@app.task(name="joins_in", bind=True)
def joins_in(self, value):
    self.add_to_chord(add.s(value, 1))
    return value


def workflows():
    """Return what becomes of one of each; the errors of a chord are compared by their type."""
    two = [add.s(1, 1), add.s(2, 2)]
    return {
        "call": end(add.delay(1, 2)),
        "keywords": end(add.apply_async(kwargs={"a": 1, "b": 2})),
        "countdown": end(add.apply_async((1, 2), countdown=0.3)),
        "failure": end(fail.delay()),
        "retries": end(third_time.delay()),
        "late": end(late.delay("seen")),
        "expired": end(add.apply_async((1, 2), countdown=1, expires=0.2))[:1],
        "request": end(shown.delay()),
        "request in a chain": end(chain(shown.s(), quiet.si(0), quiet.si(1)).apply_async().parent.parent),
        "chain": end(chain(add.s(1, 2), add.s(3), add.s(4)).apply_async()),
        "long chain": end(chain(add.s(0, 1), *[add.s(1)] * 40).apply_async()),
        "group": end(group(add.s(n, n) for n in range(4)).apply_async()),
        "chord": end(chord([add.s(n, n) for n in range(4)], total.s()).apply_async()),
        "chord in a chain": end(chain(add.s(1, 1), group(add.s(1), add.s(2)), total.s(), add.s(100)).apply_async()),
        "chord and steps": end((chord(two, total.s()) | add.s(1) | add.s(1)).apply_async()),
        "chord after chord": end(chain(group(two), total.s(), group(add.s(1), add.s(2)), total.s()).apply_async()),
        "chord in a chord": end(chord([chord(two, total.s()), add.s(1, 1)], total.s()).apply_async()),
        "chain in a chord": end(chord([chain(add.s(1, 1), add.s(1)), add.s(2, 2)], total.s()).apply_async()),
        "chord that fails": end(chord([add.s(1, 1), fail.s()], total.s()).apply_async())[0],
        "chain that fails": end(chain(add.s(1, 1), fail.s(), add.s(1)).apply_async()),
        "replaced": end(swap.delay(1)),
        "replaced in a chain": end(chain(swap.s(1), add.s(1)).apply_async()),
        "replaced by a chain": end(chain(swap_for_chain.s(1), add.s(1)).apply_async()),
        "added to a chord": end(chord([joins_in.s(1), add.s(2, 2)], total.s()).apply_async()),
        "link": end(add.apply_async((1, 1), link=quiet.s(), link_error=told.s())),
        "link_error": end(fail.apply_async((), link_error=told.s())),
    }
