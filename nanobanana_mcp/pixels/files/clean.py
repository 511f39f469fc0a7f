"""Makes pictures fit to leave the machine: they decode to their last byte and say nothing of who took them where."""

import hashlib
import math
import threading
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Final, Literal

from PIL import Image, ImageCms

from nanobanana_mcp.domain.errors import NotAnImage
from nanobanana_mcp.domain.terms import MAX_PIXELS
from nanobanana_mcp.pixels.files.containers import jpeg_frame, jpeg_is_scanned, stripped
from nanobanana_mcp.pixels.files.formats import FORMATS
from nanobanana_mcp.pixels.files.header import (
    PILLOW_ERRORS,
    Header,
    check_bounds,
    memory_for,
    open_picture,
    read_header,
    reason,
)
from nanobanana_mcp.pixels.files.losses import bits_a_channel, left_out, recoloured
from nanobanana_mcp.pixels.files.profiles import MAX_PROFILE_BYTES, described, without_names

SentType = Literal["image/png", "image/jpeg", "image/webp"]

DECODES: Final = threading.BoundedSemaphore(2)
"""Hold it from decoding to encoding, never twice in one thread. At 64 megapixels (8000 x 8000) one picture was measured to
peak at 0.4 GB as PNG, 0.7 GB as JPEG and WebP, and 1.7 GB as AVIF, so that two at a time stay under 2 GB but for AVIF."""
PHOTOGRAPH_PIXELS: Final = 1_000_000
"""Opaque pictures in the formats of cameras that have to be converted become JPEG above this, and PNG below."""
QUALITY: Final = 95

_JPEG_END: Final = b"\xff\xd9"
_FILLINGS: Final = (b"", bytes(range(1, 255)), b"\xa5" * 254)
"""Bytes that may stand for data that a JPEG lacks; no byte of it begins a marker."""
_CAMERA_FORMATS: Final = {"avif", "heic", "tiff", "webp"}
_NAMES: Final[dict[SentType, str]] = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WebP"}
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, kw_only=True)
class CleanImage:
    """A picture as it is sent.

    `width` x `height` are pixels as they are coded, which is as a viewer shows them. An ICC profile without names is
    the only metadata. `sha256` is the hexadecimal digest of `data`. `notes` say in words what was
    changed, other than metadata. `invisible` says that every pixel is transparent.
    """

    data: bytes
    mime_type: SentType
    width: int
    height: int
    sha256: str
    notes: tuple[str, ...]
    invisible: bool = False


def clean(data: bytes, *, max_bytes: int = 7_000_000, max_side: int | None = None, made: bool = False) -> CleanImage:
    """Prove that the bytes are a picture and return it without metadata, in a format and size that Gemini takes.

    PNG, JPEG and WebP within `max_bytes` (7 MB is Vertex AI's bound for an inline picture) and `max_side` (pixels) keep
    their coded pixels bit for bit. Larger ones, and those that lie on their side and leave it to EXIF to say so, which
    nobody knows Gemini to read, are encoded anew in their format; what Gemini does not read is converted to PNG or
    JPEG. All of these then stand upright. What was `made` here may be larger than a stranger's file, and is made smaller to
    be sent. Raises NotAnImage for what does not decode completely or is
    beyond `check_bounds`, NotEnoughMemory.
    """
    header = read_header(data)
    check_bounds(header, data, made=made)
    with DECODES, memory_for(header):
        data = with_its_end(data, header)
        notes = left_out(data, header)
        bare = stripped(data, header.format, profile=without_names)
        image = decode(bare, header)
        invisible = is_invisible(image)
        mime_type = _type_as_it_is(header, bare)
        crowded = min(1.0, math.sqrt(MAX_PIXELS / (header.width * header.height)))
        fits = (
            crowded == 1.0
            and len(bare) <= max_bytes
            and (max_side is None or max(header.width, header.height) <= max_side)
        )
        described = bool(image.info.get("described"))  # colours in words that no model is known to read
        if mime_type and fits and header.orientation == 1 and not described:
            made_clean = _clean_image(bare, mime_type, (header.width, header.height), notes)
            return replace(made_clean, invisible=invisible)
        scale = crowded if mime_type is None else min(crowded, math.sqrt(max_bytes / len(bare)))
        picture = upright(eight_bit(image, header), header)
        if described:
            picture = to_srgb(picture)
            notes += recoloured(data, header) or ["its colours were converted to sRGB"]
        if mime_type and header.orientation != 1:
            notes.append("turned upright")
        if mime_type is None:
            mime_type = _converted_type(picture, header)
            notes.append(_conversion(header, data, mime_type))
            notes += [] if described else recoloured(data, header)
        fitted = _fitted(picture, mime_type, notes, scale=scale, max_bytes=max_bytes, max_side=max_side)
        return replace(fitted, invisible=invisible)


