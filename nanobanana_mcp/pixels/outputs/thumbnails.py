"""Small pictures to look at: thumbnails, and sheets that show many pictures at once."""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Final, Literal

from PIL import Image, ImageDraw, ImageFont

from nanobanana_mcp.domain.errors import NotAnImage, NotEnoughMemory, RequestError
from nanobanana_mcp.pixels.files.clean import DECODES, decode, eight_bit, to_srgb, upright, with_its_end
from nanobanana_mcp.pixels.files.header import Header, check_bounds, memory_for, read_header

PreviewType = Literal["image/jpeg", "image/webp", "image/png"]

SINGLE_BYTES: Final = 57_000
"""One preview: about 76 kB as it is sent, which keeps a one-picture answer below 80 kB."""
MAX_CELLS: Final = 100
_QUALITIES: Final = {88: 1.0, 80: 0.55, 65: 0.3, 45: 0.15}
"""Each with about the least share of the first one's bytes that a JPEG takes at it; hardly anything but faint noise over
all of a picture takes less, and then gets a lower quality than would have fitted."""
_DRAFT_MARGIN: Final = 3
_REDUCING_GAP: Final = 2.0
"""Pillow averages whole blocks down to twice the size wanted before Lanczos: SSIM 0.998 and more, half the time at 4K."""

_GAP: Final = 16
_PLAIN: Final = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "-"}
)
_PAPER, _CARD, _BADGE, _INK, _FAINT = "#fbfbfa", "#ececea", "#2b2b2b", "#1c1c1c", "#6a6a6a"


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A small encoded picture of `width` x `height` pixels: upright, in sRGB, without metadata."""

    data: bytes
    mime_type: PreviewType
    width: int
    height: int


def thumbnail(data: bytes, *, long_side: int = 512, max_bytes: int = SINGLE_BYTES) -> Thumbnail:
    """Return a picture's first frame, at most `long_side` pixels long and `max_bytes` large, never enlarged.

    It is a JPEG, or a WebP where a pixel is not opaque. For pictures of the library, which may be as large as they are
    made. Raises NotAnImage like `examine`.
    """
    return examine(data, long_side=long_side, max_bytes=max_bytes, made=True)[1]


def thumbnail_of(image: Image.Image, *, long_side: int = 512) -> Thumbnail:
    """Return the thumbnail of a picture of 8 bits a channel that is at hand, so that it is not decoded once more."""
    share = min(1.0, long_side / max(image.size))
    size = max(1, round(image.width * share)), max(1, round(image.height * share))
    small = image if size == image.size else _resized(image, size, Image.Resampling.LANCZOS)
    if small is not image:
        small.info = dict(image.info)
    mime_type: PreviewType = "image/webp" if image.mode == "RGBA" else "image/jpeg"
    return within_bytes(to_srgb(small), mime_type, max_bytes=SINGLE_BYTES)


def examine(
    data: bytes, *, long_side: int = 512, max_bytes: int = SINGLE_BYTES, made: bool = False
) -> tuple[Header, Thumbnail]:
    """Return header and thumbnail of a picture after decoding it once, to its end.

    Raises NotAnImage when the bytes are no picture, are cut off or damaged, or are beyond `check_bounds`. Bytes behind
    the end of the picture are not looked at.
    """
    header = read_header(data)
    image = _reduced(data, header, long_side, made=made)
    mime_type: PreviewType = "image/webp" if image.mode == "RGBA" else "image/jpeg"
    return header, within_bytes(image, mime_type, max_bytes=max_bytes)


def as_it_is(data: bytes, *, long_side: int, max_bytes: int) -> Thumbnail | None:
    """Return a stored thumbnail of ours without decoding it; None when it is larger than this or cut off. Raises NotAnImage."""
    header = read_header(data)
    if header.end is None or len(data) > max_bytes or max(header.width, header.height) > long_side:
        return None
    mime_type: PreviewType = "image/webp" if header.format == "webp" else "image/jpeg"
    return Thumbnail(data=data, mime_type=mime_type, width=header.width, height=header.height)


def contact_sheet(
    pictures: Sequence[tuple[bytes, str]],
    *,
    columns: int | None = None,
    cell: int = 320,
    title: str | None = None,
    max_bytes: int | None = None,
    format: Literal["jpeg", "png"] = "jpeg",  # noqa: A002 - what Pillow and its users call it
) -> Thumbnail:
    """Draw pictures with their captions, numbered from 1 in reading order, on one sheet.

    Captions and title are drawn in ASCII, all that Pillow's own font has: accents go, other scripts become `?`.
    `cell` is the side in pixels of the square that each picture is fitted into. A picture that does not decode leaves a
    cell that says so. At most 100 are drawn, and a line says how many more there are. Every picture is decoded, so that
    stored thumbnails make this much faster than originals. Raises RequestError when there is nothing to draw, or when
    `max_bytes` is too little for anything.
    """
    if not pictures:
        raise RequestError("There are no pictures to draw on a contact sheet. Name at least one.")
    drawn = pictures[:MAX_CELLS]
    columns = min(columns or math.ceil(math.sqrt(len(drawn))), len(drawn))
    rows = math.ceil(len(drawn) / columns)
    caption_font, title_font = ImageFont.load_default(max(12, cell // 20)), ImageFont.load_default(max(18, cell // 12))
    line = _line_height(caption_font)
    top = _GAP if title is None else 2 * _GAP + _line_height(title_font)
    step = cell + 2 * line + _GAP + _GAP // 2
    missing = len(pictures) - len(drawn)
    size = _GAP + columns * (cell + _GAP), top + rows * step + (line + _GAP if missing else 0)
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    if title is not None:
        pen.text((_GAP, _GAP), _lines(title, title_font, size[0] - 2 * _GAP, 1)[0], _INK, title_font)
    for index, (data, caption) in enumerate(drawn):
        left, upper = _GAP + index % columns * (cell + _GAP), top + index // columns * step
        pen.rectangle((left, upper, left + cell - 1, upper + cell - 1), fill=_CARD)
        try:
            picture = _reduced(data, read_header(data), cell, Image.Resampling.HAMMING, made=True)
        except (NotAnImage, NotEnoughMemory) as error:
            words = _lines(f"Cannot be shown. {error}", caption_font, cell - 2 * _GAP, cell // line - 4)
            pen.multiline_text((left + _GAP, upper + 3 * line), "\n".join(words), _FAINT, caption_font)
        else:
            corner = left + (cell - picture.width) // 2, upper + (cell - picture.height) // 2
            sheet.paste(picture, corner, picture if picture.mode == "RGBA" else None)
        _badge(pen, (left + 6, upper + 6), str(index + 1), caption_font)
        for number, text in enumerate(_lines(caption, caption_font, cell, 2)):
            pen.text((left, upper + cell + _GAP // 2 + number * line), text, _INK, caption_font)
    if missing:
        pen.text((_GAP, size[1] - line - _GAP), f"and {missing} more", _FAINT, caption_font)
    return within_bytes(sheet, "image/png" if format == "png" else "image/jpeg", max_bytes=max_bytes)


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _reduced(
    data: bytes,
    header: Header,
    long_side: int,
    resample: Image.Resampling = Image.Resampling.LANCZOS,
    *,
    made: bool,
) -> Image.Image:
    check_bounds(header, data, made=made)
    with DECODES, memory_for(header):
        data = with_its_end(data, header)
        # Against a full decode, the measured SSIM of busy pictures is 0.975 at twice the size and 0.988 at three times.
        image = decode(data, header, at_least=_DRAFT_MARGIN * long_side)
        image = upright(image if image.mode == "YCbCr" else eight_bit(image, header), header)
        share = min(1.0, long_side / max(header.width, header.height))
        size = max(1, round(header.width * share)), max(1, round(header.height * share))
        if size != image.size:
            image = _resized(image, size, resample)
        return to_srgb(image)


def _resized(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """Scale YCbCr: only the brightness is worth the finer filter, which takes most of a thumbnail's time."""
    if image.mode != "YCbCr":
        return image.resize(size, resample, reducing_gap=_REDUCING_GAP)
    bright, *colours = image.split()
    planes = [bright.resize(size, resample, reducing_gap=_REDUCING_GAP)]
    planes += [plane.resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0) for plane in colours]
    return Image.merge("YCbCr", planes)


