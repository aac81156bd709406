"""When something is due: intervals, crontab, cron strings, solar events, and what becomes of due times that were missed.

Everything here is a function of the points in time that it is given; the present time comes from the `nowfun` or the app of
a schedule, never from the operating system. `next_after(t)` is the heart of every schedule of ours: the first due time
after `t`. `is_due`, `remaining_estimate` and `now` are Celery's interface on top of it, which is all that a schedule written
by somebody else needs to have.

One rule for daylight saving time, that of Celery 5.7 (crontab, cron strings): a due time is a wall time, and the next one is
the first matching wall time after that of the last run. A wall time that the clock skips is taken as if the clock had not
been put forward (01:30 runs at 02:30). A wall time that comes twice is due the first time only.
"""

from __future__ import annotations

import json
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, timedelta, timezone, tzinfo
from itertools import takewhile
from math import isfinite
from typing import Any, Final, NamedTuple, TypeAlias
from zlib import crc32

from litetq.exceptions import ImproperlyConfigured

Cronspec: TypeAlias = "int | str | Iterable[int]"

_SECOND: Final = timedelta(seconds=1)
_MINUTE: Final = timedelta(minutes=1)
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
_MICROSECOND: Final = timedelta(microseconds=1)

_WEEKDAYS: Final = {name: n for n, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_MONTHS: Final = {
    name: n
    for n, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), start=1
    )
}
_LONGEST_MONTH: Final = dict(zip(range(1, 13), (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31), strict=True))


def _current_app() -> Any:
    """Return the package's current app, or None where the package is not whole. Looked up late: an import would go upwards."""
    return getattr(sys.modules.get(__package__), "current_app", None)


class schedstate(NamedTuple):
    """What `is_due` answers: whether to run now, and after how many seconds to ask again."""

    is_due: bool
    next: float


class ParseException(Exception):
    """A crontab expression cannot be read."""


# -- the schedules -------------------------------------------------------------------------------------------------


class BaseSchedule:
    """What all schedules share: where the present time and the time zone come from.

    A schedule of one's own overrides `is_due` (and, better, `remaining_estimate`), as in Celery.
    """

    _tz: tzinfo | None = None  # set by subclasses, also before they call this constructor

    def __init__(self, nowfun: Callable[[], datetime] | None = None, app: Any = None) -> None:
        self.nowfun = nowfun
        self._app = app

    @property
    def app(self) -> Any:
        """The app that was given, else the current one."""
        app = self._known_app()
        if app is None:
            raise RuntimeError(f"{self!r} has no app to ask for the time: give it app=... or nowfun=...")
        return app

    @app.setter
    def app(self, app: Any) -> None:
        self._app = app

    def _known_app(self) -> Any:
        return _current_app() if self._app is None else self._app

    @property
    def tz(self) -> tzinfo:
        """The time zone whose wall clock counts: the one that was set, else the app's."""
        if self._tz is not None:
            return self._tz
        app = self._known_app()
        zone: tzinfo = timezone.utc if app is None else app.timezone
        return zone

    @tz.setter
    def tz(self, tz: tzinfo) -> None:
        self._tz = tz

    @property
    def utc_enabled(self) -> bool:
        return bool(self.app.conf.enable_utc)

    def now(self) -> datetime:
        """Return the present time, from `nowfun` or the app."""
        if self.nowfun is not None:
            return self.nowfun()
        now: datetime = self.app.now()
        return now

    def to_local(self, dt: datetime) -> datetime:
        return dt if self.utc_enabled else _aware(dt, self.tz).astimezone(self.tz)

    def maybe_make_aware(self, dt: datetime, naive_as_utc: bool = True) -> datetime:
        """Return a naive point in time (UTC, or in the schedule's zone) as an aware one; an aware one as it is."""
        if dt.tzinfo is not None:
            return dt
        return dt.replace(tzinfo=timezone.utc).astimezone(self.tz) if naive_as_utc else dt.replace(tzinfo=self.tz)

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Return how long it is until the next run; negative when that is over."""
        raise NotImplementedError(f"{type(self).__name__} must define remaining_estimate(last_run_at)")

    def is_due(self, last_run_at: datetime) -> tuple[bool, float]:
        """Return whether to run now, and after how many seconds to ask again."""
        raise NotImplementedError(f"{type(self).__name__} must define is_due(last_run_at)")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, BaseSchedule):
            return other.nowfun == self.nowfun
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]


class _Known(BaseSchedule):
    """A schedule whose due times can be computed ahead of time; Celery's interface follows from `next_after`."""

    def next_after(self, last: datetime) -> datetime:
        """Return the first due time after `last`, in UTC."""
        raise NotImplementedError

    def anchor(self, last: datetime, point: datetime) -> datetime:
        """Return a point up to `point` from which `next_after` leads to the same due times as from `last`."""
        return point

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        last, now = self.maybe_make_aware(last_run_at), self.maybe_make_aware(self.now())
        return self.next_after(last) - now.astimezone(timezone.utc)

    def is_due(self, last_run_at: datetime) -> tuple[bool, float]:
        remaining = self.remaining_estimate(last_run_at).total_seconds()
        if remaining > 0:
            return schedstate(False, remaining)
        return schedstate(True, max(self.remaining_estimate(self.now()).total_seconds(), 0))


