"""Texts for people."""

from __future__ import annotations

import textwrap
from pprint import pformat
from typing import Any

__all__ = ["abbr", "dedent", "indent", "join", "pluralize", "pretty", "str_to_list", "truncate"]


def str_to_list(s: Any) -> Any:
    """Return the parts of a text with commas; a list as it is."""
    return s.split(",") if isinstance(s, str) else s


def dedent(s: str, sep: str = "\n") -> str:
    """Return a text without the indentation that all its lines have."""
    return textwrap.dedent(s)


def indent(t: str, indent: int = 0, sep: str = "\n") -> str:
    """Return a text with its lines moved to the right."""
    return sep.join(" " * indent + part for part in t.split(sep))


def join(l: list[str], sep: str = "\n") -> str:  # noqa: E741
    """Return those that are not empty as one text."""
    return sep.join(part for part in l if part)


def truncate(s: str, maxlen: int = 128, suffix: str = "...") -> str:
    """Return at most so many letters, cut at a word where that is possible."""
    if maxlen and len(s) >= maxlen:
        return s[:maxlen].rsplit(" ", 1)[0] + suffix
    return s


def abbr(S: str | None, max: int, ellipsis: str | bool = "...") -> str:
    """Return at most `max` letters, the ellipsis among them."""
    if S is None:
        return "???"
    mark = "..." if ellipsis is True else ellipsis or ""
    return S if len(S) <= max else S[: max - len(mark)] + mark


def pluralize(n: float, text: str, suffix: str = "s") -> str:
    """Return the word, in the plural for more than one."""
    return text + suffix if n != 1 else text


def pretty(value: Any, width: int = 80, nl_width: int = 80, sep: str = "\n", **kw: Any) -> str:
    """Return a value laid out over lines."""
    if isinstance(value, dict):
        return f"{sep} {pformat(value, 4, nl_width)[1:]}"
    if isinstance(value, tuple):
        return f"{sep}{' ' * 4}{pformat(value, width=nl_width, **kw)}"
    return pformat(value, width=width, **kw)
