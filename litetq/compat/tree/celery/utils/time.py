"""Times, spans and time zones."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from datetime import timezone as _zones
from typing import Any

from litetq.lanes import interval_of
from litetq.retry import get_exponential_backoff_interval
from litetq.schedules import humanize_seconds as _in_words
from litetq.schedules import rounded, zone_of

__all__ = [
    "add_seconds_to_datetime", "adjust_timestamp", "delta_resolution", "ffwd", "get_exponential_backoff_interval",
    "humanize_seconds", "is_naive", "localize", "make_aware", "maybe_iso8601", "maybe_make_aware", "maybe_timedelta", "rate",
    "remaining", "subtract_datetimes", "timezone", "to_utc", "utcoffset", "weekday",
]  # fmt: skip

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


class _Zones:
    """Time zones: `timezone.utc`, `timezone.local`, `timezone.get_timezone(name)`."""

    @property
    def utc(self) -> tzinfo:
        return zone_of("UTC")

    @property
    def local(self) -> tzinfo:
        """The machine's."""
        found = datetime.now().astimezone().tzinfo
        assert found is not None
        return found

    def get_timezone(self, zone: Any) -> Any:
        """Return the zone of this name; a zone as it is."""
        return zone_of(zone) if isinstance(zone, str) else zone

    def tz_or_local(self, tzinfo: Any = None) -> Any:
        """Return this zone, or the machine's."""
        return self.local if tzinfo is None else self.get_timezone(tzinfo)

    def to_local(self, dt: datetime, local: Any = None, orig: Any = None) -> datetime:
        """Return a time in the local zone; a naive one is of `orig`, by default UTC."""
        aware = make_aware(dt, orig or self.utc) if is_naive(dt) else dt
        return localize(aware, self.tz_or_local(local))

    def to_system(self, dt: datetime) -> datetime:
        """Return a time in the machine's zone."""
        return dt.astimezone()

    def to_local_fallback(self, dt: datetime) -> datetime:
        """Return a time in the machine's zone, which a naive one is of already."""
        return make_aware(dt, self.local) if is_naive(dt) else localize(dt, self.local)


timezone = _Zones()


def maybe_timedelta(delta: Any) -> Any:
    """Return seconds as a span; anything else as it is."""
    return timedelta(seconds=delta) if isinstance(delta, (int, float)) else delta


def delta_resolution(dt: datetime, delta: timedelta) -> datetime:
    """Return a time cut down to days, hours or minutes, whichever the span is at least."""
    seconds = max(delta.total_seconds(), 0)
    for unit, kept in ((86400, 3), (3600, 4), (60, 5)):
        if seconds >= unit:
            parts = ("hour", "minute", "second", "microsecond")[kept - 3 :]
            return dt.replace(**dict.fromkeys(parts, 0))  # type: ignore[arg-type]
    return dt


def remaining(start: datetime, ends_in: timedelta, now: Any = None, relative: bool = False) -> timedelta:
    """Return the span from now until `ends_in` after `start`, however the clocks are changed meanwhile.

    With `relative` the end is cut down to the unit of the span, by the clock of `start`. A naive time is of this machine.
    """
    at = now() if callable(now) else now or datetime.now(_zones.utc)
    if not isinstance(ends_in, timedelta):  # a step to a wall time
        end = start + ends_in
    elif relative:
        here = start.astimezone() if start.tzinfo is None else start
        end = rounded(here, ends_in, here.tzinfo or _zones.utc)
    else:
        end = start.astimezone(_zones.utc) + ends_in
    return end.astimezone(_zones.utc) - at.astimezone(_zones.utc)


def add_seconds_to_datetime(dt: datetime, seconds: float) -> datetime:
    """Return the time so many seconds later, in the same zone."""
    span = timedelta(seconds=seconds)
    return dt + span if is_naive(dt) else (dt.astimezone(_zones.utc) + span).astimezone(dt.tzinfo)