class schedule(_Known):
    """Every so many seconds.

    Args:
        run_every: seconds, or a timedelta.
        relative: round the due time down to a full day, hour or minute, whichever the interval reaches.
        nowfun: returns the present time, instead of the app.
        app: the app; its time zone counts with `relative`.
    """

    relative: bool = False

    def __init__(
        self,
        run_every: float | timedelta | None = None,
        relative: bool = False,
        nowfun: Callable[[], datetime] | None = None,
        app: Any = None,
    ) -> None:
        self.run_every: Any = timedelta(seconds=run_every) if isinstance(run_every, (int, float)) else run_every
        self.relative = relative
        super().__init__(nowfun=nowfun, app=app)

    def next_after(self, last: datetime) -> datetime:
        every: timedelta = self.run_every
        if self.relative:
            return rounded(last, every, self.tz)
        return _aware(last, self.tz).astimezone(timezone.utc) + every

    def anchor(self, last: datetime, point: datetime) -> datetime:
        every: timedelta = self.run_every
        return last + (point - last) // every * every if every > timedelta(0) else last

    def is_due(self, last_run_at: datetime) -> tuple[bool, float]:
        last = self.maybe_make_aware(last_run_at)
        remaining = max(self.remaining_estimate(last).total_seconds(), 0)
        if remaining > 0:
            return schedstate(False, remaining)
        ahead = self.remaining_estimate(self.now()).total_seconds() if self.relative else 0
        return schedstate(True, ahead if ahead > 0 else self.seconds)

    @property
    def seconds(self) -> float:
        """The interval in seconds, never negative."""
        return float(max(self.run_every.total_seconds(), 0))

    @property
    def human_seconds(self) -> str:
        return humanize_seconds(self.seconds)

    def __repr__(self) -> str:
        return f"<freq: {self.human_seconds}>"

    def __eq__(self, other: object) -> bool:
        return bool(self.run_every == (other.run_every if isinstance(other, schedule) else other))

    def __reduce__(self) -> Any:
        return self.__class__, (self.run_every, self.relative, self.nowfun)


