"""Money and rates: clocks that run back, loops in many processes, and policies that change while servers run."""

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from nanobanana_mcp.domain.budget import Limits
from nanobanana_mcp.domain.errors import BudgetExceeded, PolicyViolation
from nanobanana_mcp.domain.ids import now
from nanobanana_mcp.domain.policy.limits import Limit
from nanobanana_mcp.domain.requests import ImageRequest
from nanobanana_mcp.library import call_limits as counts
from nanobanana_mcp.library import journal
from nanobanana_mcp.studio.studio import Studio
from tests.support.checker import check
from tests.support.fakes import FakeModel
from tests.support.processes import Forge, Server
from tests.support.world import World, world


@pytest.fixture
def at(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


async def test_a_clock_set_back_opens_no_window_of_spending(
    make_studio: Callable[..., Studio], model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = make_studio(limits=Limits(per_hour_usd=0.1, calls_per_minute=50))
    with pytest.raises(BudgetExceeded):
        for number in range(10):
            await studio.create(ImageRequest(prompt=f"banana {number}"))
    paid = len(model.requests)
    for back in (timedelta(minutes=90), timedelta(days=3), timedelta(days=400)):
        monkeypatch.setattr(journal, "now", lambda back=back: now() - back)
        with pytest.raises(BudgetExceeded, match="NANOBANANA_MAX_USD_PER_HOUR"):
            await studio.create(ImageRequest(prompt="another"))
    assert len(model.requests) == paid
    await studio.close()


async def test_a_clock_set_back_keeps_the_window_shut_for_an_hour_and_no_longer(
    make_studio: Callable[..., Studio], model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nanobanana_mcp.library.clock.since_boot", lambda: None)  # so that hours can pass here
    studio = make_studio(limits=Limits(per_hour_usd=0.1))
    for number in range(2):
        await studio.create(ImageRequest(prompt=f"banana {number}"))
    for since in (timedelta(0), timedelta(minutes=59)):
        monkeypatch.setattr(journal, "now", lambda since=since: now() - timedelta(days=2) + since)
        with pytest.raises(BudgetExceeded, match="NANOBANANA_MAX_USD_PER_HOUR"):
            await studio.create(ImageRequest(prompt="too soon"))
    monkeypatch.setattr(journal, "now", lambda: now() - timedelta(days=2) + timedelta(minutes=62))
    await studio.create(ImageRequest(prompt="an hour later"))
    assert len(model.requests) == 3
    await studio.close()


async def test_a_clock_set_back_gives_no_rate_limit_back(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nanobanana_mcp.library.clock.since_boot", lambda: None)  # so that hours can pass here
    limits = [Limit(key="generate_image#1", maximum=2, window_s=60, rolling=True)]
    for _ in range(2):
        await studio.consume(limits, "generate_image")
    for since in (timedelta(0), timedelta(seconds=55)):
        monkeypatch.setattr(counts, "now", lambda since=since: now() - timedelta(days=5) + since)
        with pytest.raises(PolicyViolation, match="resets in"):
            await studio.consume(limits, "generate_image")
    monkeypatch.setattr(counts, "now", lambda: now() - timedelta(days=5) + timedelta(seconds=65))
    await studio.consume(limits, "generate_image")


async def test_a_clock_set_back_by_days_and_on_by_hours_within_seconds_opens_nothing(
    make_studio: Callable[..., Studio], model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nanobanana_mcp.library.clock.since_boot", lambda: (7, 5000.0))  # no time passes in truth
    studio = make_studio(limits=Limits(per_hour_usd=0.05, per_day_usd=0.05))
    limits = [Limit(key="generate_image#1", maximum=1, window_s=86_400, rolling=False)]
    await studio.create(ImageRequest(prompt="banana"))
    await studio.consume(limits, "generate_image")
    for hours in (-29, -26, -53, -50, -77, -74, -2, 0, -400, -300, -24, -1, 0):
        for module in (journal, counts):
            monkeypatch.setattr(module, "now", lambda hours=hours: now() + timedelta(hours=hours))
        with pytest.raises(BudgetExceeded):
            await studio.create(ImageRequest(prompt="another"))
        with pytest.raises(PolicyViolation):
            await studio.consume(limits, "generate_image")
    assert len(model.requests) == 1
    await studio.close()


@pytest.mark.parametrize("window", [(3600, True), (86_400, False)], ids=["rolling", "calendar"])
async def test_a_clock_that_goes_back_or_ahead_and_returns_gives_no_rate_limit_back(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, window: tuple[int, bool]
) -> None:
    limits = [Limit(key="generate_image#1", maximum=2, window_s=window[0], rolling=window[1])]
    noon = now().replace(hour=12)
    monkeypatch.setattr(counts, "now", lambda: noon)
    for _ in range(2):
        await studio.consume(limits, "generate_image")
    monkeypatch.setattr(counts, "now", lambda: noon + timedelta(days=5))
    for _ in range(2):
        await studio.consume(limits, "generate_image")
    for away in (-1, 5, -5, 5, 0, -400, 0):
        monkeypatch.setattr(counts, "now", lambda away=away: noon + timedelta(days=away))
        with pytest.raises(PolicyViolation, match="resets in"):
            await studio.consume(limits, "generate_image")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks its cases")
def test_eight_looping_processes_never_spend_more_than_the_hour_allows(at: World) -> None:
    with Forge(at) as forge:
        outcomes = forge.run(*({"act": "spend", "limits": {"per_hour_usd": 0.6}} for _ in range(8)))
        assert [outcome["error"] for outcome in outcomes] == [None] * 8, outcomes
        assert sum(int(outcome["text"]) for outcome in outcomes) == len(at.emulator.charges)
        forge.recover()
    assert 0.5 < sum(charge.usd for charge in at.emulator.charges) <= 0.6
    check(at)


@pytest.mark.slow
def test_a_project_policy_only_tightens_and_a_broken_one_allows_reading_only(at: World) -> None:
    mine, projects = at.root / "policy.yaml", at.project / "nanobanana-policy.yaml"
    mine.write_text(
        'version: "1"\ndefault: allow\nhide: [maintenance]\n'
        "tools:\n  generate_image:\n    rules:\n"
        "      - {action: allow, rate_limit: {max: 3, window: 3600}, validate: {required_args: true}}\n"
        '      - {action: deny, conditions: [{path: "args.resolution", op: eq, value: "4k"}], on_deny: Ask for 2k.}\n'
    )
    projects.write_text("default: allow\ntools: {generate_image: {rules: [{rate_limit: 2/hour}]}}\n")
    with Server(at, NANOBANANA_POLICY=str(mine)).greet() as one, Server(at, NANOBANANA_POLICY=str(mine)) as two:
        two.greet()
        names = {tool["name"] for tool in one.answer(one.ask("tools/list"))["result"]["tools"]}
        assert "generate_image" in names
        assert "maintenance" not in names
        assert not one.call("maintenance", operation="recover")[0]
        well, words = one.call("generate_image", prompt="a", resolution="4k")
        assert not well
        assert "Ask for 2k." in words
        assert one.call("generate_image", prompt="a")[0]
        assert two.call("generate_image", prompt="b")[0]
        well, words = one.call("generate_image", prompt="c")
        assert not well
        assert "Policy violation" in words
        assert "resets in" in words
        projects.unlink()
        assert one.call("generate_image", prompt="c")[0], "the user's own limit is three"
        assert not two.call("generate_image", prompt="d")[0]
        mine.write_text("defaults: allow\n")
        well, words = two.call("generate_image", prompt="e")
        assert not well
        assert "defaults" in words
        assert two.call("output_stats")[0]
        mine.write_text("default: deny\ntools: {output_stats: {rules: []}}\n")
        assert not one.call("generate_image", prompt="f")[0]
        mine.unlink()
        assert not one.call("generate_image", prompt="g")[0], "a policy that is gone allows nothing"
    assert len(at.emulator.charges) == 3
    check(at)
