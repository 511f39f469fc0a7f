"""Prices a call: before it from the table, after it from Gemini's own count of tokens. USD; unknown is None, never 0."""

from dataclasses import dataclass, replace

from nanobanana_mcp.domain.catalog import INPUT_IMAGE_TOKENS, MODELS, SEARCH_USD, WORD_TOKENS, ModelSpec
from nanobanana_mcp.domain.requests import Choice
from nanobanana_mcp.domain.wire import Usage

CHARACTERS_PER_TOKEN = 3
"""Fewer than English has (about 4), so that an estimate errs upward."""

FAR_OFF = 2
"""A token count this many times smaller than usual is noted; this many times below the model's smallest picture, it is
not believed.
"""


@dataclass(frozen=True, kw_only=True)
class Bill:
    """The price recorded for an answer, USD, None when it is not known, and a note on it for the caller."""

    usd: float | None
    note: str = ""


def expected(choice: Choice, *, inputs: int, prompt_characters: int) -> Usage:
    """The tokens of one call in ordinary use; `inputs` counts every picture that is sent, those of a history too."""
    return Usage(
        prompt=inputs * INPUT_IMAGE_TOKENS + prompt_characters // CHARACTERS_PER_TOKEN + 1,
        text=WORD_TOKENS[choice.thinking_level],
        image=choice.spec.image_tokens.get(choice.image_size, 0),
        searches=1 if choice.grounding else 0,
    )


def estimate(choice: Choice, *, inputs: int, prompt_characters: int) -> float | None:
    """Estimate the price of one call, USD; None when the model's price is not known."""
    return cost(choice.spec, expected(choice, inputs=inputs, prompt_characters=prompt_characters))


def highest_known(choice: Choice, *, inputs: int, prompt_characters: int) -> float:
    """The price of the same request with the dearest known model, USD: it is reserved for a model without a price."""
    usage = expected(choice, inputs=inputs, prompt_characters=prompt_characters)
    prices = []
    for spec in MODELS:
        tokens = spec.image_tokens.get(choice.image_size, max(spec.image_tokens.values()))
        prices.append(cost(spec, replace(usage, image=tokens)) or 0.0)
    return max(prices)


def bill(choice: Choice, usage: Usage, *, estimate_usd: float, drew: bool) -> Bill:
    """Price an answer by Gemini's own token count. Where that is missing, or far below what any picture takes, the price is
    at least the estimate, since limits would otherwise not count the answer.

    `estimate_usd` is what was reserved for it; `drew` says that it brought a picture.
    """
    counted = cost(choice.spec, usage)
    sizes = choice.spec.image_tokens
    least = min(sizes.values(), default=1) / FAR_OFF if drew else 0
    if counted is None:
        return Bill(usd=None)
    if not usage.whole or usage.image < least:
        usd = max(counted, estimate_usd)
        return Bill(
            usd=usd,
            note=(
                f"Gemini's token count is missing or cannot be right, so the expected ${usd:.4f} is recorded as "
                "the cost."
            ),
        )
    if counted > estimate_usd + 0.0005:
        note = (
            f"By Gemini's token count this {'picture' if drew else 'answer'} cost ${counted:.4f}, more than the "
            f"${estimate_usd:.4f} that was expected and reserved."
        )
        return Bill(usd=counted, note=note)
    usual = sizes.get(choice.image_size, 0)
    if drew and usage.image * FAR_OFF <= usual:
        note = (
            f"Gemini counted {usage.image} tokens for this picture, where {usual} were expected; ${counted:.4f} is "
            "recorded as its cost."
        )
        return Bill(usd=counted, note=note)
    return Bill(usd=counted)


def cost(spec: ModelSpec, usage: Usage) -> float | None:
    """Tokens times prices, the way Google's pricing page adds them up.

    A search is counted at its full price although the first 5,000 a month are free, since nobody but Google knows
    how many are left.
    """
    if spec.input_usd is None or spec.text_usd is None or spec.image_usd is None:
        return None
    tokens = usage.prompt * spec.input_usd + usage.text * spec.text_usd + usage.image * spec.image_usd
    return round(tokens / 1_000_000 + usage.searches * SEARCH_USD, 6)
