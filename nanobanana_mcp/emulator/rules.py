"""Refuses what Google refuses of a well-formed request, per model, and reads what is to be drawn otherwise."""

import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from nanobanana_mcp.emulator import pictures, signatures
from nanobanana_mcp.emulator.control import Control
from nanobanana_mcp.emulator.files import File
from nanobanana_mcp.emulator.models import MODELS, SIZES, Model, Search, Size
from nanobanana_mcp.emulator.wire import GoogleError

IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp", "image/heic", "image/heif")

_KINDS = ("text", "inlineData", "fileData", "functionCall", "functionResponse", "executableCode", "codeExecutionResult")
_ROLES = ("user", "model")


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A request that Google would answer. `sources` are the pictures to work from, `pixels` width x height to draw."""

    model: Model
    prompt: str
    sources: list[Image.Image] = field(repr=False)
    ratio: str
    size: Size
    pixels: tuple[int, int]
    include_thoughts: bool
    thinking: str
    search: frozenset[Search]
    wants_text: bool
    text_tokens: int
    image_tokens: int
    digest: bytes


def find_model(name: str, *, version: str, method: str, revive: set[str]) -> Model:
    """The model `name`, a revived one by the id of its preview too. Raises GoogleError 404 for one unknown or retired."""
    model = MODELS.get(name.removesuffix("-preview") if name in revive else name)
    if model is None or (model.retired and name not in revive):
        raise GoogleError(
            404,
            f"models/{name} is not found for API version {version}, or is not supported for {method}. "
            "Call ListModels to see the list of available models and their supported methods.",
        )
    return model


def understand(
    request: dict[str, Any], *, model: Model, control: Control, now: float, find_file: Callable[[str], File]
) -> Ask:
    """The request as something to draw. Raises GoogleError 400, or 403 for a file that may not be seen."""
    config = request.get("generationConfig", {})
    _check_config(config, model)
    search = _search(request.get("tools", []), model)
    ratio, size = _shape(config.get("imageConfig", {}), model)
    reading = read_contents(request, model=model, control=control, now=now, find_file=find_file)
    sources = reading.images_of_last_turn or reading.images[-1:]
    if ratio is None:
        ratio = model.nearest_ratio(*reading.images[-1].size) if reading.images else "1:1"
    thinking = config.get("thinkingConfig", {})
    level = thinking.get("thinkingLevel", model.default_thinking)
    asked = {name: value for name, value in config.items() if name not in ("imageConfig", "thinkingConfig")}
    picked = json.dumps([model.id, ratio, size, level, sorted(search), asked], sort_keys=True).encode()
    return Ask(
        model=model,
        prompt=reading.last_text,
        sources=sources,
        ratio=ratio,
        size=size,
        pixels=model.size_of(ratio, size),
        include_thoughts=thinking.get("includeThoughts", False),
        thinking=level,
        search=search,
        wants_text="TEXT" in config.get("responseModalities", ["TEXT"]),
        text_tokens=math.ceil(reading.characters / 4),
        image_tokens=len(reading.images) * model.input_tokens_per_image,
        digest=hashlib.sha256(reading.digest + picked).digest(),
    )


@dataclass(kw_only=True)
class Reading:
    """The contents of a request: its pictures in order, its last text and a digest of everything."""

    images: list[Image.Image] = field(default_factory=list)
    images_of_last_turn: list[Image.Image] = field(default_factory=list)
    last_text: str = ""
    characters: int = 0
    digest: bytes = b""


def read_contents(
    request: dict[str, Any], *, model: Model, control: Control, now: float, find_file: Callable[[str], File]
) -> Reading:
    """Check and decode the conversation; the signatures of the model's own turns included."""
    contents = request.get("contents", [])
    if not contents:
        raise GoogleError(400, "* GenerateContentRequest.contents: contents is not specified\n")
    if contents[-1].get("role", "user") != "user":
        raise GoogleError(
            400, "Please ensure that single turn requests end with a user role or the role field is empty."
        )
    reading = Reading()
    hashed = hashlib.sha256()
    given = 0
    for turn, content in enumerate(contents):
        role = content.get("role", "user")
        if role not in _ROLES:
            raise GoogleError(400, "Please use a valid role: user, model.")
        if not content.get("parts"):
            raise GoogleError(
                400, f"* GenerateContentRequest.contents[{turn}].parts: contents.parts must not be empty.\n"
            )
        reading.last_text, reading.images_of_last_turn = "", []
        for place, part in enumerate(content["parts"]):
            payload = _payload(part, turn, place, find_file)
            hashed.update(f"{role}{place}{'text' in part}".encode() + hashlib.sha256(payload).digest())
            if role == "model" and model.signs and not part.get("thought"):
                _check_signature(part, payload, turn, place, model=model, control=control, now=now)
            if "text" in part:
                reading.characters += len(part["text"])
                reading.last_text = f"{reading.last_text} {part['text']}".strip()
                continue
            given += role == "user"
            image = _decoded(payload, whole=not control.cheap)
            reading.images.append(image)
            reading.images_of_last_turn.append(image)
    if given > model.max_images:
        raise GoogleError(
            400, f"Too many images: {given}. models/{model.id} accepts at most {model.max_images} per prompt."
        )
    for part in request.get("systemInstruction", {}).get("parts", []):
        reading.characters += len(part.get("text", ""))
        hashed.update(part.get("text", "").encode())
    reading.digest = hashed.digest()
    return reading


