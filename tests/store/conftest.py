from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.factories import Queue, assert_sound


@pytest.fixture
def queue(db: Path) -> Iterator[Queue]:
    """A queue file; at the end of the test nothing in it hangs in the air."""
    queue = Queue(db)
    yield queue
    assert_sound(queue)
    queue.close()
