"""Measures what it costs to make a large photograph smaller, beside Pillow alone.

`python -m benchmarks.conversion [--rounds 5]` turns 24 megapixels of JPEG into a JPEG of 1600 px, as `convert_image`
makes it and as Pillow does in three lines, on encoded values. Each round is a process of its own; the least processor
time and the most memory of each are told, and how many pixels beside light letters on grey get darker than the grey.
"""

import argparse
import io
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from nanobanana_mcp.pixels.outputs.render import render

WIDTH = 1600


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conversion", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", nargs=2, metavar=("WAY", "FILE"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        sys.stdout.write(_measured(asked.one[0], Path(asked.one[1]).read_bytes()))
        return
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source.jpg")
        source.write_bytes(_photograph())
        told = {way: _rounds(way, source, asked.rounds) for way in ("pillow", "convert_image")}
    for way, (seconds, megabytes) in told.items():
        sys.stdout.write(f"{way:<14}{seconds:6.2f} s of processor time{megabytes:8.0f} MB\n")
    seconds, megabytes = (ours / theirs for ours, theirs in zip(told["convert_image"], told["pillow"], strict=True))
    sys.stdout.write(f"{'times':<14}{seconds:6.2f}{megabytes:31.2f}\n")
    sys.stdout.write(f"darker than the grey around light letters: {_ringing():.3%} of the pixels\n")


def _rounds(way: str, source: Path, count: int) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.conversion", "--one", way, str(source)]
    rounds = [subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() for _ in range(count)]
    return min(float(seconds) for seconds, _ in rounds), max(float(megabytes) for _, megabytes in rounds)


def _measured(way: str, data: bytes) -> str:
    began = time.process_time()
    if way == "pillow":
        image = Image.open(io.BytesIO(data))
        small = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)
        small.save(io.BytesIO(), "JPEG", quality=90, subsampling="4:4:4", optimize=True, progressive=True)
    else:
        render(data, width=WIDTH, output_format="jpeg")
    seconds = time.process_time() - began
    status = Path("/proc/self/status").read_text()  # what getrusage tells is that of the process before exec, too
    return f"{seconds} {int(status.partition('VmHWM:')[2].split()[0]) / 1024}\n"


def _photograph() -> bytes:
    random = np.random.default_rng(1)
    coarse = Image.fromarray(random.integers(0, 256, (250, 375, 3), np.uint8)).resize(
        (6000, 4000), Image.Resampling.BICUBIC
    )
    grain = random.integers(-6, 7, (4000, 6000, 1), np.int8)
    stream = io.BytesIO()
    values = np.clip(np.asarray(coarse, np.int16) + grain, 0, 255).astype(np.uint8)
    Image.fromarray(values).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def _ringing() -> float:
    image = Image.new("RGB", (2400, 1600), (90, 90, 100))
    for row in range(14):
        ImageDraw.Draw(image).text((40, 30 + row * 110), "Light letters on grey", fill=(250, 250, 240), font_size=96)
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    made = np.asarray(Image.open(io.BytesIO(render(stream.getvalue(), width=1000).data)))
    return float((made[..., 0] < 86).mean())


if __name__ == "__main__":
    main()
