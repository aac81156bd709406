"""Tasks of `pydantic=True`: arguments and results whose annotation is a pydantic model travel as plain data.

The function gets models, validated; whoever reads the result gets a dictionary, as in Celery. pydantic is imported when such
a task is made.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from litetq.exceptions import ImproperlyConfigured

OPTIONS = ("pydantic", "pydantic_strict", "pydantic_context", "pydantic_dump_kwargs")


class Modelled:
    """A function, called with models that were made of plain data, and the plain data of the models that its callers give.

    Args:
        app: pydantic's validators find it in their context as `celery_app`, and `name` as `celery_task_name`.
        pydantic_strict: convert nothing, such as "1" to 1.
        pydantic_context: what else validators find in their context.
        pydantic_dump_kwargs: for `model_dump`; the default is mode="json".

    Raises:
        ImproperlyConfigured: pydantic is not installed.
    """

    def __init__(
        self,
        app: Any,
        function: Callable[..., Any],
        name: str,
        bind: bool = False,
        pydantic: bool = True,
        pydantic_strict: bool = False,
        pydantic_context: Mapping[str, Any] | None = None,
        pydantic_dump_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        try:
            from pydantic import BaseModel
        except ImportError as error:
            raise ImproperlyConfigured(
                f"task {name!r} has pydantic=True, which needs the package pydantic: pip install pydantic"
            ) from error
        self._model: type = BaseModel
        self._function = function
        self._signature = inspect.signature(function)
        self._bound = bind
        self._strict = pydantic_strict
        self._context = {**(pydantic_context or {}), "celery_app": app, "celery_task_name": name}
        self._dump_options = {"mode": "json", **(pydantic_dump_kwargs or {})}

    @functools.cached_property
    def _annotations(self) -> dict[str, Any]:
        """The types behind the annotations. Found at the first call: those written as text may name what comes later."""
        try:
            return typing.get_type_hints(self._function)
        except (NameError, AttributeError, TypeError):
            known = {name: parameter.annotation for name, parameter in self._signature.parameters.items()}
            return {**known, "return": self._signature.return_annotation}

    # -- where the task runs

    def body(self) -> Callable[..., Any]:
        """Return the function that the task runs; a coroutine function where the given one is."""
        function = self._function
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run(*args: Any, **kwargs: Any) -> Any:
                call = self._validated(args, kwargs)
                return self._plain_result(await function(*call.args, **call.kwargs))

        else:

            @functools.wraps(function)
            def run(*args: Any, **kwargs: Any) -> Any:
                call = self._validated(args, kwargs)
                return self._plain_result(function(*call.args, **call.kwargs))

        return run

    def _validated(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
        call = self._signature.bind(*args, **kwargs)
        for name, value in call.arguments.items():
            model = self._model_of(name, value)
            if model is not None:
                call.arguments[name] = self._validate(model, value)
        return call

    def _validate(self, model: Any, value: Any) -> Any:
        return model.model_validate(value, strict=self._strict, context=self._context)

    def _model_of(self, name: str, value: Any) -> Any:
        """Return the model that an argument must be, or None; None is let through where the annotation allows it."""
        annotation = self._annotations.get(name)
        inner = _optional(annotation)
        if inner is not None and value is not None:
            annotation = inner
        return annotation if isinstance(annotation, type) and _is_subclass(annotation, self._model) else None

    def _plain_result(self, value: Any) -> Any:
        """Return a result of the model that was annotated as plain data, everything else as it is."""
        annotation = self._annotations.get("return")
        annotation = _optional(annotation) or annotation
        if isinstance(value, self._model) and isinstance(annotation, type) and isinstance(value, annotation):
            return value.model_dump(**self._dump_options)  # type: ignore[attr-defined]
        return value

    # -- where it is called

    def plain_arguments(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Return the arguments of a call with models as plain data, where the task will get an equal model of that."""
        if not any(isinstance(value, self._model) for value in (*args, *kwargs.values())):
            return args, kwargs
        return self._plain_by_place(args), {name: self._plain(name, value) for name, value in kwargs.items()}

    def _plain_by_place(self, args: Sequence[Any]) -> list[Any]:
        names = [
            p.name
            for p in self._signature.parameters.values()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        names = names[1:] if self._bound else names
        named = [self._plain(name, value) for name, value in zip(names, args, strict=False)]
        return [*named, *args[len(names) :]]

    def _plain(self, name: str, value: Any) -> Any:
        if not isinstance(value, self._model) or hasattr(type(value), "__json__"):
            return value
        model = self._model_of(name, value)
        if model is None:
            return value
        try:
            plain = value.model_dump(**self._dump_options)  # type: ignore[attr-defined]
            # A subclass, or a field that is not written, would come back as something else: the serializer then refuses it.
            return plain if self._validate(model, plain) == value else value
        except Exception:  # code of the user's models, which may work in a worker alone
            return value


def _optional(annotation: Any) -> Any:
    """Return X for Optional[X], None for all else."""
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return None
    others = [one for one in typing.get_args(annotation) if one is not type(None)]
    return others[0] if len(others) == 1 and len(typing.get_args(annotation)) == 2 else None


def _is_subclass(annotation: type, model: type) -> bool:
    """Answer for generic aliases too, which Python 3.10 takes for types and refuses here."""
    try:
        return issubclass(annotation, model)
    except TypeError:
        return False
