"""Makes exact files of a picture: cut, turned, scaled, in a format, with its colours and its label."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Literal, TypedDict, Unpack

from PIL import Image, ImageColor, PngImagePlugin

from nanobanana_mcp.domain.errors import RequestError
from nanobanana_mcp.domain.terms import MADE_PIXELS, MADE_SIDE
from nanobanana_mcp.pixels.edits.masks import pixel_box
from nanobanana_mcp.pixels.files.clean import to_srgb
from nanobanana_mcp.pixels.files.decoding import Box, Size, decoded, from_srgb
from nanobanana_mcp.pixels.files.header import read_header
from nanobanana_mcp.pixels.files.labels import Label, packet
from nanobanana_mcp.pixels.files.losses import as_sentence, left_out, levelled
from nanobanana_mcp.pixels.outputs.saving import Kind, kind_of, narrowed
from nanobanana_mcp.pixels.outputs.scaling import scaled

Fit = Literal["cover", "contain", "pad", "stretch"]
OutputFormat = Literal["png", "jpeg", "webp", "avif"]
Profile = Literal["keep", "srgb"]

_NOTICED = 0.05  # part of a picture that may be cut off to fill a shape without a word
_WEBP_SIDE = 16_383
_WITH_ALPHA = re.compile(r"rgba?\(\s*(\d{1,3}%?)[\s,]+(\d{1,3}%?)[\s,]+(\d{1,3}%?)\s*[,/]\s*(\d*\.?\d+%?)\s*\)")


@dataclass(frozen=True, kw_only=True)
class Outline:
    """Describes a file before it is made: `width` x `height` px, and in words what has to be done to the picture that
    the caller may not expect.
    """

    width: int
    height: int
    mime_type: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Rendered(Outline):
    """A file that was made."""

    data: bytes


class Shape(TypedDict, total=False):
    """Asks for a file to be made of a picture; `render` says what each word means."""

    width: int | None
    height: int | None
    fit: Fit
    focus: tuple[float, float]
    crop: Sequence[float] | None
    rotate: float
    output_format: OutputFormat
    quality: int
    background: str | None
    profile: Profile


def render(data: bytes, *, label: Label | None = None, **shape: Unpack[Shape]) -> Rendered:
    """Cuts to `crop`, turns by `rotate` degrees clockwise, scales to `width` x `height`, and writes the file.

    `crop` is read as `masks.pixel_box` does. With one of width and height the other follows. Cover fills both and cuts
    off at the sides away from `focus` (0 left or top, to 1; the middle by default); contain stays within both; pad is contain with
    `background` around it; stretch distorts. Crop, cover and scaling are one resampling; a turn that is no multiple of
    90 degrees is one before it. `background` is a CSS colour, which may be transparent, and without one the room is
    transparent where the format can, else white. `quality` is 1 to 100, by default 90, where 100 is lossless for WebP; PNG ignores it.
    Hold a slot of `clean.DECODES` meanwhile. Raises RequestError for what cannot be made, NotAnImage for what cannot be read.
    """
    work = _planned(data, **shape)
    image = to_srgb(work.image) if shape.get("profile") == "srgb" else work.image
    if work.cut is not None:
        image = _keeping(image, image.crop(work.cut))
    image = _fitted(_turned(image, work.rotate), work.frame)
    if image.mode == "RGBA" and work.behind is not None:
        image = laid_on(image, work.behind)
    stored = narrowed(image, work.kind, work.output_format)
    told = work.outline
    if work.kind == "palette" and work.output_format == "png" and stored is image:
        told = replace(
            told, notes=(*told.notes, "It has more colours now than its palette had room for: it is full colour.")
        )
    return Rendered(data=encoded(stored, work.output_format, quality=work.quality, label=label), **vars(told))


def outline(data: bytes, **shape: Unpack[Shape]) -> Outline:
    """Say what `render` would make, without making it: the picture is decoded, neither turned nor scaled nor written.

    Raises what `render` raises. Hold a slot of `clean.DECODES` meanwhile.
    """
    return _planned(data, **shape).outline


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """The way from one size to another: the part `box` becomes `inner` pixels, in the middle of `size`."""

    size: Size
    inner: Size
    box: tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class _Work:
    """All that there is to do to a decoded picture, in this order: cut, turn, scale into the frame, lay on `behind`."""

    image: Image.Image
    cut: Box | None
    rotate: float
    frame: _Frame | None
    behind: tuple[int, int, int, int] | None
    kind: Kind | None
    output_format: OutputFormat
    quality: int
    outline: Outline


def _planned(
    data: bytes,
    *,
    width: int | None = None,
    height: int | None = None,
    fit: Fit = "cover",
    focus: tuple[float, float] = (0.5, 0.5),
    crop: Sequence[float] | None = None,
    rotate: float = 0.0,
    output_format: OutputFormat = "png",
    quality: int = 90,
    background: str | None = None,
    profile: Profile = "keep",
) -> _Work:
    """Refuses and plans all that can be known before the pixels are worked on; `profile` changes none of that."""
    if not 1 <= quality <= 100:
        raise RequestError(f"quality is 1 to 100; it is {quality}.")
    if not all(0 <= part <= 1 for part in focus):
        raise RequestError(f"focus is two numbers from 0 to 1; it is {focus}.")
    fill = None if background is None else colour_of(background)
    if fill is not None and fill[3] < 255 and output_format == "jpeg":
        raise RequestError(
            f"JPEG has no transparency, which the background {background!r} asks for; take png, webp or avif, or an "
            "opaque colour."
        )
    header = read_header(data)
    image = decoded(data, header)
    notes = [as_sentence(note) for note in (*left_out(data, header), *levelled(data, header))]
    cut = None if crop is None else pixel_box(crop, size=image.size, name="crop")
    upright = image.size if cut is None else (cut[2] - cut[0], cut[3] - cut[1])
    turned = _turned_size(upright, rotate)
    frame = _frame(turned, width, height, fit=fit, focus=focus, notes=notes)
    size = turned if frame is None else frame.size
    _check_file(size, output_format)
    clear = image.mode == "RGBA" or rotate % 90 != 0 or (frame is not None and frame.inner != frame.size)
    behind = fill or ((255, 255, 255, 255) if output_format == "jpeg" else None)
    if clear and behind is not None and fill is None:
        notes.append("JPEG has no transparency: it was filled with white. PNG and WebP keep it.")
    return _Work(
        image=image,
        cut=cut,
        rotate=rotate,
        frame=frame,
        behind=behind,
        kind=kind_of(data, header),
        output_format=output_format,
        quality=quality,
        outline=Outline(width=size[0], height=size[1], mime_type=f"image/{output_format}", notes=tuple(notes)),
    )


def encoded(image: Image.Image, output_format: OutputFormat, *, quality: int = 90, label: Label | None = None) -> bytes:
    """The picture as a file with its ICC profile and the label, and no other metadata. JPEG needs a picture without alpha."""
    _check_file(image.size, output_format)
    xmp = b"" if label is None else packet(label)
    stream, icc = BytesIO(), image.info.get("icc_profile")
    if output_format == "png":
        text = PngImagePlugin.PngInfo()
        if xmp:
            text.add_itxt("XML:com.adobe.xmp", xmp.decode())
        image.save(stream, "PNG", pnginfo=text, icc_profile=icc)
    elif output_format == "jpeg":
        # From 90 on, colour is kept at full resolution: red lettering is what one sees of 4:2:0.
        subsampling = "4:4:4" if quality >= 90 else "4:2:0"
        image.save(
            stream,
            "JPEG",
            quality=quality,
            subsampling=subsampling,
            optimize=True,
            progressive=True,
            icc_profile=icc,
            xmp=xmp,
        )
    elif output_format == "webp":
        image.save(stream, "WEBP", quality=quality, lossless=quality == 100, method=4, icc_profile=icc or b"", xmp=xmp)
    else:
        image.save(stream, "AVIF", quality=quality, speed=8, icc_profile=icc or b"", xmp=xmp)
    return stream.getvalue()


def _frame(
    whole: Size,
    width: int | None,
    height: int | None,
    *,
    fit: Fit,
    focus: tuple[float, float],
    notes: list[str],
) -> _Frame | None:
    """The frame for a picture of the size `whole`, None for one that stays as it is; what it loses goes into `notes`."""
    if width is None and height is None:
        return None
    if (width is not None and width < 1) or (height is not None and height < 1):
        raise RequestError(f"width and height are at least 1 px; they are {width} and {height}.")
    wide = width or max(1, round(whole[0] * (height or 1) / whole[1]))
    high = height or max(1, round(whole[1] * wide / whole[0]))
    _check_size((wide, high))
    box = (0.0, 0.0, float(whole[0]), float(whole[1]))
    inner = (wide, high)
    if width is not None and height is not None and fit == "cover":
        scale = max(wide / whole[0], high / whole[1])
        across, down = min(wide / scale, whole[0]), min(high / scale, whole[1])
        left, top = (whole[0] - across) * focus[0], (whole[1] - down) * focus[1]
        box = (left, top, min(left + across, whole[0]), min(top + down, whole[1]))
        cut = 1 - across * down / (whole[0] * whole[1])
        if cut > _NOTICED:
            notes.append(
                f"To fill {wide}x{high}, {cut:.0%} of the picture was cut off; fit contain or pad keeps all of it."
            )
    elif width is not None and height is not None and fit in ("contain", "pad"):
        scale = min(wide / whole[0], high / whole[1])
        inner = (max(1, min(wide, round(whole[0] * scale))), max(1, min(high, round(whole[1] * scale))))
    larger = max(inner[0] / (box[2] - box[0]), inner[1] / (box[3] - box[1]))
    if larger > 1.05:
        notes.append(f"It was enlarged {larger:.1f} times, which adds no detail.")
    return _Frame(size=(wide, high) if fit == "pad" else inner, inner=inner, box=box)


def _fitted(image: Image.Image, frame: _Frame | None) -> Image.Image:
    if frame is None:
        return image
    result = scaled(image, frame.inner, box=frame.box)
    if frame.inner == frame.size:
        return result
    room = Image.new("RGBA", frame.size)
    (wide, high), inner = frame.size, frame.inner
    room.paste(result.convert("RGBA"), ((wide - inner[0]) // 2, (high - inner[1]) // 2))
    return _keeping(image, room)


def _turned_size(size: Size, degrees: float) -> Size:
    """Raises RequestError for what is no number of degrees, and for a canvas that is not made."""
    if not math.isfinite(degrees):
        raise RequestError("rotate is a number of degrees clockwise.")
    width, height = size
    if degrees % 90 == 0:
        return size if degrees % 180 == 0 else (height, width)
    sine, cosine = abs(math.sin(math.radians(degrees))), abs(math.cos(math.radians(degrees)))
    _check_size((round(width * cosine + height * sine), round(width * sine + height * cosine)))  # not after a long turn
    # To the pixel only Pillow knows it; with one bit a pixel that is a twentieth of the work of turning the picture.
    return Image.new("1", size).rotate(-degrees, expand=True).size


def _turned(image: Image.Image, degrees: float) -> Image.Image:
    """Clockwise; the canvas grows so that nothing is cut off, and its new corners are transparent."""
    quarters, rest = divmod(degrees % 360, 90)
    if rest == 0:
        turns = (None, Image.Transpose.ROTATE_270, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_90)
        turn = turns[int(quarters)]
        return image if turn is None else _keeping(image, image.transpose(turn))
    turned = image.convert("RGBA").rotate(-degrees, Image.Resampling.BICUBIC, expand=True)
    return _keeping(image, turned)


def laid_on(image: Image.Image, colour: tuple[int, int, int, int]) -> Image.Image:
    """The picture on a colour, which is named in sRGB and brought into the picture's own profile; RGB when the colour
    is opaque.
    """
    patch = from_srgb(Image.new("RGB", (1, 1), colour[:3]), image.info.get("icc_profile"))
    patch.putalpha(colour[3])
    whole = Image.alpha_composite(patch.resize(image.size, Image.Resampling.NEAREST), image)
    return _keeping(image, whole.convert("RGB") if colour[3] == 255 else whole)


def _keeping(image: Image.Image, result: Image.Image) -> Image.Image:
    """The result with the profile of the picture that it was made from."""
    profile = image.info.get("icc_profile")
    result.info = {"icc_profile": profile} if profile else {}
    return result


def colour_of(name: str) -> tuple[int, int, int, int]:
    """A CSS colour with its opacity, 0 to 255 each. Raises RequestError for what is none."""
    words = name.strip().lower()
    if words == "transparent":
        return 0, 0, 0, 0
    parts = _WITH_ALPHA.fullmatch(words)  # Pillow takes rgba() with an alpha of 0 to 255, CSS with one of 0 to 1
    try:
        if parts is None:
            red, green, blue, alpha = (*ImageColor.getrgb(words), 255)[:4]
        else:
            red, green, blue = ImageColor.getrgb(f"rgb({parts[1]},{parts[2]},{parts[3]})")[:3]
            share = float(parts[4].removesuffix("%")) / (100 if parts[4].endswith("%") else 1)
            if share > 1:
                raise ValueError("alpha is 0 to 1")
            alpha = round(share * 255)
        if max(red, green, blue) > 255:
            raise ValueError("channels are 0 to 255")
    except ValueError as error:
        raise RequestError(f"{name!r} is no colour; write #rrggbb, a CSS name or transparent.") from error
    return red, green, blue, alpha


def opaque_colour(name: str) -> tuple[int, int, int]:
    """Raises RequestError for a colour that lets something through, too."""
    red, green, blue, alpha = colour_of(name)
    if alpha < 255:
        raise RequestError(f"{name!r} is not opaque, and these files have to be; name an opaque colour.")
    return red, green, blue


def _check_file(size: Size, output_format: OutputFormat) -> None:
    _check_size(size)
    if output_format == "webp" and max(size) > _WEBP_SIDE:
        raise RequestError(f"WebP ends at {_WEBP_SIDE} px a side, this is {size[0]}x{size[1]}; use PNG or AVIF.")


def _check_size(size: Size) -> None:
    if max(size) > MADE_SIDE or size[0] * size[1] > MADE_PIXELS:
        raise RequestError(
            f"{size[0]}x{size[1]} px is too large; at most {MADE_SIDE} px a side and "
            f"{MADE_PIXELS // 1_000_000} megapixels are written."
        )
