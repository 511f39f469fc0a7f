"""Two stand-ins with scripted answers that remember what they were asked: a model, and the genai client beneath it."""

import base64
import functools
import hashlib
import io
import json
import math
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from google.genai import types
from PIL import Image

from nanobanana_mcp.domain.catalog import BY_ID
from nanobanana_mcp.domain.errors import NoPicture
from nanobanana_mcp.domain.provider import RemoteFile
from nanobanana_mcp.domain.wire import ModelReply, ModelRequest
from nanobanana_mcp.gemini.response import read_reply, unsigned
from nanobanana_mcp.gemini.transport import RAW

Answer = bytes | BaseException | Callable[[], Awaitable[bytes]]
"""A raw answer, an error to raise, or a function that makes or withholds one."""


class Died(BaseException):
    """Breaks a request off as the end of the process would: nothing after it is done."""


SIDES = {"512": 512, "1K": 1024, "2K": 2048, "4K": 4096}


class FakeModel:
    """Draws a plain picture of the size that was asked for, unless `answers` has something else for the next call.

    `requests` and `settings` are what generate() was given, `uploads` what came to the Files API as
    (name, bytes, mime type, display name); `remote` is what is there now. `upload_answers` is a script like `answers`,
    whose bytes mean the usual success.
    """

    def __init__(self) -> None:
        self.answers: deque[Answer] = deque()
        self.standing: Answer | None = None
        self.upload_answers: deque[Answer] = deque()
        self.requests: list[ModelRequest] = []
        self.settings: list[str] = []
        self.uploads: list[tuple[str, bytes, str, str | None]] = []
        self.looked_up: list[str] = []
        self.remote: dict[str, RemoteFile] = {}
        self.file_ttl = timedelta(hours=48)
        self.closed = 0

    async def generate(self, request: ModelRequest, *, setting: str = "") -> bytes:
        self.requests.append(request)
        self.settings.append(setting)
        number = len(self.requests)
        answer = self.answers.popleft() if self.answers else self.standing
        if answer is None:
            return reply(drawn(request, number), model_id=request.model_id)
        return await played(answer)

    def read(self, raw: bytes) -> ModelReply:
        return read_reply(raw)

    def unsigned(self, raw: bytes) -> NoPicture | None:
        return unsigned(raw)

    async def upload(self, name: str, data: bytes, mime_type: str, display_name: str | None) -> RemoteFile:
        self.uploads.append((name, data, mime_type, display_name))
        if self.upload_answers:
            await played(self.upload_answers.popleft())
        self.remote[name] = RemoteFile(
            name=name,
            uri=f"https://generativelanguage.googleapis.com/v1beta/{name}",
            mime_type=mime_type,
            bytes=len(data),
            state="active",
            expires_at=datetime.now(UTC) + self.file_ttl,
            sha256=hashlib.sha256(data).hexdigest(),
        )
        return self.remote[name]

    async def look_up(self, name: str) -> RemoteFile | None:
        self.looked_up.append(name)
        return self.remote.get(name)

    async def files(self) -> list[RemoteFile]:
        return list(self.remote.values())

    async def close(self) -> None:
        self.closed += 1


class FakeClient:
    """The part that gemini/client.py uses of genai.Client; `calls` has the keyword arguments of each generate_content."""

    def __init__(self, *answers: Answer) -> None:
        self.answers: deque[Answer] = deque(answers)
        self.calls: list[dict[str, Any]] = []
        self.uploaded: list[tuple[bytes, types.UploadFileConfig]] = []
        self.stored: dict[str, types.File] = {}
        self.closed = 0
        self.aio = _FakeAio(self)

    def close(self) -> None:
        self.closed += 1


class _FakeAio:
    def __init__(self, client: FakeClient) -> None:
        self.models = _FakeModels(client)
        self.files = _FakeFiles(client)
        self._client = client

    async def aclose(self) -> None:
        self._client.closed += 1


class _FakeModels:
    def __init__(self, client: FakeClient) -> None:
        self._client = client

    async def generate_content(self, **call: Any) -> types.GenerateContentResponse:
        self._client.calls.append(call)
        body = await played(self._client.answers.popleft() if self._client.answers else reply(jpeg()))
        wanted = RAW.get()
        assert wanted is not None
        wanted[:] = [body]
        return types.GenerateContentResponse(sdk_http_response=types.HttpResponse(body="{}"))


