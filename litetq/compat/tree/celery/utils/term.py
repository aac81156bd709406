"""Colours of a terminal."""

from __future__ import annotations

from typing import Any

__all__ = ["colored"]

_CODES = {name: 30 + number for number, name in enumerate("black red green yellow blue magenta cyan white".split())} | {
    "bold": 1,
    "underline": 4,
    "blink": 5,
    "reverse": 7,
    "bright": 1,
}


class colored:
    """Texts in colours: `str(colored().red("stop ", colored().bold("now")))`; without `enabled` the bare text."""

    def __init__(self, *parts: Any, enabled: bool = True, op: str = "", **_: Any) -> None:
        self.parts = parts
        self.enabled = enabled
        self.op = op

    def __getattr__(self, name: str) -> Any:
        plain = name.removeprefix("i")
        if plain not in _CODES:
            raise AttributeError(name)
        bright = ";1" if plain != name else ""
        return lambda *parts: colored(*parts, enabled=self.enabled, op=f"\x1b[{_CODES[plain]}{bright}m")

    def no_color(self) -> str:
        """Return the text without colours."""
        return "".join(part.no_color() if isinstance(part, colored) else str(part) for part in self.parts)

    def node(self, s: Any, op: str) -> colored:
        """Return parts with a code of one's own."""
        return colored(*s, enabled=self.enabled, op=op)

    def __str__(self) -> str:
        if not self.enabled:
            return self.no_color()
        text = "".join(self.op + str(part) for part in self.parts)
        return f"{text}\x1b[0m" if self.op else text

    def __repr__(self) -> str:
        return repr(self.no_color())

    def __len__(self) -> int:
        return len(self.no_color())

    def __add__(self, other: Any) -> str:
        return str(self) + str(other)
