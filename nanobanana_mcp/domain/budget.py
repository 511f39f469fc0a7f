"""The rules of money: how much may be spent and how often Gemini may be called in a window of time, and what is said
when a limit is reached.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate

from nanobanana_mcp.domain.errors import BudgetExceeded
from nanobanana_mcp.domain.text import counted, waiting

WARN_FROM = 0.8
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """USD per request, per rolling hour and per UTC day; calls to Gemini per rolling minute. None: no limit."""

    per_call_usd: float | None = None
    per_hour_usd: float | None = None
    per_day_usd: float | None = None
    calls_per_minute: int | None = None


@dataclass(frozen=True, kw_only=True)
class Spending:
    """The money and calls that are reserved or spent: for the last hour the moments and their USD, for the last minute
    the moments and their calls (both oldest first), and the sum of the UTC day. Entries of one moment leave the window
    together.
    """

    hour: tuple[tuple[datetime, float], ...] = ()
    minute: tuple[tuple[datetime, int], ...] = ()
    day_usd: float = 0.0

    @property
    def hour_usd(self) -> float:
        return round(sum(usd for _, usd in self.hour), 6)

    @property
    def minute_calls(self) -> int:
        return sum(calls for _, calls in self.minute)


@dataclass(frozen=True, kw_only=True)
class Dated:
    """The moments when an entry was made and when it was first seen to lie in the future, after the clock was set back."""

    made_at: datetime
    seen_at: datetime | None

    def counts_from(self, at: datetime, since: datetime, near: datetime) -> datetime | None:
        """The moment from which this entry counts in a window that began at `since`; None when it does not count.

        An entry ahead of `at` counts as made now, so that setting the clock back opens no window. An entry more than
        `near` ahead counts so only for the length of one window after it was first seen: a clock that was once a year
        ahead must not block spending for a year.
        """
        if self.made_at <= at:
            return self.made_at if self.made_at >= since else None
        if self.made_at <= near:
            return at
        if self.seen_at is None or self.seen_at > at:
            return at
        return self.seen_at if self.seen_at >= since else None


def day_start(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def check(limits: Limits, spending: Spending, *, wanted_usd: float, calls: int, at: datetime) -> list[str]:
    """Warnings for what comes close. Raises BudgetExceeded naming the limit, the numbers and when it resets."""
    windows = (
        ("request", "NANOBANANA_MAX_USD_PER_CALL", limits.per_call_usd, 0.0, at),
        ("hour", "NANOBANANA_MAX_USD_PER_HOUR", limits.per_hour_usd, spending.hour_usd,
         _hour_resets(limits.per_hour_usd, spending, wanted_usd, at)),
        ("day", "NANOBANANA_MAX_USD_PER_DAY", limits.per_day_usd, spending.day_usd, day_start(at) + timedelta(days=1)),
    )  # fmt: skip
    warnings = []
    for name, setting, limit, spent, resets in windows:
        if limit is None:
            continue
        if wanted_usd > limit + 1e-9:
            raise BudgetExceeded(
                f"This request may cost ${wanted_usd:.3f}, which is more than the limit of {_usd(limit)} for one {name} "
                f"({setting}). Ask for fewer or smaller pictures, or a cheaper tier. Nothing was sent."
            )
        if spent + wanted_usd > limit + 1e-9:
            raise BudgetExceeded(
                f"This would exceed the {name}'s limit of {_usd(limit)} ({setting}): ${spent:.3f} is spent or "
                f"reserved, and this request may cost ${wanted_usd:.3f}. It resets {_when(resets, at)}. Nothing "
                "was sent."
            )
        if name != "request" and spent + wanted_usd >= WARN_FROM * limit:
            warnings.append(f"${spent + wanted_usd:.2f} of the {name}'s limit of {_usd(limit)} is spent or reserved.")
    return warnings + _check_minute(limits.calls_per_minute, spending, calls=calls, at=at)


def _check_minute(limit: int | None, spending: Spending, *, calls: int, at: datetime) -> list[str]:
    if limit is None:
        return []
    setting = "NANOBANANA_MAX_CALLS_PER_MINUTE"
    if calls > limit:
        raise BudgetExceeded(
            f"This asks for up to {calls} calls to Gemini at once; the limit is {limit} a minute ({setting}). Ask "
            "for fewer. Nothing was sent."
        )
    made = spending.minute_calls
    if made + calls > limit:
        leaving = made + calls - limit  # so many must be older than a minute
        gone = accumulate(number for _, number in spending.minute)
        resets = next(m for (m, _), left in zip(spending.minute, gone, strict=True) if left >= leaving) + MINUTE
        raise BudgetExceeded(
            f"{counted(made, 'call')} to Gemini {'was' if made == 1 else 'were'} made in the last minute and this asks for {calls} "
            f"more; the limit is {limit} a minute "
            f"({setting}). It resets {_when(resets, at)}. Nothing was sent."
        )
    return (
        [f"{made + calls} of {counted(limit, 'call')} a minute {'is' if made + calls == 1 else 'are'} used."]
        if made + calls >= WARN_FROM * limit
        else []
    )


def _hour_resets(limit: float | None, spending: Spending, wanted_usd: float, at: datetime) -> datetime:
    """The moment when enough of the hour's spending is an hour old for this request to pass."""
    left = spending.hour_usd + wanted_usd
    for moment, usd in spending.hour:
        left -= usd
        if limit is None or left <= limit + 1e-9:
            return moment + HOUR
    return at + HOUR


def _usd(limit: float) -> str:
    return f"${limit:.2f}" if limit >= 0.01 else f"${limit:g}"


def _when(resets: datetime, at: datetime) -> str:
    wait = waiting((resets - at).total_seconds())
    return f"in {wait}, at {resets.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
