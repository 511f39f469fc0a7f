"""The types of arguments that every door shares, with what a caller is told of each."""

from typing import Annotated

from pydantic import Field

from nanobanana_mcp.domain.catalog import ThinkingLevel
from nanobanana_mcp.domain.terms import AskedTier, Fit, OutputFormat, Resolution

USUAL_QUALITY = 90

Width = Annotated[int | None, Field(ge=1, le=16384, description="Exact width in pixels.")]
Height = Annotated[int | None, Field(ge=1, le=16384, description="Exact height.")]
FitArgument = Annotated[Fit | None, Field(description="How it fills width x height; unset: cover.")]
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
EditFormat = Annotated[OutputFormat | None, Field(description="Unset: as output_path says, else png.")]
MaxCost = Annotated[
    float | None,
    Field(gt=0, description="The most USD it may cost; a dear call needs it where nobody can be asked."),
]
EditMaxCost = Annotated[float | None, Field(gt=0, description="As in generate_image.")]
DryRun = Annotated[bool, Field(description="true: only say what it would cost.")]
PathArgument = Annotated[
    str | None, Field(description="Path of an input image (PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF, HEIC).")
]
MorePath = Annotated[str | None, Field(description="Another one.")]
Picture = Annotated[str, Field(min_length=1, description="Path or img_... id of the picture.")]
Tier = Annotated[AskedTier, Field(description="As in generate_image.")]
Answer = Annotated[Resolution, Field(description="Of the model's answer; high: as needed, up to 2K.")]
Thinking = Annotated[ThinkingLevel | None, Field(description="As in generate_image.")]
Output = Annotated[str | None, Field(description="A file or a folder; never overwrites.")]
Margin = Annotated[int, Field(ge=0, le=8192, description="Pixels to add.")]