class crontab(_Known):
    """At the minutes whose hour, day of the week, day of the month and month all match: Celery's crontab.

    Each field is a number, an iterable of numbers, or a text: `*`, `*/15`, `8-17`, `8-17/2`, `22-2` (over the end), names
    (`mon`, `sunday`, `jan`), and lists of these with commas. Weeks begin with Sunday, 0; there is no 7.

    Unlike cron, a day must match `day_of_month` *and* `day_of_week`: `crontab(0, 0, "fri", "13")` is Friday the 13th. For
    cron's own rule give a cron string instead (`cron`).

    Raises ParseException, ValueError or TypeError for a field that cannot be read, ValueError for days that never come.
    """

    def __init__(
        self,
        minute: Cronspec | None = "*",
        hour: Cronspec | None = "*",
        day_of_week: Cronspec | None = "*",
        day_of_month: Cronspec | None = "*",
        month_of_year: Cronspec | None = "*",
        **kwargs: Any,
    ) -> None:
        self._orig_minute = _field(minute)
        self._orig_hour = _field(hour)
        self._orig_day_of_week = _field(day_of_week)
        self._orig_day_of_month = _field(day_of_month)
        self._orig_month_of_year = _field(month_of_year)
        self._orig_kwargs = kwargs
        self.minute = self._numbers_of("minute", self._orig_minute, 60)
        self.hour = self._numbers_of("hour", self._orig_hour, 24)
        self.day_of_week = self._numbers_of("day_of_week", self._orig_day_of_week, 7)
        self.day_of_month = self._numbers_of("day_of_month", self._orig_day_of_month, 31, 1)
        self.month_of_year = self._numbers_of("month_of_year", self._orig_month_of_year, 12, 1)
        if not any(day <= _LONGEST_MONTH[month] for month in self.month_of_year for day in self.day_of_month):
            raise ValueError(
                f"Invalid crontab: day_of_month {self._orig_day_of_month!r} never occurs in "
                f"month_of_year {self._orig_month_of_year!r}."
            )
        for name in ("minute", "hour", "day_of_week"):
            if not getattr(self, name):
                raise ValueError(f"Invalid crontab: {name} is empty, so it would never run.")
        super().__init__(**kwargs)

    @classmethod
    def from_string(cls, crontab: str) -> crontab:
        """Return the crontab of five fields with one blank between them: minute hour day-of-month month day-of-week."""
        fields = crontab.split(" ")
        if len(fields) != 5:
            raise ValueError(
                f"Invalid crontab {crontab!r}: {len(fields)} fields instead of 5 "
                "(minute hour day_of_month month_of_year day_of_week, one blank between)."
            )
        minute, hour, day_of_month, month_of_year, day_of_week = fields
        return cls(minute, hour, day_of_week, day_of_month, month_of_year)

    def _numbers_of(self, name: str, cronspec: Cronspec, max_: int, min_: int = 0) -> set[int]:
        """Return the numbers that a field stands for; what is wrong with it is said with its name."""
        try:
            return self._expand_cronspec(cronspec, max_, min_)
        except (ParseException, TypeError, ValueError) as error:
            raise type(error)(f"Invalid crontab, {name}={cronspec!r}: {error}") from error

    @staticmethod
    def _expand_cronspec(cronspec: Cronspec, max_: int, min_: int = 0) -> set[int]:
        """Return the numbers that a field stands for."""
        if isinstance(cronspec, int):
            numbers = {cronspec}
        elif isinstance(cronspec, str):
            numbers = crontab_parser(max_, min_).parse(cronspec)
        elif isinstance(cronspec, Iterable):
            numbers = set(cronspec)
        else:
            raise TypeError(
                "Argument cronspec needs to be of any of the following types: "
                f"int, str, or an iterable type. {type(cronspec)!r} was given."
            )
        for number in numbers:
            if not isinstance(number, int):
                raise TypeError(f"Invalid crontab pattern. {number!r} in {cronspec!r} is no whole number.")
            if not min_ <= number < max_ + min_:
                raise ValueError(
                    f"Invalid crontab pattern.  Valid range is {min_}-{max_ - 1 + min_}. {str(number)!r} was found."
                )
        return numbers

    def next_after(self, last: datetime) -> datetime:
        return _first_after(last, self.tz, self._walls)

    def remaining_delta(
        self, last_run_at: datetime, tz: str | tzinfo | None = None, ffwd: Any = None
    ) -> tuple[datetime, timedelta, datetime]:
        """Return the last run and the present time in the schedule's zone, and what to add to the first for the next run."""
        zone = self.tz if tz is None else zone_of(tz)
        last = self.maybe_make_aware(last_run_at).astimezone(zone)
        now = self.maybe_make_aware(self.now()).astimezone(zone)
        wall = last.replace(tzinfo=None, fold=0)
        return last, next(self._walls(wall)) - wall, now

    def is_due(self, last_run_at: datetime) -> tuple[bool, float]:
        """Return whether to run now, and after how many seconds to ask again.

        With the setting `beat_cron_starting_deadline`, a run that was missed by more than so many seconds is not due.
        """
        due, after = super().is_due(last_run_at)
        app = self._known_app()
        deadline = None if app is None else app.conf.beat_cron_starting_deadline
        if due and deadline is not None and self.remaining_estimate(last_run_at) < timedelta(0):
            seconds = deadline.total_seconds() if isinstance(deadline, timedelta) else float(deadline)
            now = self.maybe_make_aware(self.now()).astimezone(timezone.utc)
            if self.next_after(now - timedelta(seconds=seconds) - _MICROSECOND) > now:
                due = False
        return schedstate(due, after)

    def _walls(self, wall: datetime) -> Iterator[datetime]:
        """Yield the matching wall times after `wall`, in order, without end."""
        minutes, hours = sorted(self.minute), sorted(self.hour)
        day = wall.date()
        while True:
            if self._has_day(day):
                for hour in hours:
                    for minute in minutes:
                        found = datetime(day.year, day.month, day.day, hour, minute)
                        if found > wall:
                            yield found
            day = self._day_after(day)

    def _has_day(self, day: date) -> bool:
        return (
            day.month in self.month_of_year
            and day.day in self.day_of_month
            and day.isoweekday() % 7 in self.day_of_week
        )

    def _day_after(self, day: date) -> date:
        """Return the next day of a month that matches."""
        day += _DAY
        while day.month not in self.month_of_year:
            day = date(day.year + day.month // 12, day.month % 12 + 1, 1)
        return day

    def __repr__(self) -> str:
        return (
            f"<crontab: {self._orig_minute} {self._orig_hour} {self._orig_day_of_month} {self._orig_month_of_year} "
            f"{self._orig_day_of_week} (m/h/dM/MY/d)>"
        )

    def __eq__(self, other: object) -> bool:
        if isinstance(other, crontab):
            return (
                other.month_of_year == self.month_of_year
                and other.day_of_month == self.day_of_month
                and other.day_of_week == self.day_of_week
                and other.hour == self.hour
                and other.minute == self.minute
                and bool(super().__eq__(other))
            )
        return NotImplemented

    def __reduce__(self) -> Any:
        fields = (
            self._orig_minute,
            self._orig_hour,
            self._orig_day_of_week,
            self._orig_day_of_month,
            self._orig_month_of_year,
        )
        return self.__class__, fields, self._orig_kwargs

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        super().__init__(**state)
        self._orig_kwargs = dict(state)


class crontab_parser:
    """Reads one field of a crontab: `crontab_parser(60).parse("*/15")` is `{0, 15, 30, 45}`.

    Args:
        max_: how many values the field has.
        min_: the first of them (1 for days and months).
    """

    ParseException = ParseException

    # What follows a part that was understood is not looked at, as in Celery: "1-5-7" is 1-5.
    _RANGE: Final = re.compile(r"(\w+?)-(\w+)(/(\w+)?)?")
    _STAR: Final = re.compile(r"\*/(\w+)?")

    def __init__(self, max_: int = 60, min_: int = 0) -> None:
        self.max_ = max_
        self.min_ = min_

    def parse(self, spec: str) -> set[int]:
        """Return the numbers that the field stands for.

        Raises ParseException for an empty part or step or a negative number, ValueError for anything else that is wrong.
        """
        numbers: set[int] = set()
        for part in spec.split(","):
            if not part:
                raise self.ParseException("empty part")
            numbers.update(self._part(part))
        return numbers

    def _part(self, part: str) -> range | list[int]:
        if part == "*":
            return self._all()
        if (star := self._STAR.match(part)) is not None:
            if not star[1]:
                raise self.ParseException("empty filter")
            return self._all()[:: int(star[1])]
        if (span := self._RANGE.match(part)) is not None:
            if span[3] == "/":
                raise self.ParseException("empty filter")
            numbers = self._span(self._number(span[1]), self._number(span[2]))
            return numbers if span[3] is None else numbers[:: int(span[4])]
        return [self._number(part)]

    def _all(self) -> range:
        return range(self.min_, self.min_ + self.max_)

    def _span(self, first: int, last: int) -> list[int]:
        if first <= last:
            return list(range(first, last + 1))
        return [*range(first, self.min_ + self.max_), *range(self.min_, last + 1)]  # over the end: 22-2, fri-mon

    def _number(self, text: str) -> int:
        if text.startswith("-"):
            raise self.ParseException("negative numbers not supported")
        try:
            number = int(text)
        except ValueError:
            name = text[:3].lower()
            if name not in _MONTHS and name not in _WEEKDAYS:
                raise ValueError(f"Invalid weekday literal {text!r}.") from None
            number = _MONTHS[name] if name in _MONTHS else _WEEKDAYS[name]
        last = self.min_ + self.max_ - 1
        if number > last:
            raise ValueError(f"Invalid end range: {number} > {last}.")
        if number < self.min_:
            raise ValueError(f"Invalid beginning range: {number} < {self.min_}.")
        return number


class cron(_Known):
    """What a text as the schedule of an entry means: standard cron, `"*/5 9-17 * * mon-fri"` or `"@hourly"`.

    Five fields: minute, hour, day of the month, month, day of the week. As in cron, and other than in `crontab`, a day may
    match its day of the month *or* its day of the week where both are given, and 7 is Sunday, too.

    Raises ValueError for a text that is no cron line, or that never comes.
    """

    NAMES: Final = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")

    def __init__(
        self, expression: str, *, nowfun: Callable[[], datetime] | None = None, app: Any = None, **_: Any
    ) -> None:
        self.expression = " ".join(expression.split())
        self._check()
        super().__init__(nowfun=nowfun, app=app)

    def _check(self) -> None:
        from croniter import CroniterBadDateError, CroniterError

        if self.expression.startswith("@"):
            if self.expression not in self.NAMES:
                raise ValueError(f"{self.expression!r} is no schedule; of this form there are {', '.join(self.NAMES)}")
        else:
            self._check_fields(self.expression.split())
        try:
            next(self._walls(datetime(2000, 1, 1)))
        except CroniterBadDateError:
            raise ValueError(f"the cron line {self.expression!r} names days that never come") from None
        except CroniterError as error:
            raise ValueError(f"{self.expression!r} is no cron line: {error}") from None

    def _check_fields(self, fields: list[str]) -> None:
        if len(fields) != 5:
            raise ValueError(
                f"{self.expression!r} is no cron line: {len(fields)} fields instead of 5 "
                "(minute hour day-of-month month day-of-week)"
            )
        for word in re.findall(r"[A-Za-z]+", self.expression):
            if word[:3].lower() not in _MONTHS.keys() | _WEEKDAYS.keys() and word.lower() != "l":
                raise ValueError(
                    f"{self.expression!r} is no cron line: {word!r} is neither a month nor a day of the week"
                )

    def next_after(self, last: datetime) -> datetime:
        return _first_after(last, self.tz, self._walls)

    def _walls(self, wall: datetime) -> Iterator[datetime]:
        from croniter import croniter  # 15 ms of import time, for those who use cron strings

        lines = croniter(self.expression, wall, ret_type=datetime, day_or=True)
        while True:
            yield lines.get_next()

    def __repr__(self) -> str:
        return f"<cron: {self.expression}>"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, cron):
            return self.expression == other.expression and bool(super().__eq__(other))
        return NotImplemented

    def __reduce__(self) -> Any:
        return cron, (self.expression,)


