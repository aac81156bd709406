"""What results look like in a place that Celery reads, too."""

from __future__ import annotations

import datetime
import json
import pickle
import zlib

import pytest

from litetq import serialization
from litetq.adapters.metas import Codec
from litetq.exceptions import ContentDisallowed, DecodeError
from litetq.message import SAVED, Record, saved_group, saved_id

PICKLES = frozenset({"application/json", "application/x-python-serialize"})


def ended(value: object, serializer: str = "json", compression: str | None = None, **more: object) -> Record:
    content_type, data = serialization.encode(value, serializer, compression)
    fields: dict[str, object] = {"done_at": 1.5, "name": "add", "worker": "w@h", "queue": "q", "retries": 2, **more}
    return Record("id", "SUCCESS", "DONE", data, content_type, **fields)  # type: ignore[arg-type]


def value_of(record: Record, accept: frozenset[str] | None = None) -> object:
    assert record.result is not None
    return serialization.decode(record.result, record.content_type, accept)


@pytest.mark.parametrize("serializer", ["json", "pickle", "yaml", "msgpack"])
@pytest.mark.parametrize("compression", [None, "gzip", "bzip2", "lzma"])
def test_a_value_comes_back_whatever_it_is_written_by(serializer: str, compression: str | None) -> None:
    pytest.importorskip({"yaml": "yaml", "msgpack": "msgpack"}.get(serializer, "json"))
    accept = serialization.accept_set([serializer, "json"])
    codec = Codec(serializer, accept, compression)
    value = {"list": [1, None, "ä"], "long": "x" * 1000}
    # A worker has compressed the value already; a store that cannot compress gets it plain.
    for record in (ended(value, serializer), ended(value, serializer, compression)):
        for may_compress in (False, True):
            data = codec.write(record, may_compress=may_compress)
            assert data.startswith(b"\x00celery-compressed\x00") is bool(may_compress and compression)
            assert value_of(codec.read("id", data), accept) == value


def test_what_json_marks_by_type_is_kept_as_it_is_written() -> None:
    moment = datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc)
    data = Codec().write(ended([moment]))
    assert json.loads(data)["result"] == [{"__type__": "datetime", "__value__": "2026-01-02T00:00:00+00:00"}]
    assert value_of(Codec().read("id", data)) == [moment]
    assert data.startswith(b'{"status": "SUCCESS"')  # which Redis is asked for


def test_pickles_are_read_only_where_they_are_accepted() -> None:
    data = Codec("pickle", PICKLES).write(ended({1}, "pickle"))
    assert value_of(Codec("pickle", PICKLES).read("id", data), PICKLES) == {1}
    with pytest.raises(ContentDisallowed):
        Codec("pickle", frozenset({"application/json"})).read("id", data)


def test_a_result_that_was_written_otherwise_than_this_reader_thinks_is_an_error_in_words() -> None:
    with pytest.raises(DecodeError, match="Cannot decode"):
        Codec().read("id", pickle.dumps({"status": "SUCCESS"}))


def test_what_celery_compressed_is_read_also_where_nothing_is_compressed() -> None:
    payload = b"\x00celery-compressed\x00application/x-gzip\x00" + zlib.compress(
        b'{"status": "FAILURE", "result": {"exc_type": "E"}}'
    )
    record = Codec().read("id", payload)
    assert (record.state, json.loads(record.result or b"")) == ("FAILURE", {"exc_type": "E"})


def test_with_result_extended_what_was_called_and_where_it_ran_is_kept_and_read() -> None:
    record = ended(
        3,
        body=b'[[1, 2], {"a": 3}]',
        headers=json.dumps({"stamped_headers": ["x"], "stamps": {"x": ["1"]}, "group": "g"}),
    )
    plain = json.loads(Codec().write(record))
    assert not {"name", "args", "worker", "x"} & plain.keys()
    codec = Codec(is_extended=True)
    meta = json.loads(codec.write(record))
    assert {key: meta[key] for key in ("name", "args", "kwargs", "worker", "retries", "queue", "x", "group_id")} == {
        "name": "add", "args": [1, 2], "kwargs": {"a": 3}, "worker": "w@h", "retries": 2, "queue": "q", "x": ["1"], "group_id": "g",
    }  # fmt: skip
    read = codec.read("id", json.dumps(meta).encode())
    assert (read.name, read.worker, read.retries, json.loads(read.body or b"")) == ("add", "w@h", 2, [[1, 2], {"a": 3}])
    assert json.loads(read.headers or "") == {"group": "g", "stamped_headers": ["x"], "stamps": {"x": ["1"]}}


def test_a_saved_group_has_an_id_that_no_task_has() -> None:
    described = [["g", None], [[["a", None], None]]]
    record = Record(saved_id("g"), SAVED, "DONE", json.dumps(described).encode())
    data = Codec().write(record)
    assert json.loads(data) == {"result": described}
    read = Codec().read(record.id, data, is_group=True)
    assert (read.state, json.loads(read.result or b"")) == (SAVED, described)
    assert (saved_group(record.id), saved_group("g")) == ("g", None)
