"""Requests to a model and its replies."""

from dataclasses import dataclass
from typing import Literal

from nanobanana_mcp.domain.catalog import AspectRatio, ImageSize, ThinkingLevel
from nanobanana_mcp.domain.terms import HarmCategory, HarmThreshold


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens of one call, as Gemini counts them."""

    prompt: int = 0
    text: int = 0
    """Thought tokens and the text part of the answer."""
    image: int = 0
    searches: int = 0
    whole: bool = True
    """True when every count could be read; one that could not stands here as 0, so that the rest is a lower bound."""


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
    """One answer of the model, read."""

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
    emulated: bool = False
    """True when the answer says that our own emulator gave it."""
    thought: bool = False
    """True when the picture was marked as a draft, and there was no other."""


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
    """Words that say what each input is for."""
    seed: int | None = None
    safety: tuple[tuple[HarmCategory, HarmThreshold], ...] = ()
    history: tuple[Turn, ...] = ()
    """Earlier turns, oldest first, beginning with the user's."""