class _SolarEvent(NamedTuple):
    horizon: str  # of the sun, in ephem's notation
    method: str
    use_center: bool


class solar(_Known):
    """At an event of the sun: dawn, sunrise, noon, sunset, dusk. Needs the package ephem (`pip install litetq[solar]`).

    Where an event does not come every day (polar summer and winter), the next day on which it does counts.

    Args:
        event: one of `solar.EVENTS`.
        lat: latitude, degrees north.
        lon: longitude, degrees east.
    """

    EVENTS: Final = {
        "dawn_astronomical": _SolarEvent("-18", "next_rising", True),
        "dawn_nautical": _SolarEvent("-12", "next_rising", True),
        "dawn_civil": _SolarEvent("-6", "next_rising", True),
        "sunrise": _SolarEvent("-0:34", "next_rising", False),
        "solar_noon": _SolarEvent("0", "next_transit", False),
        "sunset": _SolarEvent("-0:34", "next_setting", False),
        "dusk_civil": _SolarEvent("-6", "next_setting", True),
        "dusk_nautical": _SolarEvent("-12", "next_setting", True),
        "dusk_astronomical": _SolarEvent("-18", "next_setting", True),
    }
    max_search_days: int = 366

    def __init__(self, event: str, lat: float, lon: float, **kwargs: Any) -> None:
        try:
            self.ephem: Any = __import__("ephem")
        except ImportError as error:
            raise ImproperlyConfigured(
                "solar schedules need the package ephem, which is not installed: pip install 'litetq[solar]'"
            ) from error
        if event not in self.EVENTS:
            raise ValueError(f'Argument event "{event}" is invalid, must be one of {", ".join(sorted(self.EVENTS))}.')
        if not -90 <= lat <= 90:
            raise ValueError(f"Argument latitude {lat} is invalid, must be between -90 and 90.")
        if not -180 <= lon <= 180:
            raise ValueError(f"Argument longitude {lon} is invalid, must be between -180 and 180.")
        self.event = event
        self.lat = lat
        self.lon = lon
        super().__init__(**kwargs)

    def next_after(self, last: datetime) -> datetime:
        event = self.EVENTS[self.event]
        observer = self.ephem.Observer()
        observer.lat, observer.lon = str(self.lat), str(self.lon)
        observer.elev, observer.pressure, observer.horizon = 0, 0, event.horizon
        start = self.ephem.Date(_aware(last, self.tz).astimezone(timezone.utc))
        sun = self.ephem.Sun()
        options = {"use_center": True} if event.use_center else {}
        for _ in range(self.max_search_days):
            try:
                found = getattr(observer, event.method)(sun, start=start, **options)
                break
            except self.ephem.CircumpolarError:
                start = self.ephem.Date(observer.next_antitransit(sun, start=start))
        else:
            found = start
        point: datetime = found.datetime().replace(tzinfo=timezone.utc)
        return point

    def __repr__(self) -> str:
        return f"<solar: {self.event} at latitude {self.lat}, longitude: {self.lon}>"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, solar):
            return (other.event, other.lat, other.lon) == (self.event, self.lat, self.lon)
        return NotImplemented

    def __reduce__(self) -> Any:
        return self.__class__, (self.event, self.lat, self.lon)


