"""The table of models: id, sizes, ratios, limits, prices with their date. The only place a model id is written.

Facts are Google's own where it states them (model pages, pricing page), read up to 2026-11-20. Prices are USD per
million tokens, paid tier, standard service. Adding a model is adding a row.
"""

from dataclasses import dataclass
from datetime import date
from typing import Literal, get_args

TierName = Literal["flash", "pro", "lite"]
ImageSize = Literal["512", "1K", "2K", "4K"]
ThinkingLevel = Literal["minimal", "low", "medium", "high"]
AspectRatio = Literal[
    "1:1", "1:4", "1:8", "2:3", "3:2", "3:4", "4:1", "4:3", "4:5", "5:4", "8:1", "9:16", "16:9", "21:9"
]

PRICES_DATE = date(2026, 10, 9)
RATIOS: tuple[AspectRatio, ...] = get_args(AspectRatio)
PANORAMAS = frozenset({"1:4", "4:1", "1:8", "8:1"})
TEN_RATIOS: tuple[AspectRatio, ...] = tuple(ratio for ratio in RATIOS if ratio not in PANORAMAS)

SEARCH_USD = 0.014
"""One Google Search query beyond the 5,000 free ones a month that all Gemini 3 models share."""

WORD_TOKENS: dict[ThinkingLevel | None, int] = {None: 1400, "minimal": 500, "low": 1000, "medium": 1400, "high": 6000}
"""Thought and text tokens to expect on top of a picture, by thinking level; None is the model's own default. Measured on
2.1 at medium: 900-1,060 and up to 300; the others are taken in proportion, "high" on the safe side."""

INPUT_IMAGE_TOKENS = 1120
"""Tokens that one input image was billed at in practice on Gemini 3 models (five images: 5,673 input tokens)."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One model with its abilities and prices; these in USD per million tokens, None when nobody knows them."""

    id: str
    nickname: str
    tier: TierName
    sizes: tuple[ImageSize, ...]
    ratios: tuple[AspectRatio, ...]
    max_inputs: int
    thinking_levels: tuple[ThinkingLevel, ...]
    """Levels the model accepts; empty where it offers no control."""
    grounding: bool
    best_base_size: ImageSize
    """The most pixels at the model's lowest price: what resolution "high" means."""
    image_tokens: dict[ImageSize, int]
    input_usd: float | None
    text_usd: float | None
    image_usd: float | None
    shutdown: date | None = None
    successor: str | None = None


ANSWERS_1K: dict[AspectRatio, tuple[int, int]] = {
    "1:1": (1024, 1024),
    "1:4": (512, 2064),
    "1:8": (352, 2928),
    "2:3": (848, 1264),
    "3:2": (1264, 848),
    "3:4": (896, 1200),
    "4:1": (2064, 512),
    "4:3": (1200, 896),
    "4:5": (928, 1152),
    "5:4": (1152, 928),
    "8:1": (2928, 352),
    "9:16": (768, 1376),
    "16:9": (1376, 768),
    "21:9": (1584, 672),
}
"""Width x height of a 1K answer, as the current models really send them (the extreme ratios differ from the docs)."""

_K: tuple[ImageSize, ...] = ("1K", "2K", "4K")

MODELS: tuple[ModelSpec, ...] = (
    ModelSpec(
        id="gemini-nano-banana-2.1",
        nickname="Nano Banana 2.1",
        tier="flash",
        sizes=_K,
        ratios=RATIOS,
        max_inputs=14,
        thinking_levels=("minimal", "medium", "high"),
        grounding=True,
        best_base_size="1K",
        image_tokens={"1K": 1120, "2K": 1680, "4K": 3780},
        input_usd=1.50,
        text_usd=7.50,
        image_usd=30.0,
    ),
    ModelSpec(
        id="gemini-3-pro-image",
        nickname="Nano Banana Pro",
        tier="pro",
        sizes=_K,
        ratios=TEN_RATIOS,
        max_inputs=14,
        thinking_levels=(),
        grounding=True,
        best_base_size="2K",
        image_tokens={"1K": 1120, "2K": 1120, "4K": 2000},
        input_usd=2.00,
        text_usd=12.00,
        image_usd=120.0,
    ),
    ModelSpec(
        id="gemini-3.1-flash-lite-image",
        nickname="Nano Banana 2 Lite",
        tier="lite",
        sizes=("1K",),
        ratios=RATIOS,
        max_inputs=14,
        thinking_levels=("minimal", "high"),
        grounding=False,
        best_base_size="1K",
        image_tokens={"1K": 1120},
        input_usd=0.25,
        text_usd=1.50,
        image_usd=30.0,
    ),
    ModelSpec(
        id="gemini-3.1-flash-image",
        nickname="Nano Banana 2",
        tier="flash",
        sizes=("512", *_K),
        ratios=RATIOS,
        max_inputs=14,
        thinking_levels=("minimal", "high"),
        grounding=True,
        best_base_size="1K",
        image_tokens={"512": 747, "1K": 1120, "2K": 1680, "4K": 2520},
        input_usd=0.50,
        text_usd=3.00,
        image_usd=60.0,
        shutdown=date(2026, 10, 29),
        successor="gemini-nano-banana-2.1",
    ),
    ModelSpec(
        id="gemini-2.5-flash-image",
        nickname="Nano Banana",
        tier="flash",
        sizes=("1K",),
        ratios=TEN_RATIOS,
        max_inputs=3,
        thinking_levels=(),
        grounding=False,
        best_base_size="1K",
        image_tokens={"1K": 1290},
        input_usd=0.30,
        text_usd=2.50,
        image_usd=30.0,
        shutdown=date(2026, 10, 2),
        successor="gemini-nano-banana-2.1",
    ),
)

RETIRED: dict[str, str] = {
    "gemini-3.1-flash-image-preview": "gemini-nano-banana-2.1",
    "gemini-2.5-flash-image-preview": "gemini-nano-banana-2.1",
    "gemini-3-pro-image-preview": "gemini-3-pro-image",
    "nano-banana-pro-preview": "gemini-3-pro-image",
}
"""Ids that no longer answer and of which nothing but the successor is worth knowing."""

BY_ID: dict[str, ModelSpec] = {spec.id: spec for spec in MODELS}
DEFAULTS: dict[TierName, str] = {
    "flash": "gemini-nano-banana-2.1",
    "pro": "gemini-3-pro-image",
    "lite": "gemini-3.1-flash-lite-image",
}

NO_IMAGE_SIZE = frozenset({"gemini-2.5-flash-image"})
"""Models that draw in one size and answer 400 when a size is sent."""


def successor_of(model_id: str) -> str | None:
    """The id that replaces a retired one, None for an id that is not known to be retired."""
    known = BY_ID.get(model_id)
    return known.successor if known else RETIRED.get(model_id)
