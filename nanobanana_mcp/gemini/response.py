"""Reads one raw answer of generateContent: the picture, the words, the tokens, or why there is no picture."""

import base64
import binascii
import json
import math
import re
from dataclasses import dataclass, replace
from typing import Any

import pybase64
import pydantic_core

from nanobanana_mcp.domain.errors import NoPicture, Unreadable
from nanobanana_mcp.domain.wire import ModelReply, TurnPart, Usage

MAX_PARTS = 200
MAX_TEXT = 600
MAX_NAME = 80
"""The most characters of what should be a name of Google's: a reason, a version."""
MAX_TOKENS = 2_000_000
"""Twice what any Gemini model takes in or gives out: a larger count is not believed."""

DRAWN_TO = ("STOP", "MAX_TOKENS")
"""Finish reasons of an answer that the model brought to its end."""

MAX_SEARCHES = 100

MAX_REFUSAL = 100_000
"""Bytes. A missing signature is looked for in the beginning of an answer only: one without a picture is shorter."""

EMULATED_ID = "emulated-"
"""The beginning of our own emulator's responseId, so that nobody takes its pictures for Gemini's or its prices for
money."""

_REPHRASE = "Say it differently and try again."
_NO_USE = "The same prompt will be refused again; change what it asks for."

FINISH_REASONS: dict[str, tuple[str, str]] = {
    "NO_IMAGE": (
        "the model should have drawn a picture and did not",
        "Try once more, or describe the picture plainly.",
    ),
    "IMAGE_OTHER": ("making the picture failed for a reason Gemini does not name", "Try once more."),
    "IMAGE_SAFETY": ("the finished picture was held back by Gemini's safety filter", _NO_USE),
    "IMAGE_PROHIBITED_CONTENT": ("the picture would break Google's prohibited use policy", _NO_USE),
    "IMAGE_RECITATION": ("the picture came too close to an existing work", _REPHRASE),
    "PROHIBITED_CONTENT": ("the prompt breaks Google's prohibited use policy", _NO_USE),
    "SAFETY": ("Gemini's safety filter stopped the answer", _NO_USE),
    "BLOCKLIST": ("the prompt has words on Gemini's block list", "Replace them and try again."),
    "SPII": ("the prompt seems to hold sensitive personal information", "Leave it out and try again."),
    "RECITATION": ("the answer came too close to an existing text", _REPHRASE),
    "MAX_TOKENS": ("the answer reached its length limit before there was a picture", "Shorten the prompt."),
    "STOP": ("the model answered in words only", "Ask for a picture explicitly, or answer its question."),
    "LANGUAGE": ("the prompt's language is not supported", "Write it in English."),
    "OTHER": ("Gemini stopped for a reason it does not name", "Try once more."),
    "MALFORMED_RESPONSE": ("Gemini's answer was malformed", "Try once more."),
    "MALFORMED_FUNCTION_CALL": ("Gemini's answer was malformed", "Try once more."),
    "UNEXPECTED_TOOL_CALL": ("the model called a tool that it was not given", "Say it differently and try again."),
    "TOO_MANY_TOOL_CALLS": ("the model searched too often", "Try with enable_grounding false."),
    "MISSING_THOUGHT_SIGNATURE": ("the conversation's history was incomplete", "Start from the picture alone."),
    "CONTINUATION": ("the model wanted to go on in a second answer", "Ask for one picture."),
    "ESCALATION": ("Gemini passed the request to a review", _NO_USE),
    "PUP_LIMITED_DISABLED": ("this use is switched off for the account", "Ask Google about the account's limits."),
    "MODEL_ARMOR": ("the project's Model Armor policy stopped it", "Ask whoever runs the Google Cloud project."),
    "FINISH_REASON_UNSPECIFIED": ("Gemini gave no reason", "Try once more."),
}
BLOCK_REASONS: dict[str, tuple[str, str]] = {
    "SAFETY": ("Gemini's safety filter blocked the prompt", _NO_USE),
    "OTHER": ("Gemini blocked the prompt for a reason it does not name", _REPHRASE),
    "BLOCKLIST": ("the prompt has words on Gemini's block list", "Replace them and try again."),
    "PROHIBITED_CONTENT": ("the prompt breaks Google's prohibited use policy", _NO_USE),
    "IMAGE_SAFETY": ("Gemini considers an input picture or the picture asked for unsafe", _NO_USE),
    "MODEL_ARMOR": (
        "the project's Model Armor policy blocked the prompt",
        "Ask whoever runs the Google Cloud project.",
    ),
    "JAILBREAK": ("the prompt looks like an attempt to get round the rules", _REPHRASE),
    "BLOCKED_REASON_UNSPECIFIED": ("Gemini blocked the prompt and gave no reason", _REPHRASE),
    "BLOCK_REASON_UNSPECIFIED": ("Gemini blocked the prompt and gave no reason", _REPHRASE),
}


@dataclass(frozen=True, kw_only=True)
class _Part:
    text: str
    image: bytes | None
    mime_type: str | None
    thought: bool
    signature: bytes | None
    broken: bool
    """True when its picture is not valid base64."""


