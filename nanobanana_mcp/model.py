"""What the studio needs of a model: the one interface behind which Gemini, and a test's stand-in, are the same."""

from typing import Protocol

from nanobanana_mcp.domain import ModelRequest
from nanobanana_mcp.gemini.client import RemoteFile


class ImageModel(Protocol):
    """Makes pictures and keeps files. Errors are the studio's own (ServiceError and its kin)."""

    async def generate(self, request: ModelRequest, *, setting: str = "") -> bytes: ...

    async def upload(self, name: str, data: bytes, mime_type: str, display_name: str | None) -> RemoteFile: ...

    async def look_up(self, name: str) -> RemoteFile | None: ...

    async def files(self) -> list[RemoteFile]: ...

    async def close(self) -> None: ...
