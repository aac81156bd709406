"""Values to bytes and back: content types, and which of them are trusted (promise 10: untrusted bytes stay bytes).

A content type of None means JSON, which nearly every task uses; `encode` returns it and `decode` takes it. Every other
format is decoded only if the caller accepts it. The JSON is the one that Celery's users know from kombu, with the same
wire form for datetime, date, time, Decimal, UUID and bytes, so both read each other. Compressed data carries a parameter in
its content type (`application/json; compression=zlib`) and is decoded without being asked for.

Exceptions travel as Celery's `{"exc_type", "exc_message", "exc_module"}` and are restored only from builtins and from modules
that are imported already; nothing is imported, and nothing is called that is not a BaseException subclass.

The JSON path is the hot one. One body `[[2, 2], {"a": "hello"}]`, CPython 3.11, this file's functions against the plain
calls: encode 0.6 us (json.dumps 1.4, kombu 2.2), decode 0.5 us (json.loads 1.6, kombu 2.3).

This room knows no file and no function of the user. It is imported by the producer and in every worker, so yaml, msgpack,
pickle and the compressors are imported when first asked for.
"""

from __future__ import annotations

import base64
import json
import json.encoder
import json.scanner
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, NamedTuple
from uuid import UUID

from litetq.exceptions import ContentDisallowed, DecodeError, EncodeError, SecurityError, SerializerNotInstalled

JSON: Final = "application/json"
DATA: Final = "application/data"
TEXT: Final = "application/text"
TRUSTED: Final = frozenset({DATA, TEXT})  # never decoded further, so nothing can happen; always accepted

_ONLY_JSON: Final = frozenset({JSON})


# -- JSON ----------------------------------------------------------------------------------------------------------


def _read_datetime(text: str) -> datetime:
    # Python 3.10 does not know the Z that other languages write.
    return datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)


_json_encoders: dict[type, tuple[str | None, Callable[[Any], Any]]] = {
    datetime: ("datetime", datetime.isoformat),  # before date: a datetime is a date too
    date: ("date", date.isoformat),
    time: ("time", time.isoformat),
    Decimal: ("decimal", str),
    UUID: ("uuid", lambda value: {"hex": value.hex}),
}
_json_decoders: dict[str, Callable[[Any], Any]] = {
    "datetime": _read_datetime,
    "date": lambda text: _read_datetime(text).date(),
    "time": time.fromisoformat,
    "decimal": Decimal,
    "uuid": lambda fields: UUID(hex=fields["hex"]),
    "bytes": str.encode,
    "base64": base64.b64decode,
}


def register_type(
    type_: type, marker: str | None, encoder: Callable[[Any], Any], decoder: Callable[[Any], Any] | None = None
) -> None:
    """Let JSON carry values of this type: `encoder` makes a JSON value of one, `decoder` reads that.

    With marker None the value is replaced by what the encoder returns and stays so on the other side. Must be called in
    every process that reads or writes such values.
    """
    _json_encoders[type_] = (marker, encoder)
    if marker is not None:
        _json_decoders[marker] = decoder or (lambda value: value)


