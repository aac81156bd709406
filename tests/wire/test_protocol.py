"""The wire's form of messages and workflows, without any broker: what Celery wrote is read, and the other way round."""

from __future__ import annotations

import json
from typing import Any

import pytest

from litetq import LiteTQ, calling, chain, chord, group, wiring
from litetq.adapters.metas import Codec
from litetq.adapters.protocol import EMBED, Embed, unwrap, wrap
from litetq.adapters.unfold import Unfolded, unfold
from litetq.draft import NOW, Draft
from litetq.exceptions import DecodeError, EncodeError
from litetq.message import Message, Record

# Sent by Celery 5.7: add.apply_async((1, 2), countdown=10, expires=60, priority=3, headers={"x": 1}, link=told.s())
HEADERS = {
    "lang": "py",
    "task": "add",
    "id": "3f9a5ae2-0b53-4d0f-8a08-c5e1b1a14d01",
    "shadow": None,
    "eta": "2026-11-20T14:00:10.250000+00:00",
    "expires": "2026-11-20T14:01:00+00:00",
    "group": None,
    "group_index": None,
    "retries": 2,
    "timelimit": [None, None],
    "root_id": "3f9a5ae2-0b53-4d0f-8a08-c5e1b1a14d01",
    "parent_id": None,
    "argsrepr": "(1, 2)",
    "kwargsrepr": "{}",
    "origin": "gen1@host",
    "ignore_result": False,
    "replaced_task_nesting": 0,
    "stamped_headers": None,
    "stamps": {},
    "x": 1,
}
TOLD = {"task": "told", "args": [], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}
BODY = json.dumps([[1, 2], {}, {"callbacks": [TOLD], "errbacks": None, "chain": None, "chord": None}])


@pytest.fixture
def app() -> LiteTQ:
    app = LiteTQ("wire", broker="memory://", set_as_current=False)

    @app.task(name="add")
    def add(a: int, b: int) -> int:
        return a + b

    @app.task(name="total")
    def total(values: list[int]) -> int:
        return sum(values)

    return app


def unfolded(app: LiteTQ, sig: Any) -> Unfolded:
    draft = Draft(app, None)
    sig.compile_into(draft, NOW)
    return unfold(draft.plan(), wiring.program_of(app).views)


def test_a_message_of_celery_is_read_with_all_that_is_in_it() -> None:
    message, embed = unwrap(HEADERS, BODY, "application/json", queue="q", priority=3, properties={"reply_to": "r"})
    assert (message.id, message.name, message.queue, message.priority) == (HEADERS["id"], "add", "q", 3)
    assert json.loads(message.body) == [[1, 2], {}]
    assert (message.due_at, message.expires_at, message.retries) == (1795183210.25, 1795183260.0, 2)
    assert embed == Embed(callbacks=[TOLD])
    headers = json.loads(message.headers or "")
    assert headers.pop(EMBED)["callbacks"] == [TOLD]
    assert headers == {
        "argsrepr": "(1, 2)",
        "kwargsrepr": "{}",
        "origin": "gen1@host",
        "reply_to": "r",
        "headers": {"x": 1},
    }


def test_what_is_read_and_sent_again_says_the_same() -> None:
    message, embed = unwrap(HEADERS, BODY, "application/json", queue="q", properties={"reply_to": "r"})
    parcel = wrap(message, calling.protocol_headers(message), embed)
    assert json.loads(parcel.body) == json.loads(BODY)
    assert (parcel.correlation_id, parcel.reply_to, parcel.content_type) == (HEADERS["id"], "r", "application/json")
    assert {**parcel.headers, "expires": HEADERS["expires"]} == HEADERS


@pytest.mark.parametrize("content_type", ["application/json", "application/x-python-serialize", "application/x-yaml"])
def test_arguments_travel_in_the_serializer_that_they_were_written_in(content_type: str) -> None:
    from litetq import serialization

    name = {"application/json": "json", "application/x-yaml": "yaml"}.get(content_type, "pickle")
    if name == "yaml":
        pytest.importorskip("yaml")
    kind, body = serialization.dumps_args((1, "ä"), {"k": [2]}, name)
    message = Message("id", "add", body, kind)
    parcel = wrap(message, calling.protocol_headers(message))
    back, _ = unwrap(parcel.headers, parcel.body, parcel.content_type, queue="celery")
    args, kwargs = serialization.loads_args(back.body, back.content_type, frozenset((content_type,)))
    assert (list(args), kwargs) == ([1, "ä"], {"k": [2]})


