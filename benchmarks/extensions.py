"""Measures extensions of real photographs: `python -m benchmarks.extensions FOLDER [--only NAME] [--level L2]`.

The margins of each photograph are taken away and are to be painted again. A model's answer is the whole photograph
(good), the canvas as it was sent (left), the picture in a white frame (framed), or with another photograph around it
(foreign). Each is redrawn at a level of drift and set in by the code that the studio uses.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from benchmarks.photographs import Photograph, png_of
from benchmarks.table import run
from nanobanana_mcp.domain.catalog import RATIOS
from nanobanana_mcp.domain.shapes import answer_pixels
from nanobanana_mcp.emulator.drift import LEVELS, redrawn
from nanobanana_mcp.pixels.edits.canvas import Canvas, Step, padded
from nanobanana_mcp.pixels.edits.extend import begin, set_in, steps_for
from nanobanana_mcp.pixels.files.decoding import decoded

KINDS = ("good", "left", "half left", "framed", "foreign")
PLACES = {"sides": (0.2, 0.0, 0.8, 1.0), "corner": (0.18, 0.22, 1.0, 1.0)}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One answer and what became of it; `left`, `times` and `share` are the measures that it was judged by."""

    kind: str
    level: str
    tuned: bool
    outcome: str
    left: float
    times: float
    share: float
    changed: int
    seconds: float


def _line(rows: list[Row]) -> str:
    outcomes = "".join(
        f"{sum(row.outcome == name for row in rows):>{wide}}"
        for name, wide in (("good", 5), ("told", 5), ("refused", 8))
    )
    middle = [
        float(np.median(values))
        for values in zip(*((row.left, row.times, row.share, row.seconds) for row in rows), strict=True)
    ]
    return (
        f"{rows[0].kind:<12}{rows[0].level:<6}{outcomes}{middle[0]:7.2f}{middle[1]:7.1f}{middle[2]:7.2f}"
        f"{sum(row.changed for row in rows):8}{middle[3]:6.1f}"
    )


def _tried(photograph: Photograph, other: Photograph, levels: Sequence[str], kinds: Sequence[str]) -> Iterator[Row]:
    for parts in PLACES.values():
        yield from _tried_at(parts, photograph, other, levels, kinds)


def _tried_at(
    parts: tuple[float, float, float, float],
    photograph: Photograph,
    other: Photograph,
    levels: Sequence[str],
    kinds: Sequence[str],
) -> Iterator[Row]:
    whole, ratios = decoded(photograph.data).convert("RGB"), {ratio: answer_pixels(ratio, "1K") for ratio in RATIOS}
    box = (
        round(parts[0] * whole.width),
        round(parts[1] * whole.height),
        round(parts[2] * whole.width),
        round(parts[3] * whole.height),
    )
    source, canvas = png_of(whole.crop(box)), Canvas(size=whole.size, place=box)
    steps = steps_for(canvas, ratios)
    if len(steps) != 1:
        return
    begun, foreign = begin(source, canvas), decoded(other.data).convert("RGB")
    for level in levels:
        for kind in kinds:
            shown = _shown(kind, whole, begun, steps[0], foreign)
            answer = png_of(redrawn(shown, LEVELS[level], seed=7, size=ratios[steps[0].ratio]).image)
            began = time.perf_counter()
            done = set_in(begun, answer, steps[0])
            seconds = time.perf_counter() - began
            outcome = {"good": "good", "poor": "told"}.get(done.verdict, "refused")
            outcome = "told" if outcome == "good" and done.partly_left else outcome
            changed = int((np.asarray(done.canvas.crop(box)) != np.asarray(whole.crop(box))).any(axis=-1).sum())
            yield Row(
                kind=kind, level=level, tuned=photograph.tuned, outcome=outcome, left=done.left,
                times=done.edge.times, share=done.edge.share, changed=changed, seconds=seconds,
            )  # fmt: skip


def _shown(kind: str, whole: Image.Image, begun: Image.Image, step: Step, foreign: Image.Image) -> Image.Image:
    """Returns the answer before it drifts: the crop that was sent, painted in one way or another."""
    sent = padded(begun, step)
    left, top, right, bottom = step.box
    margins = ((max(0, -top), max(0, bottom - whole.height)), (max(0, -left), max(0, right - whole.width)), (0, 0))
    wide = Image.fromarray(np.pad(np.asarray(whole), margins, mode="symmetric"))
    begins = (left + margins[1][0], top + margins[0][0])
    true = wide.crop((*begins, begins[0] + sent.width, begins[1] + sent.height))
    if kind in ("left", "half left"):
        true.paste(sent if kind == "left" else sent.crop((0, 0, sent.width // 2, sent.height)), (0, 0))
    elif kind in ("framed", "foreign"):
        around = Image.new("RGB", sent.size, "white") if kind == "framed" else foreign.resize(sent.size)
        known = step.known[0]
        around.paste(begun.crop(known), (known[0] - left, known[1] - top))
        return around
    return true


HEADING = f"{'answer':<12}{'level':<6}{'good':>5}{'told':>5}{'refused':>8}{'left':>7}{'times':>7}{'share':>7}{'changed':>8}{'s':>6}"

if __name__ == "__main__":
    run("extensions", __doc__, KINDS, _tried, heading=HEADING, line=_line)
