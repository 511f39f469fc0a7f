"""The nouns: what is asked, what comes back, what is kept. Imports nothing of ours but the model table's words."""

import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from nanobanana_mcp.tiers import AspectRatio, ImageSize, ModelSpec, ThinkingLevel

Mode = Literal["generate", "edit"]
AskedMode = Literal["auto", "generate", "edit"]
AskedTier = Literal["auto", "flash", "nb2", "pro", "lite"]
Resolution = Literal["high", "1k", "2k", "4k"]
Role = Literal["base", "reference", "mask", "part"]
Origin = Literal["generated", "edited", "derived", "part", "imported"]
"""A part is a model's answer that a picture was put together from; derived is a picture in another size or format."""

InputRole = Literal["subject", "character", "style", "layout", "product", "other"]
HarmCategory = Literal["harassment", "hate_speech", "sexually_explicit", "dangerous_content"]
HarmThreshold = Literal["block_low_and_above", "block_medium_and_above", "block_only_high", "block_none", "off"]
Fit = Literal["cover", "contain", "pad", "stretch"]
OutputFormat = Literal["png", "jpeg", "webp", "avif"]
Background = Literal["opaque", "transparent"]
UploadState = Literal["pending", "active", "failed", "deleted"]
Backend = Literal["gemini", "vertex_ai", "emulator"]

Operation = Literal[
    "cleanup_expired", "cleanup_local", "check_quota", "database_hygiene", "full_cleanup", "restore", "recover"
]

MAX_PROMPT = 8192
MAX_NEGATIVE = 1024
MAX_INSTRUCTION = 512
MAX_INPUTS = 14
MAX_N = 20

MAX_FILE_BYTES = 64 * 1024 * 1024
"""A stranger's file. Google's Files API takes more; a photograph of 50 megapixels in PNG has about this."""
MAX_PIXELS = 60_000_000
"""A stranger's picture, and what is sent. 50-megapixel photographs pass; as RGBA this is 240 MB. Image proxies draw the
line at 50 to 100."""
MADE_SIDE, MADE_PIXELS = 16_384, 100_000_000
"""What is made here at most; WebP ends at 16,383 a side. Beyond it a wish is refused before anything is paid."""
MADE_BYTES = 4 * MADE_PIXELS + 32_000_000
"""The largest file that is made here: four channels that no compression makes smaller, a profile and a label."""

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u to misread


