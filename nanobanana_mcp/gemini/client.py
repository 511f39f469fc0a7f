"""One client for the whole process: make a picture, and keep files in the Files API."""

import asyncio
import base64
import io
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Literal

import httpx2
from google import genai
from google.auth import exceptions as google_errors
from google.genai import errors as genai_errors
from google.genai import types

from nanobanana_mcp.domain.catalog import NO_IMAGE_SIZE
from nanobanana_mcp.domain.errors import NoPicture, SetupError, SourceNotFound, StudioError
from nanobanana_mcp.domain.provider import RemoteFile
from nanobanana_mcp.domain.wire import ModelReply, ModelRequest, Turn
from nanobanana_mcp.gemini.errors import UNREAD, translate
from nanobanana_mcp.gemini.response import read_reply, unsigned
from nanobanana_mcp.gemini.transport import NO_WEBSOCKETS, RAW, open_clients

GEMINI_ADDRESS = "https://generativelanguage.googleapis.com/"
UPLOAD_S = 120.0
LOOK_S = 20.0

SHORTEST_KEY = 16
"""Characters. A shorter key could appear in an answer by chance; Google's have 39."""

FOREIGN = ("GOOGLE_GENAI_", "GOOGLE_GEMINI_", "GOOGLE_VERTEX_", "GOOGLE_API_USE_MTLS_ENDPOINT")
"""The beginnings of the variables that google-genai reads by itself; none of them is one of our settings."""

# google-genai logs this even when it was given GEMINI_API_KEY.
logging.getLogger("google_genai._api_client").addFilter(lambda line: "Using GOOGLE_API_KEY" not in line.getMessage())


class Gemini:
    """google-genai, with its surprises switched off and its errors translated."""

    def __init__(
        self,
        *,
        api_key: str | None = None,
        key_variable: str = "GEMINI_API_KEY",
        vertex_project: str | None = None,
        vertex_location: str = "global",
        base_url: str | None = None,
        api_version: str = "v1beta",
        timeout_s: float = 300,
        transport: httpx2.AsyncBaseTransport | None = None,
        client: genai.Client | None = None,
    ) -> None:
        """Raises SetupError naming the variable when the environment's proxy or certificates cannot be used."""
        self._key = api_key
        self._key_variable = key_variable
        self._vertex = vertex_project is not None
        self._timeout_s = timeout_s
        # Always passed, even if it is Google's own: google-genai would otherwise take it from its own variables.
        self._address = base_url or (vertex_address(vertex_location) if self._vertex else GEMINI_ADDRESS)
        self._http, self._sync_http = open_clients(transport, address=self._address, timeout_s=timeout_s)
        if client is not None:
            self._client = client
            return
        for name in [name for name in os.environ if name.startswith(FOREIGN)]:
            del os.environ[name]
        options = types.HttpOptions(
            base_url=self._address,
            api_version=None if self._vertex else api_version,
            timeout=round(timeout_s * 1000),
            retry_options=types.HttpRetryOptions(attempts=1),
            httpx_client=self._sync_http,
            httpx_async_client=self._http,
            async_client_args={"ssl": NO_WEBSOCKETS},
        )
        if self._vertex:
            self._client = genai.Client(
                enterprise=True, project=vertex_project, location=vertex_location, http_options=options
            )
        else:
            self._client = genai.Client(enterprise=False, api_key=api_key, http_options=options)

    async def generate(self, request: ModelRequest, *, setting: str = "") -> bytes:
        """Make one picture; the raw JSON of the answer, not decoded. `setting` names the variable of the model.

        Raises UnknownOutcome when the request went out and no answer came back, and otherwise only errors after
        which nothing can have been charged.
        """
        raw: list[bytes] = []
        wanted = RAW.set(raw)
        try:
            async with (
                self._translated(model_id=request.model_id, setting=setting),
                asyncio.timeout(self._timeout_s + 5),
            ):
                await self._client.aio.models.generate_content(
                    model=request.model_id,
                    contents=[*map(_turn, request.history), types.Content(role="user", parts=_parts(request))],
                    config=_config(request),
                )
        finally:
            RAW.reset(wanted)
        return self._without_key(b"".join(raw))

    async def look_at(self, model_id: str, *, setting: str = "") -> None:
        """Ask whether the key is accepted and the model is there, which costs nothing. Raises as `generate` does."""
        async with self._translated(model_id=model_id, setting=setting), asyncio.timeout(LOOK_S):
            await self._client.aio.models.get(model=model_id)

    def read(self, raw: bytes) -> ModelReply:
        return read_reply(raw)

    def unsigned(self, raw: bytes) -> NoPicture | None:
        return unsigned(raw)

    async def upload(self, name: str, data: bytes, mime_type: str, display_name: str | None) -> RemoteFile:
        """Put bytes into the Files API under a name of our choice (`files/...`).

        The answer to the first request says where the bytes go. Its path is used and its host is not: otherwise a
        gateway that passes Google's answer on, or lies, could send the picture to another address than the one set.
        """
        self._check_files_api()
        options = types.HttpOptions(base_url=self._address)  # a new one each time: google-genai writes into it
        config = types.UploadFileConfig(name=name, mime_type=mime_type, display_name=display_name, http_options=options)
        async with self._translated(), asyncio.timeout(UPLOAD_S):
            return self._remote(await self._client.aio.files.upload(file=io.BytesIO(data), config=config))

    async def look_up(self, name: str) -> RemoteFile | None:
        """Ask the Files API for a file; None when it is gone, foreign or never was, which look the same."""
        self._check_files_api()
        try:
            async with self._translated(), asyncio.timeout(UPLOAD_S):
                return self._remote(await self._client.aio.files.get(name=name))
        except SourceNotFound:
            return None

    async def files(self) -> list[RemoteFile]:
        """All files that the key's project holds in the Files API."""
        self._check_files_api()
        async with self._translated(), asyncio.timeout(UPLOAD_S):
            pager = await self._client.aio.files.list(config=types.ListFilesConfig(page_size=100))
            return [self._remote(file) async for file in pager]

    def _check_files_api(self) -> None:
        if self._vertex:
            raise SetupError("Vertex AI has no Files API; give pictures by path or img_... id.")

    def _without_key(self, raw: bytes) -> bytes:
        """Cut the key out of an answer that repeats it, as gateways may: else it would reach answers, records and the
        library.
        """
        key = (self._key or "").encode()
        return raw.replace(key, b"[key]") if len(key) >= SHORTEST_KEY else raw

    def _remote(self, file: types.File) -> RemoteFile:
        found = _remote(file)
        return replace(found, uri=self._without_key(found.uri.encode()).decode())

    async def close(self) -> None:
        await self._client.aio.aclose()
        await self._http.aclose()
        self._client.close()
        self._sync_http.close()

    @asynccontextmanager
    async def _translated(self, *, model_id: str | None = None, setting: str = "") -> AsyncIterator[None]:
        try:
            yield
        except StudioError:
            raise
        except (
            genai_errors.APIError,
            google_errors.GoogleAuthError,
            httpx2.HTTPError,
            httpx2.InvalidURL,
            TimeoutError,
        ) as error:
            raise self._translation(error, model_id, setting) from None
        except UNREAD as error:
            raise self._translation(error, model_id, setting) from None

    def _translation(self, error: Exception, model_id: str | None, setting: str) -> StudioError:
        return translate(error, key=self._key, key_variable=self._key_variable, model_id=model_id, setting=setting)