def photograph_notes(data: bytes, header: Header) -> list[str] | None:
    """The notes that `clean` makes on a JPEG of grey or RGB that fits, without decoding it; None for any other file."""
    if header.format != "jpeg" or _type_as_it_is(header, data) is None:
        return None
    return left_out(data, header) + (["turned upright"] if header.orientation != 1 else [])


def is_invisible(image: Image.Image) -> bool:
    """Tells whether every pixel of a decoded picture is wholly transparent."""
    if image.mode not in ("RGBA", "LA", "PA", "La", "RGBa") and "transparency" not in image.info:
        return False
    alpha = image.convert("RGBA").getchannel("A") if "A" not in image.getbands() else image.getchannel("A")
    return alpha.getextrema() == (0, 0)


def with_its_end(data: bytes, header: Header) -> bytes:
    """Return the bytes, with its end mark a JPEG that lacks nothing else, as viewers show it. Hold `DECODES` meanwhile.

    Raises NotAnImage when a part of the picture is missing. A decoder fills up what is missing without a word, so
    nothing is where the pixels are the same whatever the bytes are that follow.
    """
    if header.end is not None:
        return data
    if header.format == "jpeg":
        begun = data.rstrip(b"\xff")  # half of the end mark
        complete = begun + _JPEG_END
        if jpeg_is_scanned(complete):
            seen = {_digest(decode(begun + filling + _JPEG_END, header)) for filling in _FILLINGS}
            if len(seen) == 1:
                return complete
    raise NotAnImage(
        f"This {FORMATS[header.format].words} file is cut off: its end is missing. Fetch or save it again."
    )


def _digest(image: Image.Image) -> bytes:
    digest = hashlib.sha256()
    for top in range(0, image.height, 256):
        digest.update(image.crop((0, top, image.width, min(top + 256, image.height))).tobytes())
    return digest.digest()


def decode(data: bytes, header: Header, *, at_least: int | None = None) -> Image.Image:
    """Return the first frame, fully decoded, as the file stores it. Hold `DECODES` meanwhile.

    With `at_least` a JPEG may come at a half, a quarter or an eighth of its size, as long as its longer side keeps that
    many pixels, and as YCbCr where that is what it codes and it has no profile; all of its bytes are read even so.
    Raises NotAnImage when the bytes are damaged, MemoryError.
    """
    image = open_picture(data, header.format)
    if header.format == "tiff" and _lies_in_planes_of_16_bits(image):
        raise NotAnImage(
            "This TIFF keeps its 16-bit channels in separate planes, which cannot be read. Save it with "
            "interleaved channels, or as PNG, and pass that."
        )
    try:
        if at_least is not None and header.format == "jpeg":
            share = min(1.0, at_least / max(image.size))
            plain = image.mode == "RGB" and "jfif" in image.info and "icc_profile" not in image.info
            size = math.ceil(image.width * share), math.ceil(image.height * share)
            image.draft("YCbCr" if plain else None, size)  # JFIF is always YCbCr
        image.load()
    except PILLOW_ERRORS as error:
        raise NotAnImage(
            f"This {FORMATS[header.format].words} file cannot be decoded ({reason(error)}): it is damaged or cut off"
            f"{', or compressed in a way that is not read' if header.format == 'tiff' else ''}. Fetch or save it again."
        ) from error
    if header.format == "tiff" and image.mode.startswith("I;16"):
        return _grey_of_tiff(image)
    if header.format == "bmp" and is_invisible(image):
        return image.convert("RGB")  # BMP of 32 bits: programs leave the fourth byte 0 that others read as alpha
    own = image.info.pop("icc_profile", None)
    profile = described(data, header.format, own)
    if profile is not None:
        image.info["icc_profile"] = profile
        image.info["described"] = profile is not own
    # The copy lets go of the decoder, which for these keeps one or two more canvases in memory.
    return image.copy() if header.format in ("webp", "avif") else image


