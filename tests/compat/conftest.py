"""The alias, on for one test and off again afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import litetq


@pytest.fixture
def alias() -> Iterator[None]:
    """`import celery` brings litetq within the test."""
    litetq.install_as_celery()
    yield
    litetq.uninstall_celery_alias()