def _to_json(value: Any) -> Any:
    """Return something that JSON can carry in place of a value that it cannot."""
    reducer = getattr(value, "__json__", None)
    if reducer is not None:
        return reducer()
    if isinstance(value, bytes):
        try:
            return {"__type__": "bytes", "__value__": value.decode()}
        except UnicodeDecodeError:
            return {"__type__": "base64", "__value__": base64.b64encode(value).decode()}
    for type_, (marker, encoder) in _json_encoders.items():
        if isinstance(value, type_):
            plain = encoder(value)
            return plain if marker is None else {"__type__": marker, "__value__": plain}
    if _is_lazy_text(value):
        return str(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _is_lazy_text(value: object) -> bool:
    """Is this one of Django's translated strings? Without Django imported there are none."""
    django = sys.modules.get("django.utils.functional")
    promise = getattr(django, "Promise", None)
    return promise is not None and isinstance(value, promise)


def _from_json(fields: dict[str, Any]) -> Any:
    if fields.keys() == {"__type__", "__value__"}:
        decoder = _json_decoders.get(fields["__type__"])
        if decoder is None:
            raise ValueError(f"no decoder for the type {fields['__type__']!r}")
        return decoder(fields["__value__"])
    return fields


def _json_writer() -> Callable[[Any], str]:
    # json.dumps makes a new C encoder in each call; one made ahead halves the time. No circle check: its markers would be
    # shared between threads, and a circle ends in RecursionError all the same.
    encoder = json.JSONEncoder(separators=(",", ":"), check_circular=False, default=_to_json)
    try:
        make: Any = getattr(json.encoder, "c_make_encoder")  # noqa: B009 - not in the type stubs
        chunks = make(None, _to_json, json.encoder.encode_basestring_ascii, None, ":", ",", False, False, True)
        if "".join(chunks([(1,), {"a": None}], 0)) == '[[1],{"a":null}]':
            return lambda value: "".join(chunks(value, 0))
    except (AttributeError, TypeError):
        pass  # another Python than CPython, or a later one with another C encoder
    return encoder.encode


_write_json = _json_writer()
_plain_decoder: Final = json.JSONDecoder()
_scan_plain: Final[Any] = json.scanner.make_scanner(_plain_decoder)  # type: ignore[arg-type]  # as JSONDecoder does
_typed_decoder: Final = json.JSONDecoder(object_hook=_from_json)


def _encode_json(value: Any) -> bytes:
    # ASCII escapes, as kombu writes: lone surrogates (undecodable file names) survive the round trip.
    return _write_json(value).encode()


def _decode_json(data: bytes) -> Any:
    text = data.decode()
    if "__type__" in text:
        return _typed_decoder.decode(text)
    try:
        value, end = _scan_plain(text, 0)
    except StopIteration:
        end = -1
    # Spaces around the value, or an error: the slow way says which.
    return value if end == len(text) else _plain_decoder.decode(text)


# -- the other formats ---------------------------------------------------------------------------------------------


class Serializer(NamedTuple):
    """How one format is written and read. Without `encoder` it can only be read, without `decoder` only written."""

    name: str
    content_type: str
    content_encoding: str  # of an encoder that returns str; "binary" where it returns bytes
    encoder: Callable[[Any], bytes | str] | None
    decoder: Callable[[bytes], Any] | None


def _encode_pickle(value: Any) -> bytes:
    import pickle

    # Protocol 4 is read by every Python 3 that may be on the other side; the variable is kombu's.
    return pickle.dumps(value, protocol=int(os.environ.get("PICKLE_PROTOCOL", 4)))


def _decode_pickle(data: bytes) -> Any:
    import pickle

    return pickle.loads(data)  # only reached when the caller accepts pickle


def _package(name: str, extra: str, title: str) -> Any:
    """Import an optional package, or say in one sentence how to get it."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SerializerNotInstalled(
            f"The serializer {extra} needs the package {title}, which is not installed; run: pip install 'litetq[{extra}]'"
        ) from error


def _encode_yaml(value: Any) -> str:
    text: str = _package("yaml", "yaml", "PyYAML").safe_dump(value)
    return text


def _decode_yaml(data: bytes) -> Any:
    return _package("yaml", "yaml", "PyYAML").safe_load(data)


def _encode_msgpack(value: Any) -> bytes:
    data: bytes = _package("msgpack", "msgpack", "msgpack").packb(value, use_bin_type=True)
    return data


def _decode_msgpack(data: bytes) -> Any:
    return _package("msgpack", "msgpack", "msgpack").unpackb(data, raw=False)


_by_name: dict[str, Serializer] = {}
_by_type: dict[str, Serializer] = {}
_turned_down: dict[str, str] = {}  # content types by name


def register(
    name: str,
    encoder: Callable[[Any], bytes | str] | None,
    decoder: Callable[[bytes], Any] | None,
    content_type: str,
    content_encoding: str = "utf-8",
) -> None:
    """Make a format known in this process; readers must list its name or content type in `accept_content`.

    Raises ValueError for the content type of JSON, raw data or raw text, or one that has parameters: these are ours.
    """
    if content_type in (JSON, *TRUSTED) or ";" in content_type:
        raise ValueError(f"The content type {content_type!r} is taken; register {name!r} under one of its own.")
    _add(Serializer(name, content_type, content_encoding, encoder, decoder))


def _add(serializer: Serializer) -> None:
    _by_name[serializer.name] = _by_type[serializer.content_type] = serializer


def register_signed(name: str, encoder: Callable[[Any], str], decoder: Callable[[bytes], Any]) -> None:
    """Make a format known that signs what it writes. Its content type is that of raw data, as in Celery, so raw data is no
    longer read in this process: nothing tells whether somebody has signed it.
    """
    _add(Serializer(name, DATA, "utf-8", encoder, decoder))


def turn_down(name: str, content_type: str) -> None:
    """Remember that a format of this name was not registered, as its content type is taken; who asks for it is told."""
    _turned_down[name] = content_type


def is_known(content_type: str) -> bool:
    """Return whether a format of this content type is registered here, or built in."""
    return content_type in _by_type or content_type in (JSON, *TRUSTED)


def unregister(name: str) -> None:
    """Forget a format; raises SerializerNotInstalled when there is none of this name."""
    serializer = _by_name.pop(name, None)
    if serializer is None:
        raise SerializerNotInstalled(f"No encoder/decoder installed for {name}")
    _by_type.pop(serializer.content_type, None)


_add(Serializer("json", JSON, "utf-8", _encode_json, _decode_json))
_add(Serializer("pickle", "application/x-python-serialize", "binary", _encode_pickle, _decode_pickle))
_add(Serializer("yaml", "application/x-yaml", "utf-8", _encode_yaml, _decode_yaml))
_add(Serializer("msgpack", "application/x-msgpack", "binary", _encode_msgpack, _decode_msgpack))


def _find(name: str) -> Serializer:
    """Return the format of this name or content type."""
    serializer = _by_name.get(name) or _by_type.get(name)
    if serializer is None:
        raise SerializerNotInstalled(f"No encoder installed for {name}; {_way_to(name)}.")
    return serializer


def _way_to(name: str) -> str:
    """Say what to do about a name that no format has."""
    if name == "auth":
        return "call app.setup_security() where the app is made"
    if name in _turned_down:
        return (
            f"it was registered for {_turned_down[name]}, which is taken here: register it under a content type of its own, "
            f"such as application/x-{name}"
        )
    return f"known are {', '.join(sorted(_by_name))}, raw"


def content_type_of(serializer: str) -> str | None:
    """Return the content type that goes with a serializer's name; None for JSON."""
    if serializer == "raw":
        return DATA
    content_type = _find(serializer).content_type
    return None if content_type == JSON else content_type


def accept_set(names: Iterable[str] | str) -> frozenset[str]:
    """Return the content types of a list of serializer names and content types (`accept_content`).

    Raises SerializerNotInstalled for a name without a format.
    """
    accepted = set()
    for name in [names] if isinstance(names, str) else names:
        if "/" in name:
            accepted.add(name)
        elif name == "raw":
            accepted |= TRUSTED
        elif name in _by_name:
            accepted.add(_by_name[name].content_type)
        else:
            raise SerializerNotInstalled(f"No encoder/decoder installed for {name}; {_way_to(name)}.")
    return frozenset(accepted)


# -- compression ---------------------------------------------------------------------------------------------------

_COMPRESSION_NAMES: Final = {  # Celery's names; its gzip is zlib's format
    **dict.fromkeys(("zlib", "gzip", "application/x-gzip"), "zlib"),
    **dict.fromkeys(("bz2", "bzip2", "bzip", "application/x-bz2"), "bz2"),
    **dict.fromkeys(("lzma", "xz", "application/x-lzma"), "lzma"),
    **dict.fromkeys(("brotli", "application/x-brotli"), "brotli"),
    **dict.fromkeys(("zstd", "zstandard", "application/zstd"), "zstd"),
}
_PACKAGES: Final = {  # of those that not every Python has: modules, the first that there is, and what brings one of them
    "brotli": (("brotli", "brotlicffi"), "brotli"),
    "zstd": (("compression.zstd", "backports.zstd"), "backports.zstd"),
}
_PARAMETER: Final = "; compression="


class Compression(NamedTuple):
    """A way to make bytes smaller, and back."""

    name: str  # stands in the content type
    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes], bytes]


