"""Who called whom: the graph that `AsyncResult.build_graph` makes, and its text for Graphviz."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TextIO


class DependencyGraph:
    """A directed graph without loops; nodes are results (anything hashable), each known with those below it."""

    def __init__(self, it: Iterable[tuple[Any, Iterable[Any]]] | None = None, formatter: Any = None) -> None:
        self.formatter = formatter
        self._below: dict[Any, list[Any]] = {}
        for node, below in it or ():
            self.add_arc(node)
            for each in below:
                self.add_arc(each)
                self.add_edge(node, each)

    def add_arc(self, obj: Any) -> None:
        """Add a node, if it is not in the graph yet."""
        self._below.setdefault(obj, [])

    def add_edge(self, A: Any, B: Any) -> None:
        """Say that B is below A; A must be in the graph."""
        self._below[A].append(B)

    def edges(self) -> list[Any]:
        """Return the nodes that have others below them."""
        return [node for node, below in self._below.items() if below]

    def items(self) -> Iterable[tuple[Any, list[Any]]]:
        return self._below.items()

    iteritems = items

    def valency_of(self, obj: Any) -> int:
        """Return how many edges lead down from a node and all below it; 0 for one that is not in the graph."""
        count, pending = 0, [obj]
        while pending:
            below = self._below.get(pending.pop(), [])
            count += len(below)
            pending += below
        return count

    def topsort(self) -> list[Any]:
        """Return all nodes, each after those below it. Raises ValueError where the graph has a loop."""
        order: list[Any] = []
        done: set[Any] = set()
        for root in self._below:
            above: set[Any] = set()
            pending = [(root, False)]
            while pending:
                node, is_left = pending.pop()
                if is_left:
                    above.discard(node)
                    done.add(node)
                    order.append(node)
                elif node not in done:
                    if node in above:
                        continue
                    above.add(node)
                    pending.append((node, True))
                    for below in self._below.get(node, ()):
                        if below in above:
                            raise ValueError(f"the graph has a loop through {below}")
                        pending.append((below, False))
        return order

    def to_dot(self, fh: TextIO, formatter: Any = None) -> None:
        """Write the graph to a text file, in Graphviz's language; a formatter may say by `label(node)` what stands in it."""
        label = getattr(formatter or self.formatter, "label", str)
        fh.write("digraph dependencies {\n")
        for node in self._below:
            fh.write(f"    {_quoted(node)} [label={_quoted(label(node))}]\n")
        for node, below in self._below.items():
            for each in below:
                fh.write(f"    {_quoted(node)} -> {_quoted(each)}\n")
        fh.write("}\n")

    def __iter__(self) -> Iterator[Any]:
        return iter(self._below)

    def __getitem__(self, node: Any) -> list[Any]:
        return self._below[node]

    def __contains__(self, obj: Any) -> bool:
        return obj in self._below

    def __len__(self) -> int:
        return len(self._below)

    def __repr__(self) -> str:
        return "\n".join(
            f"{node}({len(below)})" + "".join(f"\n     {each}" for each in below) for node, below in self.items()
        )


def _quoted(value: Any) -> str:
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
