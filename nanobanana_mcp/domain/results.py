"""The results of a request, made or only planned: kept pictures, failures, quotes and uploads."""

from dataclasses import dataclass, field

from nanobanana_mcp.domain.budget import Spending
from nanobanana_mcp.domain.catalog import AspectRatio
from nanobanana_mcp.domain.plan import Plan
from nanobanana_mcp.domain.records import ImageRecord, Upload
from nanobanana_mcp.domain.requests import Choice, ImageRequest
from nanobanana_mcp.domain.terms import Backend, Mode

Measure = float | str | tuple[int, ...]
"""A number, a word, or a box in pixels (left, top, right, bottom)."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One of n pictures that did not come."""

    index: int
    reason: str
    message: str
    cost_usd: float | None = None


@dataclass(frozen=True, kw_only=True)
class KeptImage:
    """A picture that is kept: its record, its upload to the Files API, and what the answer says about it."""

    record: ImageRecord
    cost_usd: float | None = None
    """None where the price is not known."""
    upload: Upload | None = None
    text: str = ""
    sources: tuple[str, ...] = ()
    emulated: bool = False
    """True when our own emulator drew it, in this process or where GEMINI_BASE_URL points."""
    master: ImageRecord | None = None
    """For an exact file, the picture as Gemini delivered it."""
    report: tuple[tuple[str, Measure], ...] = ()
    """Measurements of how a picture was put together, by name."""
    notes: tuple[str, ...] = ()
    """Sentences about it for the caller."""
    others: tuple["KeptImage", ...] = ()
    """Further pictures of the same answer; what they cost is in this one's price."""
    data: bytes = field(default=b"", repr=False)
    """The bytes as delivered while a recipe or an upload still needs them, none afterwards."""

    @property
    def delivered(self) -> ImageRecord:
        """The record of the picture as Gemini delivered it, or as it was put together."""
        return self.master or self.record


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


@dataclass(frozen=True, kw_only=True)
class Quote:
    """The plan and price of a request that was not sent; `refusal` names the limit that would stop it now."""

    plan: Plan
    backend: Backend
    inputs: tuple[ImageRecord, ...]
    spending: Spending
    reserved_usd: float
    """USD that all of its calls together would reserve."""
    refusal: str | None


@dataclass(frozen=True, kw_only=True)
class Uploaded:
    """A picture that is in the Files API; `reused` where its content was there already."""

    record: ImageRecord
    upload: Upload
    reused: bool
    notes: tuple[str, ...] = ()