_compressions: dict[str, Compression] = {}  # registered ones, by each of their names


def register_compression(
    encoder: Callable[[bytes], bytes],
    decoder: Callable[[bytes], bytes],
    content_type: str,
    aliases: Iterable[str] = (),
) -> None:
    """Make a way to compress known in this process, by content type and aliases; readers must register it, too.

    Raises ValueError for a name of the built-in ones.
    """
    names = [*aliases, content_type]
    for name in names:
        if name in _COMPRESSION_NAMES or ";" in name:
            raise ValueError(f"The compression {name!r} is taken; register this one under a name of its own.")
    _compressions.update(dict.fromkeys(names, Compression(names[0], encoder, decoder)))


def is_compression(name: str) -> bool:
    """Return whether a way to compress of this name or content type is registered here, or built in."""
    return name in _compressions or name in _COMPRESSION_NAMES


def _compression(method: str) -> Compression:
    """Return the way of this name; built-in modules are imported when first asked for."""
    if method in _compressions:
        return _compressions[method]
    name = _COMPRESSION_NAMES.get(method)
    if name is None:
        known = ", ".join(sorted(name for name in (*_COMPRESSION_NAMES, *_compressions) if "/" not in name))
        raise SerializerNotInstalled(f"No compression method {method!r}; known are {known}.")
    module = _module_of(name)
    if name == "zlib":  # 47: its own header or gzip's
        return Compression(name, module.compress, lambda data: module.decompress(data, wbits=47))
    return Compression(name, module.compress, module.decompress)


