"""When something is due: every schedule against tables taken from Celery 5.7, and against a look at each single minute."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import partial
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litetq.exceptions import ImproperlyConfigured
from litetq.schedules import (
    BaseSchedule,
    ParseException,
    Policy,
    cron,
    crontab,
    crontab_parser,
    decide,
    first_due,
    from_text,
    humanize_seconds,
    in_words,
    is_known,
    jitter_of,
    maybe_schedule,
    missed,
    policy_of,
    schedule,
    solar,
    to_text,
)

UTC = timezone.utc
SHANGHAI = ZoneInfo("Asia/Shanghai")
LONDON = ZoneInfo("Europe/London")
NEW_YORK = ZoneInfo("America/New_York")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")  # its clock moves by half an hour


def in_zone(s: Any, zone: Any) -> Any:
    s.tz = zone
    return s


def fires(s: Any, zone: Any, start: datetime, count: int = 10) -> list[str]:
    """Return the next wall times after `start` (a wall time)."""
    in_zone(s, zone)
    point, found = start.replace(tzinfo=zone), []
    for _ in range(count):
        point = s.next_after(point)
        found.append(point.astimezone(zone).strftime("%Y-%m-%d %H:%M"))
    return found


def written_out(times: str) -> list[str]:
    """Return a list of times in which an equal day is not repeated, with it."""
    found: list[str] = []
    for time in times.split(", "):
        found.append(time if " " in time else f"{found[-1][:10]} {time}")
    return found


# -- crontab -------------------------------------------------------------------------------------------------------

# The table of the user's guide. The times are what Celery 5.7.0 answers, in UTC and in Asia/Shanghai alike.
TABLE: list[tuple[str, dict[str, Any], str]] = [
    ("X1", {}, "2026-01-01 00:01, 00:02, 00:03, 00:04, 00:05, 00:06, 00:07, 00:08, 00:09, 00:10"),
    (
        "X2",
        {"minute": 0, "hour": 0},
        "2026-01-02 00:00, 2026-01-03 00:00, 2026-01-04 00:00, 2026-01-05 00:00, 2026-01-06 00:00, 2026-01-07 00:00, 2026-01-08 00:00, 2026-01-09 00:00, 2026-01-10 00:00, 2026-01-11 00:00",
    ),
    (
        "X3",
        {"minute": 0, "hour": "*/3"},
        "2026-01-01 03:00, 06:00, 09:00, 12:00, 15:00, 18:00, 21:00, 2026-01-02 00:00, 03:00, 06:00",
    ),
    (
        "X4",
        {"minute": 0, "hour": "0,3,6,9,12,15,18,21"},
        "2026-01-01 03:00, 06:00, 09:00, 12:00, 15:00, 18:00, 21:00, 2026-01-02 00:00, 03:00, 06:00",
    ),
    ("X5", {"minute": "*/15"}, "2026-01-01 00:15, 00:30, 00:45, 01:00, 01:15, 01:30, 01:45, 02:00, 02:15, 02:30"),
    (
        "X6",
        {"day_of_week": "sunday"},
        "2026-01-04 00:00, 00:01, 00:02, 00:03, 00:04, 00:05, 00:06, 00:07, 00:08, 00:09",
    ),
    (
        "X7",
        {"minute": "*", "hour": "*", "day_of_week": "sun"},
        "2026-01-04 00:00, 00:01, 00:02, 00:03, 00:04, 00:05, 00:06, 00:07, 00:08, 00:09",
    ),
    (
        "X8",
        {"minute": "*/10", "hour": "3,17,22", "day_of_week": "thu,fri"},
        "2026-01-01 03:00, 03:10, 03:20, 03:30, 03:40, 03:50, 17:00, 17:10, 17:20, 17:30",
    ),
    (
        "X9",
        {"minute": 0, "hour": "*/2,*/3"},
        "2026-01-01 02:00, 03:00, 04:00, 06:00, 08:00, 09:00, 10:00, 12:00, 14:00, 15:00",
    ),
    (
        "X10",
        {"minute": 0, "hour": "*/5"},
        "2026-01-01 05:00, 10:00, 15:00, 20:00, 2026-01-02 00:00, 05:00, 10:00, 15:00, 20:00, 2026-01-03 00:00",
    ),
    (
        "X11",
        {"minute": 0, "hour": "*/3,8-17"},
        "2026-01-01 03:00, 06:00, 08:00, 09:00, 10:00, 11:00, 12:00, 13:00, 14:00, 15:00",
    ),
    (
        "X12",
        {"minute": 0, "hour": 0, "day_of_month": "2"},
        "2026-01-02 00:00, 2026-02-02 00:00, 2026-03-02 00:00, 2026-04-02 00:00, 2026-05-02 00:00, 2026-06-02 00:00, 2026-07-02 00:00, 2026-08-02 00:00, 2026-09-02 00:00, 2026-10-02 00:00",
    ),
    (
        "X13",
        {"minute": 0, "hour": 0, "day_of_month": "2-30/2"},
        "2026-01-02 00:00, 2026-01-04 00:00, 2026-01-06 00:00, 2026-01-08 00:00, 2026-01-10 00:00, 2026-01-12 00:00, 2026-01-14 00:00, 2026-01-16 00:00, 2026-01-18 00:00, 2026-01-20 00:00",
    ),
    (
        "X14",
        {"minute": 0, "hour": 0, "day_of_month": "1-7,15-21"},
        "2026-01-02 00:00, 2026-01-03 00:00, 2026-01-04 00:00, 2026-01-05 00:00, 2026-01-06 00:00, 2026-01-07 00:00, 2026-01-15 00:00, 2026-01-16 00:00, 2026-01-17 00:00, 2026-01-18 00:00",
    ),
    (
        "X15",
        {"minute": 0, "hour": 0, "day_of_month": "11", "month_of_year": "5"},
        "2026-05-11 00:00, 2027-05-11 00:00, 2028-05-11 00:00, 2029-05-11 00:00, 2030-05-11 00:00, 2031-05-11 00:00, 2032-05-11 00:00, 2033-05-11 00:00, 2034-05-11 00:00, 2035-05-11 00:00",
    ),
    (
        "X16",
        {"minute": 0, "hour": 0, "month_of_year": "*/3"},
        "2026-01-02 00:00, 2026-01-03 00:00, 2026-01-04 00:00, 2026-01-05 00:00, 2026-01-06 00:00, 2026-01-07 00:00, 2026-01-08 00:00, 2026-01-09 00:00, 2026-01-10 00:00, 2026-01-11 00:00",
    ),
    (
        "X17",
        {"hour": 7, "minute": 30, "day_of_week": 1},
        "2026-01-05 07:30, 2026-01-12 07:30, 2026-01-19 07:30, 2026-01-26 07:30, 2026-02-02 07:30, 2026-02-09 07:30, 2026-02-16 07:30, 2026-02-23 07:30, 2026-03-02 07:30, 2026-03-09 07:30",
    ),
    (
        "X18",
        {"hour": 10, "minute": 50},
        "2026-01-01 10:50, 2026-01-02 10:50, 2026-01-03 10:50, 2026-01-04 10:50, 2026-01-05 10:50, 2026-01-06 10:50, 2026-01-07 10:50, 2026-01-08 10:50, 2026-01-09 10:50, 2026-01-10 10:50",
    ),
]


@pytest.mark.row("10.crontab table")
@pytest.mark.parametrize("zone", [UTC, SHANGHAI], ids=str)
@pytest.mark.parametrize(("fields", "times"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_the_crontab_table_comes_when_celery_says(fields: dict[str, Any], times: str, zone: Any) -> None:
    assert fires(crontab(**fields), zone, datetime(2026, 1, 1)) == written_out(times)


def test_equal_crontabs_are_equal_however_they_are_written() -> None:
    assert crontab(minute=0, hour="*/3") == crontab(minute="0", hour=(0, 3, 6, 9, 12, 15, 18, 21))
    assert crontab(day_of_week="sunday") == crontab(minute="*", hour="*", day_of_week="sun")
    assert crontab(minute=0) != crontab(minute=1) and crontab() != schedule(60)


@pytest.mark.row("10.crontab grammar")
@pytest.mark.parametrize(
    ("field", "size", "first", "wanted"),
    [
        ("*", 7, 0, {0, 1, 2, 3, 4, 5, 6}),
        ("*/15", 60, 0, {0, 15, 30, 45}),
        ("*/3", 31, 1, {1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31}),
        ("2-12/2", 12, 1, {2, 4, 6, 8, 10, 12}),
        ("22-2", 24, 0, {22, 23, 0, 1, 2}),
        ("fri-mon", 7, 0, {5, 6, 0, 1}),
        ("sunday,Tue", 7, 0, {0, 2}),
        ("jan,december", 12, 1, {1, 12}),
        ("1,13,30-45,50-59/2", 60, 0, {1, 13, *range(30, 46), 50, 52, 54, 56, 58}),
        ("1, 5 ", 60, 0, {1, 5}),
        ("1-5-7", 60, 0, {1, 2, 3, 4, 5}),
    ],
)
def test_a_crontab_field_stands_for_these_numbers(field: str, size: int, first: int, wanted: set[int]) -> None:
    assert crontab_parser(size, first).parse(field) == wanted


@pytest.mark.row("10.crontab grammar: refused; impossible date")
@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        ({"day_of_week": 7}, ValueError, "0-6"),
        ({"day_of_week": "7"}, ValueError, "7 > 6"),
        ({"minute": "5/10"}, ValueError, "5/10"),
        ({"minute": "1,,2"}, ParseException, "empty part"),
        ({"minute": ""}, ParseException, "empty part"),
        ({"minute": "*/"}, ParseException, "empty filter"),
        ({"minute": "1-5/"}, ParseException, "empty filter"),
        ({"minute": "-5"}, ParseException, "negative"),
        ({"minute": "*/0"}, ValueError, "zero"),
        ({"minute": 5.0}, TypeError, "float"),
        ({"minute": [1.5]}, TypeError, "1.5"),
        ({"hour": 24}, ValueError, "0-23"),
        ({"day_of_month": 0}, ValueError, "1-31"),
        ({"day_of_month": 30, "month_of_year": 2}, ValueError, "never occurs"),
        ({"day_of_month": "31", "month_of_year": "4,6,9,11"}, ValueError, "never occurs"),
        ({"day_of_week": []}, ValueError, "empty"),
        ({"hour": "noon"}, ValueError, "noon"),
    ],
)
def test_a_wrong_crontab_is_refused_when_it_is_made(fields: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said.replace("*", r"\*")) as refused:
        crontab(**fields)
    assert next(iter(fields)) in str(refused.value), "which of the fields is wrong must be said"


@pytest.mark.row("10.crontab AND rule")
def test_a_day_must_match_the_day_of_the_month_and_the_day_of_the_week() -> None:
    friday_13th = crontab(0, 0, day_of_month="13", day_of_week="fri")
    assert fires(friday_13th, UTC, datetime(2026, 1, 1), 4) == written_out(
        "2026-02-13 00:00, 2026-03-13 00:00, 2026-11-13 00:00, 2027-08-13 00:00"
    )
    assert fires(crontab(0, 0, "mon", "29", "2"), UTC, datetime(2026, 1, 1), 2) == [
        "2044-02-29 00:00",
        "2072-02-29 00:00",
    ]


@pytest.mark.row("10.crontab.from_string")
def test_a_crontab_from_a_string_has_the_fields_in_the_order_of_cron() -> None:
    assert crontab.from_string("0 4 * * mon") == crontab(minute=0, hour=4, day_of_week=1)
    assert crontab.from_string("1 2 3 4 5") == crontab(1, 2, day_of_month=3, month_of_year=4, day_of_week=5)
    with pytest.raises(ValueError, match="4 fields instead of 5"):
        crontab.from_string("0 4 * *")


LAST_SPRING, LAST_AUTUMN = datetime(2026, 3, 28, 23, 0), datetime(2026, 10, 24, 23, 30)


@pytest.mark.row("10.crontab DST")
@pytest.mark.parametrize(
    ("fields", "zone", "start", "wanted"),
    [
        # London: 2026-03-29 01:00 becomes 02:00, 2026-10-25 02:00 becomes 01:00
        ((30, 1), LONDON, LAST_SPRING, "2026-03-29 02:30+0100, 2026-03-30 01:30+0100"),
        ((0, "*"), LONDON, LAST_SPRING, "2026-03-29 00:00+0000, 02:00+0100, 03:00+0100"),
        ((30, 1), LONDON, LAST_AUTUMN, "2026-10-25 01:30+0100, 2026-10-26 01:30+0000"),
        ((0, "*"), LONDON, LAST_AUTUMN, "2026-10-25 00:00+0100, 01:00+0100, 02:00+0000"),
        (("*/20", "0-2"), LONDON, LAST_SPRING, "2026-03-29 00:00+0000, 00:20+0000, 00:40+0000, 02:00+0100, 02:20+0100"),
        # New York: 2026-03-08 02:00 becomes 03:00, 2026-11-01 02:00 becomes 01:00
        ((30, 2), NEW_YORK, datetime(2026, 3, 7, 12), "2026-03-08 03:30-0400, 2026-03-09 02:30-0400"),
        ((0, "*"), NEW_YORK, datetime(2026, 3, 8, 0, 30), "2026-03-08 01:00-0500, 03:00-0400, 04:00-0400"),
        ((30, 1), NEW_YORK, datetime(2026, 10, 31, 12), "2026-11-01 01:30-0400, 2026-11-02 01:30-0500"),
        ((0, "*"), NEW_YORK, datetime(2026, 10, 31, 23, 30), "2026-11-01 00:00-0400, 01:00-0400, 02:00-0500"),
        (("20,35", 2), LORD_HOWE, datetime(2026, 10, 3, 12), "2026-10-04 02:50+1100, 2026-10-05 02:20+1100"),
    ],
)
@pytest.mark.parametrize("kind", ["crontab", "cron"])
def test_a_clock_put_forward_or_back_makes_no_run_twice_and_none_lost(
    fields: tuple[Any, Any], zone: Any, start: datetime, wanted: str, kind: str
) -> None:
    s = in_zone(crontab(*fields) if kind == "crontab" else cron(f"{fields[0]} {fields[1]} * * *"), zone)
    point, found = start.replace(tzinfo=zone), []
    for _ in written_out(wanted):
        point = s.next_after(point)
        found.append(point.astimezone(zone).strftime("%Y-%m-%d %H:%M%z"))
    assert found == written_out(wanted)


def test_a_run_within_the_second_of_two_equal_hours_is_followed_by_one_after_it() -> None:
    """Celery 5.7 answers with a time that is over, and runs again and again until the hour has passed."""
    last = datetime(2026, 10, 25, 1, 10, tzinfo=LONDON, fold=1)
    assert in_zone(crontab(minute="*/30"), LONDON).next_after(last) == datetime(2026, 10, 25, 2, tzinfo=LONDON)


# The oracle: each single minute of the wall clock, asked whether it matches.


def numbers(low: int, high: int) -> st.SearchStrategy[Any]:
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda pair: f"{pair[0]}-{pair[1]}")
    step = st.integers(1, high).map(lambda n: f"*/{n}")
    return st.one_of(
        st.just("*"),
        number,
        step,
        span,
        st.lists(number, min_size=1, max_size=4).map(lambda found: ",".join(map(str, found))),
    )


def seen_by_minutes(matches: Callable[[datetime], bool], last: datetime, zone: Any, minutes: int) -> datetime | None:
    wall = last.astimezone(zone).replace(tzinfo=None, second=0, microsecond=0, fold=0)
    for _ in range(minutes):
        wall += timedelta(minutes=1)
        point = wall.replace(tzinfo=zone).astimezone(UTC)
        if matches(wall) and point > last:
            return point
    return None


def around_the_moves() -> st.SearchStrategy[datetime]:
    moves = [datetime(2026, 3, 28, 18), datetime(2026, 10, 24, 18), datetime(2026, 3, 7, 22), datetime(2026, 10, 31, 22),
             datetime(2026, 4, 4, 10), datetime(2026, 10, 3, 10), datetime(2024, 2, 28, 12), datetime(2026, 12, 31, 20)]  # fmt: skip
    return st.builds(
        lambda day, seconds: day.replace(tzinfo=UTC) + timedelta(seconds=seconds),
        st.sampled_from(moves),
        st.integers(0, 12 * 3600),
    )


ZONES = st.sampled_from([UTC, SHANGHAI, LONDON, NEW_YORK, LORD_HOWE])


@settings(max_examples=150, deadline=None)
@given(numbers(0, 59), numbers(0, 23), numbers(0, 6), numbers(1, 31), numbers(1, 12), around_the_moves(), ZONES)
def test_a_crontab_is_due_at_the_first_minute_that_matches(
    minute: Any, hour: Any, weekday: Any, day: Any, month: Any, last: datetime, zone: Any
) -> None:
    try:
        s = in_zone(crontab(minute, hour, weekday, day, month), zone)
    except ValueError:
        return  # an impossible date

    def matches(wall: datetime) -> bool:
        return (
            wall.minute in s.minute and wall.hour in s.hour and wall.day in s.day_of_month
            and wall.month in s.month_of_year and wall.isoweekday() % 7 in s.day_of_week
        )  # fmt: skip

    wanted, found = seen_by_minutes(matches, last, zone, 5000), s.next_after(last)
    assert found == wanted if wanted is not None else found > last + timedelta(minutes=4900)


@settings(max_examples=150, deadline=None)
@given(numbers(0, 59), numbers(0, 23), numbers(1, 31), numbers(1, 12), numbers(0, 6), around_the_moves(), ZONES)
def test_a_cron_string_is_due_at_the_first_minute_that_matches_either_day(
    minute: Any, hour: Any, day: Any, month: Any, weekday: Any, last: datetime, zone: Any
) -> None:
    def is_over_the_end(field: Any) -> bool:
        return isinstance(field, str) and "-" in field and int(field.split("-")[0]) >= int(field.split("-")[1])

    fields = [minute, hour, day, month, weekday]
    if any(map(is_over_the_end, fields)):
        return  # a range over the end is Celery's, not cron's
    try:
        s = in_zone(cron(" ".join(map(str, fields))), zone)
    except ValueError:
        return
    as_sets = [crontab_parser(size, first).parse(str(field)) for (size, first), field in
               zip([(60, 0), (24, 0), (31, 1), (12, 1), (7, 0)], fields, strict=True)]  # fmt: skip

    def is_open(own: Any, size: int, found: set[int], other: Any) -> bool:
        return own == "*" or (len(found) == size and "*" in str(other))

    either = not is_open(day, 31, as_sets[2], weekday) and not is_open(weekday, 7, as_sets[4], day)

    def matches(wall: datetime) -> bool:
        by_month, by_week = wall.day in as_sets[2], wall.isoweekday() % 7 in as_sets[4]
        fits = by_month or by_week if either else by_month and by_week
        return fits and wall.minute in as_sets[0] and wall.hour in as_sets[1] and wall.month in as_sets[3]

    wanted, found = seen_by_minutes(matches, last, zone, 3000), s.next_after(last)
    assert found == wanted if wanted is not None else found > last + timedelta(minutes=2900)


# -- cron strings --------------------------------------------------------------------------------------------------


def test_a_cron_string_takes_either_day_and_seven_for_sunday() -> None:
    assert fires(cron("0 0 13 * fri"), UTC, datetime(2026, 2, 1), 3) == written_out(
        "2026-02-06 00:00, 2026-02-13 00:00, 2026-02-20 00:00"
    )
    assert fires(cron("30 9 * * 7"), UTC, datetime(2026, 1, 1), 1) == ["2026-01-04 09:30"]
    assert fires(cron("*/5 9-17 * * mon-fri"), UTC, datetime(2026, 1, 2, 17, 50), 2) == written_out(
        "2026-01-02 17:55, 2026-01-05 09:00"
    )


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("@hourly", "2026-01-01 01:00"), ("@daily", "2026-01-02 00:00"), ("@weekly", "2026-01-04 00:00"),
     ("@monthly", "2026-02-01 00:00"), ("@yearly", "2027-01-01 00:00"), ("@midnight", "2026-01-02 00:00")],
)  # fmt: skip
def test_a_name_stands_for_a_cron_line(name: str, wanted: str) -> None:
    assert fires(cron(name), UTC, datetime(2026, 1, 1), 1) == [wanted]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("* * * * * *", "6 fields instead of 5"),
        ("* * * *", "4 fields instead of 5"),
        ("r * * * *", "'r'"),
        ("H * * * *", "'H'"),
        ("h(0-3) * * * *", "'h'"),
        ("0 0 30 2 *", "never come"),
        ("61 * * * *", "no cron line"),
        ("@reboot", "@hourly"),
        ("every day", "2 fields"),
        ("", "0 fields"),
    ],
)
def test_what_is_no_standard_cron_line_is_refused(line: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        cron(line)


# -- intervals -----------------------------------------------------------------------------------------------------


def at(text: str, zone: Any = UTC) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone)


@pytest.mark.row("10.interval DST")
def test_an_interval_counts_elapsed_seconds_over_a_change_of_the_clock() -> None:
    s = in_zone(schedule(timedelta(hours=24)), LONDON)
    assert s.next_after(at("2026-03-28T12:00", LONDON)) == at("2026-03-29T13:00", LONDON)


@pytest.mark.row("10.relative=True")
@pytest.mark.parametrize(
    ("every", "last", "wanted"),
    [
        (timedelta(days=1), "2026-03-28T12:34:56", "2026-03-29T00:00"),
        (timedelta(days=1), "2026-03-29T00:00", "2026-03-30T00:00"),
        (timedelta(hours=2), "2026-06-01T12:34:56", "2026-06-01T14:00"),
        (timedelta(minutes=5), "2026-06-01T12:34:56", "2026-06-01T12:39"),
        (timedelta(seconds=10), "2026-06-01T12:34:56", "2026-06-01T12:35:06"),
    ],
)
def test_a_relative_interval_is_rounded_to_its_unit(every: timedelta, last: str, wanted: str) -> None:
    assert in_zone(schedule(every, relative=True), LONDON).next_after(at(last, LONDON)) == at(wanted, LONDON)


def test_due_now_answers_with_the_seconds_until_the_next_time() -> None:
    now = at("2026-06-01T12:00:30")
    clock = partial(lambda: now)
    assert tuple(schedule(30, nowfun=clock).is_due(now - timedelta(seconds=10))) == (False, 20)
    assert tuple(schedule(30, nowfun=clock).is_due(now - timedelta(seconds=31))) == (True, 30)
    assert tuple(crontab(nowfun=clock).is_due(now)) == (False, 30)
    assert tuple(crontab(nowfun=clock).is_due(now - timedelta(minutes=5))) == (True, 30)


def test_a_naive_time_of_the_last_run_is_utc() -> None:
    s = crontab(minute=0, hour=10, nowfun=lambda: at("2026-06-01T01:00"))
    in_zone(s, SHANGHAI)
    assert s.remaining_estimate(datetime(2026, 6, 1, 1)) == timedelta(hours=1)


class Program:
    """An app as far as a schedule looks at it."""

    class conf:
        beat_cron_starting_deadline: Any = None
        enable_utc = True

    def __init__(self, now: datetime, deadline: Any = None) -> None:
        self.time, self.conf.beat_cron_starting_deadline = now, deadline

    timezone = UTC

    def now(self) -> datetime:
        return self.time


def test_a_missed_crontab_run_beyond_the_deadline_is_not_due() -> None:
    last, now = at("2026-06-01T10:00"), at("2026-06-03T12:00")
    assert crontab(minute=0, hour=11, app=Program(now)).is_due(last)[0]
    assert crontab(minute=0, hour=11, app=Program(now, 3600)).is_due(last)[0]
    late = crontab(minute=0, hour=11, app=Program(now, timedelta(minutes=59)))
    assert tuple(late.is_due(last)) == (False, 23 * 3600)


# -- what may be given as a schedule -------------------------------------------------------------------------------


def test_seconds_timedeltas_and_cron_lines_stand_for_schedules() -> None:
    assert maybe_schedule(30.0) == schedule(30) == timedelta(seconds=30)
    assert maybe_schedule(timedelta(minutes=1), relative=True).relative
    assert maybe_schedule("@hourly") == cron("@hourly")
    own = crontab(minute=1)
    assert maybe_schedule(own) is own and maybe_schedule(None) is None
    for wrong in (object(), True, [1]):
        with pytest.raises(TypeError, match="no schedule"):
            maybe_schedule(wrong)


ALL = [
    schedule(30), schedule(timedelta(days=2), relative=True), crontab(0, "*/3", "mon-fri", [1, 2], "jan"),
    cron("*/5 9-17 * * mon-fri"), cron("@daily"),
]  # fmt: skip


@pytest.mark.parametrize("s", ALL, ids=repr)
def test_a_schedule_is_the_same_after_pickling_and_after_a_journey_through_the_file(s: Any) -> None:
    for again in (pickle.loads(pickle.dumps(s)), from_text(to_text(s) or "")):
        assert again == s and repr(again) == repr(s) and type(again) is type(s)
        for point in (at("2026-01-01T00:00"), at("2026-01-01T07:11")):  # a relative one is no other at midnight
            assert again.next_after(point) == s.next_after(point)


def test_what_only_its_program_knows_has_no_text() -> None:
    class Own(crontab):
        pass

    class Foreign:
        def is_due(self, last_run_at: datetime) -> tuple[bool, float]:
            return True, 1.0

    assert to_text(Own()) is None and to_text(Foreign()) is None and to_text(schedule(1, nowfun=datetime.now)) is None
    with pytest.raises(ValueError, match="no schedule that this version knows"):
        from_text(json.dumps({"moon": "full"}))


def test_a_schedule_whose_answers_are_its_own_is_asked_each_time() -> None:
    class Never(crontab):
        def is_due(self, last_run_at: datetime) -> tuple[bool, float]:
            return False, 60.0

    class Same(crontab):
        pass

    assert all(is_known(s) for s in [*ALL, Same()])
    assert not is_known(Never()) and not is_known(BaseSchedule()) and not is_known(crontab(nowfun=datetime.now))


def test_schedules_say_in_words_when_they_come() -> None:
    assert [in_words(s) for s in (schedule(1), schedule(30), schedule(90), schedule(7200), schedule(86_400, True))] == [
        "every second", "every 30 seconds", "every 90 seconds", "every 2 hours", "every day, on the full day",
    ]  # fmt: skip
    assert in_words(crontab(7, 30 % 24, [1, 2])) == "crontab 7 6 * * 1,2" and in_words(cron("@daily")) == "cron @daily"
    assert [humanize_seconds(s) for s in (0, 30, 90, 86_400)] == ["now", "30.00 seconds", "1.50 minutes", "1.00 day"]
    assert (
        repr(crontab(30, 7, 1)) == "<crontab: 30 7 * * 1 (m/h/dM/MY/d)>"
        and repr(schedule(30)) == "<freq: 30.00 seconds>"
    )


@pytest.mark.row("10.solar events")
def test_a_solar_schedule_comes_at_the_event_of_the_sun() -> None:
    pytest.importorskip("ephem")
    s = solar("sunset", 51.4769, 0.0)
    assert abs(s.next_after(at("2026-06-21T12:00")) - at("2026-06-21T20:21")) < timedelta(minutes=3)
    polar = solar("sunrise", 78.2, 15.6)  # Spitsbergen: no sunrise from November to February
    assert polar.next_after(at("2026-12-01T00:00")).month == 2
    with pytest.raises(ValueError, match="must be one of dawn_astronomical"):
        solar("noon", 0, 0)
    with pytest.raises(ValueError, match="between -90 and 90"):
        solar("sunset", 91, 0)


# -- what becomes of due times -------------------------------------------------------------------------------------

HOUR = 3600.0
NOW = at("2026-06-01T12:00:01").timestamp()
SINCE = at("2026-06-01T09:05").timestamp()  # three hours ago, of an entry that comes every five minutes


EVERY_FIVE_MINUTES = [schedule(300), in_zone(crontab(minute="*/5"), UTC), in_zone(cron("*/5 * * * *"), UTC)]


@pytest.mark.parametrize("s", EVERY_FIVE_MINUTES, ids=repr)
@pytest.mark.parametrize(("catch_up", "run"), [("none", 0), ("last", 1), ("all", 36)])
def test_after_three_hours_away_none_the_last_or_all_are_run(s: Any, catch_up: str, run: int) -> None:
    found = decide(s, SINCE, NOW, Policy(catch_up=catch_up))
    assert found.run == [NOW - 1 - 300 * n for n in reversed(range(run))]
    assert found.skipped == 36 - run and found.next_due == NOW - 1 + 300


def test_due_times_that_are_late_by_moments_are_all_run_whatever_catch_up_says() -> None:
    found = decide(schedule(1), NOW - 3, NOW, Policy(catch_up="none"))
    assert found.run == [NOW - 3, NOW - 2, NOW - 1, NOW] and not found.skipped and found.next_due == NOW + 1


def test_catching_up_has_a_bound_which_keeps_the_newest() -> None:
    found = decide(schedule(1), NOW - 1e6, NOW, Policy(catch_up="all", catch_up_limit=10))
    assert found.run == [NOW - n for n in reversed(range(10))] and found.skipped and "catch_up_limit" in found.reason


def test_a_minutely_crontab_that_slept_for_years_is_caught_up_at_once() -> None:
    s = in_zone(crontab(), UTC)
    assert missed(s, NOW - 5 * 365 * 86_400, NOW, 3) == [NOW - 1 - 60 * n for n in (2, 1, 0)]


def test_a_due_time_beyond_its_deadline_is_not_run() -> None:
    day = in_zone(crontab(minute=0, hour=11), UTC)
    due = at("2026-06-01T11:00").timestamp()
    assert decide(day, due, NOW, Policy(deadline=2 * HOUR)).run == [due]
    late = decide(day, due, NOW, Policy(deadline=HOUR / 2))
    assert late.run == [] and "deadline" in late.reason and late.next_due == due + 24 * HOUR
    assert len(decide(schedule(300), SINCE, NOW, Policy(catch_up="all", deadline=HOUR)).run) == 12


def test_start_and_end_bound_the_due_times() -> None:
    s = schedule(HOUR)
    assert first_due(s, NOW, Policy(starts_at=NOW + 100)) == NOW + 100
    assert first_due(s, NOW, Policy(starts_at=NOW - 100)) == NOW + HOUR
    assert first_due(in_zone(crontab(0), UTC), NOW, Policy(starts_at=NOW - 1 + HOUR)) == NOW - 1 + HOUR
    assert first_due(s, NOW, Policy(ends_at=NOW + 100)) is None
    assert decide(s, NOW, NOW, Policy(ends_at=NOW + 100)).next_due is None
    over = decide(s, NOW - 5 * HOUR, NOW, Policy(catch_up="all", ends_at=NOW - 3.5 * HOUR))
    assert over.run == [NOW - 5 * HOUR, NOW - 4 * HOUR] and over.next_due is None


def test_jitter_is_the_same_for_all_who_ask_and_delays_no_due_time_past_another() -> None:
    spans = [jitter_of("mail", NOW + n, 60.0) for n in range(200)]
    assert spans == [jitter_of("mail", NOW + n, 60.0) for n in range(200)]
    assert 0 <= min(spans) < 10 and 50 < max(spans) < 60 and spans[0] != jitter_of("post", NOW, 60.0)
    found = decide(schedule(1), NOW - 2, NOW, Policy(), lambda due: 10.0 if due == NOW - 1 else 0.0)
    assert found.run == [NOW - 2] and found.next_due == NOW - 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"catch_up": "some"}, "none, last, all"),
        ({"overlap": "no"}, "allow, skip, queue_one"),
        ({"jitter": -1}, "jitter=-1"),
        ({"deadline": "soon"}, "deadline='soon'"),
        ({"catch_up_limit": 0}, "from 1 up"),
        ({"starts_at": "tomorrow"}, "no date"),
        ({"catchup": "all"}, "no option 'catchup'"),
    ],
)
def test_a_wrong_policy_is_refused_with_the_name_of_the_entry(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"mail.*{said}"):
        policy_of(options, "entry 'mail'")


def test_a_policy_is_the_same_after_its_journey_through_the_file() -> None:
    policy = policy_of({"overlap": "skip", "jitter": timedelta(seconds=5), "starts_at": at("2026-01-01T00:00")}, "x")
    assert Policy.from_text(policy.to_text()) == policy and policy.jitter == 5.0
    assert Policy().to_text() is None and Policy.from_text(None) == Policy()


def test_an_interval_that_does_not_go_forward_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 0"):
        first_due(schedule(0), NOW, Policy())


@pytest.mark.parametrize("days", [1, 2])
def test_a_day_that_begins_at_one_o_clock_is_due_when_it_begins(days: int) -> None:
    havana = ZoneInfo("America/Havana")  # on 2026-03-08 the clock goes from 00:00 to 01:00
    last = datetime(2026, 3, 8 - days, 23, 30, tzinfo=havana)
    now = last.astimezone(timezone.utc)
    every = schedule(timedelta(days=days), relative=True, nowfun=lambda: now, app=SimpleNamespace(timezone=havana))
    due = datetime(2026, 3, 8, 1, tzinfo=havana)
    assert every.next_after(last) == due
    assert every.is_due(last) == (False, (due.astimezone(timezone.utc) - now).total_seconds())


def test_a_relative_schedule_of_less_than_a_second_is_not_rounded() -> None:
    now = datetime(2026, 1, 1, microsecond=750_000, tzinfo=timezone.utc)
    every = schedule(0.1, relative=True, nowfun=lambda: now)
    assert every.is_due(now - timedelta(seconds=0.2)) == (True, 0.1)
    assert every.next_after(now) == now + timedelta(seconds=0.1)
