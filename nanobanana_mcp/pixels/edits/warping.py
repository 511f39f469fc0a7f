"""Maps the pixels of a picture to a model's redrawing of it, and lays the redrawing back upon the picture."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nanobanana_mcp.pixels.edits.threads import both
from nanobanana_mcp.pixels.files.decoding import Box, Size

Plane = NDArray[np.float32]
Exact = NDArray[np.float64]

_LARGE = 1_000_000  # px from which two threads are worth while
_CELLS = 32  # of the mesh along each side; the flow is smooth over far more than one of them


@dataclass(frozen=True, kw_only=True)
class Warp:
    """A point of the picture lies at `matrix` * (x, y, 1) + `flow` in the answer.

    Points are parts of the sides, counted from the middle, in the picture and in the answer. `flow`, rows x columns x 2,
    spans the picture from edge to edge and is read between its nodes by straight lines; None where it is nothing.
    """

    matrix: Exact
    flow: Plane | None = None

    def lies_at(self, x: NDArray[np.floating], y: NDArray[np.floating]) -> tuple[Exact, Exact]:
        """Both in parts of the sides from the left and the top, in the picture and in the answer."""
        across, down = np.asarray(x, np.float64) - 0.5, np.asarray(y, np.float64) - 0.5
        rows = self.matrix
        left = rows[0, 0] * across + rows[0, 1] * down + rows[0, 2] + 0.5
        top = rows[1, 0] * across + rows[1, 1] * down + rows[1, 2] + 0.5
        if self.flow is not None:
            added = between(self.flow, across + 0.5, down + 0.5)
            left, top = left + added[..., 0], top + added[..., 1]
        return left, top

    @property
    def upright(self) -> bool:
        """Tells whether the answer is only shifted and scaled along its sides."""
        return self.flow is None and not self.matrix[0, 1] and not self.matrix[1, 0]

    def furthest(self, size: Size) -> float:
        """Measures how far, in px of a picture of this size, a point lies from where it would without any drift."""
        x, y = _nodes(8)
        left, top = self.lies_at(x, y)
        return float(np.hypot((left - x) * size[0], (top - y) * size[1]).max())


STILL = Warp(matrix=np.array([[1.0, 0, 0], [0, 1.0, 0]]))


def similar(shift_x: float, shift_y: float, scale: float) -> Warp:
    """A shift in parts of the sides and a change of size about the middle."""
    return Warp(matrix=np.array([[scale, 0, shift_x], [0, scale, shift_y]], np.float64))


def reaching(warp: Warp, size: Size, kept: Box) -> Warp:
    """Return the warp with what lies around `kept`, a box of a picture of `size`, drawn to the answer's edges.

    An answer that shows a little less than the picture ends before the picture does, and its last pixels would be repeated
    as stripes. Up to half of each side around the box is drawn out, more and more towards its end; the box stays.
    """
    x, y = _nodes(_CELLS)
    added = []
    for axis, (along, lies) in enumerate(zip((x, y), warp.lies_at(x, y), strict=True)):
        first, last = kept[axis] / size[axis], 1 - kept[axis + 2] / size[axis]
        begins, ends = (np.take(lies, [node], axis=1 - axis) for node in (0, -1))
        move = np.zeros_like(along)
        if first > 0:
            move += np.clip(-begins, 0, first / 2) * np.square(np.clip(1 - along / first, 0, 1))
        if last > 0:
            move -= np.clip(ends - 1, 0, last / 2) * np.square(np.clip(1 - (1 - along) / last, 0, 1))
        added.append(move)
    flow = np.stack(added, axis=-1)
    if not flow.any():
        return warp
    if warp.flow is not None:
        flow += between(warp.flow, x, y)
    return Warp(matrix=warp.matrix, flow=flow.astype(np.float32))


def warped(answer: Image.Image, size: Size, warp: Warp, box: Box | None = None) -> Image.Image:
    """The answer in `size`, or the `box` of that, read where each pixel has gone; beyond its edges the last pixels repeat."""
    box = box or (0, 0, *size)
    if warp.upright:
        return _scaled(answer, size, warp, box)
    factor = min(answer.width / size[0], answer.height / size[1])
    if factor > 1.3:  # single pixels are read, so what is too sharp for the picture is made smaller first
        answer = answer.resize((round(answer.width / factor), round(answer.height / factor)), Image.Resampling.LANCZOS)
    wide, high = box[2] - box[0], box[3] - box[1]
    # A bend is read between the corners of cells; a mere turn is exact with one.
    cells = 1 if warp.flow is None else max(4, min(_CELLS, max(wide, high) // 32))
    columns, rows = (np.linspace(0, side, min(cells, side) + 1).round().astype(int) for side in (wide, high))
    x, y = np.meshgrid((columns + box[0]) / size[0], (rows + box[1]) / size[1])
    left, top = warp.lies_at(x, y)
    left, top = left * answer.width, top * answer.height
    part, (first, upper) = _around(answer, left, top)
    left, top = left - first, top - upper
    # The corners of a cell in Pillow's order: left top, left bottom, right bottom, right top.
    corners = np.stack(
        [
            left[:-1, :-1], top[:-1, :-1], left[1:, :-1], top[1:, :-1],
            left[1:, 1:], top[1:, 1:], left[:-1, 1:], top[:-1, 1:],
        ],
        axis=-1,
    )  # fmt: skip
    mesh = [
        (
            (columns[column], rows[row], columns[column + 1], rows[row + 1]),
            tuple(corners[row, column]),
        )
        for row in range(len(rows) - 1)
        for column in range(len(columns) - 1)
    ]
    return _meshed(part, (wide, high), mesh)


_Cell = tuple[Box, tuple[float, ...]]


def _meshed(part: Image.Image, size: Size, mesh: list[_Cell]) -> Image.Image:
    """The mesh, given from its top to its bottom, in two halves at once where it is large."""
    wide, high = size
    middle = mesh[len(mesh) // 2][0][1]  # a row of cells begins here
    if wide * high < _LARGE or not middle:
        return part.transform(size, Image.Transform.MESH, mesh, Image.Resampling.BICUBIC)

    def half(top: int, bottom: int) -> Image.Image:
        cells = [((x, y - top, right, low - top), read) for (x, y, right, low), read in mesh if top <= y < bottom]
        return part.transform((wide, bottom - top), Image.Transform.MESH, cells, Image.Resampling.BICUBIC)

    upper, lower = both(lambda: half(0, middle), lambda: half(middle, high))
    whole = Image.new(part.mode, size)
    whole.paste(upper, (0, 0))
    whole.paste(lower, (0, middle))
    return whole


def _scaled(answer: Image.Image, size: Size, warp: Warp, box: Box) -> Image.Image:
    x, y = np.array([box[0], box[2]]) / size[0], np.array([box[1], box[3]]) / size[1]
    lefts, tops = warp.lies_at(x, y)
    left, top = lefts * answer.width, tops * answer.height
    part, (first, upper) = _around(answer, left, top)
    read = (float(left[0]) - first, float(top[0]) - upper, float(left[1]) - first, float(top[1]) - upper)
    wide, high = box[2] - box[0], box[3] - box[1]
    return part.resize((wide, high), Image.Resampling.LANCZOS, box=read)


def _around(answer: Image.Image, left: Exact, top: Exact) -> tuple[Image.Image, tuple[int, int]]:
    """The answer, with its last pixels repeated as far as points lie beyond it, and where that begins."""
    beyond = int(np.ceil(max(0.0, -left.min(), -top.min(), left.max() - answer.width, top.max() - answer.height)))
    if not beyond:
        return answer, (0, 0)
    beyond += 3
    pixels = np.asarray(answer)
    edges = ((beyond, beyond), (beyond, beyond)) + ((0, 0),) * (pixels.ndim - 2)
    return Image.fromarray(np.pad(pixels, edges, mode="edge")), (-beyond, -beyond)


def _nodes(cells: int) -> tuple[Exact, Exact]:
    along = np.linspace(0, 1, cells + 1)
    x, y = np.meshgrid(along, along)
    return x, y


def between(flow: Plane, x: Exact, y: Exact) -> Exact:
    """The flow at points in parts of the sides from the left and the top."""
    rows, columns = flow.shape[0] - 1, flow.shape[1] - 1
    across, down = np.clip(x, 0, 1) * columns, np.clip(y, 0, 1) * rows
    column, row = np.minimum(across.astype(int), columns - 1), np.minimum(down.astype(int), rows - 1)
    right, lower = (across - column)[..., None], (down - row)[..., None]
    upper = flow[row, column] * (1 - right) + flow[row, column + 1] * right
    under = flow[row + 1, column] * (1 - right) + flow[row + 1, column + 1] * right
    return np.asarray(upper * (1 - lower) + under * lower, np.float64)