def maybe_schedule(s: Any, relative: bool = False, app: Any = None) -> Any:
    """Return the schedule that a number of seconds, a timedelta or a cron line stands for; a schedule as it is.

    Raises TypeError for what cannot be a schedule.
    """
    if s is None:
        return None
    if isinstance(s, bool):
        raise TypeError(
            f"{s!r} is no schedule; give seconds, a timedelta, a cron line, or a schedule like crontab(...)"
        )
    if isinstance(s, (int, float)):
        s = timedelta(seconds=s)
    if isinstance(s, timedelta):
        return schedule(s, relative, app=app)
    if isinstance(s, str):
        return cron(s, app=app)
    if not hasattr(s, "is_due"):
        raise TypeError(
            f"{s!r} is no schedule; give seconds, a timedelta, a cron line, or a schedule like crontab(...)"
        )
    if app is not None:
        s.app = app
    return s


def humanize_seconds(seconds: float) -> str:
    """Return a span in its largest unit: 90 is "1.50 minutes"."""
    seconds = round(float(seconds), 2)
    for unit, size in (("day", 86_400.0), ("hour", 3_600.0), ("minute", 60.0), ("second", 1.0)):
        if seconds >= size:
            count = seconds / size
            return f"{count:.2f} {unit}{'s' if count > 1 else ''}"
    return f"{seconds:g} seconds" if seconds > 0 else "now"


