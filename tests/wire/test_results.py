"""Results elsewhere than the tasks: each place is written and read by programs and workers of litetq and of real Celery."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.wire.conftest import Programs
from tests.wire.test_interop import EXPECTED

pytestmark = pytest.mark.slow

# A member cannot join a chord that is not counted in Redis; Celery refuses it, too.
COUNTED_ELSEWHERE = {name: value for name, value in EXPECTED.items() if name != "added to a chord"}

Place = Callable[[str], str]


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, server: object) -> Place:
    """Return the URL of an empty place of results of a kind."""

    def url(kind: str) -> str:
        if kind == "redis":
            return str(getattr(server, "url")).removesuffix("/0") + "/1"  # noqa: B009
        if kind == "folder":
            (tmp_path / "results").mkdir()
            return f"file://{tmp_path}/results"
        if kind == "memcached":
            return f"cache+memcached://{request.getfixturevalue('memcached')}/"
        return f"db+{request.getfixturevalue(kind)}"

    return url


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Programs]]:
    made: list[Programs] = []

    def start(broker: str, results: str, **settings: object) -> Programs:
        monkeypatch.setenv("SETTINGS", json.dumps({"result_chord_retry_interval": 0.2, **settings}))
        made.append(Programs(broker, tmp_path, results))
        return made[-1]

    yield start
    for programs in made:
        programs.close()


@pytest.mark.parametrize("kind", ["redis", "postgresql", "mariadb", "memcached", "folder"])
def test_workflows_go_from_worker_to_worker_of_both(
    started: Callable[..., Programs], place: Place, server: object, kind: str
) -> None:
    programs = started(getattr(server, "url"), place(kind), result_extended=True)  # noqa: B009
    programs.worker("litetq", "-P", "threads")
    programs.worker("celery", "-P", "threads")
    expected = EXPECTED if kind == "redis" else COUNTED_ELSEWHERE
    for whose in ("litetq", "celery"):
        ends = programs.ask(whose, "answer(workflows())")
        if ends["chord that fails"] == "ChordError":  # which of the two Celery raises is a matter of moments
            ends["chord that fails"] = "ValueError"
        assert {name: ends[name] for name in expected} == expected
