"""The rules of money: how much may be spent and asked in a window, and what is said when it may not. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from nanobanana_mcp.errors import BudgetExceeded

WARN_FROM = 0.8


@dataclass(frozen=True, kw_only=True)
class Limits:
    """USD per request, per rolling hour and per UTC day; pictures asked for per rolling minute. None: no limit."""

    per_call_usd: float | None = None
    per_hour_usd: float | None = None
    per_day_usd: float | None = None
    calls_per_minute: int | None = None


@dataclass(frozen=True, kw_only=True)
class Spending:
    """What is reserved or spent in each window, and when the oldest part of a rolling window leaves it."""

    hour_usd: float
    day_usd: float
    minute_calls: int
    hour_resets: datetime | None
    minute_resets: datetime | None


def day_start(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def check(limits: Limits, spending: Spending, *, wanted_usd: float, calls: int, at: datetime) -> list[str]:
    """Warnings for what comes close. Raises BudgetExceeded naming the limit, the numbers and when it resets."""
    if limits.per_call_usd is not None and wanted_usd > limits.per_call_usd + 1e-9:
        raise BudgetExceeded(
            f"This request may cost ${wanted_usd:.3f}; the limit for one request is ${limits.per_call_usd:.2f} "
            "(NANOBANANA_MAX_USD_PER_CALL). Ask for fewer or smaller pictures, or a cheaper tier. Nothing was sent."
        )
    warnings = []
    windows = (
        ("hour", "NANOBANANA_MAX_USD_PER_HOUR", limits.per_hour_usd, spending.hour_usd,
         spending.hour_resets or at + timedelta(hours=1)),
        ("day", "NANOBANANA_MAX_USD_PER_DAY", limits.per_day_usd, spending.day_usd, day_start(at) + timedelta(days=1)),
    )  # fmt: skip
    for name, setting, limit, spent, resets in windows:
        if limit is None:
            continue
        if spent + wanted_usd > limit + 1e-9:
            raise BudgetExceeded(
                f"The {name}'s limit of ${limit:.2f} ({setting}) would be passed: ${spent:.3f} is spent or reserved and "
                f"this may cost ${wanted_usd:.3f}. It resets {_when(resets, at)}. Nothing was sent."
            )
        if spent + wanted_usd >= WARN_FROM * limit:
            warnings.append(f"${spent + wanted_usd:.2f} of the {name}'s ${limit:.2f} are spent or reserved.")
    if limits.calls_per_minute is not None:
        total = spending.minute_calls + calls
        if total > limits.calls_per_minute:
            resets = spending.minute_resets or at + timedelta(minutes=1)
            raise BudgetExceeded(
                f"{spending.minute_calls} pictures were asked for in the last minute and this asks for {calls} more; the "
                f"limit is {limits.calls_per_minute} (NANOBANANA_MAX_CALLS_PER_MINUTE). "
                f"It resets {_when(resets, at)}. Nothing was sent."
            )
        if total >= WARN_FROM * limits.calls_per_minute:
            warnings.append(f"{total} of {limits.calls_per_minute} pictures a minute are used.")
    return warnings


def _when(resets: datetime, at: datetime) -> str:
    seconds = max(0, round((resets - at).total_seconds()))
    wait = f"{seconds} s" if seconds < 120 else f"{seconds // 60} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
    return f"in {wait}, at {resets.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