def new_id(prefix: str = "") -> str:
    """An id that sorts by time and needs no coordination: 9 characters of milliseconds, 7 (35 bits) of chance."""
    value = (time.time_ns() // 1_000_000) << 35 | secrets.randbits(35)
    digits = ""
    for _ in range(16):
        value, rest = divmod(value, 32)
        digits = ALPHABET[rest] + digits
    return prefix + digits


def new_image_id() -> str:
    return new_id("img_")


def is_image_id(text: str) -> bool:
    return len(text) == 20 and text.startswith("img_") and set(text[4:]) <= set(ALPHABET)


def is_file_id(text: str) -> bool:
    return text.startswith("files/")


def counted(number: int, noun: str) -> str:
    """A number with its noun, "1 file" or "3 files"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class Exact:
    """The exact file a caller wants beside the master: width x height in pixels, one of them None to follow."""

    width: int | None = None
    height: int | None = None
    fit: Fit = "cover"
    output_format: OutputFormat | None = None
    quality: int = 90


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """What was asked for, valid in shape. `inputs` are paths, `files/...` ids or our image ids, in order."""

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
    exact: Exact | None = None


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The model picked for a request, what will be sent to it, and the reason."""

    spec: ModelSpec
    reason: str
    auto: bool
    image_size: ImageSize
    grounding: bool
    thinking_level: ThinkingLevel | None


@dataclass(frozen=True, kw_only=True)
class Upload:
    """One stay in the Files API. `name` is `files/...` and is chosen by us; it dies with Google's expiry."""

    id: str
    image_id: str
    name: str
    uri: str | None
    mime_type: str
    bytes: int
    sha256: str
    """Of the bytes that were sent, which for a caller's own photo are the file's without its metadata."""
    display_name: str | None
    state: UploadState
    created_at: datetime
    expires_at: datetime | None
    backend: Backend
    error: str | None = None

    def alive(self, at: datetime, *, margin_s: float = 0) -> bool:
        """Whether a request sent at `at` may use it; `margin_s` keeps clear of the expiry."""
        if self.state != "active" or self.expires_at is None:
            return False
        return (self.expires_at - at).total_seconds() > margin_s


@dataclass(frozen=True, kw_only=True)
class Parent:
    """One edge of the lineage, from a picture to what it was made from."""

    image_id: str
    role: Role


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """One picture the library knows. An imported one is the caller's own file: referenced, never copied or removed."""

    id: str
    created_at: datetime
    origin: Origin
    path: str | None
    """Absolute path of the master; None for a picture known only from the Files API."""
    thumbnail_path: str | None
    mime_type: str
    width: int
    height: int
    bytes: int
    sha256: str
    prompt: str | None = None
    mode: Mode | None = None
    tier: str | None = None
    model_id: str | None = None
    backend: Backend | None = None
    call_id: str | None = None
    trash_path: str | None = None
    """Where maintenance moved the master; the record and the lineage stay."""
    parents: tuple[Parent, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens of one call, as Gemini counts them."""

    prompt: int = 0
    text: int = 0
    """Thought tokens and the text part of the answer."""
    image: int = 0
    searches: int = 0
    whole: bool = True
    """Whether every count could be read; one that could not stands here as 0, so that the rest is a lower bound."""


@dataclass(frozen=True, kw_only=True)
class TurnPart:
    """A part of a conversation's turn: words, or a picture by its bytes; with the model's signature where it has one."""

    text: str | None = None
    data: bytes | None = None
    mime_type: str | None = None
    signature: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Turn:
    role: Literal["user", "model"]
    parts: tuple[TurnPart, ...]


@dataclass(frozen=True, kw_only=True)
class ModelReply:
    """What one answer of the model brought."""

    image: bytes
    text: str
    usage: Usage
    model_version: str | None
    sources: tuple[str, ...] = ()
    """Web addresses that Google Search grounding used."""
    turn: tuple[TurnPart, ...] = ()
    """The model's own turn, without its thoughts, as a conversation has to repeat it."""
    others: tuple[bytes, ...] = ()
    """Further pictures that the answer has beside its last one, and that are no thoughts."""
    thought: bool = False
    """Whether the picture was marked as a draft, and there was no other."""


@dataclass(frozen=True, kw_only=True)
class InputPart:
    """One image as a request carries it: bytes, or a Files API uri."""

    mime_type: str
    data: bytes | None = None
    uri: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """One call to the model, complete; what is None is not sent."""

    model_id: str
    prompt: str
    negative_prompt: str | None
    system_instruction: str | None
    inputs: tuple[InputPart, ...]
    aspect_ratio: AspectRatio | None
    image_size: ImageSize | None
    thinking_level: ThinkingLevel | None
    grounding: bool
    roles: str | None = None
    """What each input is for, in words."""
    seed: int | None = None
    safety: tuple[tuple[HarmCategory, HarmThreshold], ...] = ()
    history: tuple[Turn, ...] = ()
    """Earlier turns, oldest first, beginning with the user's."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One of n pictures that did not come."""

    index: int
    reason: str
    message: str
    cost_usd: float | None = None


@dataclass(frozen=True, kw_only=True)
class KeptImage:
    """A picture of an answer: its record, its preview bytes' path and its stay in the Files API."""

    record: ImageRecord
    upload: Upload | None
    cost_usd: float | None
    text: str = ""
    sources: tuple[str, ...] = ()
    master: ImageRecord | None = None
    """For an exact file, the picture as Gemini delivered it."""
    report: tuple[tuple[str, float | str], ...] = ()
    """Measurements of how a picture was put together, by name."""


@dataclass(frozen=True, kw_only=True)
class Created:
    """The result of one request: what was asked for, what was sent, what came."""

    request: ImageRequest
    mode: Mode
    choice: Choice
    sent_aspect_ratio: AspectRatio | None
    inputs: tuple[ImageRecord, ...]
    images: tuple[KeptImage, ...]
    failures: tuple[Failure, ...] = ()
    warnings: tuple[str, ...] = ()
    cost_usd: float | None = None
    request_id: str = ""
    parts: tuple[ImageRecord, ...] = ()
    """The model's answers that the pictures were put together from, where they were."""


def made_here(origin: Origin, parents: tuple[Parent, ...]) -> bool:
    """Whether a picture was made on this machine, out of a caller's or the model's."""
    return origin == "derived" or any(parent.role == "part" for parent in parents)
