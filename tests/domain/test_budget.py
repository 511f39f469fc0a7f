"""Errors say what to do when money or calls run short."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanobanana_mcp.domain.budget import HOUR, MINUTE, Limits, Spending, check, day_start
from nanobanana_mcp.domain.errors import BudgetExceeded
from tests.support.rooms import NOON

ALL = Limits(per_call_usd=1.0, per_hour_usd=5.0, per_day_usd=20.0, calls_per_minute=10)


def _spent(*calls: tuple[float, float], day_usd: float = 0.0) -> Spending:
    """Each call as seconds ago and its USD, oldest first."""
    return _spending([(NOON - timedelta(seconds=ago), usd) for ago, usd in calls], at=NOON, day_usd=day_usd)


def _spending(calls: list[tuple[datetime, float]], *, at: datetime, day_usd: float = 0.0) -> Spending:
    return Spending(
        hour=tuple(one for one in calls if one[0] > at - HOUR),
        minute=tuple((moment, 1) for moment, _ in calls if moment > at - MINUTE),
        day_usd=day_usd,
    )


NOTHING = _spent()


def _refusal(limits: Limits, spending: Spending, *, wanted: float = 0.1, calls: int = 1) -> str:
    with pytest.raises(BudgetExceeded) as caught:
        check(limits, spending, wanted_usd=wanted, calls=calls, at=NOON)
    return str(caught.value)


def test_without_limits_everything_passes_in_silence() -> None:
    spending = _spent(*[(1, 100.0)] * 10_000, day_usd=1e6)
    assert check(Limits(), spending, wanted_usd=1e6, calls=1000, at=NOON) == []


def test_well_below_the_limits_nothing_is_said() -> None:
    assert check(ALL, NOTHING, wanted_usd=0.5, calls=1, at=NOON) == []


@pytest.mark.parametrize(
    ("spending", "wanted", "calls", "words"),
    [
        (
            _spent((3000, 4.5)),
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
            _spent(*[(18, 0.0)] * 8),
            0.1,
            3,
            ["8 ", "3 more", "10", "NANOBANANA_MAX_CALLS_PER_MINUTE", "in 42 s"],
        ),
    ],
)
def test_a_refusal_names_the_limit_the_numbers_and_when_it_resets(
    spending: Spending, wanted: float, calls: int, words: list[str]
) -> None:
    said = _refusal(ALL, spending, wanted=wanted, calls=calls)
    for word in [*words, "Nothing was sent."]:
        assert word in said


@pytest.mark.parametrize(
    ("limits", "wanted", "calls", "words"),
    [
        (Limits(per_call_usd=1.0), 1.001, 1, ["$1.001", "$1.00", "NANOBANANA_MAX_USD_PER_CALL", "cheaper tier"]),
        (Limits(per_hour_usd=0.03), 0.044, 1, ["$0.044", "$0.03", "hour", "NANOBANANA_MAX_USD_PER_HOUR", "fewer"]),
        (Limits(per_day_usd=0.03), 0.044, 1, ["$0.044", "$0.03", "day", "NANOBANANA_MAX_USD_PER_DAY", "fewer"]),
        (Limits(calls_per_minute=3), 0.0, 4, ["4 ", "limit is 3", "NANOBANANA_MAX_CALLS_PER_MINUTE", "fewer"]),
    ],
)
@pytest.mark.parametrize("spending", [NOTHING, _spent((10, 0.02), day_usd=0.02)], ids=["fresh", "used"])
def test_more_than_the_limit_itself_is_not_told_to_wait(
    limits: Limits, wanted: float, calls: int, words: list[str], spending: Spending
) -> None:
    said = _refusal(limits, spending, wanted=wanted, calls=calls)
    assert "resets" not in said
    for word in [*words, "Nothing was sent."]:
        assert word in said


def test_the_hour_resets_when_enough_has_left_it_and_not_when_the_oldest_call_has() -> None:
    spending = _spent(*((3500 - 10 * number, 0.05) for number in range(100)))
    said = _refusal(Limits(per_hour_usd=5.0), spending, wanted=0.5)
    assert "at 2026-11-20 12:03:10 UTC" in said  # ten calls of $0.05 must be an hour old, the tenth is 3,410 s old


def test_the_minute_resets_when_enough_calls_have_left_it() -> None:
    spending = _spent((3000, 9.0), *((50 - number, 0.0) for number in range(10)))
    said = _refusal(Limits(calls_per_minute=10), spending, calls=4)
    assert "10 " in said and "in 13 s" in said  # the fourth of the ten is 47 s old


@settings(derandomize=True, deadline=None)
@given(
    ago=st.lists(st.integers(0, 3599), max_size=30).map(lambda found: sorted(found, reverse=True)),
    wanted=st.integers(1, 10),
    calls=st.integers(1, 5),
)
def test_what_was_refused_passes_when_its_limit_resets(ago: list[int], wanted: int, calls: int) -> None:
    spending = _spent(*((seconds, 0.1) for seconds in ago))
    hour, minute = Limits(per_hour_usd=1.0), Limits(calls_per_minute=5)
    for limits, usd, number, window in ((hour, wanted / 10, 0, HOUR), (minute, 0.0, calls, MINUTE)):
        try:
            check(limits, spending, wanted_usd=usd, calls=number, at=NOON)
        except BudgetExceeded as refused:
            at = datetime.strptime(f"{refused}".split(", at ")[1][:19], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
            assert NOON < at <= NOON + window
            later = _spending(list(spending.hour), at=at)
            check(limits, later, wanted_usd=usd, calls=number, at=at)


def test_a_limit_may_be_used_up_to_the_last_cent() -> None:
    limits = Limits(per_call_usd=0.3, per_hour_usd=0.3, per_day_usd=0.3, calls_per_minute=3)
    assert check(limits, NOTHING, wanted_usd=0.1 + 0.2, calls=3, at=NOON)


@pytest.mark.parametrize(
    ("spending", "wanted", "calls", "said"),
    [
        (_spent((90, 3.99)), 0.0, 0, []),
        (_spent((90, 3.9)), 0.1, 0, ["$4.00 of the hour's limit of $5.00"]),
        (_spent(day_usd=15.5), 0.5, 0, ["$16.00 of the day's limit of $20.00"]),
        (_spent(*[(9, 0.0)] * 7), 0.0, 1, ["8 of 10 "]),
        (_spent(*[(9, 0.4)] * 9, day_usd=18.0), 0.5, 1, ["hour's", "day's", "a minute"]),
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
    _refusal(Limits(per_hour_usd=0.0), NOTHING, wanted=0.01)


def test_a_day_begins_at_midnight_utc_wherever_one_is() -> None:
    auckland = datetime(2026, 11, 21, 1, 30, tzinfo=timezone(timedelta(hours=13)))
    assert day_start(auckland) == datetime(2026, 11, 20, tzinfo=UTC)