def _payload(part: dict[str, Any], turn: int, place: int, find_file: Callable[[str], File]) -> bytes:
    """The bytes a part stands for: its text in UTF-8, or its picture."""
    where = f"GenerateContentRequest.contents[{turn}].parts[{place}]"
    kinds = [kind for kind in _KINDS if kind in part]
    if not kinds:
        raise GoogleError(400, f"* {where}.data: required oneof field 'data' must have one initialized field\n")
    if len(kinds) > 1:
        raise GoogleError(
            400, f"Invalid value at 'contents[{turn}].parts[{place}]' (oneof), oneof field 'data' is already set."
        )
    if "text" in part:
        return str(part["text"]).encode()
    if "inlineData" in part:
        blob = part["inlineData"]
        _check_type(blob.get("mimeType"))
        if not blob.get("data"):
            raise GoogleError(400, f"* {where}.inline_data.data: required field is not set\n")
        return bytes(blob["data"])
    if "fileData" in part:
        uri = part["fileData"].get("fileUri", "")
        found = re.fullmatch(r"(?:https?://[^/?#]+/v1(?:beta)?/)?files/([^/?#]+)", uri)
        if found is None:
            raise GoogleError(400, "Cannot fetch content from the provided URL.")
        file = find_file(found[1])
        _check_type(part["fileData"].get("mimeType") or file.mime)
        return file.data
    raise GoogleError(400, "Function calling and code execution are not enabled for this model.")


def _check_type(mime: str | None) -> None:
    if not mime:
        raise GoogleError(400, "Unsupported MIME type: the mime_type of the data is not set.")
    if mime not in IMAGE_TYPES:
        raise GoogleError(400, f"Unsupported MIME type: {mime}")


def _decoded(data: bytes, *, whole: bool) -> Image.Image:
    try:
        return pictures.read(data, whole=whole)
    except ValueError as broken:
        raise GoogleError(
            400,
            "Unable to process input image. Please retry or report in "
            "https://developers.generativeai.google/guide/troubleshooting",
        ) from broken


