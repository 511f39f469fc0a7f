"""The types of arguments that every door shares, with what a caller is told of each."""

from typing import Annotated

from pydantic import Field

from nanobanana_mcp.domain.catalog import ThinkingLevel
from nanobanana_mcp.domain.terms import AskedTier, Fit, OutputFormat, Resolution

USUAL_QUALITY = 90
AS_THERE = "As in generate_image."
"""The description of an argument that generate_image has, too, and describes, so that a model need not read it twice.
"""

Width = Annotated[int | None, Field(ge=1, le=16384, description="Exact width in pixels.")]
Height = Annotated[int | None, Field(ge=1, le=16384, description="Exact height.")]
FitArgument = Annotated[Fit | None, Field(description="How it fills width x height; unset: cover.")]
EditWidth = Annotated[int | None, Field(ge=1, le=16384, description=AS_THERE)]
EditHeight = Annotated[int | None, Field(ge=1, le=16384, description=AS_THERE)]
EditFit = Annotated[Fit | None, Field(description=AS_THERE)]
EditQuality = Annotated[int | None, Field(ge=1, le=100, description=AS_THERE)]
CutoutFitArgument = Annotated[Fit | None, Field(description="How it fills width x height; unset: contain.")]
FormatArgument = Annotated[
    OutputFormat | None, Field(description="Unset: as output_path says, else as Gemini delivers it.")
]
QualityArgument = Annotated[int | None, Field(ge=1, le=100, description="For jpeg, webp, avif; unset: 90.")]
KeyArgument = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=200,
        description="Same key and request again: same pictures, no new charge.",
    ),
]
EditKey = Annotated[str | None, Field(min_length=1, max_length=200, description=AS_THERE)]
EditFormat = Annotated[OutputFormat | None, Field(description="Unset: as output_path says, else png.")]
MaxCost = Annotated[
    float | None,
    Field(gt=0, description="Most USD it may cost; a dear call needs it where nobody can be asked."),
]
EditMaxCost = Annotated[float | None, Field(gt=0, description="Most USD it may cost.")]
DryRun = Annotated[bool, Field(description="Only say what it would cost.")]
PathArgument = Annotated[
    str | None, Field(description="Path of an input image (PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF, HEIC).")
]
MorePath = Annotated[str | None, Field(description="Another one.")]
Picture = Annotated[str, Field(min_length=1, description="Path or img_... id.")]
Tier = Annotated[AskedTier, Field(description=AS_THERE)]
Answer = Annotated[Resolution, Field(description="Of the model's answer; high: as needed, up to 2K.")]
Thinking = Annotated[ThinkingLevel | None, Field(description=AS_THERE)]
Output = Annotated[str | None, Field(description="File or folder; never overwrites.")]
Margin = Annotated[int, Field(ge=0, le=8192, description="Pixels to add.")]
