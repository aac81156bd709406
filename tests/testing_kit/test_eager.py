"""Eager calls: what is like sending, and what is made so by a setting."""

from __future__ import annotations

import pytest

from litetq import LiteTQ, chain, states
from litetq.exceptions import EncodeError


class Thing:
    """Of a type that JSON has no form for."""


@pytest.fixture
def app(app: LiteTQ) -> LiteTQ:
    app.conf.task_always_eager = True

    @app.task(name="make")
    def make(kind: str) -> object:
        return {"tuple": (1, 2), "thing": Thing(), "number": 3}[kind]

    @app.task(name="show")
    def show(value: object) -> str:
        return repr(value)

    return app


def test_results_are_the_objects_themselves_as_in_celery(app: LiteTQ) -> None:
    make = app.tasks["make"]
    assert make.delay("tuple").get() == (1, 2)
    assert isinstance(make.delay("thing").get(), Thing)


def test_arguments_that_cannot_be_sent_are_refused(app: LiteTQ) -> None:
    with pytest.raises(EncodeError, match=r"args\[0\]"):
        app.tasks["show"].delay(Thing())


def test_results_go_through_the_serializer_where_that_is_wanted(app: LiteTQ) -> None:
    app.conf.litetq_eager_results = True
    make, show = app.tasks["make"], app.tasks["show"]
    assert make.delay("number").get() == 3
    assert make.delay("tuple").get() == [1, 2]
    assert chain(make.s("tuple"), show.s())().get() == "[1, 2]"
    app.conf.result_compression = "zlib"
    assert make.delay("tuple").get() == [1, 2]


def test_a_result_that_cannot_be_stored_fails_there_as_in_a_worker(app: LiteTQ) -> None:
    app.conf.litetq_eager_results = True
    result = app.tasks["make"].delay("thing")
    assert result.state == states.FAILURE
    with pytest.raises(EncodeError, match="Thing"):
        result.get()
    app.conf.task_eager_propagates = True
    with pytest.raises(EncodeError, match="Thing"):
        app.tasks["make"].delay("thing")


def test_calling_by_apply_is_not_concerned(app: LiteTQ) -> None:
    app.conf.litetq_eager_results = True
    assert isinstance(app.tasks["make"].apply(("thing",)).get(), Thing)
