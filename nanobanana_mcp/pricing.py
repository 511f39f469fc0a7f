"""What a call costs: before it from the table, after it from Gemini's own count of tokens. USD; unknown is None, never 0."""

from nanobanana_mcp.domain import Choice, Usage
from nanobanana_mcp.tiers import INPUT_IMAGE_TOKENS, MODELS, SEARCH_USD, ModelSpec

CHARACTERS_PER_TOKEN = 3
"""On the low side for English (about 4), so that an estimate errs upward."""


def estimate(choice: Choice, *, inputs: int, prompt_characters: int) -> float | None:
    """What one call is expected to cost at most in ordinary use; None when the model's price is not known."""
    usage = Usage(
        prompt=inputs * INPUT_IMAGE_TOKENS + prompt_characters // CHARACTERS_PER_TOKEN + 1,
        text=choice.spec.text_token_allowance,
        image=choice.spec.image_tokens.get(choice.image_size, 0),
        searches=1 if choice.grounding else 0,
    )
    return cost(choice.spec, usage)


def highest_known(choice: Choice, *, inputs: int, prompt_characters: int) -> float:
    """What the dearest known model would cost for the same request: what is reserved for a model without a price."""
    usage = Usage(
        prompt=inputs * INPUT_IMAGE_TOKENS + prompt_characters // CHARACTERS_PER_TOKEN + 1,
        text=choice.spec.text_token_allowance,
        searches=1 if choice.grounding else 0,
    )
    totals = []
    for spec in MODELS:
        biggest = max(spec.image_tokens.values())
        tokens = spec.image_tokens.get(choice.image_size, biggest)
        price = cost(spec, Usage(prompt=usage.prompt, text=usage.text, image=tokens, searches=usage.searches))
        totals.append(price or 0.0)
    return max(totals)


def cost(spec: ModelSpec, usage: Usage) -> float | None:
    """Tokens times prices, the way Google's pricing page adds them up.

    A search is counted at its full price although the first 5,000 a month are free, since nobody but Google knows
    how many are left.
    """
    if spec.input_usd is None or spec.text_usd is None or spec.image_usd is None:
        return None
    tokens = usage.prompt * spec.input_usd + usage.text * spec.text_usd + usage.image * spec.image_usd
    return round(tokens / 1_000_000 + usage.searches * SEARCH_USD, 6)
