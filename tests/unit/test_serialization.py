"""Bytes and trust: what goes in comes out, what cannot go in is refused by place, what is not trusted stays bytes."""

from __future__ import annotations

import base64
import dataclasses
import enum
import json
import pickle
import subprocess
import sys
import types
import uuid
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litetq import serialization as s
from litetq.exceptions import ContentDisallowed, DecodeError, EncodeError, SerializerNotInstalled

PICKLE = "application/x-python-serialize"
WITH_PICKLE = s.accept_set(["json", "pickle"])


def through(value: Any, serializer: str = "json", compression: str | None = None) -> Any:
    content_type, data = s.encode(value, serializer, compression)
    return s.decode(data, content_type, s.accept_set(["json", serializer]))


# -- JSON

# Value and wire form, as kombu 5.7 writes it.
TYPED = [
    (datetime(2024, 1, 2, 3, 4, 5, 6), '{"__type__":"datetime","__value__":"2024-01-02T03:04:05.000006"}'),
    (datetime(2024, 1, 2, tzinfo=timezone.utc), '{"__type__":"datetime","__value__":"2024-01-02T00:00:00+00:00"}'),
    (
        datetime(2024, 1, 2, 3, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
        '{"__type__":"datetime","__value__":"2024-01-02T03:00:00-03:30"}',
    ),
    (date(2024, 1, 2), '{"__type__":"date","__value__":"2024-01-02"}'),
    (time(1, 2, 3), '{"__type__":"time","__value__":"01:02:03"}'),
    (Decimal("1.10"), '{"__type__":"decimal","__value__":"1.10"}'),
    (uuid.UUID(int=5), '{"__type__":"uuid","__value__":{"hex":"00000000000000000000000000000005"}}'),
    (b"abc", '{"__type__":"bytes","__value__":"abc"}'),
    (b"\xff\x00", '{"__type__":"base64","__value__":"/wA="}'),
]


@pytest.mark.row("3.JSON types")
@pytest.mark.parametrize(("value", "wire"), TYPED)
def test_json_carries_it_in_the_wire_form_that_kombu_reads(value: Any, wire: str) -> None:
    assert s.encode(value) == (None, wire.encode())
    assert s.decode(wire.encode(), None) == value
    assert s.decode(json.dumps(json.loads(wire), indent=1).encode(), "application/json") == value


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
typed = st.datetimes() | st.dates() | st.times() | st.decimals(allow_nan=False) | st.uuids() | st.binary()


@given(st.lists(plain | typed), st.dictionaries(st.text(), plain | typed))
def test_arguments_come_back_as_they_were(args: list[Any], kwargs: dict[str, Any]) -> None:
    content_type, data = s.dumps_args(args, kwargs)
    assert s.loads_args(data, content_type) == (args, kwargs)


@pytest.mark.row("3.JSON types")
def test_tuples_become_lists_and_keys_become_texts() -> None:
    assert through({"a": (1, (2,))}) == {"a": [1, [2]]}
    assert through({1: "a", None: "b", 2.5: "c"}) == {"1": "a", "null": "b", "2.5": "c"}


def test_infinity_and_nan_go_through_as_in_kombu() -> None:
    assert through(float("inf")) == float("inf")
    assert through(float("nan")) != through(float("nan"))


def test_undecodable_file_names_survive() -> None:
    assert through("\udcff.txt") == "\udcff.txt"


def test_an_object_says_itself_how_it_goes_into_json() -> None:
    class Point:
        def __json__(self) -> dict[str, int]:
            return {"x": 1}

    assert through([Point()]) == [{"x": 1}]


def test_a_lazy_text_of_django_becomes_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    class Promise:
        def __str__(self) -> str:
            return "translated"

    module = types.ModuleType("django.utils.functional")
    module.Promise = Promise  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "django.utils.functional", module)
    assert through([Promise()]) == ["translated"]


def test_a_registered_type_goes_through_in_its_own_marker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s, "_json_encoders", dict(s._json_encoders))
    monkeypatch.setattr(s, "_json_decoders", dict(s._json_decoders))
    s.register_type(complex, "complex", lambda z: [z.real, z.imag], lambda parts: complex(*parts))
    s.register_type(frozenset, None, sorted)
    assert through([1 + 2j, frozenset({2, 1})]) == [1 + 2j, [1, 2]]