def subtract_datetimes(end: datetime, start: datetime) -> timedelta:
    """Return the time that has passed between two times; a naive one is UTC."""
    return maybe_make_aware(end).astimezone(_zones.utc) - maybe_make_aware(start).astimezone(_zones.utc)


def rate(r: Any) -> float:
    """Return tasks a second of a rate such as "100/m"; 0 for none."""
    if isinstance(r, (int, float)):
        return r
    interval = interval_of(r) if r else None
    return 1 / interval if interval else 0


def weekday(name: str) -> int:
    """Return the number of a day, 0 is Sunday; KeyError for what is none."""
    try:
        return _DAYS.index(name[:3].lower())
    except ValueError:
        raise KeyError(name) from None


def humanize_seconds(secs: float, prefix: str = "", sep: str = "", now: str = "now", microseconds: bool = False) -> str:
    """Return a span in words."""
    if not secs or secs < 0 or (secs < 1 and not microseconds):
        return now
    return f"{prefix}{sep}{_in_words(secs)}"


def maybe_iso8601(dt: Any) -> Any:
    """Return a time written as text as a time; None and times as they are."""
    if not dt or isinstance(dt, datetime):
        return dt or None
    return datetime.fromisoformat(dt.replace("Z", "+00:00"))


def is_naive(dt: datetime) -> bool:
    """Return whether a time has no zone."""
    return dt.tzinfo is None or dt.tzinfo.utcoffset(dt) is None


def make_aware(dt: datetime, tz: tzinfo) -> datetime:
    """Return a naive time as one of this zone: the earlier one where the clocks show it twice, the later one where never."""
    aware = dt.replace(tzinfo=tz)
    try:
        moved = aware.astimezone(_zones.utc).astimezone(tz)
    except (NotImplementedError, ValueError):  # a zone that cannot say what its clocks show
        return aware
    return moved if moved.replace(tzinfo=None) > dt.replace(tzinfo=None) else aware


def localize(dt: datetime, tz: tzinfo) -> datetime:
    """Return a time as the clocks of this zone show it."""
    return dt.astimezone(tz)


def to_utc(dt: datetime) -> datetime:
    """Return a naive time as UTC."""
    return make_aware(dt, timezone.utc)


def maybe_make_aware(dt: datetime, tz: Any = None, naive_as_utc: bool = True) -> datetime:
    """Return a time with a zone: a naive one is UTC (or of the zone), and is shown in the zone if one is given."""
    if is_naive(dt):
        dt = to_utc(dt) if naive_as_utc or tz is None else make_aware(dt, timezone.get_timezone(tz))
    return localize(dt, timezone.get_timezone(tz)) if tz is not None else dt


def utcoffset(time: Any = None, localtime: Any = None) -> int:
    """Return by how many hours the machine's clock is behind UTC."""
    from litetq.events import utcoffset as of_machine

    return of_machine()


def adjust_timestamp(ts: float, offset: int, here: Any = utcoffset) -> float:
    """Return a time stamp of a machine with this offset as one of this machine."""
    return ts - (offset - int(here())) * 3600


class ffwd:
    """A step to a wall time, as schedules of other packages add it: `time + ffwd(hour=3, minute=0)`."""

    def __init__(
        self,
        year: int | None = None,
        month: int | None = None,
        weeks: int = 0,
        weekday: int | None = None,
        day: int | None = None,
        hour: int | None = None,
        minute: int | None = None,
        second: int | None = None,
        microsecond: int | None = None,
        **_: Any,
    ) -> None:
        self.fields = {
            "year": year, "month": month, "day": day, "hour": hour, "minute": minute, "second": second,
            "microsecond": microsecond,
        }  # fmt: skip
        self.weeks = weeks
        self.weekday = weekday

    def __radd__(self, other: Any) -> datetime:
        if not isinstance(other, datetime):
            return NotImplemented
        at: datetime = other.replace(**{name: value for name, value in self.fields.items() if value is not None})  # type: ignore[arg-type]
        at += timedelta(days=self.weeks * 7)
        return at if self.weekday is None else at + timedelta(days=(self.weekday - at.weekday()) % 7)
