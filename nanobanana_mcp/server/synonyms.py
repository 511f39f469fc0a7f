"""Says what is wrong with an argument, and what to use instead of one that a tool does not have."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from nanobanana_mcp.domain.problems import in_words
from nanobanana_mcp.domain.terms import TOOLS
from nanobanana_mcp.domain.text import shorten
from nanobanana_mcp.server.arguments import kind

SAME: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("file", "file_path", "filepath"), ("path", "image", "input_images")),
    **dict.fromkeys(("size", "image_size", "dimensions"), ("resolution", "width")),
    **dict.fromkeys(("model", "model_id", "tier"), ("model_tier",)),
    **dict.fromkeys(("num_images", "number_of_images", "number_results", "count", "num_outputs"), ("n",)),
    **dict.fromkeys(
        ("image", "images", "input_image", "init_image", "seed_image", "reference_images", "image_url", "input_images",
         "input_image_path_1", "file_id", "path", "image_id"),
        ("image", "input_images", "path"),
    ),
    **dict.fromkeys(("save_path", "output_dir", "output_file", "filename", "path", "output"), ("output_path",)),
    **dict.fromkeys(("grounding", "search"), ("enable_grounding",)),
    **dict.fromkeys(("mask_image", "mask_path", "input_image_mask"), ("mask",)),
    **dict.fromkeys(("region", "bbox", "bounding_box"), ("box", "crop")),
    **dict.fromkeys(("format", "mime_type", "file_format"), ("output_format",)),
    **dict.fromkeys(("output_quality", "output_compression", "compression"), ("quality",)),
    **dict.fromkeys(("negative", "negative_prompt"), ("negative_prompt", "instruction")),
    **dict.fromkeys(("ratio", "aspect"), ("aspect_ratio",)),
    **dict.fromkeys(
        ("prompt", "positive_prompt", "instruction", "text", "description", "edit_prompt"),
        ("prompt", "instruction", "subject"),
    ),
    **dict.fromkeys(("margin", "margins", "padding", "pixels", "expand", "outpaint"), ("left", "context")),
    **dict.fromkeys(("resize", "scale", "upscale", "upscale_factor"), ("width",)),
    **dict.fromkeys(("angle", "rotation"), ("rotate",)),
    **dict.fromkeys(("surroundings", "mask_margin"), ("context",)),
    **dict.fromkeys(("transparent", "transparency", "alpha"), ("background",)),
    **dict.fromkeys(("color", "colour", "background_color"), ("background",)),
    **dict.fromkeys(
        ("reasoning", "thinking", "thinking_budget", "reasoning_effort", "effort", "complexity"), ("thinking_level",)
    ),
    **dict.fromkeys(
        ("check_nsfw", "moderation", "disable_safety_checker", "safety_checker", "safety_settings", "safety_tolerance"),
        ("safety",),
    ),
    **dict.fromkeys(("task_uuid", "request_id", "idempotency"), ("idempotency_key",)),
    "action": ("mode",),
}  # fmt: skip
"""Other image servers' names for our arguments, the most likely meaning first."""

WORDS = {
    "resolution": "resolution (1k, 2k, 4k), with aspect_ratio; width and height make an exact file",
    "model_tier": "model_tier (flash, pro, lite)",
    "input_images": "input_images, with input_roles for what each is for",
    "left": "left, top, right and bottom",
    "width": "width and height",
    "context": "context (how much around the region the model sees, of its size)",
    "quality": "quality (of a jpeg, webp or avif file)",
    "safety": "safety (Gemini's thresholds by category; it checks every picture anyway)",
    "idempotency_key": "idempotency_key (the same key and request again is not charged again)",
}
"""The words that suggest an argument of ours where its name alone is not enough."""

_SAY_IT = "Gemini has no such control; say it in words"
_EXAMPLES = (
    "no weights are loaded here: generate_image takes example pictures in input_images, with the role of each (style, "
    "character, subject) in input_roles"
)
_REFERENCE = (
    "generate_image takes reference pictures in input_images, with the role of each (character, subject, layout for a "
    "pose) in input_roles; a likeness is not promised"
)
_IN_THE_ANSWER = "leave it out, since the answer has the path, a preview and a link of each picture anyway"
_NO_USER = "leave it out, since nothing is sent about who asks"
_NO_MOTION = "there are no moving pictures here; ask generate_image for n pictures"
_NO_STEPS = "Gemini has no steps: thinking_level says how long it plans, and model_tier which model draws"