def _check_signature(
    part: dict[str, Any], payload: bytes, turn: int, place: int, *, model: Model, control: Control, now: float
) -> None:
    signature = part.get("thoughtSignature")
    if signature is None:
        if "text" in part:
            return
        raise GoogleError(
            400,
            f"Image part is missing a thought_signature in content position {turn + 1}, part position {place + 1}. "
            "Please refer to https://ai.google.dev/gemini-api/docs/thought-signatures for more details.",
        )
    if not signatures.is_valid(
        signature,
        payload,
        model=model.id,
        secret=control.signature_secret,
        now=now,
        ttl_s=control.signature_ttl_s,
    ):
        raise GoogleError(
            400,
            f"Thought signature is not valid: thought_signature in content position {turn + 1}, "
            f"part position {place + 1}.",
        )


def _shape(config: dict[str, Any], model: Model) -> tuple[str | None, Size]:
    ratio, size = config.get("aspectRatio"), config.get("imageSize")
    if ratio is not None and ratio not in model.pixels:
        raise GoogleError(
            400, f"Unsupported aspect ratio '{ratio}' for models/{model.id}. Supported: {', '.join(model.pixels)}."
        )
    if size is None:
        return ratio, "1K"
    if not model.takes_size:
        raise GoogleError(400, f"Image size is not supported for models/{model.id}.")
    if size not in model.tokens:
        offered = ", ".join(each for each in SIZES if each in model.tokens)
        raise GoogleError(400, f"Unsupported image size '{size}' for models/{model.id}. Supported: {offered}.")
    return ratio, size


def _check_config(config: dict[str, Any], model: Model) -> None:
    name = f"models/{model.id}"
    thinking = config.get("thinkingConfig")
    if thinking is not None and not model.thinks:
        raise GoogleError(400, f"Thinking is not enabled for {name}.")
    level = (thinking or {}).get("thinkingLevel")
    if level is not None and level not in model.thinking_levels:
        raise GoogleError(
            400, f"Thinking level {level} is not supported for this model. Please retry with other thinking level."
        )
    if "thinkingBudget" in (thinking or {}):
        raise GoogleError(400, f"Thinking budget is not supported for {name}. Please use thinking_level.")
    if config.get("candidateCount", 1) != 1:
        raise GoogleError(400, f"Multiple candidates is not enabled for {name}")
    if config.get("responseMimeType", "text/plain") != "text/plain" or "responseSchema" in config:
        raise GoogleError(400, f"JSON mode is not enabled for {name}")
    modalities = set(config.get("responseModalities", ["TEXT", "IMAGE"]))
    if modalities not in ({"TEXT", "IMAGE"}, {"IMAGE"}):
        raise GoogleError(
            400,
            f"The requested combination of response modalities ({', '.join(sorted(modalities))}) is not supported by "
            f"the model. {name} accepts the following combination of response modalities:\n* IMAGE, TEXT\n* IMAGE\n",
        )
    for field_name, lowest, highest in (
        ("temperature", 0, 2),
        ("topP", 0, 1),
        ("maxOutputTokens", 1, model.output_token_limit),
        ("seed", -(2**31), 2**31 - 1),
    ):
        if not lowest <= config.get(field_name, lowest) <= highest:
            raise GoogleError(
                400,
                f"Unable to submit request because it has a {field_name} value of {config[field_name]} but the "
                f"supported range is from {lowest} (inclusive) to {highest} (inclusive). "
                "Update the value and try again.",
            )


def _search(tools: list[dict[str, Any]], model: Model) -> frozenset[Search]:
    asked: set[Search] = set()
    for tool in tools:
        if "googleSearch" not in tool:
            raise GoogleError(400, f"Function calling is not enabled for models/{model.id}")
        types = tool["googleSearch"].get("searchTypes", {})
        asked |= {"image"} if "imageSearch" in types else set()
        asked |= {"web"} if "webSearch" in types or not types else set()
    if asked and not model.search:
        raise GoogleError(400, f"Search Grounding is not supported for models/{model.id}.")
    if not asked <= model.search:
        raise GoogleError(400, f"Image search is not supported for models/{model.id}.")
    return frozenset(asked)
