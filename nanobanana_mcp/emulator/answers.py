"""The answer to a request that is granted: pictures, words, thoughts, signatures, token counts and the price."""

import base64
import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import pybase64
from PIL import Image

from nanobanana_mcp.emulator import pictures, signatures
from nanobanana_mcp.emulator.control import (
    Behaviour,
    Control,
    Edit,
    Extension,
    Junk,
    ManyParts,
    Picture,
    Plate,
    SmallerThanAsked,
    TextOnly,
    ThoughtOnly,
    Truncated,
)
from nanobanana_mcp.emulator.drift import LEVELS, redrawn
from nanobanana_mcp.emulator.models import SIZES
from nanobanana_mcp.emulator.rules import Ask
from nanobanana_mcp.emulator.scenery import subject_of


@dataclass(frozen=True, kw_only=True)
class Charge:
    """The bill that Google would send for one answer: USD, and all tokens in and out."""

    model: str
    usd: float
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The JSON of a GenerateContentResponse and its price."""

    json: dict[str, Any]
    charge: Charge


_PLAIN = re.compile(r"\b(?:plain|flat|uniform|solid)\b[^.]{0,40}\bbackground\b[^.]{0,20}#[0-9a-fA-F]{6}\b")
"""Words that ask for a subject alone on one colour, which is then drawn as it should be: it is the way to transparency."""


class Artist:
    """Makes answers; remembers the subjects of plates, so that a second plate can show the same one."""

    def __init__(self, *, clock: Callable[[], float], control: Control) -> None:
        self._clock = clock
        self._control = control
        self._subjects: OrderedDict[str, Image.Image] = OrderedDict()

    def answer(self, ask: Ask, behaviour: Behaviour | None, *, serial: int, price: float = 1.0) -> Answer:
        """The answer to the `serial`-th (from 0) request of this very content, at `price` of what it costs at once.

        Takes CPU time; call it in a thread.
        """
        if isinstance(behaviour, SmallerThanAsked):
            ask = _smaller(ask)
        images = [
            self._picture(ask, behaviour, seed=_seed(ask.digest, serial, index), serial=serial)
            for index in range(_count(behaviour))
        ]
        parts = self._thoughts(ask, images)
        text = behaviour.text if isinstance(behaviour, TextOnly) else self._control.text
        texts = [text] if text and (ask.wants_text or isinstance(behaviour, TextOnly)) else []
        if isinstance(behaviour, ThoughtOnly):
            parts = [
                {"text": "**Trying a first version**", "thought": True},
                self._image_part(*images[0]) | {"thought": True},
            ]
            texts, images = [], []
        spoken: list[dict[str, Any]] = [{"text": each} for each in texts]
        payloads = [each.encode() for each in texts]
        for index, (data, mime) in enumerate(images):
            if isinstance(behaviour, ManyParts):
                spoken.append({"text": f"Picture {index + 1}"})
                payloads.append(f"Picture {index + 1}".encode())
            spoken.append(self._image_part(data, mime))
            payloads.append(data)
        for index, part in enumerate(spoken):
            if ask.model.signs and (index == 0 or "inlineData" in part):
                part["thoughtSignature"] = self._signature(payloads[index], ask)
        written = sum(len(part["text"]) // 4 + 1 for part in spoken if "text" in part)
        return self._wrapped(
            ask, parts + spoken, pictures_made=len(images), text_tokens=written, serial=serial, price=price
        )

    def _wrapped(
        self,
        ask: Ask,
        parts: list[dict[str, Any]],
        *,
        pictures_made: int,
        text_tokens: int,
        serial: int,
        price: float,
    ) -> Answer:
        model = ask.model
        image_tokens = pictures_made * model.tokens[ask.size]
        thought_tokens = model.thought_tokens[ask.thinking]
        prompt_tokens = ask.text_tokens + ask.image_tokens
        total = prompt_tokens + text_tokens + image_tokens + thought_tokens
        usd = (
            price
            * (
                prompt_tokens * model.input_usd
                + (thought_tokens + text_tokens) * model.text_usd
                + image_tokens * model.image_usd
            )
            / 1_000_000
        )
        candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "finishReason": "STOP", "index": 0}
        if ask.search:
            candidate["groundingMetadata"] = _grounding(ask)
        usage = usage_metadata(ask) | {"totalTokenCount": total}
        if image_tokens + text_tokens:
            usage["candidatesTokenCount"] = image_tokens + text_tokens
        if image_tokens:
            usage["candidatesTokensDetails"] = [{"modality": "IMAGE", "tokenCount": image_tokens}]
        if thought_tokens:
            usage["thoughtsTokenCount"] = thought_tokens
        json = {"candidates": [candidate]} | envelope(ask, usage, serial=serial, named=self._control.named)
        return Answer(json=json, charge=Charge(model=model.id, usd=round(usd, 9), tokens=total))

    def _picture(self, ask: Ask, behaviour: Behaviour | None, *, seed: bytes, serial: int) -> tuple[bytes, str]:
        """The bytes and the type they are declared to be."""
        if isinstance(behaviour, Picture):
            return behaviour.data, behaviour.mime
        if isinstance(behaviour, Junk):
            return b"no picture " + seed, "image/png"
        mime = self._control.mime
        declared = self._control.declared_mime or mime
        if isinstance(behaviour, Plate):
            return self._plate(ask, behaviour, seed=seed), declared
        if behaviour is None and not self._control.cheap and _PLAIN.search(ask.prompt):
            return self._plate(ask, Plate(), seed=seed), declared
        if self._control.cheap:
            data = pictures.numbered(pictures.stock(ask.pixels, mime), seed)
        else:
            data = pictures.encode(self._draw(ask, behaviour, seed=seed, serial=serial), mime)
        return (data[: len(data) // 2] if isinstance(behaviour, Truncated) else data), declared

    def _draw(self, ask: Ask, behaviour: Behaviour | None, *, seed: bytes, serial: int) -> Image.Image:
        width, height = ask.pixels
        footer = f"EMULATED  {ask.model.id}  {width}x{height}"
        if self._control.serial:
            footer += f"  #{serial + 1}"
        if not ask.sources:
            return pictures.compose(ask.prompt, size=ask.pixels, seed=seed, footer=footer)
        if len(ask.sources) > 1:
            return pictures.collage(ask.sources, ask.prompt, size=ask.pixels, seed=seed, footer=footer)
        redraw = behaviour if isinstance(behaviour, Edit) else None
        beyond = behaviour.beyond if isinstance(behaviour, Extension) else "on"
        image = pictures.edit(ask.sources[0], ask.prompt, size=ask.pixels, seed=seed, redraw=redraw, beyond=beyond)
        return self._drifted(image, seed)

    def _drifted(self, image: Image.Image, seed: bytes) -> Image.Image:
        if self._control.drift == "none":
            return image
        level = LEVELS[self._control.drift]
        return redrawn(image, level, seed=int.from_bytes(seed[:4], "big"), size=image.size).image

    def _plate(self, ask: Ask, behaviour: Plate, *, seed: bytes) -> bytes:
        subject = self._subject(ask, behaviour)
        colour = behaviour.background
        if colour is None:
            found = re.search(r"#[0-9a-fA-F]{6}\b", ask.prompt)
            colour = found[0] if found else "#ffffff"
        red, green, blue = bytes.fromhex(colour[1:])
        image = pictures.plate(subject, size=ask.pixels, background=(red, green, blue), mismatch=behaviour.mismatch)
        data = pictures.encode(self._drifted(image, seed), self._control.mime)
        self._subjects[pictures.pixel_hash(pictures.read(data))] = subject
        while len(self._subjects) > 32:
            self._subjects.popitem(last=False)
        return data

    def _subject(self, ask: Ask, behaviour: Plate) -> Image.Image:
        if behaviour.subject is not None:
            return Image.open(BytesIO(behaviour.subject)).convert("RGBA")
        known = self._subjects.get(pictures.pixel_hash(ask.sources[-1])) if ask.sources else None
        if known is None and self._subjects:
            known = next(reversed(self._subjects.values()))
        if known is None and ask.sources:
            return subject_of(pictures.rgb(ask.sources[-1]), ask.pixels)
        return known if known is not None else pictures.built_in_subject(ask.pixels)

    def _thoughts(self, ask: Ask, images: list[tuple[bytes, str]]) -> list[dict[str, Any]]:
        wish = self._control.thoughts
        if not ask.model.thinks or wish == "never" or (wish == "asked" and not ask.include_thoughts):
            return []
        parts: list[dict[str, Any]] = [{"text": "**Planning the composition**", "thought": True}]
        if images and wish != "text":
            size = (max(16, ask.pixels[0] // 4), max(16, ask.pixels[1] // 4))
            footer = f"EMULATED THOUGHT  {ask.model.id}"
            sketch = pictures.compose(ask.prompt, size=size, seed=_seed(ask.digest, 0, -1), footer=footer)
            parts.append(self._image_part(pictures.encode(sketch, "image/jpeg"), "image/jpeg") | {"thought": True})
        return parts

    def _image_part(self, data: bytes, mime: str) -> dict[str, Any]:
        return {"inlineData": {"mimeType": mime, "data": pybase64.b64encode_as_string(data)}}

    def _signature(self, payload: bytes, ask: Ask) -> str:
        signature = signatures.sign(
            payload, model=ask.model.id, secret=self._control.signature_secret, now=self._clock()
        )
        return base64.b64encode(signature).decode()

    def clear(self) -> None:
        """Forget every subject."""
        self._subjects.clear()


def usage_metadata(ask: Ask) -> dict[str, Any]:
    """The counts of the prompt alone, as they stand on an answer without a candidate."""
    details = [{"modality": "TEXT", "tokenCount": ask.text_tokens}]
    if ask.image_tokens:
        details.append({"modality": "IMAGE", "tokenCount": ask.image_tokens})
    total = ask.text_tokens + ask.image_tokens
    return {
        "promptTokenCount": total,
        "totalTokenCount": total,
        "promptTokensDetails": details,
        "serviceTier": "standard",
    }


def envelope(ask: Ask, usage: dict[str, Any], *, serial: int, named: bool) -> dict[str, Any]:
    """The fields beside the candidates on every answer; `named` as in Control."""
    response_id = base64.urlsafe_b64encode(_seed(ask.digest, serial, -2)[:15]).decode()
    return {
        "usageMetadata": usage,
        "modelVersion": ask.model.id,
        "responseId": f"emulated-{response_id}" if named else response_id,
        "modelStatus": {"modelStage": "STABLE"},
    }


def _count(behaviour: Behaviour | None) -> int:
    match behaviour:
        case ManyParts():
            return behaviour.n
        case TextOnly():
            return 0
    return 1


def _seed(digest: bytes, serial: int, index: int) -> bytes:
    return hashlib.sha256(digest + f"{serial}/{index}".encode()).digest()


def _smaller(ask: Ask) -> Ask:
    offered = [size for size in SIZES if size in ask.model.tokens]
    size = offered[max(0, offered.index(ask.size) - 1)]
    return replace(ask, size=size, pixels=ask.model.size_of(ask.ratio, size))


def _grounding(ask: Ask) -> dict[str, Any]:
    chunks: list[dict[str, Any]] = [{"web": {"uri": "https://example.org/page", "title": "example.org"}}]
    metadata: dict[str, Any] = {
        "webSearchQueries": [ask.prompt[:80]],
        "searchEntryPoint": {"renderedContent": "<div>Emulated search suggestions</div>"},
        "groundingSupports": [{"segment": {"startIndex": 0, "endIndex": 4}, "groundingChunkIndices": [0]}],
    }
    if "image" in ask.search:
        metadata["imageSearchQueries"] = [ask.prompt[:80]]
        picture = {"sourceUri": "https://example.org/page", "imageUri": "https://example.org/a.jpg"}
        chunks.append({"image": picture | {"title": "An emulated find", "domain": "example.org"}})
    return metadata | {"groundingChunks": chunks}
