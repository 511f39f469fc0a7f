"""Measures a smooth bend in windows (Lucas and Kanade 1981) and carries it on into the changed part."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nanobanana_mcp.pixels.edits.levels import Level, box_sum, detail_of, reduced_to, shown_by, slopes_of
from nanobanana_mcp.pixels.edits.warping import Plane, Warp, between, warped
from nanobanana_mcp.pixels.files.decoding import Size

_BLOCK = 8  # px of the blocks of which windows are made
_BENT = 2.0  # px at 1024: how far a bend usually reaches


def bent(level: Level, answered: Image.Image, warp: Warp, *, turns: int) -> Warp:
    """The warp with what a smooth bend adds to it, from windows of 5 x 5 blocks outside the changed part.

    A window counts by how much texture it has and by how alike both pictures are in it; where none counts, the bend
    goes on from those around and fades to nothing.
    """
    width, height = level.size
    level = shown_by(level, warp)
    rows, columns = height // _BLOCK, width // _BLOCK
    if min(rows, columns) < 6:
        return warp
    slope_x, slope_y = slopes_of(level.detail)
    answered = reduced_to(answered, level.size)
    flow = _on_nodes(warp.flow, rows, columns)
    free = (_BENT * max(level.size) / 1024) ** 2
    for _ in range(turns):
        current = Warp(matrix=warp.matrix, flow=flow)
        other = detail_of(np.asarray(warped(answered, level.size, current), np.float32), level.mask, level.around)
        turned_x, turned_y = slopes_of(other)
        step_x, step_y = (slope_x + turned_x) / 2 * level.mask, (slope_y + turned_y) / 2 * level.mask
        ones, others, both = (
            _windows(plane) for plane in (level.detail * level.detail, other * other, level.detail * other)
        )
        contrast = np.asarray(np.clip(both / np.maximum(others, 1e-3), 0.3, 3), np.float32)
        alike = np.clip((both / np.sqrt(np.maximum(ones * others, 1e-3)) - 0.3) / 0.5, 0, 1)
        left = np.asarray(level.detail - other * _spread_out(contrast, level.size), np.float32)
        noise = _windows(left * left) / np.maximum(_windows(level.mask), 1)
        xx, xy, yy = (_windows(plane) for plane in (step_x * step_x, step_x * step_y, step_y * step_y))
        xt, yt = _windows(step_x * left), _windows(step_y * left)
        # A window's pixels are no independent witnesses; what they do not tell is taken to be no bend at all.
        held = 10 * noise / free + 1e-3
        det = (xx + held) * (yy + held) - xy * xy
        moved_x, moved_y = ((yy + held) * xt - xy * yt) / det, ((xx + held) * yt - xy * xt) / det
        least = np.maximum((xx + yy) / 2 - np.sqrt(np.square(xx - yy) / 4 + xy * xy), 0)
        weight = np.asarray(alike * alike * least / (least + held), np.float32)
        reach = 2.0
        length = np.maximum(np.hypot(moved_x, moved_y) / reach, 1)
        step = np.asarray(np.stack([moved_x / length / width, moved_y / length / height], axis=-1), np.float32)
        flow = np.asarray(flow + _from_blocks(_smooth(step, weight)), np.float32)
    return Warp(matrix=warp.matrix, flow=flow.astype(np.float32))


def _windows(plane: NDArray[np.floating]) -> Plane:
    """Sums over 5 x 5 blocks about each block."""
    rows, columns = plane.shape[0] // _BLOCK, plane.shape[1] // _BLOCK
    blocks = plane[: rows * _BLOCK, : columns * _BLOCK].reshape(rows, _BLOCK, columns, _BLOCK).sum(axis=(1, 3))
    return box_sum(blocks, 2)


def _spread_out(blocks: NDArray[np.floating], size: Size) -> Plane:
    return np.asarray(Image.fromarray(blocks.astype(np.float32)).resize(size, Image.Resampling.BILINEAR), np.float32)


def _smooth(step: Plane, weight: Plane) -> Plane:
    """The mean of what counts near each block; far from all that counts, that of a wider ring, and at last nothing."""
    found = np.zeros_like(step)
    for radius in (max(weight.shape), 24, 8, 3):
        total = box_sum(weight, radius)
        sums = np.stack([box_sum(step[..., axis] * weight, radius) for axis in (0, 1)], axis=-1)
        found = (sums + 2 * found) / (total + 2)[..., None]
    return np.asarray(found, np.float32)


def _from_blocks(blocks: Plane) -> Plane:
    """Values at the middles of blocks carried on to their corners."""
    wide = np.pad(blocks, ((1, 1), (1, 1), (0, 0)), mode="edge")
    return np.asarray((wide[:-1, :-1] + wide[1:, :-1] + wide[:-1, 1:] + wide[1:, 1:]) / 4, np.float32)


def _on_nodes(flow: Plane | None, rows: int, columns: int) -> Plane:
    """A flow on other nodes."""
    if flow is None:
        return np.zeros((rows + 1, columns + 1, 2), np.float32)
    if flow.shape[:2] == (rows + 1, columns + 1):
        return flow
    x, y = np.meshgrid(np.linspace(0, 1, columns + 1), np.linspace(0, 1, rows + 1))
    return np.asarray(between(flow, x, y), np.float32)
