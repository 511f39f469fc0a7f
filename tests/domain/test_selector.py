"""The choice of a model: what tips it, what it refuses, and that it says why."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanobanana_mcp.domain.catalog import BY_ID, DEFAULTS, RATIOS, TierName
from nanobanana_mcp.domain.errors import UnsupportedOption
from nanobanana_mcp.domain.requests import ImageRequest
from nanobanana_mcp.domain.selector import QUALITY, SPEED, cannot, choose, find_mode, words_found
from nanobanana_mcp.studio.studio import Studio
from tests.support.fakes import FakeModel

MODELS = {tier: BY_ID[DEFAULTS[tier]] for tier in DEFAULTS}
CHEAP_AND_OLD = MODELS | {"flash": BY_ID["gemini-2.5-flash-image"]}


@pytest.mark.parametrize(
    ("prompt", "tier"),
    [
        ("a birthday cake", "flash"),
        ("breakfast at the lake", "flash"),
        ("a portrait of a tester of ideals", "flash"),
        ("a sharpened pencil, printed matter on it", "flash"),
        ("a simpleton in the posterior row", "flash"),
        ("an hd photo", "pro"),
        ("an HD-ready television", "flash"),
        ("Photorealistic heron", "pro"),
        ("a heron (photorealistic, 4K)", "pro"),
        ("a magazine cover", "pro"),
        ("a high-quality heron", "pro"),
        ("a quick sketch", "flash"),
        ("a quick sketch of a poster", "flash"),
        ("a rough masterpiece in 4k, award-winning", "pro"),
        ("a draft poster", "flash"),
        ("un héron très détaillé", "flash"),
    ],
)
def test_indicators_are_words_and_not_letters_within_words(prompt: str, tier: str) -> None:
    assert chosen(prompt=prompt).spec.tier == tier


@pytest.mark.parametrize("word", [*QUALITY, *SPEED])
def test_every_indicator_is_found_alone_in_any_case_and_in_a_sentence(word: str) -> None:
    own = QUALITY if word in QUALITY else SPEED
    for text in (word, word.upper(), f"a cat, {word}.", f'"{word}"', f"({word})\n", f"très {word}!"):
        assert word in words_found(text, own)
    for text in (f"x{word}", f"{word}y", f"{word}-like", f"non-{word}", f"é{word}"):
        assert word not in words_found(text, own)


@pytest.mark.parametrize(
    ("request_", "tier", "because"),
    [
        ({}, "flash", "the usual choice"),
        ({"resolution": "4k"}, "pro", "4k resolution"),
        ({"inputs": ("a", "b", "c")}, "pro", "3 input images"),
        ({"inputs": ("a", "b"), "file_id": "files/x"}, "pro", "3 input images"),
        ({"inputs": ("a", "b")}, "flash", "the usual choice"),
        ({"n": 4}, "flash", "4 pictures at once"),
        ({"n": 4, "resolution": "4k"}, "flash", "against 4k resolution"),
        ({"aspect_ratio": "8:1", "resolution": "4k"}, "flash", "because pro does not offer aspect ratio 8:1"),
        ({"thinking_level": "high", "resolution": "4k"}, "flash", "because pro has no thinking_level"),
    ],
)
def test_the_rest_of_a_request_tips_the_choice_and_the_reason_says_so(
    request_: dict[str, Any], tier: str, because: str
) -> None:
    choice = chosen(**request_)
    assert choice.spec.tier == tier and choice.auto
    assert because in choice.reason


@pytest.mark.parametrize(
    ("request_", "words", "way_out"),
    [
        ({"model_tier": "lite", "resolution": "4k"}, "makes 1K pictures, not 4K", "model_tier 'flash' can."),
        ({"model_tier": "lite", "enable_grounding": True}, "Google Search", "model_tier 'flash' can."),
        ({"model_tier": "lite", "thinking_level": "medium"}, "minimal, high, not medium", "model_tier 'flash' can."),
        ({"model_tier": "pro", "aspect_ratio": "1:8"}, "aspect ratio 1:8", "model_tier 'flash' can."),
        ({"model_tier": "pro", "thinking_level": "low"}, "no thinking_level", "No tier can do all of this"),
        ({"model_tier": "auto", "thinking_level": "low"}, "not low", "No tier can do all of this"),
    ],
)
async def test_what_a_tier_cannot_do_is_refused_before_anything_is_sent(
    studio: Studio, model: FakeModel, request_: dict[str, Any], words: str, way_out: str
) -> None:
    with pytest.raises(UnsupportedOption) as caught:
        await studio.create(ImageRequest(prompt="a cat", **request_))
    assert words in str(caught.value) and way_out in str(caught.value)
    assert model.requests == [] and not studio.places.output.exists()


def test_an_older_model_keeps_its_own_limits() -> None:
    with pytest.raises(UnsupportedOption, match=r"takes at most 3 input images; 4 were given. model_tier 'pro' can."):
        choose(ImageRequest(prompt="x", inputs=("a",) * 4, model_tier="flash"), CHEAP_AND_OLD)
    assert choose(ImageRequest(prompt="x", resolution="4k", aspect_ratio="1:1", n=5), CHEAP_AND_OLD).spec.tier == "pro"


@pytest.mark.parametrize(("tier", "size"), [("flash", "1K"), ("nb2", "1K"), ("pro", "2K"), ("lite", "1K")])
def test_high_is_the_most_pixels_at_the_base_price(tier: Any, size: str) -> None:
    assert chosen(model_tier=tier).image_size == size


def test_grounding_is_on_for_pro_and_off_elsewhere_until_asked_for() -> None:
    for tier in MODELS:
        assert chosen(model_tier=tier).grounding == (tier == "pro")
    assert chosen(model_tier="flash", enable_grounding=True).grounding
    assert not chosen(model_tier="pro", enable_grounding=False).grounding


def test_an_edit_of_nothing_is_refused() -> None:
    with pytest.raises(UnsupportedOption, match="needs a picture to edit"):
        find_mode(ImageRequest(prompt="a cat", mode="edit"))


REQUESTS = st.builds(
    ImageRequest,
    prompt=st.lists(st.sampled_from([*QUALITY, *SPEED, "a", "heron", "birthday"]), max_size=5).map(" ".join),
    n=st.integers(1, 20),
    inputs=st.lists(st.just("a.png"), max_size=14).map(tuple),
    file_id=st.none() | st.just("files/x"),
    model_tier=st.sampled_from(["auto", "flash", "nb2", "pro", "lite"]),
    resolution=st.sampled_from(["high", "1k", "2k", "4k"]),
    thinking_level=st.sampled_from([None, "minimal", "low", "medium", "high"]),
    enable_grounding=st.sampled_from([None, True, False]),
    aspect_ratio=st.none() | st.sampled_from(RATIOS),
)
TABLES = st.sampled_from([MODELS, CHEAP_AND_OLD, {t: replace(MODELS["lite"], tier=t) for t in MODELS}])


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=300)
@given(REQUESTS, TABLES)
def test_a_chosen_model_can_do_it_and_a_refusal_names_one_that_can_whenever_there_is_one(
    request_: ImageRequest, models: dict[TierName, Any]
) -> None:
    able = [tier for tier, spec in models.items() if cannot(request_, spec) is None]
    asked = {"nb2": "flash"}.get(request_.model_tier, request_.model_tier)
    try:
        choice = choose(request_, models)
    except UnsupportedOption as refused:
        assert asked not in able if asked != "auto" else not able
        named = [tier for tier in models if f"model_tier '{tier}' can." in str(refused)]
        assert bool(named) == bool(able) and set(named) <= set(able)
        return
    assert choice.spec.tier in able and choice.reason
    assert asked in ("auto", choice.spec.tier)
    assert choice.image_size in choice.spec.sizes
    assert choice.auto == (request_.model_tier == "auto")
    if request_.enable_grounding is not None:
        assert choice.grounding == request_.enable_grounding
    assert choice.thinking_level == request_.thinking_level


def chosen(**request_: Any) -> Any:
    return choose(ImageRequest(**({"prompt": "a cat"} | request_)), MODELS)