def test_the_zulu_time_of_other_languages_is_read() -> None:
    assert s.decode(b'{"__type__":"datetime","__value__":"2024-01-02T00:00:00Z"}', None) == datetime(
        2024, 1, 2, tzinfo=timezone.utc
    )


# -- what cannot be encoded


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Order:
    number: int = 1


class Stubborn:
    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("no way")


@pytest.mark.row("3.JSON types")
@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((1, {2}), {}, ["args[1]", "set is not JSON serializable", "pass a list"]),
        (((), {"a": [0, {"tags": {1}}]}), {}, ["args[1]['a'][1]['tags']", "set"]),
        ((), {"when": object()}, ["kwargs['when']", "object"]),
        ((Colour.RED,), {}, ["args[0]", "Colour is an enum", "pass its value"]),
        ((Order(),), {}, ["args[0]", "Order is a dataclass", "dataclasses.asdict()"]),
        (([{(1, 2): 3}],), {}, ["the key (1, 2) of args[0][0]", "tuple"]),
        ((Stubborn(),), {}, ["Stubborn", "__json__"]),
    ],
)
def test_what_json_has_no_form_for_is_refused_by_its_place(
    args: tuple[Any, ...], kwargs: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(EncodeError) as caught:
        s.dumps_args(args, kwargs)
    for word in words:
        assert word in str(caught.value)
    assert caught.value.__cause__ is not None


def test_pickle_refuses_a_local_object_with_its_name_and_a_way_out() -> None:
    def local() -> None: ...

    for culprit in (local, lambda: None):
        with pytest.raises(EncodeError) as caught:
            s.dumps_args((1,), {"callback": culprit}, "pickle")
        text = str(caught.value)
        assert "kwargs['callback']" in text and culprit.__qualname__ in text and "top level of a module" in text


def test_pickle_names_what_refuses_to_be_pickled() -> None:
    with pytest.raises(EncodeError, match=r"args\[0\]\[1\].*no way.*Stubborn"):
        s.dumps_args(([1, Stubborn()],), {}, "pickle")


def deep(levels: int = 100_000) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.fixture
def deep_value() -> Iterator[list[Any]]:
    value = deep()
    yield value
    while value:  # flat again: freeing so deep a value can end the process
        value = value[0]


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_too_deep_a_value_is_refused_and_no_recursion_error_escapes(serializer: str, deep_value: list[Any]) -> None:
    with pytest.raises(EncodeError, match="too deeply"):
        s.dumps_args((deep_value,), {}, serializer)


def test_a_value_that_contains_itself_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(EncodeError, match="contains itself"):
        s.encode(circle)


# -- what cannot be decoded, what is not trusted


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[1] 2",
        b"\xff",
        b"[" * 100_000,
        b'{"__type__":"nobody","__value__":1}',
        b'{"__type__":["x"],"__value__":1}',
        b'{"__type__":"uuid","__value__":{"int":1}}',
        b'{"__type__":"datetime","__value__":"soon"}',
    ],
)
def test_broken_json_is_a_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError, match="application/json"):
        s.decode(data, None)


@pytest.mark.parametrize("data", [b"[]", b"{}", b"4", b"[1, {}]", b"[[], []]", b"[[], {}, {}]"])
def test_a_body_that_is_no_list_of_arguments_is_a_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError, match=r"\[args, kwargs\]"):
        s.loads_args(data, None)


def test_spaces_around_json_do_no_harm() -> None:
    assert s.decode(b" [1, 2]\n", None) == [1, 2]


class Trap:
    sprung: list[int] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return self.sprung.append, (1,)


@pytest.mark.parametrize("accept", [None, frozenset({"application/json"}), frozenset[str]()])
def test_pickle_that_was_not_asked_for_is_refused_unread_in_kombus_words(accept: frozenset[str] | None) -> None:
    with pytest.raises(ContentDisallowed) as caught:
        s.decode(pickle.dumps(Trap()), PICKLE, accept)
    assert str(caught.value) == (
        "Refusing to deserialize untrusted content of type pickle (application/x-python-serialize)"
    )
    assert Trap.sprung == []


