"""Tells a chequerboard that a model painted, as pictures of transparency are drawn, from real transparency."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Plane = NDArray[np.float32]

_PERIODS = 3  # fewest periods of a chequerboard in a square that is looked at; fewer could be any slow change of light

_TILE: Final = 256  # px of the squares, at each reduction, in which the alpha is searched for a board
_TILES: Final = 40  # at most, of one reduction
_THICKEST = np.float32(0.8)  # alpha above which a pixel is the object's: a board is paler than that
_STEP = 0.025  # of alpha between the two levels of a board; below, it is what JPEG leaves of an even white
_SMALLEST, _FEWEST = 3.0, 12  # px of a cell, and cells of a tile that have to be seen
_OWN = 0.2  # of its power, from which a square of the source counts as chequered itself: half of it may be background
_AGREEING = 0.85  # of the cells seen: the others may hold a hair


def chequered(alpha: Plane, neutral: NDArray[np.bool_] | None = None, *, own: Plane | None = None) -> bool:
    """True when a solved alpha, height x width, has a chequerboard where nothing or one even veil should be.

    A board that was painted on one plate only is solved as a perfect alpha of exactly two levels, so nothing else
    tells it. It is searched for in squares at every halving of the picture: cells of 3 px up to a fifth of the
    shorter side, wherever they are. Opaque chequers are an object's own, and so are coloured ones: `neutral` says
    which pixels are grey. Nets and fences are opaque, shadows and glass have no squares of two levels that alternate
    both ways. `alpha` is not cut to 0 to 1: where the darker squares were taken for the background, the others are
    below 0. `own` is the brightness of the picture that the object was cut out of, 0 to 1: lace, a net or a chess board that
    is a board in that picture, too, was not painted by a model.
    """
    seen = alpha < _THICKEST
    if neutral is not None:
        seen &= neutral
    # Two planes in one picture for `reduce`: the alpha of what may be background, and how much of that there is.
    shown = Image.fromarray(seen.astype(np.float32))
    values = Image.fromarray(np.where(seen, alpha, np.float32(0)))
    factor = 1
    while True:
        cover = np.asarray(shown.reduce(factor))
        level = np.where(cover > 0.9, np.asarray(values.reduce(factor)) / np.maximum(cover, 0.1), np.float32(np.nan))
        height, width = level.shape
        tops, lefts = _starts(height), _starts(width)
        places = [(top, left) for top in tops for left in lefts]
        before = None if own is None else np.asarray(Image.fromarray(own).reduce(factor))
        for top, left in places[:: -(-len(places) // _TILES)]:
            tile = (slice(top, top + _TILE), slice(left, left + _TILE))
            if _board(level[tile]) and not (before is not None and _board(before[tile])):
                return True
        if max(height, width) <= _TILE:
            return False
        factor *= 2


def _starts(length: int) -> list[int]:
    """The first pixels of tiles that overlap by half."""
    return sorted({*range(0, max(1, length - _TILE), _TILE // 2), max(0, length - _TILE)})


def _board(level: Plane) -> bool:
    """Tells whether a tile of alpha (not a number where the object is) is a board of two levels."""
    known = level[np.isfinite(level)]
    if known.size < level.size / 8:
        return False
    pale, dark = (float(value) for value in np.percentile(known, (5, 95)))
    for _ in range(4):
        middle = (pale + dark) / 2
        if dark - pale < _STEP:
            return False
        pale, dark = float(np.median(known[known <= middle])), float(np.median(known[known > middle]))
    if dark - pale < _STEP:
        return False
    near = 0.3 * (dark - pale)
    signs = (np.abs(level - dark) < near).astype(np.float32) - (np.abs(level - pale) < near)
    part = _with_both(signs)
    signs, empty = signs[part], np.isfinite(level[part])
    found = _grid(signs)
    return found is not None and _alternates(signs, empty, *found)


def _with_both(signs: Plane) -> tuple[slice, slice]:
    """The part of a tile that has both levels: a board may have a plain margin."""
    parts = []
    for axis in (0, 1):
        bounds = [0, signs.shape[axis]]
        for which in (1, -1):
            counts = (signs == which).sum(axis=1 - axis).cumsum()
            first, last = np.searchsorted(counts, (0.005 * counts[-1], 0.995 * counts[-1]))
            bounds = [max(bounds[0], int(first)), min(bounds[1], int(last) + 1)]
        parts.append(slice(*bounds))
    return parts[0], parts[1]


def _grid(signs: Plane) -> tuple[Plane, Plane] | None:
    """Finds where rows and columns lie in the cells of the chequerboard that suits +1, -1 and 0 (not seen) best.

    The whole part of a number counts cells, and its fraction is 0.5 in the middle of one.
    """
    height, width = signs.shape
    if min(height, width) < 4 * _SMALLEST:
        return None
    frequencies = np.arange(1.5 / min(height, width), 0.5 / _SMALLEST, 0.1 / max(height, width))
    across, down = (
        np.exp(-2j * np.pi * np.outer(np.arange(length), frequencies)).astype(np.complex64)
        for length in (width, height)
    )
    seen = signs @ across
    # A chequerboard has its power on both diagonals, and 0.4 of it there when nothing stands before it.
    power = np.minimum(np.abs((seen * down).sum(axis=0)), np.abs((seen * down.conj()).sum(axis=0)))
    best = int(power.argmax())
    if power[best] < 0.2 * np.abs(signs).sum():
        return None
    cell = 0.5 / float(frequencies[best])
    # Few cells, partly hidden, pull that peak aside; so the square waves themselves are fitted, by turns.
    places = [_candidates(length, cell) for length in (height, width)]
    waves = [1 - 2 * (np.floor(place) % 2) for place in places]
    profile = seen[:, best]
    rows = np.real(profile * np.exp(-0.5j * np.angle(np.square(profile).sum())))
    row = column = 0
    for _ in range(3):
        column = int(np.abs(waves[1] @ (rows @ signs)).argmax())
        row = int(np.abs(waves[0] @ (signs @ waves[1][column])).argmax())
        rows = waves[0][row]
    return places[0][row], places[1][column]


def _candidates(length: int, cell: float) -> Plane:
    """Grids near this cell at 24 phases, a row each, that differ by a thirtieth of a cell from end to end."""
    count = length / cell
    cells = cell * (1 + np.linspace(-0.5, 0.5, 31) / count)
    pixels = (np.arange(length) - length / 2)[None, None, :] / cells[:, None, None]
    places = pixels + np.arange(0, 1, 1 / 24)[None, :, None] + np.ceil(count)
    return np.asarray(places.reshape(-1, length), np.float32)


def _alternates(signs: Plane, empty: NDArray[np.bool_], rows: Plane, columns: Plane) -> bool:
    """Tells whether the squares of this grid, but for the object's, have one level each, alternating as a board's do."""
    places = [rows, columns]
    inner = []
    for place in places:
        edge = min(0.25, 1.2 * float(place[1] - place[0]))  # a pixel beside an edge is neither
        inner.append(np.abs(place % 1 - 0.5) < 0.5 - edge)
    signs, empty = signs[np.ix_(*inner)], empty[np.ix_(*inner)]
    row, column = (
        (np.floor(place) - np.floor(place[0])).astype(int)[kept] for place, kept in zip(places, inner, strict=True)
    )
    shape = (int(row.max()) + 1, int(column.max()) + 1)
    index = (row[:, None] * shape[1] + column).ravel()
    cells = shape[0] * shape[1]
    count = np.bincount(index, minlength=cells)
    seen = np.bincount(index, empty.ravel(), cells)
    level = np.bincount(index, signs.ravel(), cells) / np.maximum(seen, 1)
    enough = (seen > 0.8 * count) & (count > 0.5 * np.median(count))
    told = (level * (np.add.outer(np.arange(shape[0]), np.arange(shape[1])) % 2 * 2 - 1).ravel())[enough]
    if len(told) < _FEWEST or abs(float(np.median(told))) < 0.9:
        return False
    return bool(max((told > 0.6).mean(), (told < -0.6).mean()) > _AGREEING)


def looks_like_checkerboard(image: Image.Image, source: Image.Image | None = None) -> bool:
    """True when a chequerboard of two greys is painted along the picture's edges: transparency that is only drawn.

    What `source`, the picture that it was made from, has there as well is no such thing: a chess board, tiles, cloth.

    Cells of 6 to 64 px. A product of two square waves has (8 / pi^2)^2 = 0.66 of its power in the four peaks of its
    fundamental, half on each diagonal (measured: 0.55 to 0.68 in squares that suit the cell; 0.39 at most, and below
    0.3 in 99 of 100, in squares of grey rendered photographs). A fifth of the squares along the edges must agree.
    """
    pixels = np.asarray(image.convert("RGB"))
    before = None if source is None else np.asarray(source.convert("RGB").resize(image.size, reducing_gap=2.0))
    for size in (64, 128, 256, 512):
        if size > min(image.size):
            break
        places = _along_edges(image.size, size)
        cells = []
        for left, top in places:
            square = (slice(top, top + size), slice(left, left + size))
            cell = _cell(pixels[square])
            if cell > 0 and not (before is not None and _has_cells(before[square], cell)):
                cells.append(cell)
        if len(cells) < max(3, len(places) // 5):
            continue
        usual = float(np.median(cells))
        if sum(abs(cell / usual - 1) < 0.2 for cell in cells) >= max(3, len(places) // 5):
            return True
    return False


def _along_edges(size: tuple[int, int], side: int) -> list[tuple[int, int]]:
    """Left and top of at most 32 squares along the four edges."""
    across = sorted({*range(0, size[0] - side, side // 2), size[0] - side})
    down = sorted({*range(0, size[1] - side, side // 2), size[1] - side})
    places = [(left, top) for left in across for top in {0, down[-1]}]
    places += [(left, top) for top in down[1:-1] for left in {0, across[-1]}]
    return places[:: -(-len(places) // 32)]


def _has_cells(square: NDArray[np.uint8], cell: float) -> bool:
    """Tells whether a picture has chequers of about this size there, of any colours and before anything."""
    grey = Image.fromarray(square.astype(np.float32).mean(axis=2))
    # Without its slow changes, such as that from the object to what is behind it.
    coarse = grey.resize((len(square) // round(2 * cell) + 1,) * 2, Image.Resampling.BOX).resize(
        grey.size, Image.Resampling.BICUBIC
    )
    own = _strongest(np.asarray(grey, np.float32) - np.asarray(coarse, np.float32), least=_OWN)
    return own > 0 and abs(own / cell - 1) < 0.2


def _cell(square: NDArray[np.uint8]) -> float:
    """The cell size in px of the grey chequerboard that fills a square of pixels, 0 when none does."""
    red, green, blue = (square[..., channel] for channel in range(3))
    colour = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    if float(colour.mean()) > 14:
        return 0.0
    return _strongest(square.mean(axis=2, dtype=np.float32), least=0.45)


def _strongest(grey: Plane, *, least: float) -> float:
    """The cell size in px of the chequerboard that has at least this part of a square's power, 0 when none has."""
    if float(grey.std()) < 3:
        return 0.0
    side = len(grey)
    window = np.hanning(side + 1)[:side].astype(np.float32)
    power = np.abs(np.fft.fft2((grey - grey.mean()) * window[:, None] * window)) ** 2
    total = float(power.sum())
    best, cell = 0.0, 0.0
    for row in range(_PERIODS, side // 12 + 2):
        for column in (row - 1, row, row + 1):
            peaks = [_lobe(power, row, column), _lobe(power, row, -column)]
            share = 2 * sum(peaks) / total
            if share > best and min(peaks) > 0.4 * max(peaks):
                best, cell = share, side / (row + column)
    return cell if best > least else 0.0


def _lobe(power: Plane, row: int, column: int) -> float:
    return float(power[np.ix_([row - 1, row, row + 1], [column - 1, column, column + 1])].sum())
