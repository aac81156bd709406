"""Fixtures for tests of programs that use litetq; pytest finds them by itself wherever litetq is installed.

- `litetq_app`: the app, with a new file for each test. Which app that is says the option `litetq_app` in pytest's settings
  ("tasks" or "tasks:app", as after `litetq -A`); without it, a new one.
- `litetq_worker`: a worker of it in this process; `litetq_worker_options` says how (a dict, by default empty).
- `litetq_time`: the time, to be moved.

The functions that go with them are in `litetq.testing`. This module stands outside of the package, so that a test run that
uses none of it does not even import litetq.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from litetq import LiteTQ
    from litetq.testing import Time
    from litetq.worker import Worker

_APP = "litetq_app"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the option that names the app."""
    parser.addini(_APP, "litetq: the app under test, as module or module:attribute", default="")


@pytest.fixture
def litetq_app(request: pytest.FixtureRequest) -> Iterator[LiteTQ]:
    """The app under test, as the current one; its tasks and results are in a new file, which goes with the test."""
    from litetq import testing

    app = _named(request.config.getini(_APP)) or testing.temporary_app("tests")
    with testing.temporary_file(app), testing.visiting_app(app):
        app.set_default()
        app.set_current()
        yield app


def _named(reference: str) -> LiteTQ | None:
    if not reference:
        return None
    from litetq.cli import find
    from litetq.exceptions import ImproperlyConfigured

    try:
        return find.load(reference)[0]
    except ImproperlyConfigured as error:
        pytest.fail(f"the option {_APP} = {reference} in pytest's settings: {error}", pytrace=False)


@pytest.fixture(scope="session")
def litetq_worker_options() -> dict[str, Any]:
    """What `start_worker` gets; by default four threads."""
    return {}


@pytest.fixture
def litetq_worker(litetq_app: LiteTQ, litetq_worker_options: dict[str, Any]) -> Iterator[Worker]:
    """A worker in this process, which takes tasks already."""
    from litetq import testing

    options = {"pool": "threads", "concurrency": 4, "perform_ping_check": False, **litetq_worker_options}
    with testing.start_worker(litetq_app, **options) as worker:
        yield worker


@pytest.fixture
def litetq_time() -> Iterator[Time]:
    """The time, to be moved: `litetq_time.forward(hours=1)`."""
    from litetq import testing

    with testing.travel() as time:
        yield time
