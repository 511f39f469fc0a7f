"""Tells the format of a picture by its first bytes alone, and says in words what bytes are that are no picture."""

import struct
from functools import cache
from typing import Final, Literal, NamedTuple

from nanobanana_mcp.domain.errors import NotAnImage

Format = Literal["png", "jpeg", "webp", "gif", "bmp", "tiff", "avif", "heic"]


class FormatNames(NamedTuple):
    """The names of a format: people's and Pillow's."""

    words: str
    pillow: str
    mime_type: str
    extension: str


FORMATS: Final[dict[Format, FormatNames]] = {
    "png": FormatNames("PNG", "PNG", "image/png", ".png"),
    "jpeg": FormatNames("JPEG", "JPEG", "image/jpeg", ".jpg"),
    "webp": FormatNames("WebP", "WEBP", "image/webp", ".webp"),
    "gif": FormatNames("GIF", "GIF", "image/gif", ".gif"),
    "bmp": FormatNames("BMP", "BMP", "image/bmp", ".bmp"),
    "tiff": FormatNames("TIFF", "TIFF", "image/tiff", ".tif"),
    "avif": FormatNames("AVIF", "AVIF", "image/avif", ".avif"),
    "heic": FormatNames("HEIC", "HEIF", "image/heic", ".heic"),
}

_MAGIC: Final[tuple[tuple[bytes, Format], ...]] = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
)
_BMP_HEADERS: Final = {struct.pack("<I", size) for size in (12, 16, 40, 52, 56, 64, 108, 124)}
_HEIF_BRANDS: Final = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}

_TAKEN: Final = "Pass a PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF or HEIC picture."
_EXPORT: Final = "Export it as PNG or JPEG and pass that."
_CONVERT: Final = "Convert it to JPEG or PNG and pass that."
_UNPACK: Final = "Unpack it and pass the picture inside."
_FRAME: Final = "Save one frame as PNG or JPEG and pass that."
_FOREIGN: Final[tuple[tuple[bytes, str, str], ...]] = (
    (b"%PDF", "a PDF", "Export the page as PNG or JPEG and pass that."),
    (b"%!PS", "an EPS or PostScript file", _EXPORT),
    (b"\xc5\xd0\xd3\xc6", "an EPS file", _EXPORT),
    (b"8BPS", "a Photoshop document", _EXPORT),
    (b"\0\0\1\0", "an icon file", _EXPORT),
    (b"\xff\x0a", "a JPEG XL picture", _CONVERT),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture", _CONVERT),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture", _CONVERT),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture", _CONVERT),
    (b"PK\x03\x04", "a zip archive or an Office document", _UNPACK),
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"7z\xbc\xaf", "a 7z archive", _UNPACK),
    (b"\x1aE\xdf\xa3", "a video (Matroska or WebM)", _FRAME),
    (b"RIFF", "a sound or video file (RIFF)", _TAKEN),
    (b"\x7fELF", "a program", _TAKEN),
    (b"MZ", "a program", _TAKEN),
    (b"SQLite format 3", "a database", _TAKEN),
)


def format_of(data: bytes) -> Format:
    """Return the format. Raises NotAnImage, which says what the bytes are instead, and what to do about it."""
    if not data:
        raise NotAnImage(f"The file is empty. {_TAKEN}")
    for magic, found in _MAGIC:
        if data.startswith(magic):
            return found
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:2] == b"BM" and data[14:18] in _BMP_HEADERS:
        return "bmp"
    if data[4:8] == b"ftyp":
        return _format_of_boxes(data)
    for magic, words, way_out in _FOREIGN:
        if data.startswith(magic):
            raise NotAnImage(f"This is {words}, which is not read here. {way_out}")
    raise NotAnImage(_unknown(data[:1024]))


@cache
def heic_is_readable() -> bool:
    """Tells whether its decoder loads here, a compiled library, which is made known to Pillow."""
    try:
        import pillow_heif  # 8 ms that only HEIC pictures pay
    except ImportError:
        return False
    # Without thumbnails: an embedded one would be decoded in place of the picture and prove nothing about it.
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
    return True


def _format_of_boxes(data: bytes) -> Format:
    """Tell AVIF, HEIC and video apart by the brands of the file type box (ISO/IEC 14496-12 and 23008-12)."""
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[position : position + 4] for position in range(16, end, 4))}
    if data[8:12] == b"crx ":
        raise NotAnImage("This is a camera raw file. Develop it to JPEG or PNG and pass that.")
    if brands & {b"avif", b"avis"}:
        return "avif"
    if not brands & _HEIF_BRANDS:
        raise NotAnImage(f"This is a video (MP4 or MOV), not a picture. {_FRAME}")
    if not heic_is_readable():
        raise NotAnImage(
            "This is a HEIC picture, and its decoder, the package pillow-heif, cannot be loaded here. Convert it "
            "to JPEG or PNG and pass that, or reinstall the server's packages."
        )
    return "heic"


def _unknown(beginning: bytes) -> str:
    markup = beginning.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in markup:
        return f"This is an SVG drawing, not a picture made of pixels. {_EXPORT}"
    if markup.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "This is an HTML page, not a picture. Pass the picture itself, not the page that shows it."
    if markup.startswith(b"<?xml"):
        return f"This is an XML file, not a picture. {_TAKEN}"
    text = beginning.decode("utf-8", errors="ignore")
    readable = sum(character.isprintable() or character.isspace() for character in text)
    if len(text) > 0.7 * len(beginning) and readable > 0.95 * len(text):
        return f"This is text, not a picture. {_TAKEN}"
    return f"This is not a picture of a known format. {_TAKEN}"