# -- wall times and points in time ---------------------------------------------------------------------------------


def _first_after(last: datetime, zone: tzinfo, walls: Callable[[datetime], Iterator[datetime]]) -> datetime:
    """Return the first wall time after that of `last`, as a point in time after `last`: the rule of this room."""
    local = _aware(last, zone).astimezone(zone)
    for wall in walls(local.replace(tzinfo=None, fold=0)):
        point = wall.replace(tzinfo=zone, fold=0).astimezone(timezone.utc)
        # A run in the second of two equal hours (of a new entry, say): what lies in the first one is over.
        if point > local.astimezone(timezone.utc):
            return point
    raise ValueError("no wall time is left")


def rounded(last: datetime, every: timedelta, zone: tzinfo) -> datetime:
    """Return the last full day, hour, minute or second up to `last + every`, by the wall clock, but after `last`.

    What is shorter than a second is not rounded.
    """
    start = _aware(last, zone).astimezone(timezone.utc)
    if every < _SECOND:
        return start + every
    if every >= _DAY:
        end = start.astimezone(zone).replace(tzinfo=None, fold=0) + every  # calendar days, however long they are
        midnight = end.replace(hour=0, minute=0, second=0, microsecond=0)
        return min((point for point in _occurrences(midnight, zone) if point > start), default=start + every)
    end = start + every
    points = _occurrences(_floor(end.astimezone(zone), every), zone)
    found = max((point for point in points if point <= end), default=min(points))
    if found > start:
        return found
    # Where the clock was put back, the full hour may lie before the start: the next one by the clock counts.
    unit = _HOUR if every >= _HOUR else _MINUTE if every >= _MINUTE else _SECOND
    for wall in (end.astimezone(zone) + unit, start.astimezone(zone) + every):
        points += _occurrences(_floor(wall, every), zone)
    future = [point for point in points if point > start]
    return max((point for point in future if point <= end), default=min(future, default=end))


def _floor(wall: datetime, every: timedelta) -> datetime:
    """Return a wall time rounded down to the full hour, minute or second, whichever the interval reaches."""
    floor = wall.replace(tzinfo=None, fold=0, microsecond=0)
    if every >= _MINUTE:
        floor = floor.replace(second=0)
    return floor.replace(minute=0) if every >= _HOUR else floor


def _occurrences(wall: datetime, zone: tzinfo) -> list[datetime]:
    """Return when a wall clock shows this: twice where it is put back; where it is put forward over it, the first time after."""
    points = [wall.replace(tzinfo=zone, fold=fold).astimezone(timezone.utc) for fold in (0, 1)]
    return [point for point in points if point.astimezone(zone).replace(tzinfo=None) == wall] or points[:1]


def _aware(point: datetime, zone: tzinfo) -> datetime:
    return point if point.tzinfo is not None else point.replace(tzinfo=timezone.utc).astimezone(zone)


def zone_of(tz: str | tzinfo) -> tzinfo:
    """Return a time zone that is given by its name."""
    if isinstance(tz, str):
        from zoneinfo import ZoneInfo

        return ZoneInfo(tz)
    return tz


def _field(spec: Cronspec | None) -> Cronspec:
    if spec is None:
        return "*"
    return sorted(spec) if isinstance(spec, Iterator) else spec  # an iterator can be read once


def utc(seconds: float) -> datetime:
    """Return UTC seconds as a point in time."""
    return datetime.fromtimestamp(seconds, timezone.utc)


# -- schedules as text ---------------------------------------------------------------------------------------------


def to_text(s: Any) -> str | None:
    """Return a schedule as the file keeps it (JSON), or None when it is of a kind that only its program knows."""
    kind = type(s)
    if kind is schedule:
        spec: dict[str, Any] = {"every": s.run_every.total_seconds()}
        if s.relative:
            spec["relative"] = True
    elif kind is crontab and set(s._orig_kwargs) <= {"app"}:
        spec = {
            name: _plain(getattr(s, f"_orig_{name}"))
            for name in ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")
            if getattr(s, f"_orig_{name}") != "*"
        }
        spec = {"crontab": spec}
    elif kind is cron:
        spec = {"cron": s.expression}
    elif kind is solar:
        spec = {"solar": [s.event, s.lat, s.lon]}
    else:
        return None
    return None if s.nowfun is not None else json.dumps(spec)