def test_a_date_in_the_arguments_is_untouched_on_its_way() -> None:
    args = [{"__type__": "datetime", "__value__": "2026-01-01T00:00:00"}]
    body = json.dumps([args, {}, {}])
    message, _ = unwrap(HEADERS, body, "application/json", queue="q")
    assert json.loads(message.body)[0] == args


def test_what_is_no_task_message_is_refused_in_a_sentence() -> None:
    with pytest.raises(DecodeError, match="is no task message of Celery's protocol 2"):
        unwrap({"x": 1}, b"{}", "application/json", queue="q")
    with pytest.raises(DecodeError, match=r"is not \[args, kwargs, embed\]"):
        unwrap(HEADERS, b"[1]", "application/json", queue="q")


def test_what_the_protocol_has_no_place_for_is_not_sent() -> None:
    message = Message("id", "add", b"x", "application/json+unknown")
    with pytest.raises(EncodeError, match="send it without compression"):
        wrap(message, calling.protocol_headers(message))


def test_of_a_chain_the_first_task_is_sent_with_the_others_last_one_first(app: LiteTQ) -> None:
    add = app.tasks["add"]
    [(message, embed)] = unfolded(app, chain(add.s(1, 2), add.s(3), add.s(4))).parcels
    assert json.loads(message.body)[0] == [1, 2]
    assert embed.chain is not None
    assert [step["args"] for step in embed.chain] == [[4], [3]]


def test_the_members_of_a_chord_carry_its_body_and_their_number_is_known(app: LiteTQ) -> None:
    add, total = app.tasks["add"], app.tasks["total"]
    found = unfolded(app, chord([add.s(n, n) for n in range(3)], total.s()) | add.s(1))
    assert len(found.parcels) == 3
    groups = {json.loads(message.headers or "")["group"] for message, _ in found.parcels}
    [opened] = found.chords
    assert opened.group == groups.pop()
    assert opened.members == tuple(message.id for message, _ in found.parcels)
    assert opened.body["task"] == "total"
    for _, embed in found.parcels:
        assert embed.chord is not None
        assert embed.chord["chord_size"] == 3
        assert [step["args"] for step in embed.chord["options"]["chain"]] == [[1]]


def test_a_group_in_a_header_is_counted_member_by_member(app: LiteTQ) -> None:
    add, total = app.tasks["add"], app.tasks["total"]
    found = unfolded(app, chord(group(group(add.s(1, 1), add.s(2, 2)), add.s(3, 3)), total.s()))
    assert [len(opened.members) for opened in found.chords] == [3]
    numbers = [(h["group"], h["group_index"]) for h in (json.loads(m.headers or "") for m, _ in found.parcels)]
    assert [index for _, index in numbers] == [0, 1, 2]
    assert len({group for group, _ in numbers}) == 1


def test_steps_after_a_chord_stand_in_its_body(app: LiteTQ) -> None:
    add, total = app.tasks["add"], app.tasks["total"]
    [(_, embed)] = unfolded(app, chain(add.s(1, 1), group(add.s(1), add.s(2)), total.s(), add.s(5))).parcels
    assert embed.chain is not None
    [step] = embed.chain
    assert step["task"] == "celery.chord"
    assert [inner["task"] for inner in step["kwargs"]["body"]["kwargs"]["tasks"]] == ["total", "add"]


def test_a_result_is_stored_as_celery_stores_it() -> None:
    codec = Codec()
    ended = Record("id", "SUCCESS", "DONE", b"[1]", children='[[["a", null], null]]', done_at=0.5, parent_id="p")
    meta = codec.meta(ended)
    assert meta == {
        "status": "SUCCESS",
        "result": [1],
        "traceback": None,
        "children": [[["a", None], None]],
        "date_done": "1970-01-01T00:00:00.500000+00:00",
        "parent_id": "p",
    }
    record = codec.read("id", codec.write(ended))
    assert (record.state, record.place, record.result, record.done_at) == ("SUCCESS", "DONE", b"[1]", 0.5)
