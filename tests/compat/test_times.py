"""What schedules of users count with, under Celery's names, does so across zones and changes of clocks."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import ModuleType
from zoneinfo import ZoneInfo

import pytest

NEW_YORK = ZoneInfo("America/New_York")  # on 2026-03-08 the clock goes from 02:00 to 03:00


@pytest.fixture
def times(alias: None) -> ModuleType:
    import importlib

    return importlib.import_module("celery.utils.time")


@pytest.mark.parametrize("zone", [timezone.utc, NEW_YORK, ZoneInfo("Asia/Tokyo")])
def test_what_remains_does_not_depend_on_the_zones(times: ModuleType, zone: timezone) -> None:
    start = datetime(2026, 3, 8, 6, tzinfo=timezone.utc)  # an hour before the change
    now = (start + timedelta(minutes=20)).astimezone(zone)
    assert times.remaining(start.astimezone(NEW_YORK), timedelta(hours=3), now) == timedelta(hours=2, minutes=40)


def test_a_relative_end_is_that_of_the_schedule(times: ModuleType) -> None:
    start = datetime(2026, 3, 7, 23, 30, tzinfo=NEW_YORK)
    midnight = datetime(2026, 3, 8, tzinfo=NEW_YORK)
    assert times.remaining(start, timedelta(days=1), start, relative=True) == midnight - start


def test_spans_are_those_that_pass(times: ModuleType) -> None:
    before = datetime(2026, 3, 8, 1, 30, tzinfo=NEW_YORK)
    after = times.add_seconds_to_datetime(before, 3600)
    assert (after.hour, after.minute) == (3, 30) and times.subtract_datetimes(after, before) == timedelta(hours=1)


def test_a_time_that_the_clocks_never_show_is_moved(times: ModuleType) -> None:
    assert times.make_aware(datetime(2026, 3, 8, 2, 30), NEW_YORK).hour == 3
    assert times.make_aware(datetime(2026, 3, 8, 3, 30), NEW_YORK).hour == 3
