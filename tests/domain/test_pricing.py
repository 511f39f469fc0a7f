"""Prices: what a call is counted at, before it and after it."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanobanana_mcp.domain.catalog import BY_ID, DEFAULTS, MODELS, TierName
from nanobanana_mcp.domain.pricing import cost, estimate, highest_known
from nanobanana_mcp.domain.requests import ImageRequest
from nanobanana_mcp.domain.selector import choose
from nanobanana_mcp.domain.wire import Usage
from nanobanana_mcp.emulator.models import MODELS as EMULATED_MODELS
from nanobanana_mcp.studio.studio import Studio
from tests.conftest import Emulated
from tests.support.fakes import FakeModel, jpeg, reply

CHOSEN = {tier: BY_ID[DEFAULTS[tier]] for tier in DEFAULTS}


@pytest.mark.parametrize(
    ("model_id", "size", "usd"),
    [
        ("gemini-nano-banana-2.1", "1K", 0.0336),
        ("gemini-nano-banana-2.1", "2K", 0.0504),
        ("gemini-nano-banana-2.1", "4K", 0.1134),
        ("gemini-3-pro-image", "1K", 0.1344),
        ("gemini-3-pro-image", "2K", 0.1344),
        ("gemini-3-pro-image", "4K", 0.24),
        ("gemini-3.1-flash-lite-image", "1K", 0.0336),
        ("gemini-3.1-flash-image", "512", 0.04482),
        ("gemini-3.1-flash-image", "4K", 0.1512),
        ("gemini-2.5-flash-image", "1K", 0.0387),
    ],
)
def test_the_picture_itself_costs_what_the_price_list_says(model_id: str, size: str, usd: float) -> None:
    spec = BY_ID[model_id]
    tokens = {str(name): count for name, count in spec.image_tokens.items()}[size]
    assert cost(spec, Usage(image=tokens)) == pytest.approx(usd)


def test_each_kind_of_token_has_its_own_price() -> None:
    spec = BY_ID["gemini-3-pro-image"]
    usage = Usage(prompt=1_000_000, text=1_000_000, image=1_000_000, searches=2)
    assert cost(spec, usage) == pytest.approx(2 + 12 + 120 + 0.028)


def test_what_nobody_knows_the_price_of_is_not_free() -> None:
    spec = replace(BY_ID["gemini-3-pro-image"], image_usd=None)
    choice = replace(choose(ImageRequest(prompt="a cat", model_tier="pro"), CHOSEN), spec=spec)
    assert cost(spec, Usage(image=1)) is None
    assert estimate(choice, inputs=0, prompt_characters=5) is None
    dearest = max(estimate(replace(choice, spec=known), inputs=0, prompt_characters=5) or 0 for known in MODELS)
    assert highest_known(choice, inputs=0, prompt_characters=5) >= dearest > 0


@settings(derandomize=True, deadline=None)
@given(
    st.sampled_from(sorted(CHOSEN)), st.integers(0, 14), st.integers(1, 8192), st.integers(0, 400), st.integers(0, 1000)
)
def test_an_estimate_is_not_below_what_an_ordinary_answer_costs(
    tier: TierName, inputs: int, characters: int, text: int, thoughts: int
) -> None:
    choice = choose(ImageRequest(prompt="a cat", model_tier=tier), CHOSEN)
    usage = Usage(
        prompt=inputs * 1120 + characters // 4,
        text=text + thoughts,
        image=choice.spec.image_tokens[choice.image_size],
        searches=1 if choice.grounding else 0,
    )
    guessed, real = estimate(choice, inputs=inputs, prompt_characters=characters), cost(choice.spec, usage)
    assert guessed is not None and real is not None and guessed >= real


def test_the_emulator_and_the_table_agree_on_prices() -> None:
    emulated = {model.id: model for model in EMULATED_MODELS.values()}
    for spec in MODELS:
        model = emulated[spec.id]
        assert (model.input_usd, model.text_usd, model.image_usd) == (spec.input_usd, spec.text_usd, spec.image_usd)
        assert model.tokens == spec.image_tokens


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given_arguments", "searches"),
    [
        ({"model_tier": "flash"}, 0),
        ({"model_tier": "flash", "resolution": "4k", "thinking_level": "high"}, 0),
        ({"model_tier": "lite"}, 0),
        ({"model_tier": "pro"}, 1),
        ({"model_tier": "pro", "enable_grounding": False}, 0),
    ],
)
async def test_the_cost_of_an_answer_is_what_google_would_bill(
    emulated: Emulated, given_arguments: dict[str, object], searches: int
) -> None:
    answer = (await emulated.call(prompt="a cat", **given_arguments)).structured_content
    (charge,) = emulated.emulator.charges
    assert answer["cost_usd"] == pytest.approx(charge.usd + searches * 0.014, abs=1e-6)
    assert answer["images"][0]["cost_usd"] == answer["cost_usd"]


async def test_a_model_without_a_price_says_that_its_cost_is_not_known(studio: Studio, model: FakeModel) -> None:
    unknown = replace(studio.models["flash"], id="gemini-from-next-year", input_usd=None, text_usd=None, image_usd=None)
    studio.models["flash"] = unknown
    model.answers.append(reply(jpeg()))
    created = await studio.create(ImageRequest(prompt="a cat", model_tier="flash"))
    assert created.cost_usd is None and created.images[0].cost_usd is None


async def test_more_thinking_reserves_more(studio: Studio, model: FakeModel) -> None:
    reserved = []
    for level in ("minimal", "medium", "high"):
        created = await studio.create(ImageRequest(prompt="a cat", model_tier="flash", thinking_level=level))
        _, (call,) = studio.journal.request(created.request_id)
        quote = await studio.quote(
            await studio.job(ImageRequest(prompt="a cat", model_tier="flash", thinking_level=level), offline=True)
        )
        assert quote.plan.estimate_usd == pytest.approx(call.estimate_usd)
        reserved.append(call.estimate_usd)
    assert reserved == sorted(set(reserved))


async def test_an_answer_that_was_thought_about_for_long_costs_no_more_than_was_reserved(
    studio: Studio, model: FakeModel
) -> None:
    model.answers.append(reply(jpeg(), thought_tokens=5500))
    created = await studio.create(ImageRequest(prompt="a cat", model_tier="flash", thinking_level="high"))
    _, (call,) = studio.journal.request(created.request_id)
    assert created.cost_usd is not None and created.cost_usd <= call.estimate_usd


async def test_the_pictures_of_a_conversation_are_reserved_for_as_well(studio: Studio) -> None:
    first = (await studio.create(ImageRequest(prompt="a cat"))).images[0].record.id
    second = (await studio.create(ImageRequest(prompt="a hat", continue_from=first))).images[0].record.id
    quotes = [
        await studio.quote(await studio.job(ImageRequest(prompt="a scarf", inputs=(second,)), offline=True)),
        await studio.quote(await studio.job(ImageRequest(prompt="a scarf", continue_from=second), offline=True)),
    ]
    alone, together = (quote.plan.estimate_usd for quote in quotes)
    assert alone is not None and together is not None and together > alone
