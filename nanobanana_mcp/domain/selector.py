"""Chooses the model that draws a request, and refuses what that model cannot do. Pure: nothing is spent or read here."""

import re
from collections.abc import Mapping

from nanobanana_mcp.domain.catalog import ImageSize, ModelSpec, TierName
from nanobanana_mcp.domain.errors import UnsupportedOption
from nanobanana_mcp.domain.requests import Choice, ImageRequest
from nanobanana_mcp.domain.terms import Mode

QUALITY = (
    "4k", "8k", "award-winning", "billboard", "brochure", "cinematic", "detailed", "editorial", "fine art", "flawless",
    "hd", "hdr", "high end", "high quality", "high resolution", "high-end", "high-quality", "high-resolution",
    "hyperrealistic", "infographic", "intricate", "magazine cover", "masterpiece", "museum quality", "photorealistic",
    "poster", "premium", "print", "print-ready", "production quality", "professional", "sharp", "studio quality",
    "typography", "uhd", "ultra-realistic", "white paper",
)  # fmt: skip
SPEED = (
    "brainstorm", "cheap", "concept", "doodle", "draft", "fast", "idea", "mockup", "placeholder", "preview",
    "prototype", "quick", "quickly", "rapid", "rough", "simple", "sketch", "test", "thumbnail", "wireframe",
)  # fmt: skip

_TIER_WORDS: dict[str, TierName] = {"flash": "flash", "nb2": "flash", "pro": "pro", "lite": "lite"}


def words_found(text: str, words: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `words` that stand in the text as whole words: "birthday" holds no "hd"."""
    lowered = text.lower()
    return tuple(w for w in words if re.search(rf"(?<![\w-]){re.escape(w)}(?![\w-])", lowered))


def find_mode(request: ImageRequest) -> Mode:
    """A Files API id or exactly one input means edit; none or several mean generate.

    Raises UnsupportedOption when "edit" is asked for and there is nothing to edit.
    """
    count = input_count(request)
    if request.mode == "edit" and count == 0:
        raise UnsupportedOption(
            "mode 'edit' needs a picture to edit: give input_image_path_1, input_images or file_id, "
            "or use mode 'generate'."
        )
    if request.mode != "auto":
        return request.mode
    named = request.file_id is not None or request.continue_from is not None
    return "edit" if named or count == 1 else "generate"


def input_count(request: ImageRequest) -> int:
    return len(request.inputs) + (request.file_id is not None) + (request.continue_from is not None)


def choose(request: ImageRequest, models: Mapping[TierName, ModelSpec], *, stay: TierName | None = None) -> Choice:
    """Pick the model for a request. `stay` is the tier that a conversation began with.

    Raises UnsupportedOption naming the tier that can, when the tier asked for cannot do what is asked.
    """
    if request.model_tier != "auto":
        tier = _TIER_WORDS[request.model_tier]
        problem = cannot(request, models[tier])
        if problem:
            raise UnsupportedOption(_refusal(request, tier, problem, models))
        reason = f"tier '{request.model_tier}' was asked for"
        if request.model_tier != tier:
            reason += f" (another word for {tier})"
        return _choice(request, models[tier], reason, auto=False)

    if stay is not None and cannot(request, models[stay]) is None:
        return _choice(request, models[stay], f"{stay}, which drew the picture that is continued", auto=True)
    tier, reason = _weigh(request)
    problem = cannot(request, models[tier])
    if problem:
        able = _able(request, models)
        if not able:
            raise UnsupportedOption(_refusal(request, tier, problem, models))
        tier, reason = able[0], f"{able[0]}, because {tier} {problem}"
    return _choice(request, models[tier], reason, auto=True)


USUAL = "flash, the usual choice"
"""The reason where nothing in a request asks for another tier; answers do not mention it."""


def cannot(request: ImageRequest, spec: ModelSpec) -> str | None:
    """Says why this model cannot do the request, in words that follow the tier's name; None when it can."""
    size = wanted_size(request, spec)
    count = input_count(request)
    if size not in spec.sizes:
        return f"makes {', '.join(spec.sizes)} pictures, not {size}"
    if request.aspect_ratio and request.aspect_ratio not in spec.ratios:
        return f"does not offer aspect ratio {request.aspect_ratio} (it has {', '.join(spec.ratios)})"
    if count > spec.max_inputs:
        return f"takes at most {spec.max_inputs} input images; {count} were given"
    if request.thinking_level and request.thinking_level not in spec.thinking_levels:
        levels = ", ".join(spec.thinking_levels)
        return f"offers thinking levels {levels}, not {request.thinking_level}" if levels else "has no thinking_level"
    if request.enable_grounding and not spec.grounding:
        return "cannot ground a picture in Google Search"
    return None


def wanted_size(request: ImageRequest, spec: ModelSpec) -> ImageSize:
    """The image size a request means with this model; "high" is the most pixels at its base price."""
    sizes: dict[str, ImageSize] = {"high": spec.best_base_size, "1k": "1K", "2k": "2K", "4k": "4K"}
    return sizes[request.resolution]


def _weigh(request: ImageRequest) -> tuple[TierName, str]:
    """Quality against speed: each indicator counts one, and a tie goes to the cheaper tier."""
    quality = [f"'{word}'" for word in words_found(request.prompt, QUALITY)]
    speed = [f"'{word}'" for word in words_found(request.prompt, SPEED)]
    count = input_count(request)
    if request.resolution == "4k":
        quality.append("4k resolution")
    if count >= 3:
        quality.append(f"{count} input images")
    if request.n >= 4:
        speed.append(f"{request.n} pictures at once")
    if len(quality) > len(speed):
        return "pro", f"pro, for quality: {', '.join(quality)}" + (f" (against {', '.join(speed)})" if speed else "")
    if speed:
        return "flash", f"flash, for speed: {', '.join(speed)}" + (
            f" (against {', '.join(quality)})" if quality else ""
        )
    return "flash", USUAL


def _able(request: ImageRequest, models: Mapping[TierName, ModelSpec]) -> list[TierName]:
    order: tuple[TierName, ...] = ("flash", "pro", "lite")
    return [tier for tier in order if tier in models and cannot(request, models[tier]) is None]


def _refusal(request: ImageRequest, tier: TierName, problem: str, models: Mapping[TierName, ModelSpec]) -> str:
    able = _able(request, models)
    way_out = f"model_tier '{able[0]}' can." if able else "No tier can do all of this; leave one of the options out."
    return f"Tier '{tier}' ({models[tier].nickname}) {problem}. {way_out}"


def _choice(request: ImageRequest, spec: ModelSpec, reason: str, *, auto: bool) -> Choice:
    grounding = request.enable_grounding
    if grounding is None:
        grounding = spec.tier == "pro" and spec.grounding
    return Choice(
        spec=spec,
        reason=reason,
        auto=auto,
        image_size=wanted_size(request, spec),
        grounding=grounding,
        thinking_level=request.thinking_level,
    )
