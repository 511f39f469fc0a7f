"""Lists what the models can do, for every door: tiers, sizes, shapes, prices and end dates."""

from collections.abc import Mapping
from typing import Any

from nanobanana_mcp.domain.catalog import PRICES_DATE, SEARCH_USD, ImageSize, ModelSpec, TierName
from nanobanana_mcp.domain.pricing import estimate
from nanobanana_mcp.domain.requests import Choice

USUAL_PROMPT = 100
"""Characters of the prompt that a price is told for; a thousand more add a few hundredths of a cent."""


def models_structure(models: Mapping[TierName, ModelSpec]) -> dict[str, Any]:
    """The models by tier, each with what a picture of each size is expected to cost without a search, USD;
    None when nobody knows.
    """
    return {
        "prices_of": PRICES_DATE.isoformat(),
        "models": [
            {
                "tier": tier,
                "id": spec.id,
                "name": spec.nickname,
                "usd_per_picture": {size: _price(spec, size) for size in spec.sizes},
                "high_means": spec.best_base_size,
                "aspect_ratios": list(spec.ratios),
                "max_inputs": spec.max_inputs,
                "thinking_levels": list(spec.thinking_levels),
                "search": spec.grounding,
                "shutdown": spec.shutdown.isoformat() if spec.shutdown else None,
                "successor": spec.successor,
            }
            for tier, spec in models.items()
        ],
    }


def models_text(models: Mapping[TierName, ModelSpec]) -> str:
    """The same facts as Markdown."""
    found = models_structure(models)
    parts = [
        f"# Models\n\nWhat a picture is expected to cost at Google's prices of {found['prices_of']}, thinking included."
    ]
    parts += [_about(one) for one in found["models"]]
    return "\n\n".join(parts) + "\n"


def _about(one: Mapping[str, Any]) -> str:
    prices = one["usd_per_picture"]
    costs = [
        f"{size.lower()} {'at an unknown price' if usd is None else f'${usd:.3f}'}" for size, usd in prices.items()
    ]
    levels = ", ".join(one["thinking_levels"]) or "none to choose"
    lines = [
        f"## {one['tier']}: {one['name']} ({one['id']})",
        f"- resolution: {', '.join(costs)}; high means {one['high_means'].lower()}",
        f"- aspect_ratio: {', '.join(one['aspect_ratios'])}",
        f"- input pictures: up to {one['max_inputs']}",
        f"- thinking_level: {levels}",
        f"- enable_grounding: {_search(one)}",
    ]
    if one["shutdown"]:
        lines.append(f"- Google switches it off on {one['shutdown']}; {one['successor']} replaces it.")
    return "\n".join(lines)


def _search(one: Mapping[str, Any]) -> str:
    if not one["search"]:
        return "no Google Search"
    usual = "on" if one["tier"] == "pro" else "off"
    return f"Google Search, {usual} unless told otherwise; a search adds ${SEARCH_USD}"


def _price(spec: ModelSpec, size: ImageSize) -> float | None:
    usual = Choice(spec=spec, reason="", auto=False, image_size=size, grounding=False, thinking_level=None)
    return estimate(usual, inputs=0, prompt_characters=USUAL_PROMPT)
