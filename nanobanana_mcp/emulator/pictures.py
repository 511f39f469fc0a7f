"""Draws what the emulator answers: compositions, edits, collages and plates, with Pillow and numpy."""

import hashlib
import io
import struct
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from nanobanana_mcp.emulator.control import Edit
from nanobanana_mcp.emulator.scenery import Beyond, Place, asks_for_more, continued, places_in

Mime = Literal["image/jpeg", "image/png", "image/webp"]
Color = tuple[int, int, int]

MAX_PIXELS = 89_000_000
_FORMATS = {"PNG", "JPEG", "MPO", "WEBP", "HEIF", "AVIF"}
_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"}


def read(data: bytes, *, whole: bool = True) -> Image.Image:
    """An input picture; a HEIC without a decoder becomes a grey one. Raises ValueError when it is none.

    Without `whole` only its header is looked at now.
    """
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS and "HEIF" not in Image.OPEN:
        return Image.new("RGB", (1024, 768), (128, 128, 128))
    try:
        image = Image.open(io.BytesIO(data))
        if image.format not in _FORMATS or image.width * image.height > MAX_PIXELS:
            raise ValueError("not a picture of a kind and size that is taken")
        if whole:
            image.load()
    except (
        OSError,
        EOFError,
        SyntaxError,
        struct.error,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as broken:
        raise ValueError("not a picture") from broken
    return image


def encode(image: Image.Image, mime: Mime) -> bytes:
    """The picture as bytes; made for speed, not for size."""
    target = io.BytesIO()
    if mime == "image/jpeg":
        image.save(target, "JPEG", quality=88)
    elif mime == "image/png":
        image.save(target, "PNG", compress_level=1)
    else:
        image.save(target, "WEBP", quality=80, method=0)
    return target.getvalue()


def compose(prompt: str, *, size: tuple[int, int], seed: bytes, footer: str) -> Image.Image:
    """A picture from nothing: a gradient with soft discs chosen by `seed`, the prompt large, the footer small."""
    image = _backdrop(size, seed)
    width, height = size
    _write(image, prompt or "(no prompt)", box=(0.08 * width, 0.1 * height, 0.92 * width, 0.86 * height))
    _write_footer(image, footer)
    return image


def edit(
    source: Image.Image,
    prompt: str,
    *,
    size: tuple[int, int],
    seed: bytes,
    redraw: Edit | None = None,
    beyond: Beyond = "on",
) -> Image.Image:
    """The source at `size`, untouched but for a translucent panel that carries the instruction, in the middle, in the area
    that the prompt names, or `where`.

    A canvas of which the prompt says that parts are not painted yet goes on `beyond` the picture instead.
    """
    image = rgb(source).resize(size, Image.Resampling.BICUBIC)
    places = places_in(prompt)
    more = bool(places) and asks_for_more(prompt)
    if more:
        image = continued(image, places, beyond, seed=seed)
    if redraw is not None:
        image = _redrawn(image, redraw)
    if redraw is not None:
        _panel(image, f"EMULATED EDIT\n{prompt}", where=redraw.where, seed=seed)
    elif more:
        _mark(image, places[0])
    elif places:
        # Only the caller's own words, and within the area, so that the panel ends before its edge does.
        own_words, _, _ = prompt.partition("\n\n")
        _panel(image, f"EMULATED EDIT\n{own_words}", where=_within(places[0]), seed=seed)
    else:
        _panel(image, f"EMULATED EDIT\n{prompt}", where=Edit().where, seed=seed)
    return image


def _mark(image: Image.Image, painted: Place) -> None:
    """Says that it is emulated in the widest of the margins beside what was painted, at the height of that."""
    left, top, right, bottom = painted
    margins = {
        left: (0, bottom - 0.1, left, bottom),
        1 - right: (right, bottom - 0.1, 1, bottom),
        top: (left, top - 0.1, right, top),
        1 - bottom: (left, bottom, right, bottom + 0.1),
    }
    width, height = image.size
    box = margins[max(margins)]
    _write(image, "EMULATED", box=(box[0] * width, box[1] * height, box[2] * width, box[3] * height))


def _within(place: Place) -> Place:
    across, down = (place[2] - place[0]) / 6, (place[3] - place[1]) / 6
    return place[0] + across, place[1] + down, place[2] - across, place[3] - down


def collage(sources: list[Image.Image], prompt: str, *, size: tuple[int, int], seed: bytes, footer: str) -> Image.Image:
    """All sources in a grid, in the order sent, over a backdrop, with the prompt below them."""
    image = _backdrop(size, seed)
    width, height = size
    columns = max(1, min(len(sources), round((len(sources) * width / (0.7 * height)) ** 0.5)))
    rows = -(-len(sources) // columns)
    gap = max(2, min(size) // 40)
    cell = ((width - gap) // columns - gap, (round(0.7 * height) - gap) // rows - gap)
    for index, source in enumerate(sources):
        tile = rgb(source)
        factor = min(cell[0] / tile.width, cell[1] / tile.height)
        tile = tile.resize((max(1, int(tile.width * factor)), max(1, int(tile.height * factor))))
        left = gap + index % columns * (cell[0] + gap) + (cell[0] - tile.width) // 2
        top = gap + index // columns * (cell[1] + gap) + (cell[1] - tile.height) // 2
        image.paste(tile, (left, top))
    _write(image, prompt, box=(0.08 * width, 0.71 * height, 0.92 * width, 0.93 * height))
    _write_footer(image, footer)
    return image


def plate(subject: Image.Image, *, size: tuple[int, int], background: Color, mismatch: float) -> Image.Image:
    """The subject over one flat colour and nothing else: no footer, no text."""
    image = Image.new("RGB", size, background)
    cut_out = subject.convert("RGBA")
    if cut_out.size != size:
        cut_out = cut_out.resize(size, Image.Resampling.LANCZOS)
    step = round(mismatch * size[0])
    image.paste(cut_out, (step, step), cut_out)
    return image


def built_in_subject(size: tuple[int, int]) -> Image.Image:
    """A disc with a soft edge, a half-transparent ring around it and fine lines: what a matte has trouble with."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    radius = np.hypot(x - width / 2, y - height / 2) / min(size)
    angle = np.arctan2(y - height / 2, x - width / 2)
    disc = np.clip((0.25 - radius) / 0.02 + 0.5, 0, 1)
    ring = 0.45 * np.clip((0.04 - np.abs(radius - 0.34)) / 0.01, 0, 1)
    lines = 0.8 * (np.cos(angle * 24) > 0.97) * ((radius > 0.2) & (radius < 0.42))
    alpha = np.maximum.reduce([disc, ring, lines])
    colour = np.stack([200 - 120 * radius, 80 + 160 * radius, 90 + 60 * np.cos(angle)], axis=-1)
    pixels = np.dstack([np.clip(colour, 0, 255), alpha * 255]).round().astype(np.uint8)
    return Image.fromarray(pixels, "RGBA")


def pixel_hash(image: Image.Image) -> str:
    """Names a picture by what it shows: SHA-256 of its size and RGB bytes, the same after lossless re-encoding."""
    plain = rgb(image)
    return hashlib.sha256(f"{plain.size}".encode() + plain.tobytes()).hexdigest()


@lru_cache(maxsize=64)
def stock(size: tuple[int, int], mime: Mime) -> bytes:
    """One ready picture per size and type, for measurements in which drawing must not count."""
    return encode(compose("stock", size=size, seed=bytes(32), footer=f"EMULATED  {size[0]}x{size[1]}"), mime)


def rgb(image: Image.Image) -> Image.Image:
    """The picture without transparency: on white, as a model is shown it."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        flat = Image.new("RGB", rgba.size, (255, 255, 255))
        flat.paste(rgba, mask=rgba)
        return flat
    return image.convert("RGB")


def _backdrop(size: tuple[int, int], seed: bytes) -> Image.Image:
    """Drawn about 160 pixels wide and enlarged, so that 4K costs one resize."""
    longest = max(size)
    width, height = (max(2, round(side * 160 / longest)) for side in size)
    random = np.random.default_rng(int.from_bytes(seed[:8], "big"))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / max(width, height)
    first, second, third = random.uniform((20, 20, 50), (150, 130, 190), (3, 3)).astype(np.float32)
    angle = random.uniform(0, 2 * np.pi)
    slope = np.cos(angle) * x + np.sin(angle) * y
    slope = (slope - slope.min()) / max(float(np.ptp(slope)), 1e-6)
    canvas = first + (second - first) * slope[..., None]
    canvas += (third - first) * (0.5 + 0.5 * np.sin(x * 5 + y * 3 + angle))[..., None] * 0.5
    for _ in range(7):
        centre_x, centre_y = random.uniform(0, 1, 2) * (width / max(width, height), height / max(width, height))
        radius, tint = random.uniform(0.05, 0.22), random.uniform(40, 255, 3).astype(np.float32)
        distance = np.hypot(x - centre_x, y - centre_y)
        canvas += (tint - canvas) * (0.45 * np.clip((radius - distance) / 0.02, 0, 1))[..., None]
    small = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8), "RGB")
    return small.resize(size, Image.Resampling.BICUBIC)


def _redrawn(image: Image.Image, redraw: Edit) -> Image.Image:
    """The whole picture moved, scaled about its centre, recoloured and blurred; edges are continued outwards."""
    width, height = image.size
    half_width, half_height = width / 2 / redraw.scale, height / 2 / redraw.scale
    centre_x = width / 2 - redraw.shift[0] * width / redraw.scale
    centre_y = height / 2 - redraw.shift[1] * height / redraw.scale
    box = (centre_x - half_width, centre_y - half_height, centre_x + half_width, centre_y + half_height)
    margin = int(max(0, -box[0], -box[1], box[2] - width, box[3] - height)) + 2
    pixels = np.pad(np.asarray(image), ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    left, top, right, bottom = (side + margin for side in box)
    moved = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC, box=(left, top, right, bottom))
    if redraw.gain != (1.0, 1.0, 1.0) or redraw.offset != (0.0, 0.0, 0.0):
        toned = np.asarray(moved).astype(np.float32) * np.array(redraw.gain, np.float32)
        toned += np.array(redraw.offset, np.float32)
        moved = Image.fromarray(np.clip(toned, 0, 255).round().astype(np.uint8), "RGB")
    return moved.filter(ImageFilter.GaussianBlur(redraw.blur)) if redraw.blur else moved


def _panel(image: Image.Image, text: str, *, where: tuple[float, float, float, float], seed: bytes) -> None:
    width, height = image.size
    box = (
        round(where[0] * width),
        round(where[1] * height),
        round(where[2] * width),
        round(where[3] * height),
    )
    under = image.crop(box)
    tint = Image.new("RGB", under.size, (20 + seed[8] % 80, 20 + seed[9] % 80, 40 + seed[10] % 90))
    mask = Image.new("L", under.size, 0)
    ImageDraw.Draw(mask).rounded_rectangle(
        (0, 0, under.width - 1, under.height - 1), radius=min(under.size) // 6, fill=232
    )
    image.paste(Image.composite(tint, under, mask), box[:2])
    inset = 0.06 * under.width
    _write(image, text, box=(box[0] + inset, box[1] + inset / 2, box[2] - inset, box[3] - inset / 2))


def _write(image: Image.Image, text: str, *, box: tuple[float, float, float, float]) -> None:
    """Text word-wrapped as large as fits the box (left, top, right, bottom), with a dark outline."""
    width, height = box[2] - box[0], box[3] - box[1]
    text = text if len(text) <= 400 else text[:399] + "\u2026"
    size = max(8.0, min(height / 4, width / 8))
    while True:
        font = ImageFont.load_default(size)
        lines = _wrapped(text, font, width)
        if size <= 8 or len(lines) * size * 1.25 <= height:
            break
        size = max(8.0, size * 0.85)
    drawing = ImageDraw.Draw(image)
    top = box[1] + (height - len(lines) * size * 1.25) / 2
    for index, line in enumerate(lines):
        place = (box[0] + (width - font.getlength(line)) / 2, top + index * size * 1.25)
        drawing.text(place, line, font=font, fill=(255, 255, 255), stroke_width=size / 24, stroke_fill=(20, 20, 30))


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> list[str]:
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".strip()
            if line and font.getlength(longer) > width:
                lines.append(line)
                line = word
            else:
                line = longer
        lines.append(line)
    return lines


def _write_footer(image: Image.Image, footer: str) -> None:
    width, height = image.size
    size = max(8.0, min(height / 28, width / (0.62 * len(footer))))
    ImageDraw.Draw(image).text(
        (width / 2, height - size * 0.6),
        footer,
        font=ImageFont.load_default(size),
        anchor="ms",
        fill=(255, 255, 255),
        stroke_width=size / 12,
        stroke_fill=(20, 20, 30),
    )


def numbered(data: bytes, seed: bytes) -> bytes:
    """A JPEG with `seed` in a comment, so that equal pictures have different bytes; other types as they are."""
    if data[:2] != b"\xff\xd8":
        return data
    return data[:2] + b"\xff\xfe" + (len(seed) + 2).to_bytes(2, "big") + seed + data[2:]
