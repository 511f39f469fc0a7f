"""Makes real transparency from plates: the same picture on white and on black, or one picture on a key colour.

On a background b a pixel shows alpha * F + (1 - alpha) * b in every channel. Two plates give six numbers for the four
unknowns, so the least squares solution also tells how badly the plates fit each other (Smith and Blinn 1996,
triangulation matting).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from nanobanana_mcp.domain.errors import RequestError
from nanobanana_mcp.pixels.edits.alignment import SURE, aligned, restored
from nanobanana_mcp.pixels.edits.chequer import chequered
from nanobanana_mcp.pixels.edits.warping import Plane

Colour = tuple[int, int, int]

# Brightness (Rec. 601), as JPEG has it: chroma is stored at half the resolution and would blur the alpha of a hair.
_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)
_MATCHING = 0.03
_CUT = 0.08  # of a keyed alpha: JPEG stores colour at half the resolution, so a key is noisier than its plate looks
_NOISE = 0.025  # of alpha: what JPEG q80 to q90 leaves around hair; more would thin out the hair itself
_GREY = 24  # levels between the channels of a pixel that is still grey in a JPEG
_PLAIN_RIM = 1 / 6
"""Of the pixels along the edges, how many must be background: a bust touches three edges, and a picture whose background
was left as it was has the colour that was asked for here and there."""
_SPREAD = (
    12  # levels from the background's colour that half of its pixels may be away: a gradient is no plain background
)
_FAINT = np.float32(0.03)  # weight of the neighbours' colour where alpha is too small to divide by


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How far a matte can be trusted; shares are parts of all pixels and add up to 1.

    `mismatch` is the mean misfit of the plates over the pixels of the object, 0 to 1 (measured as JPEG q80 to q90:
    0.001 to 0.003 for plates that match, up to 0.013 for plates that had to be aligned, 0.07 and more for two
    different objects). `edge_noise` is how far alpha was from 0 or 1, root mean square, where it was cleaned to that
    beside an edge. `chequered`: a chequerboard was painted where the background should be, and is in the alpha.
    """

    mismatch: float
    edge_noise: float
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


def matte(white: Image.Image, black: Image.Image) -> Matte:
    """Solves alpha and colour from a plate on white and one on black, which is aligned to the other first.

    The plates' real backgrounds are measured along their edges, because a model's white is seldom 255. Raises
    RequestError where there is no such background.
    """
    white, black = white.convert("RGB"), _laid_upon(white.convert("RGB"), black.convert("RGB"))
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
    board = chequered(raw, np.ptp(bright, axis=2) < _GREY)
    lit = ((bright - (1 - alpha)[..., None] * paper) + (dark - (1 - alpha)[..., None] * ink)) / 2
    return _finished(np.asarray(lit, np.float32), alpha, mismatch=mismatch, noise=noise, board=board)


def key(plate: Image.Image, colour: Colour) -> Matte:
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
    board = chequered(np.asarray(raw, np.float32))
    lit = pixels - (1 - alpha)[..., None] * there
    spilled = np.maximum(_excess(lit, high), 0)
    lit[..., high] -= spilled[..., None]
    mismatch = float(np.abs(there - asked).mean()) / 255
    return _finished(np.maximum(lit, 0), alpha, mismatch=mismatch, noise=noise, board=board)


def _laid_upon(white: Image.Image, black: Image.Image) -> Image.Image:
    """The black plate where the white one is: by the solid inside of the object, or by its outline if that is flat."""
    size = white.size
    same = black if black.size == size else black.resize(size, Image.Resampling.LANCZOS)
    apart = np.asarray(white, np.int16) - np.asarray(same, np.int16)
    solid = Image.fromarray(np.where(np.abs(apart).max(axis=2) < 48, np.uint8(255), np.uint8(0)))
    changed = 255 - np.asarray(solid.filter(ImageFilter.MinFilter(5)))
    found = aligned(white, black, changed=changed, bends=False).drift
    if found.confidence < SURE:
        outlines = [_outline(white, 255), _outline(black, 0)]
        found = aligned(outlines[0], outlines[1], bends=False).drift
    return same if found.confidence < SURE or found.warp.furthest(size) < 0.4 else restored(black, size, found)


def _outline(plate: Image.Image, background: int) -> Image.Image:
    """How far each pixel is from the background, cut at 60 levels, so that only the silhouette is left."""
    pixels = np.asarray(plate, np.float32)
    far = np.abs(pixels - _border_colour(pixels, background)).max(axis=2)
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
    """How much the key's channels stand out over the others: G - max(R, B) for green, min(R, B) - G for magenta."""
    return np.asarray(pixels[..., high].min(axis=-1) - pixels[..., ~high].max(axis=-1), np.float32)


def _cleaned(raw: Plane, level: float) -> tuple[Plane, float]:
    """Alpha from 0 to 1 with noise up to `level` taken out at both ends, and how large it was beside edges.

    Only what is faint together with all its neighbours is noise: the tip of a hair lies next to more hair, and stays.
    """
    alpha = np.clip(raw, 0, 1)
    bytes_of = Image.fromarray(np.rint(alpha * 255).astype(np.uint8))
    around_high = np.asarray(bytes_of.filter(ImageFilter.MaxFilter(5)))
    around_low = np.asarray(bytes_of.filter(ImageFilter.MinFilter(5)))
    alpha = np.where(around_high < 255 * 2 * level, 0, np.where(around_low > 255 * (1 - 2 * level), 1, alpha))
    alpha = alpha * np.clip(2 * alpha / level - 1, 0, 1)
    alpha = 1 - (1 - alpha) * np.clip(2 * (1 - alpha) / level - 1, 0, 1)
    ended = ((alpha == 0) | (alpha == 1)) & (around_high > around_low)
    return np.asarray(alpha, np.float32), float(np.sqrt(np.square(raw - alpha)[ended].mean())) if ended.any() else 0.0


def _finished(lit: Plane, alpha: Plane, *, mismatch: float, noise: float, board: bool) -> Matte:
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
        transparent=transparent,
        semi=max(0.0, 1 - opaque - transparent),
        opaque=opaque,
        chequered=board,
    )
    return Matte(image=Image.fromarray(values), quality=quality)


def _around(values: Plane) -> Plane:
    """The mean over 9 x 9 pixels of values from 0 to 255."""
    image = Image.fromarray(np.rint(np.clip(values, 0, 255)).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.BoxBlur(4)), np.float32)
