"""Tasks with pydantic=True get models and give plain data, as Celery's do."""

# mypy: disable-error-code="arg-type, comparison-overlap, untyped-decorator"

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ
from litetq.exceptions import EncodeError
from tests.conftest import RunPython

pydantic = pytest.importorskip("pydantic")


class Order(pydantic.BaseModel):  # type: ignore[misc, name-defined]
    item: str
    count: int = 1


class Gift(Order):
    note: str = ""


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    app = LiteTQ("tasks", broker=db, set_as_current=False)
    with app.run_embedded(pool="threads", concurrency=2):
        yield app
    app.close()


def test_a_dictionary_comes_as_a_model_and_a_model_goes_as_a_dictionary(app: LiteTQ) -> None:
    @app.task(pydantic=True)
    def double(order: Order, times: Order | None = None, *, other: str = "") -> Order:
        assert type(order) is Order and (times is None or type(times) is Order)
        return Order(item=order.item + other, count=order.count * 2)

    expected = {"item": "book", "count": 6}
    assert double.delay({"item": "book", "count": 3}).get(timeout=10) == expected
    assert double.delay(Order(item="book", count=3)).get(timeout=10) == expected
    assert double.apply_async(kwargs={"order": Order(item="boo", count=3), "other": "k"}).get(timeout=10) == expected
    assert double.s(Order(item="book", count=3), Order(item="x")).delay().get(timeout=10) == expected
    assert double({"item": "book", "count": 3}) == expected
    assert double.apply(args=(Order(item="book", count=3),)).get() == expected


def test_what_does_not_validate_ends_as_a_failure(app: LiteTQ) -> None:
    @app.task(pydantic=True)
    def take(order: Order) -> int:
        return 1

    with pytest.raises(Exception, match="item"):
        take.delay({"count": "many"}).get(timeout=10)


def test_strictness_context_and_the_form_of_results_are_the_tasks(app: LiteTQ) -> None:
    class Checked(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        x: int

        @pydantic.field_validator("x")
        @classmethod
        def knows_where_it_is(cls, value: int, info: Any) -> int:
            assert info.context["celery_app"] is app and info.context["celery_task_name"].startswith("checked")
            return value + int(info.context["more"])

    def checked(data: Checked) -> Checked:
        return data

    checked.__annotations__ = {"data": Checked, "return": Checked}
    options: dict[str, Any] = {"pydantic_context": {"more": 1}, "pydantic_dump_kwargs": {"exclude": {"x"}}}
    made = app.task(name="checked", pydantic=True, **options)(checked)
    assert made.delay({"x": "1"}).get(timeout=10) == {}
    strict = app.task(name="checked strictly", pydantic=True, pydantic_strict=True, **options)(checked)
    with pytest.raises(Exception, match="valid integer"):
        strict.delay({"x": "1"}).get(timeout=10)


def test_a_model_that_would_come_back_as_another_is_refused_where_it_is_called(app: LiteTQ) -> None:
    @app.task(pydantic=True, bind=True)
    def take(self: Any, order: Order) -> str:
        return type(order).__name__

    assert take.delay(Order(item="book")).get(timeout=10) == "Order"
    with pytest.raises(EncodeError, match="Gift"):
        take.delay(Gift(item="book", note="yours"))


def test_a_coroutine_gets_models_too(app: LiteTQ) -> None:
    @app.task(pydantic=True)
    async def wait(order: Order) -> Order:
        await asyncio.sleep(0)
        return Order(item=order.item, count=2)

    assert wait.delay({"item": "book"}).get(timeout=10) == {"item": "book", "count": 2}


def test_without_pydantic_the_task_says_what_is_missing(run_python: RunPython) -> None:
    program = """
import sys
sys.modules["pydantic"] = None
from litetq import LiteTQ
app = LiteTQ("x")
try:
    app.task(pydantic=True)(lambda x: x)
except Exception as error:
    print(type(error).__name__, error)
"""
    out, err = run_python(program).communicate(timeout=60)
    assert "ImproperlyConfigured" in out and "pip install pydantic" in out, err
