"""Tells whether an answer goes on from the picture: what it left unpainted, and whether an edge runs along the join.

A model that was to paint what lies beyond the edges sometimes gives the canvas back as it was, puts the picture into a
frame, or paints another scene around it. What it shows of the picture itself is right then, so that only the new part
tells. Both measures are of the aligned answer alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nanobanana_mcp.pixels.edits.masks import distance, overlap
from nanobanana_mcp.pixels.edits.warping import Plane
from nanobanana_mcp.pixels.files.decoding import Box

_CELL = 16  # px of the cells that are looked at for what was left: grain is gone in their means
_SAME = 5.0  # levels between what was sent and an answer's cell that was left: 3 at most where drift was worst
_RECOLOURED = 24.0  # levels that an even change of colour may have
_GREY = 0.85  # of the way out to where `canvas.padded` is as grey as it gets, from which on it counts as grey
_LONGEST = 1400  # px of the longer side at which edges are looked at: steps are as wide at every size of answer
_DEEP, _BESIDE, _WIDE = (
    24,
    3,
    16,
)  # px: how far from the join is looked, over how many a step is, and along it in one block
_NEAR, _FAR = 3, 8  # px from the join: where its own step may lie after alignment, and from where others are
_BLOCK, _OTHER = 8, 40.0  # px of cells, and levels between their means, from which on something else is drawn there
_FLOOR = 4.0  # levels of a step that noise makes


@dataclass(frozen=True, kw_only=True)
class Edge:
    """The worst side of the join. `times` is its step in colour by that of lines beside it; a `share` of it stands out."""

    times: float = 0.0
    share: float = 0.0


def left_unpainted(
    sent: Image.Image, answers: Sequence[Image.Image], known: NDArray[np.bool_], *, wanted: Box
) -> float:
    """The share of the part to be painted that an answer gives back as it was sent, 0 to 1, but for an even change of
    colour.

    `answers` are the aligned answer with its colours brought back and as they came: colours that the picture lacks may
    be brought anywhere by what suits the others. All are RGB and of one size. `wanted` is the part of it that goes into
    the canvas: what a model's ratio adds around it does not count.
    """
    left, top, right, bottom = wanted
    known, sent = known[top:bottom, left:right], sent.crop(wanted)
    answers = [answer.crop(wanted) for answer in answers]
    deepest = round(float(distance(known, limit=2 * _CELL).max()))  # a narrow margin has whole cells, too
    cell = max(2, min(_CELL, min(known.shape) // 8, deepest // 2))
    unknown = np.asarray(Image.fromarray(np.where(known, np.uint8(0), np.uint8(255))).reduce(cell)) > 250
    if not unknown.any():
        return 0.0
    away = distance(np.logical_not(unknown), limit=max(unknown.shape))
    grey = (away >= _GREY * min(float(away.max()), max(1.0, min(unknown.shape) / 4)))[unknown]
    before = np.asarray(sent.reduce(cell), np.float32)[unknown]
    shares = []
    for answer in answers:
        apart = np.asarray(answer.reduce(cell), np.float32)[unknown] - before
        # An even change is told where the canvas is grey: beside the picture white on nearly white would look like one.
        near = grey & (np.abs(apart).max(axis=1) < _RECOLOURED)
        even = np.median(apart[near], axis=0) if near.any() else np.zeros(3, np.float32)
        shares += [float((np.abs(apart - change).max(axis=1) < _SAME).mean()) for change in (even, np.zeros(3))]
    return max(shares)


def edge_along(answer: Image.Image, sent: Image.Image, known: NDArray[np.bool_], boxes: tuple[Box, ...]) -> Edge:
    """Measures how far the join stands out as one line: `boxes` are the parts in the answer that were painted already.

    A thing that the model drew into the picture itself may end at the join, too, and is not used: what stands there
    instead of what was `sent` says nothing.
    """
    factor = -(-max(answer.size) // _LONGEST)
    pixels = np.asarray(answer.reduce(factor) if factor > 1 else answer)
    shown = known & ~_redrawn(answer, sent, known)
    painted = shown[::factor, ::factor][: pixels.shape[0], : pixels.shape[1]]
    worst = Edge()
    for box in boxes:
        for strip, inside in _sides(pixels, painted, box, factor):
            found = _edge(strip, inside)
            if found.times * found.share > worst.times * worst.share:
                worst = found
    return worst


def _redrawn(answer: Image.Image, sent: Image.Image, known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Marks the pixels of cells whose means differ by more than light and alignment bring about.

    What lies beyond the join differs as it should, and so does what alignment leaves of that on this side of it.
    """
    compared = known & (distance(~known, limit=_NEAR + 1) > _NEAR)
    share = np.asarray(Image.fromarray(np.where(compared, np.uint8(255), np.uint8(0))).reduce(_BLOCK), np.float32) / 255
    shown = Image.composite(answer, sent, Image.fromarray(compared))
    cells = np.asarray(shown.reduce(_BLOCK), np.float32) - np.asarray(sent.reduce(_BLOCK), np.float32)
    apart: NDArray[np.bool_] = np.abs(cells).max(axis=2) > _OTHER * np.maximum(share, np.float32(0.1))
    return apart.repeat(_BLOCK, axis=0).repeat(_BLOCK, axis=1)[: answer.height, : answer.width]


