"""An emulator in this process, and the ways to talk to it."""

import base64
import io
from typing import Any

import httpx2
from google import genai
from google.genai import types
from PIL import Image

from nanobanana_mcp.emulator.app import Emulator
from nanobanana_mcp.emulator.control import Behaviour
from nanobanana_mcp.gemini.transport import NO_WEBSOCKETS

KEY = "TEST_KEY"
UNUSED = httpx2.Client(transport=httpx2.MockTransport(lambda _request: httpx2.Response(500)))
"""For google-genai, which would otherwise load the trust store for a client that nobody uses: 20 ms in every test."""

BANANA = "gemini-nano-banana-2.1"
PRO = "gemini-3-pro-image"
LITE = "gemini-3.1-flash-lite-image"
FLASH = "gemini-3.1-flash-image"
FIRST = "gemini-2.5-flash-image"


class Clock:
    def __init__(self) -> None:
        self.now = 1_795_000_000.25

    def __call__(self) -> float:
        return self.now


def browser(emulator: Emulator, *, key: str | None = KEY) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=emulator.app),
        base_url="http://emulator.test:81",
        headers={"x-goog-api-key": key} if key else {},
    )


def gemini(emulator: Emulator, *, version: str = "v1beta", key: str = KEY) -> Any:
    options = types.HttpOptions(
        api_version=version,
        httpx_client=UNUSED,
        httpx_async_client=browser(emulator, key=None),
        async_client_args={"ssl": NO_WEBSOCKETS},
    )
    return genai.Client(enterprise=False, api_key=key, http_options=options).aio


def picture(color: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (64, 48), kind: str = "PNG") -> bytes:
    target = io.BytesIO()
    Image.new("RGB", size, color).save(target, kind)
    return target.getvalue()


def part(data: bytes, mime: str = "image/png") -> types.Part:
    return types.Part.from_bytes(data=data, mime_type=mime)


def inline(data: bytes, mime: str = "image/png") -> dict[str, Any]:
    return {"inlineData": {"mimeType": mime, "data": base64.b64encode(data).decode()}}


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "parts": [{"text": each} if isinstance(each, str) else each for each in parts]}


async def post(
    emulator: Emulator, body: Any, *, model: str = BANANA, method: str = "generateContent", version: str = "v1beta"
) -> httpx2.Response:
    return await browser(emulator).post(f"/{version}/models/{model}:{method}", json=body)


async def refusal(emulator: Emulator, body: Any, *, model: str = BANANA) -> str:
    """The message of the 400 that this request gets; it must cost nothing."""
    response = await post(emulator, body, model=model)
    assert response.status_code == 400, response.text[:300]
    error = response.json()["error"]
    assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
    assert emulator.charges == []
    return str(error["message"])


def with_config(**config: Any) -> dict[str, Any]:
    return {"contents": [user("a cat")], "generationConfig": config}


async def ask(emulator: Emulator, contents: Any = "a cat", *, model: str = BANANA, **config: Any) -> Any:
    return await gemini(emulator).models.generate_content(
        model=model,
        contents=contents,
        config=types.GenerateContentConfig(
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
            automatic_continuation=False,
            **config,
        ),
    )


def shape(ratio: str | None = None, size: str | None = None) -> types.ImageConfig:
    return types.ImageConfig(aspect_ratio=ratio, image_size=size)


def image_of(response: Any) -> bytes:
    data = response.parts[-1].inline_data.data
    assert isinstance(data, bytes)
    return data


async def told(behaviour: Behaviour, **config: Any) -> tuple[Emulator, Any]:
    emulator = Emulator()
    emulator.control.queue.append(behaviour)
    return emulator, await ask(emulator, **config)
