"""The emulator in its own process, answering with ready pictures as large as Gemini's."""

import base64
import json
import os
import re
import subprocess
import sys
from contextlib import closing
from http.client import HTTPConnection
from typing import Any, Self

from benchmarks.samples import Sample, sample
from nanobanana_mcp.domain.catalog import DEFAULTS

RETIRED = ("gemini-2.5-flash-image", "gemini-3-pro-image-preview", "gemini-3.1-flash-image-preview")
"""Models that the peer asks for; they are answered for its sake only."""


class Gemini:
    """Serves until it is closed. `url` is what GEMINI_BASE_URL takes."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "nanobanana_mcp", "emulator", "--port", "0"],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""},
        )
        assert self._process.stderr is not None
        said = self._process.stderr.readline()
        found = re.search(r":(\d+)\s*$", said)
        if found is None:
            raise RuntimeError(f"The emulator did not start: {said}{self._process.stderr.read()}")
        self.port = int(found[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)

    def answer_with(self, kind: Sample, *, latency_s: float = 0.0) -> None:
        """Makes every call from now on answer with this picture, after so many seconds."""
        picture = sample(kind)
        self._post("/emulator/reset", {})
        standing = {"behaviour": "Picture", "data": base64.b64encode(picture.data).decode(), "mime": picture.mime}
        self._post(
            "/emulator/control",
            {"standing": standing, "latency_s": latency_s, "thoughts": "never", "revive": list(RETIRED)},
        )

    def generate(self, size: str) -> bytes:
        """One answer of generateContent as it travels, fetched by the standard library alone."""
        body = {
            "contents": [{"role": "user", "parts": [{"text": "A heron at dawn."}]}],
            "generationConfig": {"responseModalities": ["TEXT", "IMAGE"], "imageConfig": {"imageSize": size}},
        }
        return self._post(f"/v1beta/models/{DEFAULTS['flash']}:generateContent", body)

    def _post(self, path: str, body: dict[str, Any]) -> bytes:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=120)) as connection:
            headers = {"Content-Type": "application/json", "x-goog-api-key": "benchmark-key"}
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            data = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"The emulator refused {path}: {data[:500].decode(errors='replace')}")
            return data
