"""Makes the files that a site, an app or a post needs from one master picture, each in its true size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
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
from nanobanana_mcp.pixels.outputs.render import encoded, laid_on, opaque_colour
from nanobanana_mcp.pixels.outputs.scaling import scaled

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
class AssetOutline:
    """Describes a file before it is made; `width` x `height` is the largest picture in it.

    `cut` is the part of the master that is not in it, 0 to 1, and `enlarged` how many times larger it shows the rest.
    """

    name: str
    width: int
    height: int
    mime_type: str
    cut: float = 0.0
    enlarged: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Asset(AssetOutline):
    """A file that was made."""

    data: bytes


class _Master:
    """The picture that a set is made of; what only the pixels of a file need is made when the first of them is."""

    def __init__(self, data: bytes) -> None:
        self._decoded = decoded(data)
        self.size = self._decoded.size
        self.clear = self._decoded.mode == "RGBA"
        self.side = max(self.size) if self.clear else min(self.size)

    @cached_property
    def image(self) -> Image.Image:
        return to_srgb(self._decoded)

    @cached_property
    def square(self) -> Image.Image:
        """Fitted whole into it with transparency, else cut to it."""
        width, height = self.size
        if not self.clear:
            left, top = (width - self.side) // 2, (height - self.side) // 2
            return self.image.crop((left, top, left + self.side, top + self.side))
        room = Image.new("RGBA", (self.side, self.side))
        room.paste(self.image, ((self.side - width) // 2, (self.side - height) // 2))
        return room

    def reach(self) -> float:
        """The distance that what is seen reaches from the middle of the square, in its pixels."""
        rows, columns = np.nonzero(np.asarray(self._decoded.getchannel("A")) > 8)
        if not rows.size:
            return self.side / 2
        left, top = ((self.side - length) // 2 for length in self.size)
        middle = (self.side - 1) / 2
        return float(np.hypot(rows + top - middle, columns + left - middle).max()) + 0.5


_Draw = Callable[[Label | None], bytes]
_Planned = tuple[AssetOutline, _Draw]


def asset_notes(assets: Sequence[AssetOutline], master: bytes) -> list[str]:
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
    return tuple(Asset(data=draw(label), **vars(outline)) for outline, draw in _planned(master, kind, background))


def asset_outlines(master: bytes, kind: AssetKind, *, background: str | None = None) -> tuple[AssetOutline, ...]:
    """Say what `asset_set` would make, without making it: the master is decoded, and nothing is drawn. Raises what it raises.

    Hold a slot of `clean.DECODES` meanwhile.
    """
    return tuple(outline for outline, _ in _planned(master, kind, background))


def _planned(data: bytes, kind: AssetKind, background: str | None) -> list[_Planned]:
    given = None if background is None else opaque_colour(background)
    fill = given or _WHITE
    if kind not in ("favicon", "app_icons", "social"):
        raise RequestError(f"There is no asset set {kind!r}; there are favicon, app_icons and social.")
    master = _Master(data)
    if kind == "social":
        return [_social(master, name, size, fill) for name, size in _SOCIAL.items()]
    touch = _icon(master, "apple-touch-icon", 180, lambda: _opaque(master.square, 180, fill))
    if kind == "favicon":
        sides = {"favicon-16x16": 16, "favicon-32x32": 32, "icon-192": 192, "icon-512": 512}
        return [_ico(master), touch, *(_plain(master, name, side) for name, side in sides.items())]
    return [
        touch,
        _plain(master, "icon-192", 192),
        _plain(master, "icon-512", 512),
        _icon(master, "icon-1024", 1024, lambda: _opaque(master.square, 1024, fill)),
        _maskable(master, 192, given),
        _maskable(master, 512, given),
    ]


def _social(master: _Master, name: str, size: Size, fill: Colour) -> _Planned:
    def draw(label: Label | None) -> bytes:
        image = laid_on(master.image, (*fill, 255)) if master.clear else master.image
        return encoded(_covering(image, size), "jpeg", label=label)

    (width, height), (wide, high) = size, master.size
    scale = max(width / wide, height / high)
    cut = 1 - width * height / (scale * scale * wide * high)
    facts = AssetOutline(
        name=f"{name}.jpg", width=width, height=height, mime_type="image/jpeg", cut=cut, enlarged=scale
    )
    return facts, draw


def _square_facts(master: _Master, name: str, side: int, mime_type: str, shown: int) -> AssetOutline:
    """The facts about a square file in which the master's square is `shown` px wide."""
    cut = 0.0 if master.clear else 1 - min(master.size) / max(master.size)
    return AssetOutline(name=name, width=side, height=side, mime_type=mime_type, cut=cut, enlarged=shown / master.side)


def _icon(
    master: _Master, name: str, side: int, drawn: Callable[[], Image.Image], *, shown: int | None = None
) -> _Planned:
    facts = _square_facts(master, f"{name}.png", side, "image/png", shown or side)
    return facts, lambda label: encoded(drawn(), "png", label=label)


def _plain(master: _Master, name: str, side: int) -> _Planned:
    return _icon(master, name, side, lambda: scaled(master.square, (side, side)))


def _ico(master: _Master) -> _Planned:
    def draw(_label: Label | None) -> bytes:
        sizes = [(side, side) for side in (48, 32, 16)]
        largest, *others = [scaled(master.square, size) for size in sizes]
        stream = BytesIO()
        largest.save(stream, "ICO", sizes=sizes, append_images=others)
        return stream.getvalue()

    return _square_facts(master, "favicon.ico", 48, "image/vnd.microsoft.icon", 48), draw


def _covering(image: Image.Image, size: Size) -> Image.Image:
    scale = max(size[0] / image.width, size[1] / image.height)
    across, down = min(size[0] / scale, image.width), min(size[1] / scale, image.height)
    left, top = (image.width - across) / 2, (image.height - down) / 2
    return scaled(image, size, box=(left, top, left + across, top + down))


def _opaque(square: Image.Image, side: int, fill: Colour) -> Image.Image:
    icon = scaled(square, (side, side))
    return laid_on(icon, (*fill, 255)) if icon.mode == "RGBA" else icon


def _maskable(master: _Master, side: int, given: Colour | None) -> _Planned:
    """An icon that may be cut to any shape: what is seen stays in the circle of 40 % of the side (W3C manifest, safe zone).

    Of an opaque master the corners leave the circle; it fills the square around it, on the colour of its own edge.
    """
    part = min(1.0, 0.4 * master.side / master.reach()) if master.clear else 0.8
    inner = max(1, int(side * part))

    def drawn() -> Image.Image:
        fill = given or (_WHITE if master.clear else _rim(master.square))
        icon = Image.new("RGB", (side, side), fill)
        smaller = scaled(master.square, (inner, inner))
        place = ((side - inner) // 2, (side - inner) // 2)
        icon.paste(smaller.convert("RGB"), place, smaller.getchannel("A") if master.clear else None)
        return icon

    return _icon(master, f"icon-maskable-{side}", side, drawn, shown=inner)


def _rim(square: Image.Image) -> Colour:
    """The colour of a picture's own edge."""
    pixels = np.asarray(square)
    rim = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = (int(value) for value in np.median(rim, axis=0))
    return red, green, blue
