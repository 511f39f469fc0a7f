"""The words of the domain and every bound on what is asked."""

import re
from typing import Literal, get_args

Mode = Literal["generate", "edit"]
AskedMode = Literal["auto", "generate", "edit"]
AskedTier = Literal["auto", "flash", "nb2", "pro", "lite"]
Resolution = Literal["high", "1k", "2k", "4k"]
Role = Literal["base", "reference", "mask", "part"]
Origin = Literal["generated", "edited", "derived", "mask", "part", "imported"]
"""A part is a model's answer that a picture was put together from; derived is a picture in another size or format; a mask
was painted over a picture to say where to edit."""

InputRole = Literal["subject", "character", "style", "layout", "product", "other"]
HarmCategory = Literal["harassment", "hate_speech", "sexually_explicit", "dangerous_content"]
HarmThreshold = Literal["block_low_and_above", "block_medium_and_above", "block_only_high", "block_none", "off"]
Grow = int | Literal["auto"]
"""Pixels by which a region is widened; auto: as far as what the model changed in touch with it."""

Fit = Literal["cover", "contain", "pad", "stretch"]
OutputFormat = Literal["png", "jpeg", "webp", "avif"]
Background = Literal["opaque", "transparent"]
UploadState = Literal["pending", "active", "failed", "deleted"]
Backend = Literal["gemini", "vertex_ai", "emulator"]

Operation = Literal[
    "cleanup_expired", "cleanup_local", "check_quota", "database_hygiene", "full_cleanup", "restore", "recover"
]

ToolName = Literal[
    "generate_image",
    "edit_region",
    "extend_image",
    "remove_background",
    "convert_image",
    "find_images",
    "view_image",
    "upload_file",
    "output_stats",
    "maintenance",
]
TOOLS: frozenset[ToolName] = frozenset(get_args(ToolName))
CORE: frozenset[ToolName] = frozenset({"generate_image", "edit_region", "output_stats"})
"""Enough to make pictures, to change them and to know what there is, for clients with little room."""


def tools_named(text: str) -> frozenset[str]:
    """The tools that are meant by `all`, `core` or names, with commas or blanks between them. Raises ValueError."""
    words = frozenset(re.split(r"[\s,]+", text.strip(" ,").lower().replace("-", "_")))
    if not words <= TOOLS | {"all", "core"}:
        raise ValueError(f"must be all, core or names out of {', '.join(sorted(TOOLS))}")
    return TOOLS if "all" in words else words - {"core"} | (CORE if "core" in words else frozenset())


MAX_PROMPT = 8192
MAX_NEGATIVE = 1024
MAX_INSTRUCTION = 512
INPUT_PATHS = frozenset(
    {
        "image",
        "mask",
        "path",
        "copy_of",
        "compare_with",
        "input_image_path_1",
        "input_image_path_2",
        "input_image_path_3",
    }
)
"""Arguments of the tools that name one input picture by its path; `input_images` names several."""

MAX_INPUTS = 14
MAX_N = 20

REQUEST_BYTES = 14 * 1024 * 1024
"""All pictures within one request: base64 makes 19 MiB of it, and Google takes 20 MB."""

MAX_AGE_HOURS = 168
KEEP_COUNT = 10
"""The number that maintenance uses when a call names none."""

MAX_FILE_BYTES = 64 * 1024 * 1024
"""A stranger's file. Google's Files API takes more; a photograph of 50 megapixels in PNG has about this."""
MAX_PIXELS = 60_000_000
"""A stranger's picture, and what is sent. 50-megapixel photographs pass; as RGBA this is 240 MB. Image proxies draw the
line at 50 to 100."""
MADE_SIDE, MADE_PIXELS = 16_384, 100_000_000
"""The most that is made here; WebP ends at 16,383 a side. A request beyond it is refused before anything is paid."""
MADE_BYTES = 4 * MADE_PIXELS + 32_000_000
"""The largest file that is made here: four channels that no compression makes smaller, a profile and a label."""