def _module_of(compression: str) -> Any:
    """Import what compresses, or say in one sentence how to get it."""
    import importlib

    modules, package = _PACKAGES.get(compression, ((compression,), None))
    for name in modules:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    if package is None:
        raise SerializerNotInstalled(f"This Python was built without {compression}; choose another compression.")
    raise SerializerNotInstalled(
        f"The compression {compression} needs a package that is not installed; run: pip install {package}"
    )


def compress(content_type: str | None, data: bytes, method: str) -> tuple[str | None, bytes]:
    """Return the compressed data and the content type that says so; both unchanged if that would not make it smaller."""
    compression = _compression(method)
    packed = compression.compress(data)
    if len(packed) >= len(data):
        return content_type, data
    return f"{content_type or JSON}{_PARAMETER}{compression.name}", packed


def pack(data: bytes, method: str) -> tuple[str, bytes]:
    """Return the name of the way to compress that `method` means, and the compressed data."""
    compression = _compression(method)
    return compression.name, compression.compress(data)


def unpack(data: bytes, method: str) -> bytes:
    """Return what `pack`, or kombu, has compressed."""
    return _compression(method).decompress(data)


# -- encode and decode ---------------------------------------------------------------------------------------------


def encode(value: Any, serializer: str = "json", compression: str | None = None) -> tuple[str | None, bytes]:
    """Return the content type (None for JSON) and the bytes of a value.

    Args:
        serializer: a registered name or content type; "raw" takes bytes or str as they are.
        compression: None, or a method as in Celery (zlib, gzip, bz2, lzma, brotli, zstd).

    Raises:
        EncodeError: the value has no form in this format; the text names the place in the value.
        SerializerNotInstalled: nothing of this name, or a package is missing.
    """
    if serializer == "json" and compression is None:
        try:
            return None, _write_json(value).encode()
        except Exception as error:
            raise _refusal(value, "value", serializer, error) from error
    return _encode_any(value, serializer, compression, "value")


def dumps_args(
    args: Sequence[Any], kwargs: Mapping[str, Any], serializer: str = "json", compression: str | None = None
) -> tuple[str | None, bytes]:
    """Return content type and bytes of a task's body, `[args, kwargs]`; raises as `encode`, naming the argument."""
    if serializer == "json" and compression is None:
        if not args and not kwargs:
            return None, b"[[],{}]"
        try:
            return None, _write_json((args, kwargs)).encode()
        except Exception as error:
            raise _refusal((args, kwargs), "", serializer, error) from error
    return _encode_any([args, kwargs], serializer, compression, "")


def _encode_any(value: Any, serializer: str, compression: str | None, root: str) -> tuple[str | None, bytes]:
    content_type, data = _encode_raw(value) if serializer == "raw" else _encode_named(value, serializer, root)
    return compress(content_type, data, compression) if compression else (content_type, data)


def _encode_raw(value: Any) -> tuple[str, bytes]:
    if isinstance(value, str):
        return TEXT, value.encode(errors="surrogatepass")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return DATA, bytes(value)
    raise EncodeError(f"The serializer raw takes bytes or str, not {_type_name(value)}; choose another serializer.")


def _encode_named(value: Any, serializer: str, root: str) -> tuple[str | None, bytes]:
    _, content_type, content_encoding, encoder, _ = _find(serializer)
    if encoder is None:
        raise SerializerNotInstalled(
            f"The serializer {serializer} can only read; it was registered without an encoder."
        )
    try:
        data = encoder(value)
        if isinstance(data, str):
            data = data.encode("utf-8" if content_encoding == "binary" else content_encoding)
    except (SerializerNotInstalled, SecurityError):
        raise
    except Exception as error:
        raise _refusal(value, root, serializer, error) from error
    return (None if content_type == JSON else content_type), data


