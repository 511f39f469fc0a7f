"""Makes the files that a site, an app or a post needs from one master picture, each in its true size."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Literal

import numpy as np
from PIL import Image

from nanobanana_mcp.domain.errors import RequestError
from nanobanana_mcp.pixels.files.clean import to_srgb
from nanobanana_mcp.pixels.files.decoding import Size, decoded
from nanobanana_mcp.pixels.files.header import read_header
from nanobanana_mcp.pixels.files.labels import Label
from nanobanana_mcp.pixels.files.losses import as_sentence, left_out, levelled
from nanobanana_mcp.pixels.outputs.render import encoded, laid_on, opaque_colour, scaled

AssetKind = Literal["favicon", "app_icons", "social"]
Colour = tuple[int, int, int]

_WHITE = (255, 255, 255)
_SOCIAL: dict[str, Size] = {
    "og-image": (1200, 630),
    "twitter-card": (1600, 900),
    "square": (1080, 1080),
    "portrait": (1080, 1350),
    "story": (1080, 1920),
}


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One file; `width` x `height` is the largest picture in it.

    `cut` is the part of the master that is not in it, 0 to 1, and `enlarged` how many times larger it shows the rest.
    """

    name: str
    data: bytes
    width: int
    height: int
    mime_type: str
    cut: float = 0.0
    enlarged: float = 1.0


def asset_notes(assets: Sequence[Asset], master: bytes) -> list[str]:
    """Notes on what the files of a set lack of their master."""
    header = read_header(master)
    notes = [as_sentence(note) for note in (*left_out(master, header), *levelled(master, header))]
    shares = {f"{asset.cut:.0%}" for asset in assets}
    cut = [f"{asset.name} {asset.cut:.0%}" for asset in assets if asset.cut > 0.02]
    if cut:
        parts = f"{shares.pop()} of the picture" if len(shares) == 1 else ", ".join(cut)
        notes.append(
            f"To fill the shapes, {parts} was cut off, as much on one side as on the other. Where that takes words or faces, crop or "
            "extend the picture first."
        )
    enlarged = [f"{asset.name} {asset.enlarged:.1f} times" for asset in assets if asset.enlarged > 1.05]
    if enlarged:
        notes.append(f"Enlarged, which adds no detail: {', '.join(enlarged)}.")
    return notes


def asset_set(
    master: bytes, kind: AssetKind, *, background: str | None = None, label: Label | None = None
) -> tuple[Asset, ...]:
    """The files of one kind, in sRGB, with the label (an .ico has no room for one). Hold a slot of `clean.DECODES` meanwhile.

    favicon: favicon.ico with 16, 32 and 48 px, and PNGs. app_icons: touch, store and maskable icons. social: JPEGs,
    filled and cut in the middle. A master with transparency is fitted whole into a square icon, an opaque one is cut
    to it; where a file must be opaque it stands on `background`, a CSS colour, by default white. Raises RequestError
    for an unknown kind or colour.
    """
    fill = _WHITE if background is None else opaque_colour(background)
    image = to_srgb(decoded(master))
    if kind == "social":
        return tuple(_social(image, name, size, fill, label) for name, size in _SOCIAL.items())
    square = _square(image)
    cut = 1 - min(image.size) / max(image.size) if image.mode == "RGB" else 0.0
    icons = _icons(square, kind, fill if background else None, label)
    return tuple(replace(icon, cut=cut, enlarged=icon.enlarged / square.width) for icon in icons)


