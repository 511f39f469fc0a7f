"""What is said when money or calls run short."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from nanobanana_mcp.budget import Limits, Spending, check, day_start
from nanobanana_mcp.errors import BudgetExceeded
from tests.rooms import NOON

NOTHING = Spending(hour_usd=0, day_usd=0, minute_calls=0, hour_resets=None, minute_resets=None)
ALL = Limits(per_call_usd=1.0, per_hour_usd=5.0, per_day_usd=20.0, calls_per_minute=10)


def _spent(**changes: object) -> Spending:
    values = {"hour_usd": 0.0, "day_usd": 0.0, "minute_calls": 0, "hour_resets": None, "minute_resets": None}
    return Spending(**(values | changes))  # type: ignore[arg-type]


def test_without_limits_everything_passes_in_silence() -> None:
    spending = _spent(hour_usd=1e6, day_usd=1e6, minute_calls=10_000)
    assert check(Limits(), spending, wanted_usd=1e6, calls=1000, at=NOON) == []


def test_well_below_the_limits_nothing_is_said() -> None:
    assert check(ALL, NOTHING, wanted_usd=0.5, calls=1, at=NOON) == []


@pytest.mark.parametrize(
    ("spending", "wanted", "calls", "words"),
    [
        (NOTHING, 1.001, 1, ["$1.001", "$1.00", "NANOBANANA_MAX_USD_PER_CALL", "cheaper tier"]),
        (
            _spent(hour_usd=4.5, hour_resets=NOON + timedelta(minutes=10)),
            0.6,
            1,
            ["$5.00", "$4.500", "$0.600", "NANOBANANA_MAX_USD_PER_HOUR", "in 10 min", "2026-11-20 12:10:00 UTC"],
        ),
        (
            _spent(day_usd=19.9),
            0.2,
            1,
            ["$20.00", "$19.900", "NANOBANANA_MAX_USD_PER_DAY", "in 12.0 h", "2026-11-21 00:00:00 UTC"],
        ),
        (
            _spent(minute_calls=8, minute_resets=NOON + timedelta(seconds=42)),
            0.1,
            3,
            ["8 pictures", "3 more", "10", "NANOBANANA_MAX_CALLS_PER_MINUTE", "in 42 s"],
        ),
    ],
)
def test_a_refusal_names_the_limit_the_numbers_and_when_it_resets(
    spending: Spending, wanted: float, calls: int, words: list[str]
) -> None:
    with pytest.raises(BudgetExceeded) as caught:
        check(ALL, spending, wanted_usd=wanted, calls=calls, at=NOON)
    for word in [*words, "Nothing was sent."]:
        assert word in str(caught.value)


def test_a_limit_may_be_used_up_to_the_last_cent() -> None:
    limits = Limits(per_call_usd=0.3, per_hour_usd=0.3, per_day_usd=0.3, calls_per_minute=3)
    assert check(limits, NOTHING, wanted_usd=0.1 + 0.2, calls=3, at=NOON)


@pytest.mark.parametrize(
    ("spending", "wanted", "calls", "said"),
    [
        (_spent(hour_usd=3.99), 0.0, 0, []),
        (_spent(hour_usd=3.9), 0.1, 0, ["$4.00 of the hour's $5.00"]),
        (_spent(day_usd=15.5), 0.5, 0, ["$16.00 of the day's $20.00"]),
        (_spent(minute_calls=7), 0.0, 1, ["8 of 10 pictures a minute"]),
        (_spent(hour_usd=4.0, day_usd=18.0, minute_calls=9), 0.5, 1, ["hour's", "day's", "a minute"]),
    ],
)
def test_from_eighty_percent_on_there_is_a_warning(
    spending: Spending, wanted: float, calls: int, said: list[str]
) -> None:
    warnings = check(ALL, spending, wanted_usd=wanted, calls=calls, at=NOON)
    assert len(warnings) == len(said)
    for warning, words in zip(warnings, said, strict=True):
        assert words in warning


def test_a_limit_of_nothing_refuses_whatever_costs_something() -> None:
    limits = Limits(per_hour_usd=0.0)
    with pytest.raises(BudgetExceeded):
        check(limits, NOTHING, wanted_usd=0.01, calls=1, at=NOON)


def test_a_day_begins_at_midnight_utc_wherever_one_is() -> None:
    auckland = datetime(2026, 11, 21, 1, 30, tzinfo=timezone(timedelta(hours=13)))
    assert day_start(auckland) == datetime(2026, 11, 20, tzinfo=UTC)
