"""Requests, and the model that was chosen for one."""

from dataclasses import dataclass

from nanobanana_mcp.domain.catalog import AspectRatio, ImageSize, ModelSpec, ThinkingLevel
from nanobanana_mcp.domain.terms import (
    AskedMode,
    AskedTier,
    Fit,
    HarmCategory,
    HarmThreshold,
    InputRole,
    OutputFormat,
    Resolution,
)


@dataclass(frozen=True, kw_only=True)
class OutputSpec:
    """The exact file a caller wants beside the master: width x height in pixels, one of them None to follow."""

    width: int | None = None
    height: int | None = None
    fit: Fit = "cover"
    output_format: OutputFormat | None = None
    quality: int = 90


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """A request for pictures, valid in shape. `inputs` are paths, `files/...` ids or our image ids, in order."""

    prompt: str
    n: int = 1
    negative_prompt: str | None = None
    system_instruction: str | None = None
    inputs: tuple[str, ...] = ()
    file_id: str | None = None
    mode: AskedMode = "auto"
    model_tier: AskedTier = "auto"
    resolution: Resolution = "high"
    thinking_level: ThinkingLevel | None = None
    enable_grounding: bool | None = None
    aspect_ratio: AspectRatio | None = None
    output_path: str | None = None
    input_roles: tuple[InputRole, ...] = ()
    """For the inputs in order; shorter than them, the rest have none."""
    seed: int | None = None
    safety: tuple[tuple[HarmCategory, HarmThreshold], ...] = ()
    continue_from: str | None = None
    """The picture (img_...) whose conversation with the model goes on."""
    exact: OutputSpec | None = None


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The model picked for a request, what will be sent to it, and the reason."""

    spec: ModelSpec
    reason: str
    auto: bool
    image_size: ImageSize
    grounding: bool
    thinking_level: ThinkingLevel | None
