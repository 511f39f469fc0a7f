"""The limits over all processes: what counts against them, when they let go, and clocks that jump."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanobanana_mcp.domain.budget import Limits, day_start
from nanobanana_mcp.domain.errors import BudgetExceeded
from nanobanana_mcp.library.journal import Journal, Reservation
from tests.support.rooms import NOON, at_once, close_all, journal, order, record, rows

FREE = Limits()


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_all()


@pytest.fixture
def ledger(tmp_path: Path) -> Journal:
    return journal(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journal]:
    """One ledger for all examples of a property, emptied between them."""
    made = journal(tmp_path_factory.mktemp("ledger"))
    yield made
    made.database.close()


def _reserve(ledger: Journal, *, n: int = 1, usd: float = 0.1, limits: Limits = FREE, **changes: object) -> Reservation:
    return ledger.reserve(order(**changes), n=n, estimate_usd=usd, limits=limits)


@pytest.mark.parametrize("reason", ["NOT_NEEDED", "NEVER_SENT", "CANCELLED"])
def test_a_call_that_was_never_made_counts_against_no_rate(reason: str, ledger: Journal) -> None:
    limits = Limits(calls_per_minute=1)
    ledger.mark_failed(_reserve(ledger, limits=limits).calls[0].id, reason=reason, message="no", cost_usd=0.0)
    ledger.mark_failed(_reserve(ledger, limits=limits).calls[0].id, reason="SAFETY", message="no", cost_usd=0.0)
    with pytest.raises(BudgetExceeded):
        _reserve(ledger, limits=limits)


def test_what_was_cheaper_than_reserved_makes_room_again(ledger: Journal) -> None:
    limits = Limits(per_hour_usd=1.0)
    first = _reserve(ledger, n=5, usd=0.2, limits=limits)
    with pytest.raises(BudgetExceeded):
        _reserve(ledger, usd=0.2, limits=limits)
    ledger.mark_saved(first.calls[0].id, record(), 0.0)
    _reserve(ledger, usd=0.2, limits=limits)


def test_the_emulators_play_money_and_real_money_are_counted_apart(ledger: Journal) -> None:
    limits = Limits(per_hour_usd=0.1)
    _reserve(ledger, backend="emulator", limits=limits)
    _reserve(ledger, backend="gemini", limits=limits)
    with pytest.raises(BudgetExceeded):
        _reserve(ledger, backend="emulator", limits=limits)


def test_windows_open_again_when_their_time_is_over(ledger: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    at = NOON
    monkeypatch.setattr("nanobanana_mcp.library.journal.now", lambda: at)
    limits = Limits(per_hour_usd=0.1, per_day_usd=0.3, calls_per_minute=1)
    for hours in (0, 2, 4):
        at = NOON + timedelta(hours=hours)
        _reserve(ledger, limits=limits)
        with pytest.raises(BudgetExceeded):
            _reserve(ledger, limits=limits)
    at = NOON + timedelta(hours=8)
    with pytest.raises(BudgetExceeded, match=r"day's limit .* in 4\.0 h"):
        _reserve(ledger, limits=limits)
    at = NOON + timedelta(hours=12)
    _reserve(ledger, limits=limits)


LIMITS = Limits(per_hour_usd=1.0, per_day_usd=2.0, calls_per_minute=6)
STEPS = st.one_of(
    st.tuples(st.just("reserve"), st.integers(1, 4), st.sampled_from([0.05, 0.1, 0.25])),
    st.tuples(st.just("settle"), st.integers(0, 50), st.sampled_from([0.0, 0.5, 1.0])),
    st.tuples(st.just("lose"), st.integers(0, 50), st.just(0)),
    st.tuples(
        st.just("clock"),
        st.integers(0, 0),
        st.sampled_from([-400 * 86_400, -90_000, -3600, -61, -1, 1, 30, 61, 600, 3601, 40_000, 86_400, 400 * 86_400]),
    ),
    st.tuples(st.just("return"), st.integers(0, 50), st.just(0)),
)


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=60)
@given(steps=st.lists(STEPS, max_size=16))
def test_no_sequence_of_calls_settlements_and_clock_steps_passes_a_limit(
    shared: Journal, steps: list[tuple[str, int, float]]
) -> None:
    with shared.database.write() as connection:
        connection.exec_driver_sql("DELETE FROM calls")
        connection.exec_driver_sql("DELETE FROM requests")
        connection.exec_driver_sql("DELETE FROM spent")
    clock = NOON
    visited = [NOON]
    open_calls: list[tuple[str, float]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nanobanana_mcp.library.journal.now", lambda: clock)
        for kind, number, value in steps:
            if kind == "reserve":
                try:
                    made = _reserve(shared, n=number, usd=value, limits=LIMITS)
                except BudgetExceeded:
                    pass
                else:
                    assert {call.reserved_at for call in made.calls} == {clock}
                    _assert_within_limits(shared)
                    open_calls += [(call.id, value) for call in made.calls]
            elif kind == "settle" and open_calls:
                call_id, estimate = open_calls.pop(number % len(open_calls))
                shared.mark_failed(call_id, reason="x", message="x", cost_usd=estimate * value)
            elif kind == "lose" and open_calls:
                shared.mark_unknown(open_calls.pop(number % len(open_calls))[0], message="x")
            elif kind == "clock":
                clock += timedelta(seconds=value)
                visited.append(clock)
            elif kind == "return":
                clock = visited[number % len(visited)]
    _assert_sums(shared)


def _assert_within_limits(ledger: Journal) -> None:
    """Counted from the rows themselves when a request has passed: no window of any time holds too much."""
    entries = [
        (datetime.fromtimestamp(when / 1000, NOON.tzinfo), usd)
        for when, usd in rows(ledger.database.path, "SELECT reserved_at, coalesce(cost_usd, estimate_usd) FROM calls")
    ]
    for at, _ in entries:
        assert sum(usd for when, usd in entries if at >= when > at - timedelta(hours=1)) <= 1.0 + 1e-6
        assert sum(usd for when, usd in entries if day_start(when) == day_start(at)) <= 2.0 + 1e-6
        assert sum(at >= when > at - timedelta(minutes=1) for when, _ in entries) <= 6


def _assert_sums(ledger: Journal) -> None:
    """Asserts that the sums are what the rows come to."""
    (whole,) = rows(ledger.database.path, "SELECT sum(coalesce(cost_usd, estimate_usd)), count(*) FROM calls")
    for span in (1000, 60_000, 86_400_000):
        (kept,) = rows(ledger.database.path, f"SELECT sum(microusd), sum(calls) FROM spent WHERE span = {span}")
        assert (kept[0] or 0) / 1e6 == pytest.approx(whole[0] or 0) and (kept[1] or 0) == whole[1]


@pytest.mark.parametrize("back", [timedelta(hours=2), timedelta(days=1), timedelta(days=400)])
@pytest.mark.parametrize("refused", [1, 3])
def test_a_clock_that_goes_back_and_returns_opens_no_window(
    back: timedelta, refused: int, ledger: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = NOON
    monkeypatch.setattr("nanobanana_mcp.library.journal.now", lambda: at)
    limits = Limits(per_hour_usd=0.2, per_day_usd=0.2)
    _reserve(ledger, n=2, limits=limits)
    for second in range(1, 4):
        for deeper in range(1, refused + 1):
            at = NOON - deeper * back
            with pytest.raises(BudgetExceeded):
                _reserve(ledger, limits=limits)
        at = NOON + timedelta(seconds=second)
        with pytest.raises(BudgetExceeded):
            _reserve(ledger, limits=limits)
    assert ledger.spending("gemini").hour_usd == ledger.spending("gemini").day_usd == pytest.approx(0.2)


def test_a_clock_that_jumps_forward_and_returns_finds_every_window_as_it_left_it(
    ledger: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = NOON
    monkeypatch.setattr("nanobanana_mcp.library.journal.now", lambda: at)
    limits = Limits(per_hour_usd=0.2, per_day_usd=0.2)
    _reserve(ledger, n=2, limits=limits)
    for number in range(3):
        at = NOON + timedelta(days=1)
        if number == 0:
            _reserve(ledger, n=2, limits=limits)
        with pytest.raises(BudgetExceeded):
            _reserve(ledger, limits=limits)
        at = NOON + timedelta(seconds=number)
        with pytest.raises(BudgetExceeded):
            _reserve(ledger, limits=limits)


@pytest.mark.parametrize("back", [1, 60, 3600, 86_400, 400 * 86_400])
def test_a_clock_set_back_opens_no_window(back: int, ledger: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    at = NOON
    monkeypatch.setattr("nanobanana_mcp.library.journal.now", lambda: at)
    limits = Limits(per_hour_usd=0.5, calls_per_minute=5)
    _reserve(ledger, n=5, limits=limits)
    at = NOON - timedelta(seconds=back)
    with pytest.raises(BudgetExceeded):
        _reserve(ledger, limits=limits)
    assert ledger.spending("gemini").hour_usd == pytest.approx(0.5)


def test_what_was_spent_before_a_clock_was_set_back_still_counts_when_it_is_put_right(
    ledger: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = NOON
    monkeypatch.setattr("nanobanana_mcp.library.journal.now", lambda: at)
    limits = Limits(per_hour_usd=0.5)
    for hours in (0, -2):
        at = NOON + timedelta(hours=hours)
        _reserve(ledger, usd=0.25, limits=limits)
    with pytest.raises(BudgetExceeded):
        _reserve(ledger, usd=0.25, limits=limits)
    at = NOON + timedelta(minutes=1)
    _reserve(ledger, usd=0.25, limits=limits)
    with pytest.raises(BudgetExceeded):
        _reserve(ledger, usd=0.25, limits=limits)


@pytest.mark.parametrize("ahead", [timedelta(hours=3), timedelta(days=400)])
def test_a_clock_that_was_ahead_shuts_no_window_for_longer_than_the_window(
    ahead: timedelta, ledger: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nanobanana_mcp.library.clock.since_boot", lambda: None)  # so that hours can pass here
    at = NOON + ahead
    monkeypatch.setattr("nanobanana_mcp.library.journal.now", lambda: at)
    limits = Limits(per_hour_usd=0.1, per_day_usd=0.15, calls_per_minute=1)
    _reserve(ledger, limits=limits)
    for since in (timedelta(0), timedelta(minutes=30), timedelta(minutes=59)):
        at = NOON + since
        with pytest.raises(BudgetExceeded, match=r"in \d+ (s|min), at 2026-11-20 1[23]:"):
            _reserve(ledger, limits=limits)
    at = NOON + timedelta(minutes=61)
    with pytest.raises(BudgetExceeded, match="day's limit"):
        _reserve(ledger, limits=limits)
    at = NOON + timedelta(hours=12)
    _reserve(ledger, limits=limits)


@pytest.mark.slow
def test_eight_processes_cannot_overspend_together(ledger: Journal) -> None:
    code = """
ledger, made = journal(Path(sys.argv[2]).parent), 0
for _ in range(30):
    try:
        ledger.reserve(order(), n=1, estimate_usd=0.07, limits=Limits(per_hour_usd=5.0))
        made += 1
    except BudgetExceeded:
        pass
print(made)
"""
    made = [int(said) for said in at_once(8, code, ledger.database.path)]
    assert sum(made) == 71
    assert rows(ledger.database.path, "SELECT count(*) FROM calls") == [(71,)]