def _sides(
    pixels: NDArray[np.uint8], painted: NDArray[np.bool_], box: Box, factor: int
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.bool_]]]:
    """Yields the strip along each side of the box, its columns from the painted part outwards, and which of its pixels
    are painted.
    """
    height, width = painted.shape
    shared = overlap((box[0] // factor, box[1] // factor, box[2] // factor, box[3] // factor), (0, 0, width, height))
    if shared is None:
        return
    for turns in range(4):  # each side as the right one
        turned = np.rot90(pixels, turns)
        there: NDArray[np.bool_] = np.asarray(np.rot90(painted, turns))
        left, top, right, bottom = shared
        for turn in range(turns):  # a quarter turn against the clock: what lay at the right is at the top
            wide = height if turn % 2 else width
            left, top, right, bottom = top, wide - right, bottom, wide - left
        if right - _DEEP >= 0 and there.shape[1] - right > _FAR:
            across = slice(right - _DEEP, min(right + _DEEP, there.shape[1]))
            yield turned[top:bottom, across], there[top:bottom, across]


def _edge(strip: NDArray[np.uint8], painted: NDArray[np.bool_]) -> Edge:
    count = len(strip) // _WIDE
    if count < 3:
        return Edge()
    # Only where it is the join: the painted part on the one side and what was not painted on the other.
    inner, outer = painted[:, _DEEP - _FAR : _DEEP], painted[:, _DEEP : _DEEP + _FAR]
    joined = np.logical_and(inner.all(axis=1), np.logical_not(outer.any(axis=1)))
    told = np.flatnonzero(joined[: count * _WIDE].reshape(count, _WIDE).all(axis=1))
    if len(told) < 3:
        return Edge()
    blocks = strip[: count * _WIDE].reshape(count, _WIDE, strip.shape[1], 3).mean(axis=1, dtype=np.float32)[told]
    sums = np.concatenate([np.zeros_like(blocks[:, :1]), blocks.cumsum(axis=1)], axis=1)
    places = np.arange(_BESIDE, blocks.shape[1] - _BESIDE + 1)
    before, here, after = sums[:, places - _BESIDE], sums[:, places], sums[:, places + _BESIDE]
    steps: Plane = np.abs(after - 2 * here + before).max(axis=2) / np.float32(_BESIDE)
    away = np.abs(places - _DEEP)
    near, far = steps[:, away <= _NEAR], steps[:, away >= _FAR]
    usual = float(np.percentile(np.median(far, axis=0), 75)) + _FLOOR
    standing = near.max(axis=1) > 1.5 * np.percentile(far, 90, axis=1) + 1.5 * _FLOOR
    return Edge(times=float(np.median(near, axis=0).max()) / usual, share=float(standing.mean()))