def from_text(text: str, app: Any = None) -> Any:
    """Return the schedule that `to_text` wrote; ValueError when it cannot be read."""
    spec = json.loads(text)
    if "every" in spec:
        return schedule(spec["every"], bool(spec.get("relative")), app=app)
    if "crontab" in spec:
        return crontab(**spec["crontab"], app=app)
    if "cron" in spec:
        return cron(spec["cron"], app=app)
    if "solar" in spec:
        return solar(*spec["solar"], app=app)
    raise ValueError(f"{text!r} is no schedule that this version knows")


def _plain(spec: Cronspec) -> Any:
    return spec if isinstance(spec, (int, str)) else sorted(set(spec))


def in_words(s: Any) -> str:
    """Return when a schedule is due, for people."""
    if isinstance(s, schedule):
        seconds = s.seconds
        count, unit = next(
            ((seconds / size, name) for name, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)) if not seconds % size and seconds),
            (seconds, "second"),
        )  # fmt: skip
        span = unit if count == 1 else f"{count:g} {unit}s"
        return f"every {span}{', on the full ' + _unit_of(s.run_every) if s.relative else ''}"
    if isinstance(s, crontab):
        shown = (s._orig_minute, s._orig_hour, s._orig_day_of_month, s._orig_month_of_year, s._orig_day_of_week)
        return "crontab " + " ".join(_shown(field) for field in shown)
    if isinstance(s, cron):
        return f"cron {s.expression}"
    if isinstance(s, solar):
        return f"{s.event.replace('_', ' ')} at {s.lat:g} {s.lon:g}"
    return repr(s)


def _unit_of(every: timedelta) -> str:
    return "day" if every >= _DAY else "hour" if every >= _HOUR else "minute" if every >= _MINUTE else "second"


def _shown(field: Cronspec) -> str:
    return str(field) if isinstance(field, (int, str)) else ",".join(map(str, sorted(set(field))))


# -- what becomes of due times -------------------------------------------------------------------------------------

CATCH_UP: Final = ("none", "last", "all")
OVERLAP: Final = ("allow", "skip", "queue_one")
GRACE_S: Final = 5.0  # arbitrary: up to here a due time is late because the machine is busy, beyond it was missed


class Policy(NamedTuple):
    """What an entry wants of beat beside its schedule."""

    catch_up: str = "last"  # of the due times that were missed: "none" runs, the "last" one, or "all"
    catch_up_limit: int = 1000  # "all": at most so many, the newest
    overlap: str = "allow"  # while the previous run is unfinished: "allow" another one, "skip" it, or "queue_one"
    jitter: float = 0.0  # seconds: each run comes up to so much later, by chance
    deadline: float | None = None  # seconds: a due time later than that is not run any more
    starts_at: float | None = None  # UTC seconds: no due time before
    ends_at: float | None = None  # UTC seconds: no due time after

    def to_text(self) -> str | None:
        """Return what differs from the defaults, as JSON; None when nothing does."""
        own = {name: value for name, value in self._asdict().items() if value != _DEFAULTS[name]}
        return json.dumps(own) if own else None

    @classmethod
    def from_text(cls, text: str | None) -> Policy:
        return cls() if text is None else cls(**json.loads(text))


_DEFAULTS: Final = Policy()._asdict()


