"""Describes what a picture was made from: the raw answer of a call, or other pictures on this machine."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from datetime import datetime

from nanobanana_mcp.domain.plan import Plan, Target
from nanobanana_mcp.domain.records import ImageRecord, Parent, Upload
from nanobanana_mcp.domain.terms import Backend, Mode, Origin
from nanobanana_mcp.domain.wire import ModelReply
from nanobanana_mcp.library.journal import Call, RequestRow
from nanobanana_mcp.pixels.files.header import Header
from nanobanana_mcp.pixels.outputs.thumbnails import Thumbnail, examine

ReadReply = Callable[[bytes], ModelReply]
"""The model's own reading of a raw answer; see ImageModel.read."""

PrepareUpload = Callable[[ImageRecord, bytes, str, str | None], Upload]
"""Makes the row of the upload that is to follow."""


class Reading:
    """A raw answer being read: parsing and decoding run in two other threads, so that they do not wait for the disk."""

    def __init__(self, raw: bytes, read: ReadReply, threads: Executor) -> None:
        self.reply: Future[ModelReply] = threads.submit(read, raw)
        self.examined: Future[tuple[Header, Thumbnail]] = threads.submit(
            lambda: examine(self.reply.result().image, made=True)
        )


@dataclass(frozen=True, kw_only=True)
class PaidCall:
    """A call with all that its picture inherits. `parents` are the inputs, by the ids of their rows."""

    plan: Plan
    request_row: RequestRow
    call: Call
    parents: tuple[Parent, ...]
    continues: str | None = None
    """The picture whose conversation the call continued, None where it started a new one."""
    spent_usd: float = 0.0
    """USD that the call cost before the answer that is kept."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """The facts that all pictures of one call share, and that pictures derived from them inherit."""

    call_id: str | None
    created_at: datetime
    mode: Mode | None = None
    tier: str | None = None
    model_id: str | None = None
    backend: Backend | None = None


@dataclass(frozen=True, kw_only=True)
class Derived:
    """A picture made on this machine from others, before it is kept. `like` is the picture or call whose facts it
    inherits; `number` tells several files of one name apart; `icon` is the width and height of an .ico file, a format
    that is not read here; `preview` is its thumbnail where one exists already.
    """

    image_id: str
    origin: Origin
    prompt: str | None
    like: ImageRecord | Family
    parents: tuple[Parent, ...]
    target: Target
    number: int | None = None
    icon: tuple[int, int] | None = None
    preview: Thumbnail | None = None
