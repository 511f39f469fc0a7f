"""Measures region edits on real photographs.

Run it by `python -m benchmarks.edits FOLDER [--half other] [--only NAME] [--level L2]`; FOLDER keeps the photographs
(see `benchmarks.photographs`). Each is redrawn at each level as models drift, with one kind of answer after another,
and joined by the code that the studio uses. Set thresholds by the first half of the photographs only; the last lines
are of the other half alone.
"""

import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.photographs import Photograph, png_of
from benchmarks.redrawing import apart
from benchmarks.table import run
from nanobanana_mcp.domain.catalog import RATIOS
from nanobanana_mcp.domain.shapes import answer_pixels
from nanobanana_mcp.emulator.drift import LEVELS, Redrawn, redrawn
from nanobanana_mcp.pixels.edits.alignment import aligned, rgb
from nanobanana_mcp.pixels.edits.alpha import composed
from nanobanana_mcp.pixels.edits.masks import distance
from nanobanana_mcp.pixels.edits.patch import Joined, Patch, join, prepare
from nanobanana_mcp.pixels.files.clean import to_srgb
from nanobanana_mcp.pixels.files.decoding import decoded

KINDS = ("good", "unchanged", "beside", "spilled", "grown", "zoomed", "moved", "cropped", "other scene")
BOX = (0.36, 0.34, 0.62, 0.64)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One answer: what became of it, the rim's error in px of the crop, colours before and after (dE), and seconds.

    `inside` is the dE of the region from what was drawn before the redraw, `left` the share of it that stays the source's;
    NaN where nothing was delivered.
    """

    kind: str
    level: str
    tuned: bool
    outcome: str
    rim: float
    before: float
    after: float
    inside: float
    left: float
    seam: float
    outside: int
    seconds: float


def _line(rows: list[Row]) -> str:
    outcomes = [sum(row.outcome == name for row in rows) for name in ("good", "told", "refused")]
    known = [row.rim for row in rows if row.outcome != "refused"]
    rim = f"{np.median(known):8.2f}" if known else f"{'-':>8}"
    before, after = np.mean([row.before for row in rows]), np.mean([row.after for row in rows])
    delivered = [(row.inside, row.left, row.seam) for row in rows if not np.isnan(row.inside)]
    joined = "{:8.1f}{:7.2f}{:6.2f}".format(*np.mean(delivered, axis=0)) if delivered else f"{'-':>8}{'-':>7}{'-':>6}"
    return (
        f"{rows[0].kind:<13}{rows[0].level:<6}{outcomes[0]:>5}{outcomes[1]:>5}{outcomes[2]:>8}{rim}{before:8.1f}{after:7.1f}{joined}"
        f"{sum(row.outside for row in rows):8}{np.median([row.seconds for row in rows]):6.1f}"
    )


def _tried(photograph: Photograph, other: Photograph, levels: Sequence[str], kinds: Sequence[str]) -> Iterator[Row]:
    source = decoded(photograph.data)
    ratios = {ratio: answer_pixels(ratio, "1K") for ratio in RATIOS}
    patch = prepare(photograph.data, box=BOX, mask=None, grow=16, feather=16, context=0.8, ratios=ratios)
    sent = Image.open(io.BytesIO(patch.crop)).convert("RGB")
    size = ratios[patch.ratio]
    foreign = decoded(other.data).convert("RGB")
    for level in levels:
        for kind in kinds:
            edited, answer = _answer(sent, foreign, patch, kind, level, size)
            data = png_of(answer.image)
            began = time.perf_counter()
            joined = join(photograph.data, data, replace(patch, grows=kind == "grown"))
            seconds = time.perf_counter() - began
            outcome = _outcome(joined)
            outside, inside = 0, np.nan
            if joined.data is not None:
                kept = np.ones(source.size[::-1], bool)
                x, y, right, bottom = joined.pasted
                kept[y:bottom, x:right] = False
                after = np.asarray(decoded(joined.data).convert(source.mode))
                shown = rgb(to_srgb(composed(decoded(joined.data).crop(patch.box))))
                region = patch.region.within(patch.box) > 0
                inside = float(apart(np.asarray(shown), np.asarray(edited.resize(shown.size)))[region].mean())
                outside = int((after != np.asarray(source)).any(axis=-1)[kept].sum())
            rim, before, left = _measured(sent, answer, patch)
            yield Row(
                kind=kind, level=level, tuned=photograph.tuned, outcome=outcome, rim=rim, before=before, after=left,
                inside=inside, left=joined.left_share, seam=joined.seam.score, outside=outside, seconds=seconds,
            )  # fmt: skip


def _outcome(joined: Joined) -> str:
    """Refused: another picture, asked for once more; told: no edit, hardly one, or one whose join shows."""
    if joined.verdict == "nonsense":
        return "refused"
    return "good" if joined.verdict == "good" and joined.change.told == "yes" else "told"


def _answer(
    sent: Image.Image, foreign: Image.Image, patch: Patch, kind: str, level: str, size: tuple[int, int]
) -> tuple[Image.Image, Redrawn]:
    """The picture as it should come back, and as it does."""
    left, top = patch.region.box[0] - patch.box[0], patch.region.box[1] - patch.box[1]
    width, height = patch.region.box[2] - patch.region.box[0], patch.region.box[3] - patch.region.box[1]
    edited = sent.copy()
    if kind == "beside":
        thing = foreign.resize((width * 4 // 10, height * 4 // 10))
        right = left + width + 12
        edited.paste(thing, (right if right + thing.width < sent.width else left - thing.width - 12, top + height // 4))
    elif kind in ("spilled", "grown"):
        edited.paste(foreign.resize((width, height)), (left + width // 4, top))
    elif kind != "unchanged":
        edited.paste(foreign.resize((width * 6 // 10, height * 6 // 10)), (left + width // 5, top + height // 5))
    further: dict[str, tuple[float, tuple[float, float], tuple[float, float]]] = {
        "zoomed": (1.2, (0, 0), (1, 1)),
        "moved": (1.0, (0.1, -0.08), (1, 1)),
        "cropped": (1.0, (0.015, 0), (1.03, 1)),
    }
    zoom, moved, stretched = further.get(kind, (1.0, (0, 0), (1, 1)))
    shown = foreign.resize(sent.size) if kind == "other scene" else edited
    return shown, redrawn(shown, LEVELS[level], seed=7, size=size, zoom=zoom, moved=moved, stretched=stretched)


def _measured(sent: Image.Image, answer: Redrawn, patch: Patch) -> tuple[float, float, float]:
    """The mean error of the place along the region's edge, px, and dE of large patches outside, as it came and aligned."""
    width, height = sent.size
    weight = patch.region.within(patch.box)
    if weight.shape != (height, width):
        weight = np.asarray(Image.fromarray(weight).resize(sent.size))
    found = aligned(sent, answer.image, changed=weight)
    inside = weight > 0
    rows, columns = np.nonzero(inside & (distance(~inside, limit=4) <= 4))
    x, y = (columns + 0.5) / width, (rows + 0.5) / height
    shown_x, shown_y = answer.shows(*found.drift.warp.lies_at(x, y))
    rim = float(np.hypot((shown_x - x) * width, (shown_y - y) * height).mean())
    smooth = [
        np.asarray(image.filter(ImageFilter.BoxBlur(8)))
        for image in (sent, answer.image.resize(sent.size), found.image)
    ]
    return rim, float(apart(smooth[1], smooth[0])[~inside].mean()), float(apart(smooth[2], smooth[0])[~inside].mean())


HEADING = f"{'answer':<13}{'level':<6}{'good':>5}{'told':>5}{'refused':>8}{'rim px':>8}{'dE was':>8}{'dE is':>7}{'inside':>8}{'left':>7}{'seam':>6}{'outside':>8}{'s':>6}"

if __name__ == "__main__":
    run("edits", __doc__, KINDS, _tried, heading=HEADING, line=_line)
