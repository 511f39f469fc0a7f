"""Says what is wrong with an argument, and what to use in place of one that a tool does not have."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from nanobanana_mcp.domain.problems import in_words
from nanobanana_mcp.domain.text import shorten
from nanobanana_mcp.server.arguments import kind

_SAY_IT = "Gemini has no such control; say it in words"

SAME: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("file", "file_path", "filepath"), ("path", "image", "input_images")),
    **dict.fromkeys(("size", "image_size", "dimensions"), ("resolution", "width")),
    **dict.fromkeys(("model", "model_id", "tier"), ("model_tier",)),
    **dict.fromkeys(("lora", "loras", "lycoris", "embeddings", "controlnet", "ip_adapter"), ("input_images",)),
    **dict.fromkeys(("num_images", "number_of_images", "number_results", "count", "num_outputs"), ("n",)),
    **dict.fromkeys(
        ("image", "image_path", "images", "input_image", "init_image", "reference_images", "image_url", "input_images",
         "input_image_path_1", "file_id", "path", "image_id"),
        ("image", "input_images", "path"),
    ),
    **dict.fromkeys(("save_path", "output_dir", "output_file", "filename", "path", "output"), ("output_path",)),
    **dict.fromkeys(("grounding", "search"), ("enable_grounding",)),
    **dict.fromkeys(("mask_image", "mask_path"), ("mask",)),
    **dict.fromkeys(("region", "bbox", "bounding_box"), ("box", "crop")),
    **dict.fromkeys(("format", "mime_type", "file_format"), ("output_format",)),
    **dict.fromkeys(("negative", "negative_prompt"), ("negative_prompt", "instruction")),
    **dict.fromkeys(("ratio", "aspect"), ("aspect_ratio",)),
    **dict.fromkeys(("prompt", "instruction", "text", "description", "edit_prompt"), ("prompt", "instruction", "subject")),
    **dict.fromkeys(("margin", "margins", "padding", "pixels", "expand"), ("left", "context")),
    **dict.fromkeys(("resize", "scale"), ("width",)),
    **dict.fromkeys(("angle", "rotation"), ("rotate",)),
    **dict.fromkeys(("surroundings",), ("context",)),
    **dict.fromkeys(("transparent", "transparency", "alpha"), ("background",)),
    **dict.fromkeys(("color", "colour", "background_color"), ("background",)),
    **dict.fromkeys(("reasoning", "thinking", "thinking_budget"), ("thinking_level",)),
}  # fmt: skip
"""Names that other image servers have for arguments of ours, first the one that means the most."""

WORDS = {
    "resolution": "resolution (1k, 2k, 4k), with aspect_ratio; width and height make an exact file",
    "model_tier": "model_tier (flash, pro, lite)",
    "input_images": "input_images, with input_roles for what each is for",
    "left": "left, top, right and bottom",
    "width": "width and height",
}
"""Where the name of an argument alone would not be enough."""

NOTHING_LIKE_IT = dict.fromkeys(
    ("steps", "num_inference_steps", "cfg", "cfg_scale", "guidance", "guidance_scale", "scheduler", "sampler",
     "sampler_name", "clip_skip", "strength", "denoising_strength", "temperature", "top_p", "top_k", "style",
     "lora", "loras", "lycoris", "embeddings", "controlnet", "ip_adapter", "negative", "negative_prompt"),
    _SAY_IT,
)  # fmt: skip

_WANTED = {
    "string_type": "text",
    "bool_type": "true or false",
    "float_type": "a number",
    **dict.fromkeys(("int_type", "int_from_float"), "a whole number"),
    "list_type": "a list ([...])",
    "dict_type": "an object ({...})",
}
"""By pydantic's name of the problem, the kind of value that belongs where another came."""


def argument_error(problem: Any, tool: str, known: Mapping[str, Collection[str]], arguments: Mapping[str, Any]) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{shorten(name)[1:-1]} is not an argument of this tool: {instead(name, tool, known)}"
    if problem["type"] in ("missing_argument", "missing"):
        return f"{name} is missing"
    if problem["type"] in _WANTED:
        given: Any = arguments
        for part in problem["loc"]:
            given = given[part]
        what = "a number that is too large" if isinstance(given, float) and given.is_integer() else kind(given)
        return f"{name}: {what} arrived where {_WANTED[problem['type']]} belongs"
    return f"{name}: {in_words(problem)}"


def instead(given: str, tool: str, known: Mapping[str, Collection[str]]) -> str:
    """Say what to use in place of an argument that a tool does not have; `known` are the arguments of every tool."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", given).lower().replace("-", "_")
    own = known.get(tool, ())
    meant = next((one for one in (name, *SAME.get(name, ())) if one in own), None)
    if meant is not None:
        return f"use {WORDS.get(meant, meant)}"
    if name in NOTHING_LIKE_IT:
        return NOTHING_LIKE_IT[name]
    for one in (name, *SAME.get(name, ())):
        others = sorted(other for other, arguments in known.items() if one in arguments)
        if others:
            return f"{', '.join(others)} {'has' if len(others) == 1 else 'have'} {one}; leave it out here"
    from difflib import get_close_matches

    close = get_close_matches(name, own, 1, cutoff=0.75)
    return f"use {close[0]}, if that was meant" if close else "leave it out"
