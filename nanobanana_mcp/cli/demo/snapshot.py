"""The photo that the demo edits: a banana on a checked tablecloth, drawn here so that nobody's own is needed."""

import io
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Field = NDArray[np.float64]

_SIZE: Final = (1280, 960)
_CLOTH, _WHITE, _SHADOW = (108, 150, 190), (236, 240, 242), (40, 62, 92)
_PEEL, _LIT, _TIP = (244, 200, 40), (255, 240, 150), (92, 66, 30)
_ORIENTATION, _MAKE, _MODEL, _GPS = 0x0112, 0x010F, 0x0110, 0x8825


def take_snapshot() -> bytes:
    """Return a JPEG of 1280 x 960 pixels that carries what a phone writes into one, a place included."""
    width, height = _SIZE
    y, x = np.mgrid[0:height, 0:width]
    depth = 1 / (0.35 + y / height)  # the cloth lies flat: squares shrink towards the top
    checks = 0.5 * _wave((x - width / 2) * depth / 110) + 0.5 * _wave(depth * 9)
    picture = _mixed(_flat(_WHITE, _SIZE), _CLOTH, 0.75 * checks)
    picture = _mixed(picture, _SHADOW, 0.6 * _soft(_banana(x - 26, y - 44)[0], 16))
    inside, across, along = _banana(x, y)
    peel = _mixed(_flat(_PEEL, _SIZE), _LIT, np.clip(0.9 - np.abs(across + 0.35) * 2.2, 0, 0.8))
    peel = _mixed(peel, _TIP, 0.45 * np.clip(across - 0.1, 0, 1))
    peel = _mixed(peel, _TIP, np.clip((np.abs(along) - 0.86) * 9, 0, 0.95))
    picture += (peel - picture) * inside[..., None]
    picture *= 1 - 0.3 * (np.hypot(x / width - 0.45, y / height - 0.4)[..., None]) ** 2
    picture += np.random.default_rng(7).normal(0, 2.5, picture.shape)
    exif = Image.Exif()
    exif[_MAKE], exif[_MODEL], exif[_ORIENTATION] = "Demo", "Pocket camera", 1
    exif[_GPS] = {1: "N", 2: (46.0, 57.0, 0.0), 3: "E", 4: (7.0, 26.0, 0.0)}
    target = io.BytesIO()
    Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(target, "JPEG", quality=88, exif=exif)
    return target.getvalue()


def _banana(x: Field, y: Field) -> tuple[Field, Field, Field]:
    """Returns the share of each pixel that the banana covers, and where it is across the banana (-1 to 1, above to
    below) and along it (-1 to 1).
    """
    right, down = x - 640, y - 180
    angle = np.arctan2(right, down)  # 0 points down from the centre that the banana bends around
    along = (angle + 0.08) / 0.98
    thickness = 84 * np.sqrt(np.clip(1 - np.abs(along) ** 2.4, 0, 1)) + 15 * (np.abs(along) < 1)
    across = (np.hypot(right, down) - 400) / np.maximum(thickness, 1)
    return np.clip((1 - np.abs(across)) * thickness / 2, 0, 1), across, along


def _flat(color: tuple[int, int, int], size: tuple[int, int]) -> Field:
    return np.broadcast_to(np.array(color, np.float64), (size[1], size[0], 3)).copy()


def _mixed(picture: Field, color: tuple[int, int, int], share: Field) -> Field:
    return picture + (np.array(color, np.float64) - picture) * share[..., None]


def _soft(mask: Field, radius: float) -> Field:
    blurred = Image.fromarray((mask * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(blurred, np.float64) / 255


def _wave(position: Field) -> Field:
    """Stripes of 0 and 1, one of each to a unit of 2, with edges that do not flicker."""
    return np.clip(0.5 + 3 * np.sin(np.pi * position), 0, 1)