def test_compressed_pickle_is_refused_like_plain_pickle() -> None:
    content_type, data = s.encode("x" * 1000, "pickle", "zlib")
    assert content_type == f"{PICKLE}; compression=zlib"
    with pytest.raises(ContentDisallowed):
        s.decode(data, content_type)


def test_json_is_refused_where_only_pickle_is_accepted() -> None:
    with pytest.raises(ContentDisallowed, match=r"json \(application/json\)"):
        s.decode(b"1", None, frozenset({PICKLE}))


def test_pickle_goes_through_where_both_sides_ask_for_it() -> None:
    value = [{1, 2}, Order(5), (1,)]
    content_type, data = s.encode(value, "pickle")
    assert content_type == PICKLE == s.content_type_of("pickle")
    assert s.decode(data, content_type, WITH_PICKLE) == value


def test_broken_pickle_is_a_decode_error() -> None:
    with pytest.raises(DecodeError, match=PICKLE):
        s.decode(b"\x80broken", PICKLE, WITH_PICKLE)


def test_names_and_content_types_can_be_mixed_in_what_is_accepted() -> None:
    assert s.accept_set(["json", PICKLE, "application/x-own"]) == {"application/json", PICKLE, "application/x-own"}
    assert s.accept_set("json") == {"application/json"}
    with pytest.raises(SerializerNotInstalled, match="jsno"):
        s.accept_set(["jsno"])


# -- other formats


@pytest.mark.parametrize(("name", "package"), [("yaml", "yaml"), ("msgpack", "msgpack")])
def test_an_optional_format_goes_through(name: str, package: str) -> None:
    pytest.importorskip(package)
    content_type, data = s.dumps_args((1, "ü"), {"a": [None, 2.5]}, name)
    assert content_type == f"application/x-{name}"
    assert s.loads_args(data, content_type, s.accept_set([name])) == ([1, "ü"], {"a": [None, 2.5]})
    with pytest.raises(EncodeError):
        s.encode(object(), name)
    with pytest.raises(ContentDisallowed):
        s.decode(data, content_type)