def policy_of(options: Mapping[str, Any], where: str) -> Policy:
    """Return the policy that these options ask for.

    Args:
        options: any of Policy's fields; spans as seconds or timedelta, points in time as datetime, ISO text or UTC seconds.
        where: the entry's name in words, for the error.
    Raises ImproperlyConfigured for a wrong value.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for name in given.keys() - _DEFAULTS.keys():
        raise ImproperlyConfigured(f"{where}: there is no option {name!r}; there are {', '.join(_DEFAULTS)}")
    for name, allowed in (("catch_up", CATCH_UP), ("overlap", OVERLAP)):
        if name in given and given[name] not in allowed:
            raise ImproperlyConfigured(f"{where}: {name}={given[name]!r} is not one of {', '.join(allowed)}")
    for name in given.keys() & {"jitter", "deadline"}:
        given[name] = _span(given[name], f"{where}: {name}")
    for name in given.keys() & {"starts_at", "ends_at"}:
        given[name] = _point(given[name], f"{where}: {name}")
    limit = given.get("catch_up_limit", 1)
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ImproperlyConfigured(f"{where}: catch_up_limit={limit!r} is not a whole number from 1 up")
    return Policy(**given)


def _span(value: Any, what: str) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not isfinite(seconds) or seconds < 0:
        raise ImproperlyConfigured(f"{what}={value!r} is not a number of seconds from 0 up, nor such a timedelta")
    return float(seconds)


def _point(value: Any, what: str) -> float:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value[:-1] + "+00:00" if value.endswith("Z") else value)
        except ValueError:
            raise ImproperlyConfigured(f"{what}={value!r} is no date; write it like 2026-03-29T01:30+01:00") from None
    if isinstance(value, datetime):
        return _aware(value, timezone.utc).timestamp()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ImproperlyConfigured(f"{what}={value!r} is no point in time; give a datetime")
    return float(value)


class Decision(NamedTuple):
    """What beat has to do about one entry now."""

    run: list[float]  # due times to enqueue now, in this order; UTC seconds
    skipped: int  # due times that are not run; the count stops a little beyond the limit
    last_skipped: float | None
    reason: str  # why they are not, in words
    next_due: float | None  # the first due time after all these; None: never again


def is_known(s: Any) -> bool:
    """Return whether the due times of a schedule can be computed ahead; else it must be asked again and again."""
    kind = type(s)
    if not isinstance(s, _Known) or s.nowfun is not None:
        return False
    owner = next(base for base in kind.__mro__ if base in (schedule, crontab, cron, solar))
    return all(getattr(kind, name) is getattr(owner, name) for name in ("is_due", "remaining_estimate", "next_after"))


def check_interval(s: Any) -> None:
    """Raise ValueError for an interval that does not go forward."""
    if isinstance(s, schedule) and not s.run_every > timedelta(0):
        raise ValueError(f"an interval of {s.run_every.total_seconds():g} seconds would never end; give more than 0")


def first_due(s: Any, now: float, policy: Policy) -> float | None:
    """Return the first due time of an entry that is new, or whose schedule was changed, at `now`."""
    check_interval(s)
    if policy.starts_at is not None and policy.starts_at > now:
        if isinstance(s, schedule) and not s.relative:
            return _bounded(policy.starts_at, policy)
        return _bounded(_timestamp(s.next_after(utc(policy.starts_at) - _MICROSECOND)), policy)
    return _bounded(_timestamp(s.next_after(utc(now))), policy)


def decide(
    s: Any, due: float, now: float, policy: Policy, late: Callable[[float], float] = lambda due: 0.0
) -> Decision:
    """Return what to do about the due times from `due` up to `now`.

    Due times that are at most GRACE_S late are all run, in their order: nothing was missed, the machine was busy. Where the
    oldest is later, beat was not there, and `catch_up` decides.

    Args:
        s: a schedule that is known ahead.
        due: the first due time that nothing was done about, up to `now`.
        late: how many seconds after a due time its run is to come (jitter).
    """
    last = now if policy.ends_at is None else min(now, policy.ends_at)
    dues = list(takewhile(lambda point: point + late(point) <= now, missed(s, due, last, policy.catch_up_limit)))
    if not dues:
        return Decision([], 0, None, "", _bounded(due, policy))
    next_due = _bounded(_timestamp(s.next_after(utc(dues[-1]))), policy)
    run, reason = _chosen(dues, dues[0] > due, now, policy, late)
    kept = set(run)
    skipped = [point for point in dues if point not in kept]
    return Decision(run, len(skipped) + (dues[0] > due), skipped[-1] if skipped else None, reason, next_due)


def _chosen(
    dues: list[float], more: bool, now: float, policy: Policy, late: Callable[[float], float]
) -> tuple[list[float], str]:
    oldest = now - dues[0] - late(dues[0])
    if not more and oldest <= (GRACE_S if policy.deadline is None else min(GRACE_S, policy.deadline)):
        return dues, ""
    limit = policy.deadline
    if policy.catch_up == "none":
        limit = GRACE_S if limit is None else limit
        if len(dues) > 1 or oldest > limit:
            return [], "missed while beat was away (catch_up=none)"
    if limit is not None:
        in_time = [point for point in dues if now - point - late(point) <= limit]
        if not in_time:
            return [], f"more than {limit:g} s late (deadline)"
        dues = in_time
    if policy.catch_up == "all":
        return dues, f"missed while beat was away, beyond the newest {len(dues)} (catch_up_limit or deadline)"
    return dues[-1:], "missed while beat was away, of which the last one runs (catch_up=last)"


def missed(s: Any, due: float, now: float, limit: int) -> list[float]:
    """Return the due times from `due` up to `now`, in order; where there are more than `limit`, the newest ones."""
    window = 60.0
    while True:
        start = s.anchor(utc(due), utc(now - window)) if now - window > due else None
        found: deque[float] = deque([due] if start is None and due <= now else [], maxlen=limit)
        point = utc(due) if start is None else start
        while (point := s.next_after(point)) <= utc(now):
            found.append(_timestamp(point))
        if start is None or len(found) == limit:
            return list(found)
        window *= 4


def _bounded(due: float, policy: Policy) -> float | None:
    return None if policy.ends_at is not None and due > policy.ends_at else due


def _timestamp(point: datetime) -> float:
    return point.timestamp()


def jitter_of(name: str, due: float, jitter: float) -> float:
    """Return how many seconds after `due` the run is to come: by chance, and the same for every beat that asks."""
    return jitter * crc32(f"{name}\n{due!r}".encode()) / 2**32