def read_reply(raw: bytes) -> ModelReply:
    """The pictures of a raw answer: the last image that is no thought is the final one, else the last image there is.

    Raises NoPicture with Gemini's reason in words, or Unreadable for what is no answer of Gemini's at all.
    """
    body = _parsed(raw)
    if isinstance(body, list) and len(body) == 1:  # a stream of one
        body = body[0]
    if isinstance(body, dict) and "candidates" not in body and isinstance(body.get("response"), dict):
        body = body["response"]  # as some gateways wrap it
    if not isinstance(body, dict):
        raise Unreadable("Gemini's answer has an unknown form; the raw answer is kept.")
    usage = _usage(body)
    candidate, parts, beside = _answered(body)
    images = [part for part in parts if part.image]
    if not images:
        if any(part.broken for part in parts):
            raise Unreadable("The picture in Gemini's answer is not valid base64; the raw answer is kept.")
        if not _says_why(body):
            raise Unreadable("Gemini's answer has an unknown form; the raw answer is kept.")
        raise _no_picture(body, candidate, parts, usage)
    drawn = [part for part in images if not part.thought]
    final = (drawn or images)[-1]
    assert final.image is not None
    return ModelReply(
        image=final.image,
        text=words(" ".join(part.text for part in parts if part.text and not part.thought)),
        usage=usage,
        model_version=words(str(body.get("modelVersion") or ""), MAX_NAME) or None,
        sources=_sources(candidate),
        others=tuple({part.image: None for part in (*beside, *drawn) if part.image and part.image != final.image}),
        emulated=_is_emulated(body),
        thought=final.thought,
        turn=tuple(
            TurnPart(text=part.text or None, data=part.image, mime_type=part.mime_type, signature=part.signature)
            for part in parts
            if not part.thought and (part.text or part.image or part.signature)
        ),
    )


def _says_why(body: dict[str, Any]) -> bool:
    """Tells whether an answer without a picture is in the form that Gemini's have: a block, or candidates of known
    parts.

    In any other form there may be a picture that was paid for, and nobody should throw it away.
    """
    feedback = body.get("promptFeedback")
    if isinstance(feedback, dict) and feedback.get("blockReason"):
        return True
    candidates = body.get("candidates")
    if not isinstance(candidates, list) or not candidates or not all(isinstance(one, dict) for one in candidates):
        return False
    for candidate in candidates:
        content = candidate.get("content") or {}
        parts = (content.get("parts") or []) if isinstance(content, dict) else None
        if not isinstance(parts, list) or not (parts or candidate.get("finishReason")):
            return False
        if not all(isinstance(part, dict) and not {"fileData", "file_data"} & part.keys() for part in parts):
            return False
    return True


def _parsed(raw: bytes) -> object:
    """The JSON of an answer, read in a tenth of the time that the standard library takes for megabytes of base64.

    What only that one takes is left to it, since the picture is paid for: half a surrogate pair and a byte that is no
    UTF-8, which no file and no client takes, become question marks.
    """
    try:
        return pydantic_core.from_json(raw, cache_strings="none")
    except ValueError:
        pass
    try:
        whole = _bare(raw.decode("utf-8-sig", "replace")) if raw[:1] not in (b"\xff", b"\xfe") else raw.decode("utf-16")
        found, _ = json.JSONDecoder(strict=False, parse_int=_integer).raw_decode(whole)
        return json.loads(json.dumps(found, ensure_ascii=False).encode(errors="replace"))
    except (ValueError, RecursionError) as error:
        raise Unreadable("Gemini's answer is not JSON; the raw answer is kept. Try again later.") from error


def _bare(text: str) -> str:
    """JSON without what gateways put before it: a guard against scripts, or the name of a stream's event."""
    return re.sub(r"\A\s*(?:\)\]\}',?\s*|(?:event:[^\n]*\n)?data:\s*)?", "", text)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 20 else math.inf  # Python reads no number of thousands of digits


def _answered(body: dict[str, Any]) -> tuple[dict[str, Any], list[_Part], list[_Part]]:
    """The candidate that speaks for the answer, its parts, and the pictures of the other candidates, which are drawn and
    paid for, too.
    """
    candidates = _dictionaries(body.get("candidates"))
    drawn: list[tuple[dict[str, Any], list[_Part]]] = []
    for candidate in candidates[:MAX_PARTS]:
        given = _dictionaries(_dictionary(candidate.get("content")).get("parts"))
        read = [_part(part) for number, part in enumerate(given) if number < MAX_PARTS or _inline(part).get("data")]
        drawn.append((candidate, read))
    if not drawn:
        return {}, [], []
    final = next((one for one in drawn if any(part.image for part in one[1])), drawn[0])
    beside = [part for one in drawn if one is not final for part in one[1] if part.image and not part.thought]
    return final[0], final[1], beside


