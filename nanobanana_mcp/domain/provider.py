"""The interface of a model: behind it Gemini, and a test's stand-in, are the same to the studio."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from nanobanana_mcp.domain.errors import NoPicture
from nanobanana_mcp.domain.wire import ModelReply, ModelRequest


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file as the Files API describes it; `sha256` is hexadecimal."""

    name: str
    uri: str
    mime_type: str
    bytes: int
    state: Literal["active", "processing", "failed"]
    expires_at: datetime | None
    sha256: str | None


class ImageModel(Protocol):
    """Makes pictures and keeps files. Errors are the studio's own (ServiceError and its kin)."""

    async def generate(self, request: ModelRequest, *, setting: str = "") -> bytes: ...

    def read(self, raw: bytes) -> ModelReply:
        """The pictures and words of a raw answer, also of one that was kept on the disk; asks nobody.

        Raises NoPicture with the reason and the tokens, Unreadable for what cannot be understood.
        """
        ...

    def unsigned(self, raw: bytes) -> NoPicture | None:
        """The refusal of an answer that says that the conversation's signatures are missing, None for any other."""
        ...

    async def upload(self, name: str, data: bytes, mime_type: str, display_name: str | None) -> RemoteFile: ...

    async def look_up(self, name: str) -> RemoteFile | None: ...

    async def files(self) -> list[RemoteFile]: ...

    async def close(self) -> None: ...