def decode(data: bytes, content_type: str | None, accept: frozenset[str] | None = None) -> Any:
    """Return the value of these bytes.

    Args:
        content_type: None is JSON.
        accept: the content types that may be decoded (`accept_set`); None: JSON only. Raw data and text always may.

    Raises:
        ContentDisallowed: this content type is not accepted; the bytes were not looked at.
        DecodeError: the bytes are not what their type says.
        SerializerNotInstalled: accepted, but the package for it is missing.
    """
    if content_type is None:
        if accept is not None and JSON not in accept:
            raise _disallowed(JSON)
        try:
            return _decode_json(data)
        except Exception as error:
            raise _undecodable(data, JSON, error) from error
    return _decode_any(data, content_type, _ONLY_JSON if accept is None else accept)


def loads_args(
    data: bytes, content_type: str | None, accept: frozenset[str] | None = None
) -> tuple[list[Any], dict[str, Any]]:
    """Return args and kwargs of a task's body; raises as `decode`, DecodeError also for a body of another shape."""
    if data == b"[[],{}]" and content_type is None and (accept is None or JSON in accept):
        return [], {}
    body = decode(data, content_type, accept)
    try:
        args, kwargs = body
        if isinstance(args, (list, tuple)) and isinstance(kwargs, dict):
            return list(args), kwargs
    except (TypeError, ValueError):
        pass
    raise DecodeError(f"The body of a task must be [args, kwargs], a list and an object; found {_short(body)}.")


def _decode_any(data: bytes, content_type: str, accept: frozenset[str]) -> Any:
    plain_type, _, method = content_type.partition(_PARAMETER)
    if plain_type not in accept and plain_type not in TRUSTED:
        raise _disallowed(plain_type)
    serializer = _by_type.get(plain_type)
    try:
        if method:
            data = _compression(method).decompress(data)
        if plain_type == TEXT:
            return data.decode(errors="surrogatepass")
        if plain_type == DATA and serializer is None:
            return data
        if serializer is None or serializer.decoder is None:
            raise SerializerNotInstalled(f"No decoder installed for {plain_type}; register one in this process.")
        return serializer.decoder(data)
    except (SerializerNotInstalled, SecurityError):
        raise
    except Exception as error:
        raise _undecodable(data, content_type, error) from error


def _disallowed(content_type: str) -> ContentDisallowed:
    serializer = _by_type.get(content_type)
    name = serializer.name if serializer else content_type
    return ContentDisallowed(f"Refusing to deserialize untrusted content of type {name} ({content_type})")


def _undecodable(data: bytes, content_type: str, error: Exception) -> DecodeError:
    return DecodeError(f"Cannot decode {_short(data)} as {content_type}: {_reason(error)}")


# -- saying what cannot be encoded ---------------------------------------------------------------------------------


def _refusal(value: Any, root: str, serializer: str, error: Exception) -> EncodeError:
    """Return the error that names the place in the value, its type, and a way out. Slow; only after a failure."""
    if isinstance(error, RecursionError):
        return EncodeError(
            f"Cannot encode {root or 'the arguments'} as {serializer}: nested too deeply, or it contains itself; "
            "pass flatter data."
        )
    place, culprit = _locate(value, root, serializer)
    hint = _hint(culprit, serializer) if place else ""
    return EncodeError(f"Cannot encode {place or root or 'the arguments'} as {serializer}: {_reason(error)}{hint}")


def _hint(culprit: Any, serializer: str) -> str:
    name = getattr(culprit, "__qualname__", None) or type(culprit).__qualname__
    module = getattr(culprit, "__module__", None) or type(culprit).__module__
    if "<locals>" in name or "<lambda>" in name:
        way_out = "define it at the top level of a module, or pass plain data" if serializer == "pickle" else _PLAIN
        return f"; {module}.{name} is local: {way_out}."
    if isinstance(culprit, (set, frozenset)):
        return f"; it is a {type(culprit).__name__}: pass a list."
    if hasattr(culprit, "__dataclass_fields__"):
        return f"; {module}.{name} is a dataclass: pass dataclasses.asdict() of it."
    if hasattr(type(culprit), "__members__"):
        return f"; {module}.{name} is an enum: pass its value."
    if module == "builtins":
        return f"; {_PLAIN}."
    return f"; {_PLAIN} instead of {module}.{name}{', or give it a method __json__' if serializer == 'json' else ''}."