def _no_picture(body: dict[str, Any], candidate: dict[str, Any], parts: list[_Part], usage: Usage) -> NoPicture:
    feedback = _dictionary(body.get("promptFeedback"))
    block = feedback.get("blockReason")
    reason = words(str(block or candidate.get("finishReason") or ""), MAX_NAME) or "FINISH_REASON_UNSPECIFIED"
    table = BLOCK_REASONS if block else FINISH_REASONS
    what, way_out = table.get(reason, (f"Gemini stopped with {reason}", _REPHRASE))
    details = [quoted("Gemini says", candidate.get("finishMessage") or feedback.get("blockReasonMessage"))]
    details.append(quoted("The model wrote", " ".join(part.text for part in parts if part.text and not part.thought)))
    said = "".join(f" {detail}" for detail in details if detail)
    if reason in DRAWN_TO and not isinstance(body.get("usageMetadata"), dict):
        usage = replace(usage, whole=False)  # it was worked on, so it is not free
    emulated = _is_emulated(body)
    return NoPicture(f"No picture: {what} ({reason}). {way_out}{said}", reason=reason, usage=usage, emulated=emulated)


def unsigned(raw: bytes) -> NoPicture | None:
    """Gemini's answer that a conversation's signatures are missing, where `raw` is that; None for any other."""
    if b"MISSING_THOUGHT_SIGNATURE" not in raw[:MAX_REFUSAL]:
        return None
    try:
        read_reply(raw)
    except NoPicture as error:
        return error if error.reason == "MISSING_THOUGHT_SIGNATURE" else None
    except Unreadable:
        pass
    return None


def _is_emulated(body: dict[str, Any]) -> bool:
    return str(body.get("responseId") or "").startswith(EMULATED_ID)


def quoted(who: str, text: object) -> str:
    """Words from outside, marked as such; "" when there are none."""
    said = words(text) if isinstance(text, str) else ""
    return f'{who}: "{said}"' if said else ""


def words(text: str, most: int = MAX_TEXT) -> str:
    """Words from outside on one line, without what is invisible or turns the line around, and at most so many characters."""
    clean = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return clean if len(clean) <= most else f"{clean[:most]}..."


def _inline(part: dict[str, Any]) -> dict[str, Any]:
    return _dictionary(part.get("inlineData") or part.get("inline_data"))


def _part(part: dict[str, Any]) -> _Part:
    inline = _inline(part)
    text = part.get("text")
    data = inline.get("data")
    image = _decoded(data)
    return _Part(
        text=text if isinstance(text, str) else "",
        image=image,
        mime_type=str(inline.get("mimeType") or inline.get("mime_type") or "") or None,
        thought=part.get("thought") is True,
        signature=_decoded(part.get("thoughtSignature") or part.get("thought_signature")),
        broken=image is None and bool(data),
    )


def _decoded(data: object) -> bytes | None:
    """The bytes that base64 stands for, in either alphabet; None where there is none, or it is broken: a signature is no reason
    to lose the picture beside it.
    """
    if not isinstance(data, str) or not data:
        return None
    try:
        return pybase64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):  # base64 of another kind, or none
        pass
    bare = "".join(data.split()) if not data.startswith("data:") else data.partition(",")[2]
    bare = bare.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _usage(body: dict[str, Any]) -> Usage:
    """Tokens as Google bills them; without a breakdown every candidate token counts as the dearer image token."""
    given = body.get("usageMetadata")
    counts = _dictionary(given)
    details = _dictionaries(counts.get("candidatesTokensDetails"))
    names = ("promptTokenCount", "toolUsePromptTokenCount", "thoughtsTokenCount", "candidatesTokenCount")
    prompt, tools, thoughts, candidates = (_number(counts.get(name)) for name in names)
    images = [_number(one.get("tokenCount")) for one in details if one.get("modality") == "IMAGE"]
    image = sum(number or 0 for number in images) if details else candidates or 0
    searches = 0
    for candidate in _dictionaries(body.get("candidates")):
        grounding = _dictionary(candidate.get("groundingMetadata"))
        queries = [grounding.get(name) for name in ("webSearchQueries", "imageSearchQueries")]
        searches += sum(len(query) for query in queries if isinstance(query, list))
    read = None not in (prompt, tools, thoughts, candidates, *images) and image <= MAX_TOKENS
    return Usage(
        prompt=(prompt or 0) + (tools or 0),
        text=max((candidates or 0) - image, 0) + (thoughts or 0),
        image=image if image <= MAX_TOKENS else 0,
        searches=searches if searches <= MAX_SEARCHES else 0,
        whole=read and searches <= MAX_SEARCHES and (given is None or isinstance(given, dict)),
    )


def _sources(candidate: dict[str, Any]) -> tuple[str, ...]:
    chunks = _dictionaries(_dictionary(candidate.get("groundingMetadata")).get("groundingChunks"))
    found = []
    for chunk in chunks[:20]:
        web, image = _dictionary(chunk.get("web")), _dictionary(chunk.get("image"))
        address = web.get("uri") or image.get("sourceUri")
        if isinstance(address, str) and address.startswith(("https://", "http://")) and address.isprintable():
            found.append(address[:300])
    return tuple(dict.fromkeys(found))


def _dictionary(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dictionaries(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _number(value: object) -> int | None:
    """A count of tokens, 0 where there is none; None for what is no count that could be true."""
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_TOKENS:
        return None
    return int(value) if value == int(value) else None