def within_bytes(image: Image.Image, mime_type: PreviewType, *, max_bytes: int | None) -> Thumbnail:
    """Lower the quality first, and then the size, until the bound is kept."""
    kind = mime_type.removeprefix("image/")
    while True:
        first = 0
        for quality, share in _QUALITIES.items() if kind != "png" else ((100, 1.0),):
            if kind == "jpeg" and max_bytes is not None and share * first > max_bytes:
                continue  # an encoder holds up every other thread
            buffer = BytesIO()
            image.save(buffer, kind, quality=quality)
            first = first or buffer.tell()
            if max_bytes is None or buffer.tell() <= max_bytes:
                return Thumbnail(data=buffer.getvalue(), mime_type=mime_type, width=image.width, height=image.height)
        if max(image.size) < 16:
            raise RequestError(f"No picture fits into {max_bytes} bytes. Allow at least 2000.")
        image = image.resize((max(1, image.width * 3 // 4), max(1, image.height * 3 // 4)), Image.Resampling.LANCZOS)


def _badge(pen: ImageDraw.ImageDraw, corner: tuple[int, int], number: str, font: Font) -> None:
    left, upper = corner
    width, height = math.ceil(font.getlength(number)) + 14, _line_height(font) + 4
    pen.rounded_rectangle((left, upper, left + width, upper + height), radius=height // 2, fill=_BADGE)
    pen.text((left + width / 2, upper + height / 2), number, "white", font, anchor="mm")


def _line_height(font: Font) -> int:
    return math.ceil(font.getbbox("Ag")[3] * 1.3)


def _drawable(text: str) -> str:
    """Return the text in ASCII, all that Pillow's own font has: letters without accents, others as `?`."""
    plain = unicodedata.normalize("NFKD", text.translate(_PLAIN))
    return "".join(
        " " if not c.isprintable() else c if c.isascii() else "?" for c in plain if not unicodedata.combining(c)
    )


def _lines(text: str, font: Font, width: int, most: int) -> list[str]:
    """Wrap at words, and inside words that are wider than a line; what does not fit ends in an ellipsis."""
    lines = [""]
    for word in _drawable(text[:1000]).split():
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if lines[-1] and font.getlength(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    if len(lines) > most:
        last = lines[most - 1]
        while last and font.getlength(last + "...") > width:
            last = last[:-1]
        lines = [*lines[: most - 1], last + "..."]
    return lines
