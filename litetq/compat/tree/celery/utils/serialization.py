"""Texts that carry bytes and values."""

from __future__ import annotations

import json
import pickle
from base64 import b64decode as base64decode
from base64 import b64encode as base64encode
from typing import Any, NoReturn

from litetq.serialization import decode_exception, encode, encode_exception

__all__ = ["b64decode", "b64encode", "jsonify", "pickle", "raise_with_context", "strtobool"]

_TRUTHS = {
    **dict.fromkeys(("true", "yes", "1", "on", "t", "y"), True),
    **dict.fromkeys(("false", "no", "0", "off", "f", "n"), False),
}


def b64encode(s: str | bytes) -> str:
    """Return bytes, or the UTF-8 of a text, as base64."""
    return base64encode(s.encode() if isinstance(s, str) else s).decode()


def b64decode(s: str | bytes) -> bytes:
    """Return the bytes that base64 stands for."""
    return base64decode(s)


def strtobool(term: Any, table: dict[str, bool] | None = None) -> Any:
    """Return what a word says, yes or no; TypeError for other words; what is no text as it is."""
    if not isinstance(term, str):
        return term
    try:
        return (table or _TRUTHS)[term.lower()]
    except KeyError:
        raise TypeError(f"Cannot coerce {term!r} to type bool") from None


def jsonify(
    obj: Any, builtin_types: Any = None, key: Any = None, keyfilter: Any = None, unknown_type_filter: Any = None
) -> Any:
    """Return a value in the form that it has after a journey as JSON."""
    if isinstance(obj, dict):
        return {name: jsonify(value) for name, value in obj.items() if keyfilter is None or keyfilter(name)}
    try:
        return json.loads(encode(obj, "json")[1])
    except Exception:
        if unknown_type_filter is None:
            raise
        return unknown_type_filter(obj)


def raise_with_context(exc: BaseException) -> NoReturn:
    """Raise, with the error that is being handled as its cause."""
    import sys

    handled = sys.exc_info()[1]
    if handled is None or handled is exc:
        raise exc
    raise exc from handled


def get_pickleable_exception(exc: BaseException) -> BaseException:
    """Return the exception as it comes out of a result."""
    return decode_exception(encode_exception(exc), None)


def get_pickled_exception(exc: BaseException) -> BaseException:
    """Return the exception as it is."""
    return exc