def _icons(square: Image.Image, kind: AssetKind, given: Colour | None, label: Label | None) -> tuple[Asset, ...]:
    """Each with the width of what it shows of the square as `enlarged`."""
    fill = given or _WHITE
    if kind == "favicon":
        pngs = {"favicon-16x16": 16, "favicon-32x32": 32, "icon-192": 192, "icon-512": 512}
        icons = (_icon(name, scaled(square, (side, side)), label) for name, side in pngs.items())
        return (_ico(square), _icon("apple-touch-icon", _opaque(square, 180, fill), label), *icons)
    if kind == "app_icons":
        return (
            _icon("apple-touch-icon", _opaque(square, 180, fill), label),
            _icon("icon-192", scaled(square, (192, 192)), label),
            _icon("icon-512", scaled(square, (512, 512)), label),
            _icon("icon-1024", _opaque(square, 1024, fill), label),
            _maskable(square, 192, given, label),
            _maskable(square, 512, given, label),
        )
    raise RequestError(f"There is no asset set {kind!r}; there are favicon, app_icons and social.")


def _social(image: Image.Image, name: str, size: Size, fill: Colour, label: Label | None) -> Asset:
    picture = _covering(laid_on(image, (*fill, 255)) if image.mode == "RGBA" else image, size)
    data = encoded(picture, "jpeg", label=label)
    scale = max(size[0] / image.width, size[1] / image.height)
    return Asset(
        name=f"{name}.jpg",
        data=data,
        width=size[0],
        height=size[1],
        mime_type="image/jpeg",
        cut=1 - size[0] * size[1] / (scale * scale * image.width * image.height),
        enlarged=scale,
    )


def _icon(name: str, image: Image.Image, label: Label | None, *, shown: int | None = None) -> Asset:
    data, (width, height) = encoded(image, "png", label=label), image.size
    return Asset(
        name=f"{name}.png", data=data, width=width, height=height, mime_type="image/png", enlarged=shown or width
    )


def _ico(square: Image.Image) -> Asset:
    sizes = [(side, side) for side in (48, 32, 16)]
    largest, *others = [scaled(square, size) for size in sizes]
    stream = BytesIO()
    largest.save(stream, "ICO", sizes=sizes, append_images=others)
    mime_type = "image/vnd.microsoft.icon"
    return Asset(name="favicon.ico", data=stream.getvalue(), width=48, height=48, mime_type=mime_type, enlarged=48)


def _covering(image: Image.Image, size: Size) -> Image.Image:
    scale = max(size[0] / image.width, size[1] / image.height)
    across, down = min(size[0] / scale, image.width), min(size[1] / scale, image.height)
    left, top = (image.width - across) / 2, (image.height - down) / 2
    return scaled(image, size, box=(left, top, left + across, top + down))


def _square(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        left, top = (image.width - min(image.size)) // 2, (image.height - min(image.size)) // 2
        return image.crop((left, top, left + min(image.size), top + min(image.size)))
    side = max(image.size)
    room = Image.new("RGBA", (side, side))
    room.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return room


def _opaque(square: Image.Image, side: int, fill: Colour) -> Image.Image:
    icon = scaled(square, (side, side))
    return laid_on(icon, (*fill, 255)) if icon.mode == "RGBA" else icon


def _maskable(square: Image.Image, side: int, fill: Colour | None, label: Label | None) -> Asset:
    """An icon that may be cut to any shape: what is seen stays in the circle of 40 % of the side (W3C manifest, safe zone).

    Of an opaque master the corners leave the circle; it fills the square around it, on the colour of its own edge.
    """
    if square.mode == "RGB":
        pixels = np.asarray(square)
        rim = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        red, green, blue = (int(value) for value in np.median(rim, axis=0))
        part, fill = 0.8, fill or (red, green, blue)
    else:
        rows, columns = np.nonzero(np.asarray(square.getchannel("A")) > 8)
        middle = (square.width - 1) / 2
        reach = float(np.hypot(rows - middle, columns - middle).max()) + 0.5 if rows.size else square.width / 2
        part = min(1.0, 0.4 * square.width / reach)
    inner = max(1, int(side * part))
    icon = Image.new("RGB", (side, side), fill or _WHITE)
    smaller = scaled(square, (inner, inner))
    place = ((side - inner) // 2, (side - inner) // 2)
    icon.paste(smaller.convert("RGB"), place, smaller.getchannel("A") if smaller.mode == "RGBA" else None)
    return _icon(f"icon-maskable-{side}", icon, label, shown=inner)
