"""Attributes of tasks that a configuration sets (`task_annotations`)."""

from __future__ import annotations

import pkgutil
from typing import Any

from litetq.task import annotations_for

__all__ = ["MapAnnotation", "prepare", "resolve_all"]


class MapAnnotation(dict[str, Any]):
    """Attributes by the name of the task, or "*" for all."""

    def annotate_any(self) -> Any:
        """Return what is for all tasks."""
        return dict(self["*"]) if "*" in self else None

    def annotate(self, task: Any) -> Any:
        """Return what is for this task."""
        return dict(self[task.name]) if task.name in self else None


def prepare(annotations: Any) -> Any:
    """Return a list of objects with `annotate`."""
    if annotations is None:
        return ()
    listed = annotations if isinstance(annotations, (list, tuple)) else (annotations,)
    return [_prepared(each) for each in listed]


def _prepared(annotation: Any) -> Any:
    if isinstance(annotation, str):
        annotation = pkgutil.resolve_name(annotation)
    if isinstance(annotation, type):
        annotation = annotation()
    return MapAnnotation(annotation) if isinstance(annotation, dict) else annotation


def resolve_all(anno: Any, task: Any) -> Any:
    """Return the mappings that are meant for this task."""
    return iter(annotations_for(task, list(anno)))
