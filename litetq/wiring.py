"""What a program gives to an engine on a wire (`adapters`): how its workflows are written down, and what a signature means.

Imported only where a broker is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from litetq import calling, canvas
from litetq.adapters import unfold
from litetq.draft import Draft, Start
from litetq.hanging import views_in
from litetq.message import Plan

if TYPE_CHECKING:
    from litetq.app import LiteTQ


def program_of(app: LiteTQ) -> unfold.Program:
    """Return what an engine on a wire asks of an app."""

    def acks_late(name: str) -> bool:
        task = app.tasks.get(name)
        return bool(task is not None and task.acks_late)

    def takes_failure(sig: Mapping[str, Any]) -> bool:
        task = app.tasks.get(sig["task"])
        return bool(task is not None and task.takes_failure(sig.get("args") or (), sig.get("kwargs") or {}))

    return unfold.Program(
        views=lambda hanging, seq: views_in(app, hanging, seq, nests=True),
        headers=calling.protocol_headers,
        expand=lambda sig, args, ids: expand(app, sig, args, ids),
        acks_late=acks_late,
        takes_failure=takes_failure,
    )


def expand(app: LiteTQ, sig: Any, args: Sequence[Any], ids: tuple[str | None, str | None]) -> Plan:
    """Return the plan of a call of a signature, as a dict, with these arguments before its own; `ids` are those of root and parent."""
    draft = Draft(app, None)
    root_id, parent_id = ids
    canvas.maybe_signature(_as_written(sig), app).compile_into(
        draft, Start(root_id=root_id, parent_id=parent_id), canvas.Call(args=tuple(args))
    )
    return draft.plan()


def _as_written(sig: Any) -> Any:
    """Return a signature in which bodies of chords keep their own ids: Celery writes the header's id on the chord itself."""
    if isinstance(sig, (list, tuple)):
        return [_as_written(one) for one in sig]
    if not isinstance(sig, dict) or sig.get("task") not in ("celery.chain", "celery.group", "celery.chord"):
        return sig
    kwargs = {name: _as_written(value) for name, value in sig["kwargs"].items()}
    options = dict(sig.get("options") or {})
    body = kwargs.get("body")
    if isinstance(body, dict):
        options.pop("task_id", None)
    return {**sig, "kwargs": kwargs, "options": options}