_PLAIN: Final = "pass plain data"
_MOST_LOOKED_AT: Final = 10_000  # values; arbitrary: an error must not take longer than the work


def _locate(value: Any, root: str, serializer: str) -> tuple[str, Any]:
    """Return the place of the first part that this serializer refuses ("args[0]['tags']") and that part; ("", None): unknown."""
    if root:
        waiting = [(root, value)]
    else:
        args, kwargs = value
        waiting = [(f"kwargs[{key!r}]", item) for key, item in reversed(_items(kwargs))]
        waiting += [(f"args[{n}]", item) for n, item in reversed(list(enumerate(args)))]
    for _ in range(_MOST_LOOKED_AT):
        if not waiting:
            break
        place, part = waiting.pop()
        if type(part) in (list, tuple):
            waiting += [(f"{place}[{n}]", item) for n, item in reversed(list(enumerate(part)))]
        elif type(part) is dict:
            bad = next((key for key in part if serializer == "json" and not _is_json_key(key)), None)
            if bad is not None:
                return f"the key {_short(bad)} of {place}", bad
            waiting += [(f"{place}[{key!r}]", item) for key, item in reversed(_items(part))]
        elif _is_refused(part, serializer):
            return place, part
    return "", None


def _items(mapping: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    return list(mapping.items()) if isinstance(mapping, Mapping) else []


def _is_json_key(key: object) -> bool:
    return key is None or isinstance(key, (str, int, float))


def _is_refused(part: Any, serializer: str) -> bool:
    encoder = _find(serializer).encoder
    try:
        if encoder is not None:
            encoder(part)
    except Exception:  # any refusal counts: this is the question
        return True
    return False


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _reason(error: BaseException) -> str:
    return str(error).rstrip(".") or type(error).__name__


def _short(value: object) -> str:
    text = safe_repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def safe_repr(value: object) -> str:
    """Return the `repr` of a value of the user's; where that raises, what kind of value it is."""
    try:
        return repr(value)
    except Exception as error:  # a user's broken __repr__ must not hide the error that is being told
        return f"<{_type_name(value)} whose repr() raised {type(error).__name__}>"


def _safe_str(value: object) -> str:
    try:
        return str(value)
    except Exception:  # as above
        return safe_repr(value)


# -- exceptions ----------------------------------------------------------------------------------------------------


_OS_PARTS: Final[Any] = OSError.__reduce__
_TRUE_ARGS: Final[Any] = BaseException.__dict__["args"]  # a user's class may have another `args`


def encode_exception(exc: BaseException, serializer: str = "json", compression: str | None = None) -> bytes:
    """Return an exception as bytes of `exception_type(serializer, ...)`: never raises for the exception's own sake.

    With pickle the exception itself, where it survives a round trip; else Celery's `exc_type`, `exc_message` (the args; what
    does not encode becomes its repr) and `exc_module`, plus `exc_text` when `str(exc)` says something else than the args.
    """
    return encode_exception_typed(exc, serializer, compression)[1]


def encode_exception_typed(
    exc: BaseException, serializer: str = "json", compression: str | None = None
) -> tuple[str | None, bytes]:
    """As `encode_exception`, with the content type."""
    if serializer == "raw":
        serializer = "json"
    if content_type_of(serializer) == "application/x-python-serialize":
        try:
            data = _encode_pickle(exc)
            _decode_pickle(data)  # many pickle well and then cannot be read
            return encode(exc, serializer, compression)
        except Exception:  # whatever __reduce__ or a constructor of the user raises: the args are kept instead
            pass
    return encode(_describe(exc, serializer), serializer, compression)


def _describe(exc: BaseException, serializer: str) -> dict[str, Any]:
    if isinstance(exc, OSError):
        args: tuple[Any, ...] = _OS_PARTS(exc)[1]  # its args leave out the file names
    else:
        args = _TRUE_ARGS.__get__(exc)
    kind = type(exc)
    args = tuple(_encodable(arg, serializer) for arg in args)
    description = {"exc_type": kind.__qualname__, "exc_message": list(args), "exc_module": kind.__module__}
    text = _safe_str(exc)
    if text != _safe_str(Exception(*args)):
        description["exc_text"] = text
    return description


def _encodable(arg: Any, serializer: str) -> Any:
    try:
        encode(arg, serializer)
    except EncodeError:
        return safe_repr(arg)
    return arg


def decode_exception(data: bytes, content_type: str | None, accept: frozenset[str] | None = None) -> BaseException:
    """Return the exception of `encode_exception`, or of Celery.

    Its class is taken from builtins or a module that is imported already, if it is a BaseException subclass there. Otherwise,
    and when its constructor does not take its own args, the exception is a faithful stand-in: the same name, module, args and
    text, and a subclass of the true class where that is known.

    Raises as `decode`; DecodeError also when the bytes hold no exception.
    """
    return restore_exception(decode(data, content_type, accept))


_CELERYS: Final = ("celery.exceptions", "kombu.exceptions", "billiard.exceptions")  # where Celery's errors say they are


def restore_exception(value: Any) -> BaseException:
    """Return the exception that this decoded description (or pickled exception) stands for; see `decode_exception`."""
    if isinstance(value, BaseException):
        return value
    if not isinstance(value, dict) or not isinstance(value.get("exc_type"), str):
        raise DecodeError(f"A stored exception must be an object with exc_type; found {_short(value)}.")
    name, module, message = value["exc_type"], value.get("exc_module"), value.get("exc_message", "")
    args = tuple(message) if isinstance(message, (list, tuple)) else (message,)
    text = value.get("exc_text")
    cls = _known_exception(module, name) if isinstance(module, str) else None
    if cls is None:
        return _stand_in(name, module if isinstance(module, str) else __name__, Exception, args, text)
    try:
        exc = cls(*args)
    except Exception:  # the constructor takes other arguments than it passed on to Exception
        return _stand_in(name, str(module), cls, args, text)
    if not isinstance(exc, BaseException):  # a __new__ may return anything
        return _stand_in(name, str(module), Exception, args, text)
    if exc.args != args and not isinstance(exc, OSError):
        object.__setattr__(exc, "args", args)  # a constructor that made one text of its arguments made it twice
    return exc


def _known_exception(module: str, qualname: str) -> type[BaseException] | None:
    """Return the exception class of this name, looked up in dictionaries only: no __getattr__, no import, can run.

    What Celery's own workers have raised is the class of ours that has the same name.
    """
    ours = _looked_up("litetq.exceptions", qualname) if module in _CELERYS else None
    return ours or _looked_up(module, qualname)


def _looked_up(module: str, qualname: str) -> type[BaseException] | None:
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        try:
            found = object.__getattribute__(found, "__dict__").get(name)
        except AttributeError:
            return None
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


class _StandIn:
    """What all stand-ins have: args and text as the original had them, whatever the true class would do."""

    _text: str | None

    def __str__(self) -> str:
        return Exception.__str__(self) if self._text is None else self._text  # type: ignore[arg-type]

    def __reduce__(self) -> tuple[Any, ...]:
        kind: Any = type(self)
        return _stand_in, (kind.__qualname__, kind.__module__, kind.__mro__[2], self.args, self._text)  # type: ignore[attr-defined]

    def __init__(self, *args: Any) -> None:
        """Do nothing: the true constructor refused these arguments, or is not known."""


# One class per name, so that `except type(error)` works; bounded, because names come from outside.
@lru_cache(maxsize=1024)
def _stand_in_class(qualname: str, module: str, parent: Any) -> type[BaseException]:
    # Letters that cannot stand in a class name (null, lone surrogates) are written as escapes.
    name = qualname.encode("ascii", "backslashreplace").decode().replace("\0", "\\0")
    return type(name.rpartition(".")[2], (_StandIn, parent), {"__module__": module, "__qualname__": name})


def _stand_in(qualname: str, module: str, parent: Any, args: tuple[Any, ...], text: object) -> BaseException:
    cls: Any = _stand_in_class(qualname, module, parent)
    try:
        exc: BaseException = cls.__new__(cls, *args)
    except Exception:  # a true class whose __new__ refuses too (ExceptionGroup)
        cls = _stand_in_class(qualname, module, Exception)
        exc = cls.__new__(cls, *args)
    object.__setattr__(exc, "args", args)  # the class may refuse ordinary assignment (a frozen dataclass)
    object.__setattr__(exc, "_text", text if isinstance(text, str) else None)
    return exc