def eight_bit(image: Image.Image, header: Header) -> Image.Image:
    """Return the picture as L, RGB or RGBA with 8 bits a channel, and nothing but a fitting ICC profile in `info`.

    RGBA stays only where a pixel is not opaque. 16-bit samples keep their upper byte; CMYK goes through its profile to
    sRGB, and so does what has a profile of over 1 MB. Grey whose light the file describes becomes RGB. Raises
    NotAnImage for samples without an agreed black and white (32-bit integers, floating point) and for colour models
    that cannot be converted.
    """
    profile = image.info.get("icc_profile")
    if image.mode in ("I", "F"):
        raise NotAnImage(
            f"This {FORMATS[header.format].words} file has 32-bit or signed samples, for which black and white are "
            "not defined. Save it with 8 bits a channel and pass that."
        )
    if image.mode.startswith("I;16"):
        image = _upper_byte(image)
    elif image.mode == "CMYK" and profile:
        image, profile = _through_profile(image, profile), None
    wanted = "RGBA" if image.has_transparency_data else "L" if image.mode in ("1", "L") else "RGB"
    try:
        converted = image if image.mode == wanted else image.convert(wanted)
    except ValueError as error:
        raise NotAnImage(
            f"Pictures in the colour model {image.mode} cannot be read. Save it as RGB and pass that."
        ) from error
    if wanted == "RGBA" and converted.getchannel("A").getextrema() == (255, 255):
        converted = converted.convert("RGB")
    if converted.mode == "L" and image.info.get("described"):
        converted = converted.convert("RGB")
    fitting = b"GRAY" if converted.mode == "L" else b"RGB "  # bytes 16 to 19 of a profile name its colour space
    if profile and profile[16:20] == fitting and len(profile) > MAX_PROFILE_BYTES:
        converted, profile = _through_profile(converted, profile), None
    converted.info = {"icc_profile": profile} if profile and profile[16:20] == fitting else {}
    return converted


def upright(image: Image.Image, header: Header) -> Image.Image:
    """Return the picture as a viewer shows it; the decoders of TIFF and HEIC have turned it already."""
    method = None if header.format in ("tiff", "heic") else _TURNS.get(header.orientation)
    return image if method is None else image.transpose(method)


def to_srgb(image: Image.Image) -> Image.Image:
    """Return the picture in sRGB, without a profile; its numbers stay when it has none or a damaged one."""
    profile = image.info.get("icc_profile")
    if profile is None:
        return image
    converted = _through_profile(image, profile)
    converted.info = {}
    return converted


def _tiff_tags(image: Image.Image) -> dict[int, object]:
    tags: dict[int, object] = image.tag_v2  # type: ignore[attr-defined]  # a TiffImageFile, by its header
    return tags


def _lies_in_planes_of_16_bits(image: Image.Image) -> bool:
    """Pillow 13 decodes such a TIFF without an error to noise."""
    tags = _tiff_tags(image)
    bits = tags.get(258)
    return tags.get(284) == 2 and isinstance(bits, tuple) and len(bits) > 1 and max(bits) > 8