NOTHING_LIKE_IT: dict[str, str] = {
    **dict.fromkeys(
        ("cfg", "cfg_scale", "cfgscale", "guidance", "guidance_scale", "prompt_strength", "strength",
         "denoising_strength", "temperature", "top_p", "top_k", "negative", "negative_prompt"),
        _SAY_IT,
    ),
    **dict.fromkeys(("steps", "num_inference_steps", "inference_steps"), _NO_STEPS),
    **dict.fromkeys(
        ("scheduler", "sampler", "sampler_name", "vae", "clip_skip"),
        "Gemini has nothing of the kind to choose; leave it out",
    ),
    **dict.fromkeys(
        ("lora", "loras", "image_loras", "lycoris", "embeddings", "hf_lora", "lora_scale", "lora_weights"), _EXAMPLES
    ),
    **dict.fromkeys(
        ("ip_adapter", "ip_adapters", "instant_id", "face_image", "photo_maker", "pose_image", "control_net",
         "controlnet"),
        _REFERENCE,
    ),
    "ace_plus_plus": f"{_REFERENCE}; edit_region repaints a region",
    "prompt_weighting": "there are no weights: say in the prompt, in words, what matters most",
    **dict.fromkeys(
        ("output_type", "response_format", "return_base64", "include_base64", "sync_mode"), _IN_THE_ANSWER
    ),
    "include_cost": "leave it out, since every answer has the cost, and dry_run tells it beforehand",
    **dict.fromkeys(
        ("upload_endpoint", "webhook", "webhook_url", "callback_url"),
        "pictures are kept on this machine and put nowhere else; output_path says where",
    ),
    **dict.fromkeys(
        ("accelerator_options", "accelerator", "acceleration", "go_fast"),
        "there is nothing to accelerate; model_tier lite or thinking_level minimal is quicker",
    ),
    "advanced_features": "for transparency generate_image has background, and remove_background cuts a subject out; "
    "there are no other features to switch on",
    "style": "say the style in the prompt, or give generate_image a picture in input_images with the role style",
    "refiner": "there is no refiner: edit the picture again, or ask for it with model_tier pro or a higher resolution",
    "outpaint": "extend_image continues a picture beyond its edges, by left, top, right and bottom",
    **dict.fromkeys(
        ("extra_args", "extra_body", "extra_headers", "provider_options"),
        "nothing else is passed on to Gemini; use the arguments of this tool",
    ),
    **dict.fromkeys(("user", "user_id", "safety_identifier"), _NO_USER),
    **dict.fromkeys(
        ("stream", "partial_images"),
        "leave it out, since pictures come whole; progress is told while they are drawn",
    ),
    "input_fidelity": "there is no such switch: say in the prompt what must stay; edit_region keeps the rest bit-identical",
    "markup": "say in the prompt where it changes; edit_region takes the place as box or mask",
    "svg": "pictures are PNG, JPEG, WebP or AVIF; there are no vector graphics here",
    **dict.fromkeys(("frame_count", "frame_duration_ms", "duration", "fps", "num_frames"), _NO_MOTION),
    "image_path": "output_path says where to save; a picture to start from goes into input_images, or into image of the "
    "tools that edit one",
}  # fmt: skip
"""Other image servers' names for what no tool here does, and what to do instead."""

ABOUT = {
    "quality": "it is the compression of a jpeg, webp or avif file, 1 to 100; a better picture comes from model_tier, "
    "resolution or thinking_level",
    "background": "opaque does what auto does elsewhere: the prompt says what is behind the subject",
}
"""Says what an argument of ours is about, where another server means something else by its name."""

_WANTED = {
    "string_type": "text",
    "bool_type": "true or false",
    "float_type": "a number",
    **dict.fromkeys(("int_type", "int_from_float"), "a whole number"),
    "list_type": "a list ([...])",
    "dict_type": "an object ({...})",
}
"""The kind of value that belongs where another came, by pydantic's name of the problem."""


def argument_error(problem: Any, tool: str, known: Mapping[str, Collection[str]], arguments: Mapping[str, Any]) -> str:
    *path, last = problem["loc"]
    if last == "[key]":  # pydantic's mark for what is wrong with a key and not with its value
        return f"{path[0]}: {shorten(str(path[-1]))} {in_words(problem)}"
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{shorten(name)[1:-1]} is not an argument of this tool: {instead(name, tool, known)}"
    if problem["type"] in ("missing_argument", "missing"):
        return f"{name} is missing"
    given: Any = arguments
    walked: list[str] = []
    for part in problem["loc"]:  # behind an argument that takes two kinds, pydantic names the kind
        if not isinstance(given, list if isinstance(part, int) else Mapping):
            break
        given = given[part]
        walked.append(str(part))
    name = ".".join(walked)
    if problem["type"] in _WANTED:
        what = "a number that is too large" if isinstance(given, float) and given.is_integer() else kind(given)
        return f"{name} must be {_WANTED[problem['type']]}, not {what}{_about(name, given)}"
    return f"{name}: {in_words(problem)}{_about(name, given)}"


def instead(given: str, tool: str, known: Mapping[str, Collection[str]]) -> str:
    """Says what to use instead of an argument that a tool does not have; `known` are the arguments of every tool."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", given).lower().replace("-", "_")
    own = known.get(tool, ())
    meant = next((one for one in (name, *SAME.get(name, ())) if one in own), None)
    if meant is not None:
        return f"use {WORDS.get(meant, meant)}"
    if name in NOTHING_LIKE_IT and not any(other in NOTHING_LIKE_IT[name] for other in TOOLS - known.keys()):
        return NOTHING_LIKE_IT[name]
    for one in (name, *SAME.get(name, ())):
        others = sorted(other for other, arguments in known.items() if one in arguments)
        if others:
            return f"{', '.join(others)} {'has' if len(others) == 1 else 'have'} {one}; leave it out here"
    from difflib import get_close_matches

    close = get_close_matches(name, own, 1, cutoff=0.75)
    return f"use {close[0]}, if that was meant" if close else "leave it out"


def _about(name: str, given: object) -> str:
    """Say what an argument is about, for a word in its place that has a meaning elsewhere."""
    elsewhere = isinstance(given, str) and given.strip().lower() in ("auto", "low", "medium", "high", "standard", "hd")
    return f"; {ABOUT[name]}" if elsewhere and name in ABOUT else ""