def vertex_address(location: str) -> str:
    """The address where Vertex AI answers for a location, the same as google-genai's."""
    if location == "global":
        return "https://aiplatform.googleapis.com/"
    if location in ("us", "eu"):
        return f"https://aiplatform.{location}.rep.googleapis.com/"
    return f"https://{location}-aiplatform.googleapis.com/"


def _parts(request: ModelRequest) -> list[types.Part]:
    parts = [types.Part.from_text(text=request.prompt)]
    if request.roles:
        parts.append(types.Part.from_text(text=request.roles))
    for image in request.inputs:
        if image.data is not None:
            parts.append(types.Part.from_bytes(data=image.data, mime_type=image.mime_type))
        else:
            assert image.uri is not None
            parts.append(types.Part.from_uri(file_uri=image.uri, mime_type=image.mime_type))
    if request.negative_prompt:
        parts.append(types.Part.from_text(text=f"Keep these out of the picture: {request.negative_prompt}"))
    return parts


def _turn(turn: Turn) -> types.Content:
    parts = []
    for part in turn.parts:
        blob = types.Blob(data=part.data, mime_type=part.mime_type) if part.data is not None else None
        parts.append(types.Part(text=part.text, inline_data=blob, thought_signature=part.signature))
    return types.Content(role=turn.role, parts=parts)


def _safety(request: ModelRequest) -> list[types.SafetySetting] | None:
    return [
        types.SafetySetting(
            category=types.HarmCategory(f"HARM_CATEGORY_{category.upper()}"),
            threshold=types.HarmBlockThreshold(threshold.upper()),
        )
        for category, threshold in request.safety
    ] or None


def _config(request: ModelRequest) -> types.GenerateContentConfig:
    size = None if request.model_id in NO_IMAGE_SIZE else request.image_size
    image = types.ImageConfig(aspect_ratio=request.aspect_ratio, image_size=size)
    thinking = None
    if request.thinking_level is not None:
        thinking = types.ThinkingConfig(thinking_level=types.ThinkingLevel(request.thinking_level.upper()))
    return types.GenerateContentConfig(
        response_modalities=["TEXT", "IMAGE"],
        system_instruction=request.system_instruction,
        image_config=image if request.aspect_ratio or size else None,
        thinking_config=thinking,
        seed=request.seed,
        safety_settings=_safety(request),
        tools=[types.Tool(google_search=types.GoogleSearch())] if request.grounding else None,
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        automatic_continuation=False,
        should_return_http_response=True,
    )


def _remote(file: types.File) -> RemoteFile:
    states: dict[str, Literal["active", "processing", "failed"]] = {"ACTIVE": "active", "FAILED": "failed"}
    digest = None
    if file.sha256_hash:  # base64 of the hexadecimal digest, as Google's own samples show
        digest = base64.b64decode(file.sha256_hash).decode("ascii", "replace")
    return RemoteFile(
        name=file.name or "",
        uri=file.uri or "",
        mime_type=file.mime_type or "",
        bytes=file.size_bytes or 0,
        state=states.get(file.state.value if file.state else "", "processing"),
        expires_at=file.expiration_time,
        sha256=digest,
    )
