"""The ledger of paid calls: what is entered before a request is sent, what is replayed, and what is never overspent."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from nanobanana_mcp.budget import Limits, day_start
from nanobanana_mcp.domain import Parent, now
from nanobanana_mcp.errors import BudgetExceeded, RequestError
from nanobanana_mcp.library.journal import Journal, Reservation
from nanobanana_mcp.library.pictures import Library
from tests.rooms import NOON, at_once, close_all, journal, order, record, rows

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


def _end(ledger: Journal, reservation: Reservation, *, cost: float = 0.1) -> None:
    for call in reservation.calls:
        ledger.sent(call.id)
        ledger.spooled(call.id)
        ledger.saved(call.id, record(), cost)


def _states(ledger: Journal, reservation: Reservation) -> list[str]:
    return [call.state for call in ledger.order(reservation.order.id)[1]]


def test_a_call_goes_through_its_states_to_done(ledger: Journal) -> None:
    reserved = _reserve(ledger)
    call = reserved.calls[0]
    states = [_states(ledger, reserved)]
    for step in (ledger.sent, ledger.spooled):
        step(call.id)
        states.append(_states(ledger, reserved))
    kept = record(call_id=call.id)
    ledger.saved(call.id, kept, 0.08)
    states.append(_states(ledger, reserved))
    ledger.delivered(reserved.order.id)
    states.append(_states(ledger, reserved))
    assert states == [["reserved"], ["sent"], ["spooled"], ["saved"], ["done"]]
    found, (ended,) = ledger.order(reserved.order.id)
    assert found.delivered_at is not None
    assert (ended.cost_usd, ended.image_id) == (0.08, kept.id)
    assert ended.sent_at is not None
    assert ended.settled_at is not None
    assert Library(ledger.database).get(kept.id) == kept.__class__(
        **(vars(kept) | {"created_at": _to_ms(kept.created_at)})
    )


def _to_ms(at: datetime) -> datetime:
    return at.replace(microsecond=round(at.microsecond / 1000) % 1000 * 1000)


def test_n_pictures_are_n_calls_in_order(ledger: Journal) -> None:
    reserved = _reserve(ledger, n=4)
    assert [call.position for call in reserved.calls] == [0, 1, 2, 3]
    assert len({call.id for call in reserved.calls}) == 4
    assert ledger.order(reserved.order.id)[1] == tuple(
        call.__class__(**(vars(call) | {"reserved_at": _to_ms(call.reserved_at)})) for call in reserved.calls
    )


def test_a_picture_its_lineage_and_its_price_are_entered_together_or_not_at_all(ledger: Journal) -> None:
    call = _reserve(ledger).calls[0]
    orphan = record(parents=(Parent(image_id="img_0000000000000000", role="base"),))
    with pytest.raises(IntegrityError):
        ledger.saved(call.id, orphan, 0.08)
    assert Library(ledger.database).get(orphan.id) is None
    assert ledger.cost_of(call.id) is None
    assert rows(ledger.database.path, "SELECT count(*) FROM days") == [(0,)]


def test_a_failure_keeps_its_reason_and_an_unknown_outcome_its_estimate(ledger: Journal) -> None:
    reserved = _reserve(ledger, n=2, usd=0.2)
    ledger.failed(reserved.calls[0].id, reason="SAFETY", message="held back", cost_usd=0.01)
    ledger.unknown(reserved.calls[1].id, message="no answer")
    failed, lost = ledger.order(reserved.order.id)[1]
    assert (failed.state, failed.reason, failed.message, failed.cost_usd) == ("failed", "SAFETY", "held back", 0.01)
    assert (lost.state, lost.cost_usd, lost.estimate_usd) == ("unknown", None, 0.2)
    assert ledger.spending("gemini").hour_usd == pytest.approx(0.21)
    assert [call.id for call in ledger.unknown_outcomes("gemini")] == [lost.id]
    assert ledger.unknown_outcomes("emulator") == []


def test_what_is_begun_and_not_ended_is_found_with_its_request(ledger: Journal) -> None:
    reserved = _reserve(ledger, n=5, plan='{"a": 1}', process="77-x")
    one, two, three, four, _ = reserved.calls
    ledger.sent(two.id)
    ledger.spooled(three.id)
    ledger.saved(four.id, record(), 0.1)
    ledger.failed(reserved.calls[4].id, reason="OTHER", message="no", cost_usd=0)
    found = ledger.unfinished()
    assert {(call.id, call.state) for _, call in found} == {
        (one.id, "reserved"),
        (two.id, "sent"),
        (three.id, "spooled"),
    }
    assert {(of.plan, of.process) for of, _ in found} == {('{"a": 1}', "77-x")}


def test_a_dead_processs_request_is_taken_over_by_one_heir_only(ledger: Journal) -> None:
    reserved = _reserve(ledger, process="1-dead")
    assert ledger.take_over(reserved.order.id, dead="1-dead", process="2-heir")
    assert not ledger.take_over(reserved.order.id, dead="1-dead", process="3-late")
    assert ledger.order(reserved.order.id)[0].process == "2-heir"


def test_pictures_that_never_reached_anybody_are_listed_until_they_do(ledger: Journal) -> None:
    reserved = _reserve(ledger)
    kept = record()
    ledger.saved(reserved.calls[0].id, kept, 0.1)
    assert ledger.undelivered() == [kept.id]
    ledger.delivered(reserved.order.id)
    assert ledger.undelivered() == []


def test_the_same_key_is_the_same_wish_delivered_or_not(ledger: Journal) -> None:
    first = _reserve(ledger, fingerprint="cat", idempotency_key="k", n=2)
    again = _reserve(ledger, fingerprint="cat", idempotency_key="k", n=2)
    assert again.replay
    assert again.order.id == first.order.id
    assert [call.id for call in again.calls] == [call.id for call in first.calls]
    _end(ledger, first)
    ledger.delivered(first.order.id)
    assert _reserve(ledger, fingerprint="cat", idempotency_key="k").replay
    assert rows(ledger.database.path, "SELECT count(*) FROM calls") == [(2,)]


def test_a_key_used_for_another_request_is_an_error_and_enters_nothing(ledger: Journal) -> None:
    _reserve(ledger, fingerprint="cat", idempotency_key="k")
    with pytest.raises(RequestError, match="idempotency_key was used before for a different request"):
        _reserve(ledger, fingerprint="dog", idempotency_key="k")
    assert rows(ledger.database.path, "SELECT count(*) FROM calls") == [(1,)]


def test_different_keys_are_different_wishes_however_alike(ledger: Journal) -> None:
    _reserve(ledger, fingerprint="cat", idempotency_key="a")
    assert not _reserve(ledger, fingerprint="cat", idempotency_key="b").replay
    assert not _reserve(ledger, fingerprint="cat").replay


def test_a_request_without_key_whose_answer_never_arrived_is_replayed(ledger: Journal) -> None:
    first = _reserve(ledger, fingerprint="cat")
    in_flight = _reserve(ledger, fingerprint="cat")
    assert in_flight.replay
    assert in_flight.order.id == first.order.id
    _end(ledger, first)
    assert _reserve(ledger, fingerprint="cat").replay
    assert not _reserve(ledger, fingerprint="dog").replay


def test_after_a_delivered_answer_the_same_words_are_a_new_wish(ledger: Journal) -> None:
    first = _reserve(ledger, fingerprint="cat")
    _end(ledger, first)
    ledger.delivered(first.order.id)
    second = _reserve(ledger, fingerprint="cat")
    assert not second.replay
    assert second.order.id != first.order.id


def test_an_undelivered_answer_waits_for_a_day(ledger: Journal) -> None:
    old = now() - timedelta(hours=25)
    _end(ledger, _reserve(ledger, fingerprint="cat", created_at=old))
    assert not _reserve(ledger, fingerprint="cat").replay
    _end(ledger, _reserve(ledger, fingerprint="dog", created_at=now() - timedelta(hours=23)))
    assert _reserve(ledger, fingerprint="dog").replay


@pytest.mark.parametrize("key", [None, "k"])
def test_a_request_that_failed_for_nothing_may_be_tried_again(key: str | None, ledger: Journal) -> None:
    first = _reserve(ledger, n=2, fingerprint="cat", idempotency_key=key)
    for call in first.calls:
        ledger.failed(call.id, reason="UNAVAILABLE", message="503", cost_usd=0.0)
    second = _reserve(ledger, fingerprint="cat", idempotency_key=key)
    assert not second.replay
    assert _reserve(ledger, fingerprint="cat", idempotency_key=key).order.id == second.order.id


@pytest.mark.parametrize("key", [None, "k"])
def test_a_request_that_may_have_cost_something_is_not_paid_again_unasked(key: str | None, ledger: Journal) -> None:
    for end in ("failed", "unknown", "saved"):
        first = _reserve(ledger, n=2, fingerprint=end, idempotency_key=key and key + end)
        ledger.failed(first.calls[0].id, reason="UNAVAILABLE", message="503", cost_usd=0.0)
        other = first.calls[1].id
        if end == "failed":
            ledger.failed(other, reason="SAFETY", message="no", cost_usd=0.02)
        elif end == "unknown":
            ledger.unknown(other, message="lost")
        else:
            ledger.saved(other, record(), 0.1)
        assert _reserve(ledger, fingerprint=end, idempotency_key=key and key + end).replay


def test_a_replay_counts_against_no_limit(ledger: Journal) -> None:
    limits = Limits(per_hour_usd=0.1, calls_per_minute=1)
    _reserve(ledger, limits=limits, fingerprint="cat")
    assert _reserve(ledger, limits=limits, fingerprint="cat").replay
    with pytest.raises(BudgetExceeded):
        _reserve(ledger, limits=limits, fingerprint="dog")


def test_a_refused_request_leaves_no_trace(ledger: Journal) -> None:
    with pytest.raises(BudgetExceeded):
        _reserve(ledger, n=20, limits=Limits(per_call_usd=1.0))
    assert rows(ledger.database.path, "SELECT (SELECT count(*) FROM requests), (SELECT count(*) FROM calls)") == [
        (0, 0)
    ]


def test_what_was_cheaper_than_reserved_makes_room_again(ledger: Journal) -> None:
    limits = Limits(per_hour_usd=1.0)
    first = _reserve(ledger, n=5, usd=0.2, limits=limits)
    with pytest.raises(BudgetExceeded):
        _reserve(ledger, usd=0.2, limits=limits)
    ledger.saved(first.calls[0].id, record(), 0.0)
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
        st.just("clock"), st.integers(0, 0), st.sampled_from([-90_000, -3600, -61, 1, 30, 61, 600, 3601, 40_000])
    ),
)


@settings(derandomize=True, deadline=None, max_examples=25)
@given(steps=st.lists(STEPS, max_size=12))
def test_no_sequence_of_calls_settlements_and_clock_steps_passes_a_limit(
    shared: Journal, steps: list[tuple[str, int, float]]
) -> None:
    with shared.database.write() as connection:
        connection.exec_driver_sql("DELETE FROM calls")
        connection.exec_driver_sql("DELETE FROM requests")
    clock, latest = NOON, None
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
                    latest = max(latest or clock, clock)
                    assert {call.reserved_at for call in made.calls} == {latest}
                    open_calls += [(call.id, value) for call in made.calls]
            elif kind == "settle" and open_calls:
                call_id, estimate = open_calls.pop(number % len(open_calls))
                shared.failed(call_id, reason="x", message="x", cost_usd=estimate * value)
            elif kind == "lose" and open_calls:
                shared.unknown(open_calls.pop(number % len(open_calls))[0], message="x")
            elif kind == "clock":
                clock += timedelta(seconds=value)
            _assert_within_limits(shared)


def _assert_within_limits(ledger: Journal) -> None:
    """Counted from the rows themselves, at every entry: it and what came before it within each window."""
    entries = [
        (datetime.fromtimestamp(at / 1000, NOON.tzinfo), usd)
        for at, usd in rows(ledger.database.path, "SELECT reserved_at, coalesce(cost_usd, estimate_usd) FROM calls")
    ]
    for at, _ in entries:
        hour = sum(usd for when, usd in entries if at - timedelta(hours=1) < when <= at)
        day = sum(usd for when, usd in entries if day_start(at) <= when <= at)
        minute = sum(1 for when, _ in entries if at - timedelta(minutes=1) < when <= at)
        assert hour <= 1.0 + 1e-6
        assert day <= 2.0 + 1e-6
        assert minute <= 6


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


def test_what_is_spent_while_the_clock_is_set_back_still_counts_when_it_is_right_again(
    ledger: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = NOON
    monkeypatch.setattr("nanobanana_mcp.library.journal.now", lambda: at)
    limits = Limits(per_hour_usd=0.5)
    for hours in (0, -2):
        at = NOON + timedelta(hours=hours)
        _reserve(ledger, usd=0.25, limits=limits)
    at = NOON + timedelta(minutes=1)
    with pytest.raises(BudgetExceeded):
        _reserve(ledger, usd=0.25, limits=limits)


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


@pytest.mark.slow
def test_eight_processes_with_the_same_wish_pay_once(ledger: Journal) -> None:
    code = """
made = journal(Path(sys.argv[2]).parent).reserve(
    order(fingerprint="cat", idempotency_key="k"), n=3, estimate_usd=0.07, limits=Limits()
)
print(made.replay)
"""
    said = at_once(8, code, ledger.database.path)
    assert sorted(said) == ["False\n"] + ["True\n"] * 7
    assert rows(ledger.database.path, "SELECT count(*) FROM calls") == [(3,)]
