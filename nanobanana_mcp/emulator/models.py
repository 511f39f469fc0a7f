"""The models the emulator imitates: what each accepts, how large its pictures really are, and what they cost.

Pixel sizes are those measured on answers, not those printed: 4:1, 1:4, 8:1 and 1:8 come back a little off their ratio.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Size = Literal["512", "1K", "2K", "4K"]
Search = Literal["web", "image"]

SIZES: tuple[Size, ...] = get_args(Size)
METHODS = ["generateContent", "streamGenerateContent", "countTokens", "batchGenerateContent"]

_TEN_RATIOS = {
    "1:1": (1024, 1024),
    "2:3": (848, 1264),
    "3:2": (1264, 848),
    "3:4": (896, 1200),
    "4:3": (1200, 896),
    "4:5": (928, 1152),
    "5:4": (1152, 928),
    "9:16": (768, 1376),
    "16:9": (1376, 768),
    "21:9": (1584, 672),
}
_FOURTEEN_RATIOS = _TEN_RATIOS | {"1:4": (512, 2064), "4:1": (2064, 512), "1:8": (352, 2928), "8:1": (2928, 352)}
_SMALL = {
    "1:1": (512, 512),
    "2:3": (424, 632),
    "3:2": (632, 424),
    "3:4": (448, 600),
    "4:3": (600, 448),
    "4:5": (464, 576),
    "5:4": (576, 464),
    "9:16": (384, 688),
    "16:9": (688, 384),
    "21:9": (792, 336),
    "1:4": (256, 1024),
    "4:1": (1024, 256),
    "1:8": (192, 1536),
    "8:1": (1536, 192),
}
_FIRST_GENERATION = {
    "1:1": (1024, 1024),
    "2:3": (832, 1248),
    "3:2": (1248, 832),
    "3:4": (864, 1184),
    "4:3": (1184, 864),
    "4:5": (896, 1152),
    "5:4": (1152, 896),
    "9:16": (768, 1344),
    "16:9": (1344, 768),
    "21:9": (1536, 672),
}


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model. Prices are USD per million tokens, `tokens` are per picture made, `pixels` width x height at 1K."""

    id: str
    display_name: str
    tokens: Mapping[Size, int]
    pixels: Mapping[str, tuple[int, int]]
    takes_size: bool = True
    max_images: int = 14
    input_tokens_per_image: int = 1120
    thinking_levels: tuple[str, ...] = ()
    thought_tokens: Mapping[str, int]
    default_thinking: str
    thinks: bool = True
    search: frozenset[Search] = frozenset()
    signs: bool = True
    input_usd: float
    text_usd: float
    image_usd: float
    input_token_limit: int = 65_536
    output_token_limit: int = 32_768
    retired: bool = False

    def size_of(self, ratio: str, size: Size) -> tuple[int, int]:
        """Width x height in pixels of an answer; 2K is twice and 4K four times the 1K picture."""
        if size == "512":
            return _SMALL[ratio]
        factor = {"1K": 1, "2K": 2, "4K": 4}[size]
        width, height = self.pixels[ratio]
        return width * factor, height * factor

    def nearest_ratio(self, width: int, height: int) -> str:
        """The supported ratio whose real pixel shape is closest to width / height, on a logarithmic scale."""
        asked = width / height
        return min(
            self.pixels, key=lambda ratio: max(asked / _shape(self.pixels[ratio]), _shape(self.pixels[ratio]) / asked)
        )

    def resource(self) -> dict[str, Any]:
        """The Model resource as Google lists it; nothing in it tells that the model draws."""
        return {
            "name": f"models/{self.id}",
            "version": "1",
            "displayName": self.display_name,
            "description": f"{self.display_name}, emulated.",
            "inputTokenLimit": self.input_token_limit,
            "outputTokenLimit": self.output_token_limit,
            "supportedGenerationMethods": METHODS,
            "temperature": 1,
            "topP": 0.95,
            "topK": 64,
            "maxTemperature": 2,
            "thinking": self.thinks,
        }


def _shape(pixels: tuple[int, int]) -> float:
    return pixels[0] / pixels[1]


MODELS: dict[str, Model] = {
    model.id: model
    for model in (
        Model(
            id="gemini-nano-banana-2.1",
            display_name="Nano Banana 2.1",
            tokens={"1K": 1120, "2K": 1680, "4K": 3780},
            pixels=_FOURTEEN_RATIOS,
            thinking_levels=("MINIMAL", "MEDIUM", "HIGH"),
            thought_tokens={"MINIMAL": 120, "MEDIUM": 980, "HIGH": 1900},
            default_thinking="MEDIUM",
            search=frozenset({"web", "image"}),
            input_usd=1.50,
            text_usd=7.50,
            image_usd=30,
            input_token_limit=131_072,
        ),
        Model(
            id="gemini-3-pro-image",
            display_name="Nano Banana Pro",
            tokens={"1K": 1120, "2K": 1120, "4K": 2000},
            pixels=_TEN_RATIOS,
            thought_tokens={"": 900},
            default_thinking="",
            search=frozenset({"web"}),
            input_usd=2.00,
            text_usd=12.00,
            image_usd=120,
        ),
        Model(
            id="gemini-3.1-flash-lite-image",
            display_name="Nano Banana 2 Lite",
            tokens={"1K": 1120},
            pixels=_FOURTEEN_RATIOS,
            thinking_levels=("MINIMAL", "HIGH"),
            thought_tokens={"MINIMAL": 0, "HIGH": 700},
            default_thinking="MINIMAL",
            input_usd=0.25,
            text_usd=1.50,
            image_usd=30,
        ),
        Model(
            id="gemini-3.1-flash-image",
            display_name="Nano Banana 2",
            tokens={"512": 747, "1K": 1120, "2K": 1680, "4K": 2520},
            pixels=_FOURTEEN_RATIOS,
            thinking_levels=("MINIMAL", "HIGH"),
            thought_tokens={"MINIMAL": 0, "HIGH": 1100},
            default_thinking="MINIMAL",
            search=frozenset({"web", "image"}),
            input_usd=0.50,
            text_usd=3.00,
            image_usd=60,
            input_token_limit=131_072,
            retired=True,
        ),
        Model(
            id="gemini-2.5-flash-image",
            display_name="Nano Banana",
            tokens={"1K": 1290},
            pixels=_FIRST_GENERATION,
            takes_size=False,
            max_images=3,
            input_tokens_per_image=258,
            thought_tokens={"": 0},
            default_thinking="",
            thinks=False,
            signs=False,
            input_usd=0.30,
            text_usd=2.50,
            image_usd=30,
            retired=True,
        ),
    )
}
