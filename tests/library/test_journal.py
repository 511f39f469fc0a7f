"""The journal of paid calls: what is entered before a request is sent, what ends it, and what is replayed."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from nanobanana_mcp.domain.budget import Limits
from nanobanana_mcp.domain.errors import BudgetExceeded, RequestError
from nanobanana_mcp.domain.ids import now
from nanobanana_mcp.domain.records import Parent
from nanobanana_mcp.library.journal import Journal, Reservation
from nanobanana_mcp.library.pictures import Library
from tests.support.rooms import NOON, at_once, close_all, journal, order, record, rows

FREE = Limits()


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_all()


@pytest.fixture
def ledger(tmp_path: Path) -> Journal:
    return journal(tmp_path)


def _reserve(ledger: Journal, *, n: int = 1, usd: float = 0.1, limits: Limits = FREE, **changes: object) -> Reservation:
    return ledger.reserve(order(**changes), n=n, estimate_usd=usd, limits=limits)


def _end(ledger: Journal, reservation: Reservation, *, cost: float = 0.1) -> None:
    for call in reservation.calls:
        ledger.mark_sent(call.id)
        ledger.mark_spooled(call.id)
        ledger.mark_saved(call.id, record(), cost)


def _states(ledger: Journal, reservation: Reservation) -> list[str]:
    return [call.state for call in ledger.request(reservation.request_row.id)[1]]


def test_a_call_goes_through_its_states_to_done(ledger: Journal) -> None:
    reserved = _reserve(ledger)
    call = reserved.calls[0]
    states = [_states(ledger, reserved)]
    for step in (ledger.mark_sent, ledger.mark_spooled):
        step(call.id)
        states.append(_states(ledger, reserved))
    kept = record(call_id=call.id)
    ledger.mark_saved(call.id, kept, 0.08)
    states.append(_states(ledger, reserved))
    ledger.mark_delivered(reserved.request_row.id)
    states.append(_states(ledger, reserved))
    assert states == [["reserved"], ["sent"], ["spooled"], ["saved"], ["done"]]
    found, (ended,) = ledger.request(reserved.request_row.id)
    assert found.delivered_at is not None
    assert (ended.cost_usd, ended.image_id) == (0.08, kept.id)
    assert ended.sent_at is not None
    assert ended.settled_at is not None
    assert Library(ledger.database).get(kept.id) == kept.__class__(
        **(vars(kept) | {"created_at": _to_ms(kept.created_at)})
    )


def test_a_delivery_is_taken_back_to_what_was_before_it_and_only_while_it_is_the_last(ledger: Journal) -> None:
    reserved = _reserve(ledger)
    _end(ledger, reserved)
    first = ledger.mark_delivered(reserved.request_row.id)
    again = first._replace(at=first.at + timedelta(seconds=1), before=first.at)
    ledger.take_back(again)  # another answer than the last one
    assert _states(ledger, reserved) == ["done"]
    ledger.take_back(first)
    assert _states(ledger, reserved) == ["saved"]
    assert ledger.request(reserved.request_row.id)[0].delivered_at is None
    first = ledger.mark_delivered(reserved.request_row.id)
    second = ledger.mark_delivered(reserved.request_row.id)
    assert second.before is not None and second.at >= first.at
    ledger.take_back(second)
    assert _states(ledger, reserved) == ["done"], "the first answer was read"


def _to_ms(at: datetime) -> datetime:
    return at.replace(microsecond=round(at.microsecond / 1000) % 1000 * 1000)


def test_n_pictures_are_n_calls_in_order(ledger: Journal) -> None:
    reserved = _reserve(ledger, n=4)
    assert [call.position for call in reserved.calls] == [0, 1, 2, 3]
    assert len({call.id for call in reserved.calls}) == 4
    assert ledger.request(reserved.request_row.id)[1] == tuple(
        call.__class__(**(vars(call) | {"reserved_at": _to_ms(call.reserved_at)})) for call in reserved.calls
    )


def test_a_picture_its_lineage_and_its_price_are_entered_together_or_not_at_all(ledger: Journal) -> None:
    call = _reserve(ledger).calls[0]
    orphan = record(parents=(Parent(image_id="img_0000000000000000", role="base"),))
    with pytest.raises(IntegrityError):
        ledger.mark_saved(call.id, orphan, 0.08)
    assert Library(ledger.database).get(orphan.id) is None
    assert ledger.cost_of(call.id) is None
    assert rows(ledger.database.path, "SELECT count(*) FROM days") == [(0,)]


def test_a_failure_keeps_its_reason_and_an_unknown_outcome_its_estimate(ledger: Journal) -> None:
    reserved = _reserve(ledger, n=2, usd=0.2)
    ledger.mark_failed(reserved.calls[0].id, reason="SAFETY", message="held back", cost_usd=0.01)
    ledger.mark_unknown(reserved.calls[1].id, message="no answer")
    failed, lost = ledger.request(reserved.request_row.id)[1]
    assert (failed.state, failed.reason, failed.message, failed.cost_usd) == ("failed", "SAFETY", "held back", 0.01)
    assert (lost.state, lost.cost_usd, lost.estimate_usd) == ("unknown", None, 0.2)
    assert ledger.spending("gemini").hour_usd == pytest.approx(0.21)
    assert [call.id for call in ledger.unknown_outcomes("gemini")] == [lost.id]
    assert ledger.unknown_outcomes("emulator") == []


def test_what_is_begun_and_not_ended_is_found_with_its_request(ledger: Journal) -> None:
    reserved = _reserve(ledger, n=5, plan='{"a": 1}', process="77-x")
    one, two, three, four, _ = reserved.calls
    ledger.mark_sent(two.id)
    ledger.mark_spooled(three.id)
    ledger.mark_saved(four.id, record(), 0.1)
    ledger.mark_failed(reserved.calls[4].id, reason="OTHER", message="no", cost_usd=0)
    found = ledger.unfinished()
    assert {(call.id, call.state) for _, call in found} == {
        (one.id, "reserved"),
        (two.id, "sent"),
        (three.id, "spooled"),
    }
    assert {(of.plan, of.process) for of, _ in found} == {('{"a": 1}', "77-x")}


def test_a_dead_processs_request_is_taken_over_by_one_heir_only(ledger: Journal) -> None:
    reserved = _reserve(ledger, process="1-dead")
    taken = ledger.take_over(reserved.request_row.id, dead="1-dead", process="2-heir")
    assert taken is not None and taken[0].process == "2-heir"
    assert [call.id for call in taken[1]] == [reserved.calls[0].id]
    assert ledger.take_over(reserved.request_row.id, dead="1-dead", process="3-late") is None
    assert ledger.request(reserved.request_row.id)[0].process == "2-heir"


def test_only_what_is_open_at_that_moment_is_taken_over(ledger: Journal) -> None:
    reserved = _reserve(ledger, n=3, process="1-dead")
    ended, sent, kept = reserved.calls
    ledger.unfinished()  # what an heir saw a moment ago
    ledger.mark_failed(ended.id, reason="SAFETY", message="no", cost_usd=0.0)
    ledger.mark_sent(sent.id)
    ledger.mark_saved(kept.id, record(), 0.1)
    taken = ledger.take_over(reserved.request_row.id, dead="1-dead", process="2-heir")
    assert taken is not None and [(call.id, call.state) for call in taken[1]] == [(sent.id, "sent")]


@pytest.mark.parametrize("end", ["failed", "unknown", "saved"])
def test_a_call_that_has_ended_stays_as_it_is_and_is_counted_once(end: str, ledger: Journal) -> None:
    call = _reserve(ledger, usd=0.2).calls[0]

    def finish(how: str) -> None:
        if how == "failed":
            ledger.mark_failed(call.id, reason="SAFETY", message="no", cost_usd=0.01)
        elif how == "unknown":
            ledger.mark_unknown(call.id, message="lost")
        else:
            ledger.mark_saved(call.id, record(), 0.1)

    query = "SELECT state, cost_usd, image_id, reason FROM calls"
    finish(end)
    before = rows(ledger.database.path, query), rows(ledger.database.path, "SELECT usd FROM days")
    for other in {"failed", "unknown"} - {end}:
        finish(other)
    assert (rows(ledger.database.path, query), rows(ledger.database.path, "SELECT usd FROM days")) == before


def test_a_picture_that_comes_after_all_takes_the_place_of_an_unknown_outcome(ledger: Journal) -> None:
    call = _reserve(ledger, usd=0.2).calls[0]
    ledger.mark_unknown(call.id, message="lost")
    ledger.mark_saved(call.id, record(), 0.15)
    assert rows(ledger.database.path, "SELECT state, cost_usd FROM calls") == [("saved", 0.15)]
    assert rows(ledger.database.path, "SELECT usd FROM days") == [(pytest.approx(0.15),)]


def test_a_failure_of_unknown_price_counts_as_its_estimate(ledger: Journal) -> None:
    call = _reserve(ledger, usd=0.2).calls[0]
    ledger.mark_failed(call.id, reason="IMAGE_SAFETY", message="no", cost_usd=None)
    assert ledger.cost_of(call.id) is None
    assert ledger.spending("gemini").day_usd == pytest.approx(0.2)
    assert rows(ledger.database.path, "SELECT usd FROM days") == [(pytest.approx(0.2),)]


def test_pictures_that_never_reached_anybody_are_listed_until_they_do(
    ledger: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nanobanana_mcp.library.journal.now", lambda: NOON)
    reserved = _reserve(ledger, n=2)
    kept = record()
    ledger.mark_saved(reserved.calls[0].id, kept, 0.1)
    monkeypatch.setattr("nanobanana_mcp.library.journal.now", lambda: NOON + timedelta(minutes=5))
    assert ledger.undelivered("gemini") == [], "its request is still under way"
    ledger.mark_failed(reserved.calls[1].id, reason="SAFETY", message="no", cost_usd=0.0)
    assert ledger.undelivered("gemini") == [kept.id]
    assert ledger.undelivered("emulator") == []
    ledger.mark_delivered(reserved.request_row.id)
    assert ledger.undelivered("gemini") == []


def test_a_picture_whose_answer_is_on_its_way_is_not_called_undelivered(ledger: Journal) -> None:
    _end(ledger, _reserve(ledger))
    assert ledger.undelivered("gemini") == []


def test_the_same_key_is_the_same_wish_delivered_or_not(ledger: Journal) -> None:
    first = _reserve(ledger, fingerprint="cat", idempotency_key="k", n=2)
    again = _reserve(ledger, fingerprint="cat", idempotency_key="k", n=2)
    assert again.replay
    assert again.request_row.id == first.request_row.id
    assert [call.id for call in again.calls] == [call.id for call in first.calls]
    _end(ledger, first)
    ledger.mark_delivered(first.request_row.id)
    assert _reserve(ledger, fingerprint="cat", idempotency_key="k").replay
    assert rows(ledger.database.path, "SELECT count(*) FROM calls") == [(2,)]


def test_a_key_used_for_another_request_is_an_error_and_enters_nothing(ledger: Journal) -> None:
    _reserve(ledger, fingerprint="cat", idempotency_key="key:k")
    with pytest.raises(RequestError, match="idempotency_key was used before for a different request"):
        _reserve(ledger, fingerprint="dog", idempotency_key="key:k")
    assert rows(ledger.database.path, "SELECT count(*) FROM calls") == [(1,)]


def test_a_caller_that_gave_no_key_is_not_told_of_one(ledger: Journal) -> None:
    _reserve(ledger, fingerprint="cat", idempotency_key="claude-code:toolu_1")
    with pytest.raises(RequestError, match="with other arguments") as caught:
        _reserve(ledger, fingerprint="dog", idempotency_key="claude-code:toolu_1")
    assert "idempotency_key" not in str(caught.value)


def test_different_keys_are_different_wishes_however_alike(ledger: Journal) -> None:
    _reserve(ledger, fingerprint="cat", idempotency_key="a")
    assert not _reserve(ledger, fingerprint="cat", idempotency_key="b").replay
    assert not _reserve(ledger, fingerprint="cat").replay


def test_a_request_without_key_whose_answer_never_arrived_is_replayed(ledger: Journal) -> None:
    first = _reserve(ledger, fingerprint="cat")
    in_flight = _reserve(ledger, fingerprint="cat")
    assert in_flight.replay
    assert in_flight.request_row.id == first.request_row.id
    _end(ledger, first)
    assert _reserve(ledger, fingerprint="cat").replay
    assert not _reserve(ledger, fingerprint="dog").replay


def test_after_a_delivered_answer_the_same_words_are_a_new_wish(ledger: Journal) -> None:
    first = _reserve(ledger, fingerprint="cat")
    _end(ledger, first)
    ledger.mark_delivered(first.request_row.id)
    second = _reserve(ledger, fingerprint="cat")
    assert not second.replay
    assert second.request_row.id != first.request_row.id


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
        ledger.mark_failed(call.id, reason="UNAVAILABLE", message="503", cost_usd=0.0)
    second = _reserve(ledger, fingerprint="cat", idempotency_key=key)
    assert not second.replay
    assert _reserve(ledger, fingerprint="cat", idempotency_key=key).request_row.id == second.request_row.id


@pytest.mark.parametrize("key", [None, "k"])
def test_a_request_that_may_have_cost_something_is_not_paid_again_unasked(key: str | None, ledger: Journal) -> None:
    for end in ("failed", "unknown", "saved"):
        first = _reserve(ledger, n=2, fingerprint=end, idempotency_key=key and key + end)
        ledger.mark_failed(first.calls[0].id, reason="UNAVAILABLE", message="503", cost_usd=0.0)
        other = first.calls[1].id
        if end == "failed":
            ledger.mark_failed(other, reason="SAFETY", message="no", cost_usd=0.02)
        elif end == "unknown":
            ledger.mark_unknown(other, message="lost")
        else:
            ledger.mark_saved(other, record(), 0.1)
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
