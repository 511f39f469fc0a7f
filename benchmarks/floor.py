"""The least that any program must do for a picture: fetch the answer, decode it, keep it safely, make one thumbnail."""

import base64
import io
import itertools
import json
import os
import time
from pathlib import Path

from PIL import Image

from benchmarks.gemini import Gemini

STEPS = ("fetch", "decode", "write", "thumbnail")


def keep_one(gemini: Gemini, folder: Path, size: str, number: int) -> dict[str, float]:
    """Keep one picture and return the seconds that each of STEPS took."""
    folder.mkdir(parents=True, exist_ok=True)
    marks = [time.perf_counter()]
    raw = gemini.generate(size)
    marks.append(time.perf_counter())
    parts = json.loads(raw)["candidates"][0]["content"]["parts"]
    data = base64.b64decode(next(part["inlineData"]["data"] for part in parts if "inlineData" in part))
    marks.append(time.perf_counter())
    descriptor = os.open(folder / f"{number}.bin", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    marks.append(time.perf_counter())
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (1024, 1024))
        image.thumbnail((512, 512))
        image.convert("RGB").save(folder / f"{number}.jpg", quality=85)
    marks.append(time.perf_counter())
    return dict(zip(STEPS, (end - start for start, end in itertools.pairwise(marks)), strict=True))