def _grey_of_tiff(image: Image.Image) -> Image.Image:
    """L of 12 or 16 bits of grey, with white as 255: Pillow neither shifts the 12 bits nor reads which end is white."""
    import numpy as np  # 40 ms and 12 MB that only pictures of more than 8 bits pay

    tags = _tiff_tags(image)
    white_is_zero = tags.get(262) == 0
    samples = np.asarray(image).astype(np.uint16) >> (4 if tags.get(258) == (12,) else 8)
    grey = Image.fromarray((255 - samples if white_is_zero else samples).astype(np.uint8))
    grey.info = dict(image.info)
    return grey


def _upper_byte(image: Image.Image) -> Image.Image:
    import numpy as np  # 40 ms and 12 MB that only pictures of 16 bits pay

    samples = np.asarray(image).astype(np.uint16)
    grey = Image.fromarray((samples >> 8).astype(np.uint8))
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return grey
    opacity = Image.fromarray(np.where(samples == transparent, 0, 255).astype(np.uint8))
    return Image.merge("LA", (grey, opacity))


def _through_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert to sRGB; by Pillow's plain formulas when the profile is damaged, as viewers do."""
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError):
        return image.convert(mode)
    assert converted is not None  # None comes only with inPlace
    return converted


def _type_as_it_is(header: Header, bare: bytes) -> SentType | None:
    """Return the type under which the coded pixels can go as they are, None when they must be converted."""
    if header.format == "jpeg":
        frame = jpeg_frame(bare)
        return "image/jpeg" if frame and frame[2] in (1, 3) else None
    if header.format == "png":
        return "image/png" if bare[24] <= 8 else None
    return "image/webp" if header.format == "webp" and header.frames == 1 else None


def _converted_type(image: Image.Image, header: Header) -> SentType:
    if header.format == "jpeg":
        return "image/jpeg"
    large = image.width * image.height > PHOTOGRAPH_PIXELS
    return "image/jpeg" if large and header.format in _CAMERA_FORMATS and image.mode != "RGBA" else "image/png"


def _conversion(header: Header, data: bytes, mime_type: SentType) -> str:
    if header.format == "jpeg":
        return "converted from CMYK to RGB colours"
    bits = bits_a_channel(data, header)
    if header.format == "png":
        return f"converted from {bits} to 8 bits a channel"
    fewer = f", and from {bits} to 8 bits a channel" if bits > 8 else ""
    return f"converted from {FORMATS[header.format].words} to {_NAMES[mime_type]}{fewer}"


def _fitted(
    image: Image.Image, mime_type: SentType, notes: list[str], *, scale: float, max_bytes: int, max_side: int | None
) -> CleanImage:
    """Encode at a scale, and then smaller and smaller, until both bounds are kept."""
    longer = max(image.size)
    if max_side is not None:
        scale = min(scale, max_side / longer)
    while True:
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        encoded = _encoded(image if scale == 1.0 else image.resize(size, Image.Resampling.LANCZOS), mime_type)
        if len(encoded) <= max_bytes:
            break
        if max(size) < 16:
            raise NotAnImage(f"The picture cannot be made small enough for {max_bytes} bytes. Raise that bound.")
        scale *= min(0.95, 0.98 * math.sqrt(max_bytes / len(encoded)))
    if size != image.size:
        notes.append(f"shrunk from {image.width}x{image.height} to {size[0]}x{size[1]} pixels")
    return _clean_image(encoded, mime_type, size, notes)


def _encoded(image: Image.Image, mime_type: SentType) -> bytes:
    buffer = BytesIO()
    profile = without_names(image.info.get("icc_profile", b""))
    match mime_type:
        case "image/png":
            image.save(buffer, "PNG", icc_profile=profile)
        case "image/jpeg":
            image.save(buffer, "JPEG", quality=QUALITY, subsampling="4:4:4", icc_profile=profile)
        case "image/webp":
            image.save(buffer, "WEBP", quality=QUALITY, method=2, icc_profile=profile)
    return buffer.getvalue()


def _clean_image(data: bytes, mime_type: SentType, size: tuple[int, int], notes: list[str]) -> CleanImage:
    return CleanImage(
        data=data,
        mime_type=mime_type,
        width=size[0],
        height=size[1],
        sha256=hashlib.sha256(data).hexdigest(),
        notes=tuple(notes),
    )
