"""Makes real transparency from plates: the same picture on white and on black, or one picture on a key colour.

On a background b a pixel shows alpha * F + (1 - alpha) * b in every channel. Two plates give six numbers for the four
unknowns, so the least squares solution also tells how badly the plates fit each other (Smith and Blinn 1996,
triangulation matting).
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

from nanobanana_mcp.domain.errors import RequestError
from nanobanana_mcp.pixels.edits.alignment import SURE, drift_of, restored
from nanobanana_mcp.pixels.edits.chequer import chequered
from nanobanana_mcp.pixels.edits.colours import applied, fitted, recoloured
from nanobanana_mcp.pixels.edits.warping import Plane

Colour = tuple[int, int, int]
Value = TypeVar("Value", np.uint8, np.bool_)

# Brightness (Rec. 601), as JPEG has it: chroma is stored at half the resolution and would blur the alpha of a hair.
_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)
_MATCHING = 0.03
_CUT = 0.08  # of a keyed alpha: JPEG stores colour at half the resolution, so a key is noisier than its plate looks
_NOISE = 0.025  # of alpha: what JPEG q80 to q90 leaves around hair; more would thin out the hair itself
_GREY = 24  # levels between the channels of a pixel that is still grey in a JPEG
_PLAIN_RIM = 1 / 6
"""The share of the pixels along the edges that must be background: a bust touches three edges, and a picture whose
background was left as it was has the colour that was asked for here and there."""
_SPREAD = 12
"""Levels from the background's colour that half of its pixels may be away: a gradient is no plain background."""
_FITTING = 0.003  # misfit of plates that need not be moved: JPEG makes as much
_SETTLED = 0.35
"""The share of the misfit before at which plates count as laid: each further way costs as much and gave at most 0.0015."""
_DENSE = 0.45
"""The part of white nearer than which plates show something rather solid, or one a third darker than the other."""
_STAYS_BLACK = 16  # levels that black may change by when the plates are made as bright as each other
_BRIGHTER = 1.22
"""Times that a second plate may be brighter or darker all over: what lets 0.12 through and more is a veil."""
_SOLID, _SOLID_LEAST = 0.93, 0.75
"""The mean of alpha around, and the least beside, from where an object is taken for solid: uneven light between two plates
makes up to 0.06, and what lets less than that through cannot be told from it."""
_FAINT = np.float32(0.03)  # weight of the neighbours' colour where alpha is too small to divide by


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The measures by which a matte can be trusted; shares are parts of all pixels and add up to 1.

    `mismatch` is the mean misfit of the plates over the pixels of the object, 0 to 1 (measured as JPEG q80 to q90:
    0.001 to 0.003 for plates that match, up to 0.013 for plates that had to be aligned, 0.07 and more for two
    different objects). `edge_noise` is how far alpha was from 0 or 1, root mean square, where it was cleaned to that
    beside an edge. `held` is the part of the solid inside that was held at 1 although the plates differ a little there.
    `chequered`: a chequerboard was painted where the background should be, and is in the alpha.
    """

    mismatch: float
    edge_noise: float
    held: float
    transparent: float
    semi: float
    opaque: float
    chequered: bool

    @property
    def matching(self) -> bool:
        """False when the plates show different pictures; then make one plate on a key colour and use `key`."""
        return self.mismatch <= _MATCHING


@dataclass(frozen=True, kw_only=True)
class Matte:
    """The object alone, RGBA, not premultiplied. Pixels beside it carry its colour, so that scaling brings no halo."""

    image: Image.Image
    quality: Quality


def matte(white: Image.Image, black: Image.Image, *, source: Image.Image | None = None) -> Matte:
    """Solves alpha and colour from a plate on white and one on black, which is aligned and made as bright as the other first.

    The plates' real backgrounds are measured along their edges, because a model's white is seldom 255. `source` is what
    the object was cut out of, RGB, where there is one: a chequerboard that it shows is its own. Raises RequestError where
    there is no such background.
    """
    white, black = white.convert("RGB"), _laid_upon(white.convert("RGB"), black.convert("RGB"))
    black = _as_bright(white, black)
    bright, dark = np.asarray(white, np.float32), np.asarray(black, np.float32)
    paper, ink = _border_colour(bright, 255), _border_colour(dark, 0)
    span = paper - ink
    difference = bright - dark
    through = (difference * (span * _WEIGHTS)).sum(axis=2) / np.float32((span * span * _WEIGHTS).sum())
    raw = 1 - through
    misfit = np.abs(difference - np.clip(through, 0, 1)[..., None] * span) @ _WEIGHTS / 255
    body = raw > 0.1
    mismatch = float(misfit[body].mean()) if body.any() else 0.0
    # What JPEG does to alpha shows in the misfit; plates without loss keep the faintest shadow.
    alpha, noise = _cleaned(raw, min(_NOISE, 0.004 + 25 * mismatch))
    alpha, held = _held_solid(alpha, raw)
    board = chequered(raw, _ptp(white) < _GREY, own=_brightness(source, white.size))
    lit = ((bright - (1 - alpha)[..., None] * paper) + (dark - (1 - alpha)[..., None] * ink)) / 2
    return _finished(np.asarray(lit, np.float32), alpha, mismatch=mismatch, noise=noise, board=board, held=held)


def key(plate: Image.Image, colour: Colour, *, source: Image.Image | None = None) -> Matte:
    """Takes a strongly coloured background away and its spill out of the object (Vlahos' colour difference).

    `colour` is what was asked for; what is there is measured along the edges. The object must not have that colour
    itself. Raises RequestError for a colour that is too grey to key on, and where there is no such background. `mismatch` says how far the edges of the plate
    are from the colour.
    """
    pixels = np.asarray(plate.convert("RGB"), np.float32)
    asked = np.array(colour, np.float32)
    high = asked > (asked.max() + asked.min()) / 2
    if asked.max() - asked.min() < 128:
        raise RequestError(
            f"The key colour {colour} is too grey; use a strong one such as (0, 255, 0) or (255, 0, 255)."
        )
    rim = _rim(pixels)
    near = rim[_excess(rim, high) > 0.4 * _excess(asked, high)]
    there = _plain_colour(near, rim)
    if there is None:
        raise RequestError("the model did not put the subject on the key colour")
    strength = float(_excess(there, high))
    raw = 1 - np.maximum(_excess(pixels, high), 0) / strength
    alpha, noise = _cleaned(np.asarray((raw - _CUT) / (1 - 1.5 * _CUT), np.float32), _NOISE)
    board = chequered(np.asarray(raw, np.float32), own=_brightness(source, plate.size))
    lit = pixels - (1 - alpha)[..., None] * there
    spilled = np.maximum(_excess(lit, high), 0)
    lit[..., high] -= spilled[..., None]
    mismatch = float(np.abs(there - asked).mean()) / 255
    return _finished(np.maximum(lit, 0), alpha, mismatch=mismatch, noise=noise, board=board)


def _as_bright(white: Image.Image, black: Image.Image) -> Image.Image:
    """The black plate in the colours that the white one has where the object lets nothing through.

    A model draws its second plate a little darker or warmer, and the difference would be solved as an object that one sees
    through. A veil differs as well, but by the same everywhere, so that what suits it would make black grey: then only
    what leaves black as it is is taken, and little of it. Darker middle tones look like a veil, too, where an object has
    no dark parts to tell them by.
    """
    bright, dark = np.asarray(white, np.float32), np.asarray(black, np.float32)
    ink = _border_colour(dark, 0)
    apart = (bright - dark) @ _WEIGHTS / np.float32(255)
    dense = least(apart < _DENSE, 4)
    colours, _ = fitted(white, black, dense, sure=True)
    if np.abs(applied(ink[None], colours) - ink).max() <= _STAYS_BLACK:
        return recoloured(black, colours)
    colours, _ = fitted(white, black, dense, sure=True, black_stays=True)
    parts = np.array(colours).reshape(3, 4)[:, :3].sum(axis=1)
    return recoloured(black, colours) if parts.max() <= _BRIGHTER and parts.min() >= 1 / _BRIGHTER else black


def _held_solid(alpha: Plane, raw: Plane) -> tuple[Plane, float]:
    """Alpha held at 1 deep inside, where it is only a little less on an average; and in which part of there it was less."""
    levels = np.rint(np.clip(raw, 0, 1) * 255).astype(np.uint8)
    mean = np.asarray(Image.fromarray(levels).filter(ImageFilter.BoxBlur(6)))
    lowest = least(np.rint(np.clip(alpha, 0, 1) * 255).astype(np.uint8), 3)
    deep = (mean > 255 * _SOLID) & (lowest > 255 * _SOLID_LEAST)
    if not deep.any():
        return alpha, 0.0
    return np.where(deep, np.float32(1), alpha), float((alpha[deep] < 0.98).mean())


def _brightness(source: Image.Image | None, size: tuple[int, int]) -> Plane | None:
    """The source as one plane from 0 to 1, as large as the plate."""
    if source is None:
        return None
    grey = source.convert("L").resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(np.asarray(grey, np.float32) / 255, np.float32)


def _laid_upon(white: Image.Image, black: Image.Image) -> Image.Image:
    """The black plate where the white one is: of several ways to align it, the first with which the plates fit far better, else
    the best.

    By what is alike in both, which is the inside of the object unless it has moved far; by all that it shows, which for
    lace and nets is light on the one plate and dark on the other; and by its outline, if it is flat.
    """
    size = white.size
    there = black if black.size == size else black.resize(size, Image.Resampling.LANCZOS)
    outlines = [_outline(white, 255), _outline(black, 0)]
    alike = _greatest(ImageChops.difference(white, there)) < 48
    shown = np.asarray(outlines[0])[..., 0] > 80
    before = _misfit(white, there)
    best, smallest = there, before
    for inside in (alike, shown, None):
        if smallest < max(_FITTING, _SETTLED * before):
            break
        if inside is None:
            found = drift_of(outlines[0], outlines[1], bends=False)
        else:
            found = drift_of(white, black, changed=(~least(inside, 2)).view(np.uint8))
        if found.confidence < SURE or found.warp.furthest(size) < 0.2:
            continue
        moved = restored(black, size, found)
        misfit = _misfit(white, moved)
        if misfit < smallest:
            best, smallest = moved, misfit
    return best


def _misfit(white: Image.Image, black: Image.Image) -> float:
    """Measures how badly a black plate fits the white one, with its mean brightness made the same, 0 to 1."""
    bright, dark = (np.asarray(plate, np.float32) for plate in (white, black))
    through = (bright - dark) @ _WEIGHTS / np.float32(255)
    body = through < 0.9
    if not body.any():
        return 1.0
    apart = np.abs(bright - dark - np.clip(through, 0, 1)[..., None] * np.float32(255)) @ _WEIGHTS
    below = np.maximum(-through, 0) * np.float32(255)
    return float((apart + below)[body].mean()) / 255


def _outline(plate: Image.Image, background: int) -> Image.Image:
    """Measures how far each pixel is from the background, cut at 60 levels, so that only the silhouette is left."""
    pixels = np.asarray(plate, np.float32)
    apart = np.abs(pixels - _border_colour(pixels, background))
    far = np.maximum(np.maximum(apart[..., 0], apart[..., 1]), apart[..., 2])
    return Image.fromarray((np.minimum(far, 60) * 4).astype(np.uint8)).convert("RGB")


def _rim(pixels: Plane) -> Plane:
    """The pixels along the four edges, n x 3."""
    deep = max(2, min(pixels.shape[:2]) // 50)
    sides = (pixels[:deep], pixels[-deep:], pixels[:, :deep], pixels[:, -deep:])
    return np.concatenate([side.reshape(-1, 3) for side in sides])


def _border_colour(pixels: Plane, asked: int) -> Plane:
    rim = _rim(pixels)
    near = rim[np.abs(rim - asked).max(axis=1) < 64]
    found = _plain_colour(near, rim)
    if found is None:
        raise RequestError(f"the model did not put the subject on plain {'white' if asked else 'black'}")
    return found


def _plain_colour(near: Plane, rim: Plane) -> Plane | None:
    """The one colour of the background among the pixels `near` to it; None where these are few, or of many colours."""
    if len(near) < len(rim) * _PLAIN_RIM:
        return None
    colour = np.asarray(np.median(near, axis=0), np.float32)
    return colour if np.median(np.abs(near - colour), axis=0).max() <= _SPREAD else None


def _excess(pixels: Plane, high: NDArray[np.bool_]) -> Plane:
    """Measures how much the channels of the key stand out: G - max(R, B) for green, min(R, B) - G for magenta."""
    return np.asarray(pixels[..., high].min(axis=-1) - pixels[..., ~high].max(axis=-1), np.float32)


def _cleaned(raw: Plane, level: float) -> tuple[Plane, float]:
    """Alpha from 0 to 1 with noise up to `level` taken out at both ends, and how large it was beside edges.

    Only what is faint together with all its neighbours is noise: the tip of a hair lies next to more hair, and stays.
    """
    alpha = np.clip(raw, 0, 1)
    bytes_of = np.rint(alpha * 255).astype(np.uint8)
    around_high, around_low = ~least(~bytes_of, 2), least(bytes_of, 2)
    alpha = np.where(around_high < 255 * 2 * level, 0, np.where(around_low > 255 * (1 - 2 * level), 1, alpha))
    alpha = alpha * np.clip(2 * alpha / level - 1, 0, 1)
    alpha = 1 - (1 - alpha) * np.clip(2 * (1 - alpha) / level - 1, 0, 1)
    ended = ((alpha == 0) | (alpha == 1)) & (around_high > around_low)
    return np.asarray(alpha, np.float32), float(np.sqrt(np.square(raw - alpha)[ended].mean())) if ended.any() else 0.0


def _finished(lit: Plane, alpha: Plane, *, mismatch: float, noise: float, board: bool, held: float = 0.0) -> Matte:
    """Divides the colour out of alpha * colour; where alpha is faint, the colour of what is beside it decides."""
    near = 255 * _around(lit * (alpha > 0)[..., None]) / np.maximum(_around(alpha * 255), 1)[..., None]
    colour = (lit + _FAINT * near) / (alpha + _FAINT)[..., None]
    values = np.empty((*alpha.shape, 4), np.uint8)
    values[..., :3] = np.rint(np.clip(colour, 0, 255))
    values[..., 3] = np.rint(alpha * 255)
    opaque, transparent = float((values[..., 3] == 255).mean()), float((values[..., 3] == 0).mean())
    quality = Quality(
        mismatch=mismatch,
        edge_noise=noise,
        held=held,
        transparent=transparent,
        semi=max(0.0, 1 - opaque - transparent),
        opaque=opaque,
        chequered=board,
    )
    return Matte(image=Image.fromarray(values), quality=quality)


def least(plane: NDArray[Value], radius: int) -> NDArray[Value]:
    """The least value within `radius` rows and columns of each; the edges go on beyond themselves.

    What Pillow's MinFilter does, which looks at each pixel's whole square: a fiftieth of its time for 5 x 5.
    """
    wide = np.pad(plane, radius, mode="edge")
    for _ in range(2):  # down, then across
        rows = wide[: len(wide) - 2 * radius].copy()
        for step in range(1, 2 * radius + 1):
            np.minimum(rows, wide[step : step + len(rows)], out=rows)
        wide = np.ascontiguousarray(rows.T)
    return wide


def _greatest(image: Image.Image) -> NDArray[np.uint8]:
    """The greatest of red, green and blue."""
    red, green, blue = image.split()
    return np.asarray(ImageChops.lighter(ImageChops.lighter(red, green), blue))


def _ptp(image: Image.Image) -> NDArray[np.uint8]:
    """The distance of the greatest and the least of red, green and blue."""
    red, green, blue = image.split()
    lowest = np.asarray(ImageChops.darker(ImageChops.darker(red, green), blue))
    return np.asarray(_greatest(image) - lowest, np.uint8)


def _around(values: Plane) -> Plane:
    """The mean over 9 x 9 pixels of values from 0 to 255."""
    image = Image.fromarray(np.rint(np.clip(values, 0, 255)).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.BoxBlur(4)), np.float32)