class _FakeFiles:
    def __init__(self, client: FakeClient) -> None:
        self._client = client

    async def upload(self, *, file: io.BytesIO, config: types.UploadFileConfig) -> types.File:
        data = file.read()
        self._client.uploaded.append((data, config))
        assert config.name is not None
        digest = base64.b64encode(hashlib.sha256(data).hexdigest().encode()).decode()
        self._client.stored[config.name] = types.File(
            name=config.name,
            uri=f"https://generativelanguage.googleapis.com/v1beta/{config.name}",
            mime_type=config.mime_type,
            size_bytes=len(data),
            state=types.FileState.ACTIVE,
            sha256_hash=digest,
            expiration_time=datetime.now(UTC) + timedelta(hours=48),
        )
        return self._client.stored[config.name]

    async def get(self, *, name: str) -> types.File:
        return self._client.stored[name]

    async def list(self, *, config: types.ListFilesConfig) -> AsyncIterator[types.File]:
        async def pages() -> AsyncIterator[types.File]:
            for file in list(self._client.stored.values()):
                yield file

        return pages()


async def played(answer: Answer) -> bytes:
    """One scripted answer: raised, awaited or given back."""
    if isinstance(answer, BaseException):
        raise answer
    return answer if isinstance(answer, bytes) else await answer()


def reply(
    *images: bytes,
    text: str = "",
    mime: str = "image/jpeg",
    model_id: str | None = None,
    image_tokens: int = 1120,
    prompt_tokens: int = 10,
    thought_tokens: int = 0,
) -> bytes:
    """The raw JSON of an answer with these pictures, in the form Gemini sends it."""
    parts: list[dict[str, Any]] = [{"text": text}] if text else []
    parts += [{"inlineData": {"mimeType": mime, "data": base64.b64encode(image).decode()}} for image in images]
    usage: dict[str, Any] = {"promptTokenCount": prompt_tokens, "candidatesTokenCount": image_tokens}
    usage["candidatesTokensDetails"] = [{"modality": "IMAGE", "tokenCount": image_tokens}]
    usage["thoughtsTokenCount"] = thought_tokens
    candidate = {"content": {"role": "model", "parts": parts}, "finishReason": "STOP", "index": 0}
    said = {"modelVersion": model_id} if model_id is not None else {}
    return json.dumps({"candidates": [candidate], "usageMetadata": usage} | said).encode()


def refusal(reason: str, message: str | None = None) -> bytes:
    """The raw JSON of an answer with a finish reason and no picture."""
    candidate = {"finishReason": reason, "index": 0} | ({"finishMessage": message} if message else {})
    return json.dumps({"candidates": [candidate], "usageMetadata": {"promptTokenCount": 10}}).encode()


def drawn(request: ModelRequest, number: int) -> bytes:
    """A picture of the size and ratio of a request, its bytes unlike those of any other number."""
    ratio = request.aspect_ratio or "1:1"
    width, height = (int(side) for side in ratio.split(":"))
    size = request.image_size or "1K"
    assert size in BY_ID[request.model_id].sizes if request.model_id in BY_ID else True
    side = SIDES[size]
    return jpeg(
        (round(side * math.sqrt(width / height)), round(side * math.sqrt(height / width))), comment=f"number {number}"
    )


def jpeg(size: tuple[int, int] = (1024, 1024), *, comment: str = "a fake") -> bytes:
    """A grey JPEG with a comment, which makes its bytes its own."""
    plain = _plain(size, "JPEG")
    note = comment.encode()
    return plain[:2] + b"\xff\xfe" + struct.pack(">H", len(note) + 2) + note + plain[2:]


def picture(
    size: tuple[int, int] = (64, 48), *, color: tuple[int, int, int] = (200, 30, 30), kind: str = "PNG"
) -> bytes:
    """A small picture of one colour."""
    target = io.BytesIO()
    Image.new("RGB", size, color).save(target, kind)
    return target.getvalue()


def photo(path: Path, size: tuple[int, int] = (640, 480), *, color: tuple[int, int, int] = (30, 90, 160)) -> Path:
    """A caller's own photo on the disk; the type follows the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
    path.write_bytes(picture(size, color=color, kind=kinds[path.suffix.lower()]))
    return path


@functools.lru_cache(maxsize=32)
def _plain(size: tuple[int, int], kind: str) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", size, (120, 120, 120)).save(target, kind)
    return target.getvalue()
