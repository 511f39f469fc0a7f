"""Measures cutouts on real photographs: `python -m benchmarks.cutouts FOLDER [--only NAME] [--level L2]`.

The subject of each photograph is what stands out of it, with a soft edge that is known exactly. Models are taken to show
it on white, and then that answer on black, each time redrawn at a level of drift. The black plate may be a third darker
(darker), or show the subject of another photograph (mismatched).
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.photographs import Photograph, png_of
from benchmarks.redrawing import apart
from benchmarks.table import run
from nanobanana_mcp.domain.catalog import RATIOS
from nanobanana_mcp.domain.shapes import answer_pixels, nearest_ratio
from nanobanana_mcp.emulator.drift import LEVELS, redrawn
from nanobanana_mcp.emulator.scenery import subject_of
from nanobanana_mcp.pixels.edits.cutout import from_plates
from nanobanana_mcp.pixels.files.decoding import decoded

KINDS = ("matched", "darker", "mismatched")
BESIDE = 6  # px from the edge, where one is inside


@dataclass(frozen=True, kw_only=True)
class Row:
    """One cutout: what became of it, how far colours inside are from the photograph's (dE) and alpha from the true one,
    and which part of the solid inside lets something through.
    """

    kind: str
    level: str
    tuned: bool
    outcome: str
    inside: float
    alpha: float
    through: float
    seconds: float


def _line(rows: list[Row]) -> str:
    counts = [sum(row.outcome == name for row in rows) for name in ("laid on", "told", "refused")]
    laid = [row for row in rows if row.outcome == "laid on"]
    figures = [
        float(np.mean(values)) for values in zip(*((row.inside, row.alpha, row.through) for row in laid), strict=True)
    ]
    inside, alpha, through = figures or [float("nan")] * 3
    return (
        f"{rows[0].kind:<12}{rows[0].level:<6}{counts[0]:>8}{counts[1]:>6}{counts[2]:>8}{inside:7.2f}{alpha:8.3f}{through:8.3f}"
        f"{np.median([row.seconds for row in rows]):6.1f}"
    )


def _tried(photograph: Photograph, other: Photograph, levels: Sequence[str], kinds: Sequence[str]) -> Iterator[Row]:
    whole = decoded(photograph.data).convert("RGB")
    subject = subject_of(whole, whole.size)
    another = subject_of(decoded(other.data).convert("RGB"), whole.size)
    truth = np.asarray(subject.getchannel("A"), np.float32) / 255
    size = answer_pixels(nearest_ratio(*whole.size, RATIOS), "1K")
    for level in levels:
        drift = LEVELS[level]
        white = redrawn(_on(subject, "white"), drift, seed=7, size=size)
        for kind in kinds:
            shown = _on(another if kind == "mismatched" else subject, "black")
            first = redrawn(shown, drift, seed=7, size=size).image  # the black plate is drawn from the white one
            second = redrawn(first, drift, seed=11, size=size).image
            if kind == "darker":
                second = second.point([round(value * 0.7) for value in range(256)] * 3)
            began = time.perf_counter()
            cut = from_plates(png_of(white.image), png_of(second), source=photograph.data)
            seconds = time.perf_counter() - began
            outcome = "refused" if cut.data is None else "laid on" if cut.overlays else "told"
            inside = alpha = through = float("nan")
            if cut.data is not None and cut.overlays:
                made = Image.open(BytesIO(cut.data)).convert("RGBA")
                deep = np.asarray(subject.getchannel("A").filter(ImageFilter.MinFilter(2 * BESIDE + 1))) == 255
                found = np.asarray(made.getchannel("A"), np.float32) / 255
                alpha = float(np.abs(found - truth).mean())
                if deep.any():
                    inside = float(apart(np.asarray(made.convert("RGB")), np.asarray(whole))[deep].mean())
                    through = float((found[deep] < 0.98).mean())
            yield Row(
                kind=kind, level=level, tuned=photograph.tuned, outcome=outcome, inside=inside, alpha=alpha,
                through=through, seconds=seconds,
            )  # fmt: skip


def _on(subject: Image.Image, colour: str) -> Image.Image:
    plate = Image.new("RGB", subject.size, colour)
    plate.paste(subject, mask=subject)
    return plate


HEADING = (
    f"{'plates':<12}{'level':<6}{'laid on':>8}{'told':>6}{'refused':>8}{'dE in':>7}{'alpha':>8}{'through':>8}{'s':>6}"
)

if __name__ == "__main__":
    run("cutouts", __doc__, KINDS, _tried, heading=HEADING, line=_line)