@pytest.mark.parametrize(("name", "package"), [("yaml", "yaml"), ("msgpack", "msgpack")])
def test_a_missing_package_is_one_sentence_with_the_extra_to_install(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    for use in (lambda: s.encode(1, name), lambda: s.decode(b"1", f"application/x-{name}", s.accept_set([name]))):
        with pytest.raises(SerializerNotInstalled, match=rf"pip install 'litetq\[{name}\]'"):
            use()


def test_raw_bytes_and_text_stay_as_they_are_and_are_always_accepted() -> None:
    assert s.encode(b"\x00\xff", "raw") == ("application/data", b"\x00\xff")
    assert s.decode(b"\x00\xff", "application/data", frozenset()) == b"\x00\xff"
    content_type, data = s.encode("ü", "raw")
    assert s.decode(data, content_type, frozenset()) == "ü"
    with pytest.raises(EncodeError, match="raw takes bytes or str"):
        s.dumps_args((1,), {}, "raw")


@pytest.fixture
def reversed_text() -> Iterator[None]:
    s.register("reversed", lambda value: str(value)[::-1], lambda data: data.decode()[::-1], "application/x-reversed")
    yield
    s.unregister("reversed")


@pytest.mark.row("3.registering serializers")
@pytest.mark.usefixtures("reversed_text")
def test_a_format_of_ones_own_is_used_by_name_and_by_content_type() -> None:
    for name in ("reversed", "application/x-reversed"):
        assert s.encode("abc", name) == ("application/x-reversed", b"cba")
    assert through("abc", "reversed") == "abc"
    with pytest.raises(ContentDisallowed, match="type reversed"):
        s.decode(b"cba", "application/x-reversed")


def test_an_unregistered_format_is_unknown_again() -> None:
    s.register("own", str, None, "application/x-own")
    with pytest.raises(SerializerNotInstalled, match="application/x-own"):
        s.decode(b"1", "application/x-own", s.accept_set(["own"]))
    s.unregister("own")
    with pytest.raises(SerializerNotInstalled, match="No encoder installed for own"):
        s.encode(1, "own")
    with pytest.raises(SerializerNotInstalled):
        s.unregister("own")


def test_the_content_type_of_json_cannot_be_taken_over() -> None:
    with pytest.raises(ValueError, match="taken"):
        s.register("mine", str, str, "application/json")


# -- compression


@pytest.mark.parametrize("method", ["zlib", "gzip", "bz2", "bzip2", "lzma", "xz"])
@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_compressed_values_are_smaller_and_decoded_unasked(method: str, serializer: str) -> None:
    value = ["again and again " * 100]
    content_type, data = s.encode(value, serializer, method)
    assert len(data) < len(s.encode(value, serializer)[1]) / 5
    assert s.decode(data, content_type, WITH_PICKLE) == value


def test_what_compression_would_make_larger_stays_as_it_is() -> None:
    assert s.dumps_args((), {}, compression="zlib") == s.dumps_args((), {})


def test_broken_compression_is_a_decode_error_and_an_unknown_method_names_the_known() -> None:
    with pytest.raises(DecodeError):
        s.decode(b"broken", "application/json; compression=zlib")
    with pytest.raises(SerializerNotInstalled, match=r"'snappy'; known are .*zlib"):
        s.encode(1, compression="snappy")


# -- exceptions


def exception_through(exc: BaseException, serializer: str = "json") -> BaseException:
    return s.decode_exception(s.encode_exception(exc, serializer), s.content_type_of(serializer), WITH_PICKLE)


class Plain(Exception):
    class Inner(Exception):
        pass


class Formatting(Exception):
    """Its constructor makes one text of two arguments, so its own args do not fit it."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code


class Prefixing(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(f"failed: {text}")


class Telling(Exception):
    def __str__(self) -> str:
        return f"told: {self.args[0]}"


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


ZOO = [
    ValueError("a", 1),
    ValueError(),
    KeyError("x"),
    OSError(2, "No such file", "/f"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    subprocess.CalledProcessError(1, "x"),
    SystemExit(2),
    KeyboardInterrupt(),
    Plain("ü", [1, {"a": None}]),
    Plain.Inner("deep"),
    Prefixing("x"),
    Telling(5),
    Frozen(3),
    Exception(datetime(2024, 1, 2), b"\xff"),
]


@pytest.mark.row("6.exceptions in JSON")
@pytest.mark.parametrize("serializer", ["json", "pickle"])
@pytest.mark.parametrize("exc", ZOO, ids=repr)
def test_a_known_exception_comes_back_as_itself(exc: BaseException, serializer: str) -> None:
    copy = exception_through(exc, serializer)
    assert type(copy) is type(exc)
    if serializer == "json" or not isinstance(exc, Prefixing):  # pickle itself calls the constructor twice
        assert str(copy) == str(exc) and copy.args == exc.args


@pytest.mark.row("6.exceptions in JSON")
def test_the_form_is_celerys() -> None:
    assert json.loads(s.encode_exception(Plain.Inner("a", 1))) == {
        "exc_type": "Plain.Inner",
        "exc_message": ["a", 1],
        "exc_module": __name__,
    }


def test_the_file_name_of_an_os_error_comes_back() -> None:
    copy = exception_through(FileNotFoundError(2, "No such file", "/f"))
    assert isinstance(copy, FileNotFoundError) and copy.filename == "/f"


@pytest.mark.row("6.exceptions in JSON")
@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_args_that_cannot_be_encoded_become_their_repr(serializer: str) -> None:
    culprit = (lambda: None) if serializer == "pickle" else {1}
    copy = exception_through(ValueError("a", culprit), serializer)
    assert type(copy) is ValueError and copy.args == ("a", repr(culprit))


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_an_exception_that_refuses_its_own_args_comes_back_as_a_subclass_that_says_the_same(serializer: str) -> None:
    exc = Formatting(5, "down")
    copy = exception_through(exc, serializer)
    assert isinstance(copy, Formatting) and type(copy).__name__ == "Formatting"
    assert (str(copy), copy.args, repr(copy)) == (str(exc), exc.args, repr(exc))


def test_an_exception_that_cannot_even_be_printed_comes_back() -> None:
    class Local(Exception):
        args = property(lambda self: 1 / 0)

    assert type(exception_through(Unprintable("x"))) is Unprintable
    assert type(exception_through(Local("x"))).__qualname__.endswith("Local")


def test_pickle_keeps_the_attributes_of_an_exception() -> None:
    exc = Plain("x")
    exc.extra = 7  # type: ignore[attr-defined]
    assert exception_through(exc, "pickle").extra == 7  # type: ignore[attr-defined]


UNKNOWN = {"exc_type": "Gone.Error", "exc_module": "no.such.module", "exc_message": ["a", 1]}


@pytest.mark.row("6.exceptions in JSON")
def test_an_exception_of_a_module_that_is_not_imported_becomes_a_stand_in_of_its_name() -> None:
    exc = s.restore_exception(UNKNOWN)
    assert (type(exc).__name__, type(exc).__qualname__, type(exc).__module__) == (
        "Error",
        "Gone.Error",
        "no.such.module",
    )
    assert (exc.args, str(exc), repr(exc)) == (("a", 1), "('a', 1)", "Error('a', 1)")
    assert isinstance(exc, Exception)


def test_two_stand_ins_of_one_name_have_one_class() -> None:
    with pytest.raises(type(s.restore_exception(UNKNOWN))):
        raise s.restore_exception(UNKNOWN)


def test_a_stand_in_says_what_the_original_said() -> None:
    described = json.loads(s.encode_exception(Telling(5)))
    assert str(s.restore_exception({**described, "exc_module": "no.such.module"})) == "told: 5"


def test_stand_ins_survive_pickling() -> None:
    for exc in (s.restore_exception(UNKNOWN), exception_through(Formatting(5, "down"))):
        copy = pickle.loads(pickle.dumps(exc))
        assert (type(copy), str(copy), copy.args) == (type(exc), str(exc), exc.args)


def test_nothing_is_imported_to_restore_an_exception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bait.py").write_text("raise SystemExit('imported')\nclass Error(Exception): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    exc = s.restore_exception({"exc_type": "Error", "exc_module": "bait", "exc_message": []})
    assert type(exc).__module__ == "bait" and "bait" not in sys.modules


def test_no_getattr_of_a_module_runs_to_restore_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    module = types.ModuleType("lazy")
    module.__getattr__ = looked.append  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "lazy", module)
    s.restore_exception({"exc_type": "Error", "exc_module": "lazy", "exc_message": []})
    assert looked == []


@pytest.mark.parametrize(
    ("module", "name"),
    [("os", "system"), ("builtins", "eval"), ("builtins", "dict"), ("subprocess", "Popen"), ("sys", "modules")],
)
def test_nothing_but_an_exception_class_is_ever_called(module: str, name: str, tmp_path: Path) -> None:
    witness = tmp_path / "hacked"
    exc = s.restore_exception({"exc_type": name, "exc_module": module, "exc_message": [f"echo > {witness}"]})
    assert isinstance(exc, Exception) and type(exc).__name__ == name
    assert not witness.exists()


@pytest.mark.parametrize(
    "value", [{"exc_type": "A\0B", "exc_module": "\0"}, {"exc_type": "\ud800", "exc_module": None}, {"exc_type": "."}]
)
def test_hostile_names_do_no_harm(value: dict[str, Any]) -> None:
    assert isinstance(s.restore_exception(value), Exception)


@pytest.mark.parametrize("data", [b"1", b"{}", b'{"exc_type": 5}', b"null", b'"text"'])
def test_bytes_that_hold_no_exception_are_a_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError, match="exc_type"):
        s.decode_exception(data, None)


def test_a_pickled_exception_is_restored_only_where_pickle_is_accepted() -> None:
    data = s.encode_exception(Plain("x"), "pickle")
    with pytest.raises(ContentDisallowed):
        s.decode_exception(data, PICKLE)
    assert repr(s.decode_exception(data, PICKLE, WITH_PICKLE)) == "Plain('x')"


def test_the_message_of_old_celery_is_a_text() -> None:
    exc = s.restore_exception({"exc_type": "ValueError", "exc_module": "builtins", "exc_message": "boom"})
    assert repr(exc) == "ValueError('boom')"


def test_base64_is_kombus() -> None:
    wire = json.loads(s.encode(b"\xfe\xed")[1])
    assert base64.b64decode(wire["__value__"]) == b"\xfe\xed"
