"""Reads what a picture's bytes say about it, and checks that against the bounds, without decoding a pixel."""

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Final

from PIL import Image, PngImagePlugin

from nanobanana_mcp.domain.errors import NotAnImage, NotEnoughMemory
from nanobanana_mcp.domain.terms import MADE_BYTES, MADE_PIXELS, MAX_FILE_BYTES, MAX_PIXELS
from nanobanana_mcp.pixels.files.containers import (
    ORIENTATION_TAG,
    exif_orientation,
    gif_blocks,
    jpeg_frame,
    jpeg_segments,
    picture_end,
    png_chunks,
    stripped,
    tiff_entries,
    webp_chunks,
)
from nanobanana_mcp.pixels.files.formats import FORMATS, Format, format_of

# Pillow only warns up to twice its limit, which is 89 megapixels by itself.
Image.MAX_IMAGE_PIXELS = MADE_PIXELS
warnings.simplefilter("error", Image.DecompressionBombWarning)

MAX_SIDE: Final = 30_000
"""Panoramas pass. JPEG goes to 65,535, but nothing that long is of use to a model."""
MAX_SCANS: Final = 100
"""Encoders write 1 to 12. Every scan of a progressive JPEG costs a walk over all pixels: 2,000 in 333 kB took 53 s."""
MAX_METADATA_BYTES: Final = 8_000_000
# Pillow's own bound for each is 1 MiB, behind which a profile counts as damage.
PngImagePlugin.MAX_TEXT_CHUNK = MAX_METADATA_BYTES
MAX_FRAMES_COUNTED: Final = 1000
MAX_RUN_LENGTH_BYTES: Final = 8_000_000
"""Pillow expands run-length coded BMP in Python, about 2 s for this much."""
MAX_TIFF_TILES: Final = 250_000
"""60 megapixels in tiles of 16x16, the smallest that TIFF allows."""

# What Pillow's plugins raise on damaged bytes: more than they document, gathered from mutated files.
PILLOW_ERRORS: Final = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    AssertionError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
_SMALLER: Final = "Make it smaller and pass that."
_MORE_MEMORY: Final = "Close other programs, raise the limit that this one runs under, or take a smaller picture."


@dataclass(frozen=True, kw_only=True)
class Header:
    """The facts that a viewer tells of a picture without showing it.

    `width` x `height` are pixels as a viewer shows them, with `orientation` (1 to 8, EXIF tag 0x0112) applied. HEIC and
    TIFF are turned by their decoders, HEIC without saying how. A `tiff:Orientation` in XMP turns nothing: browsers and
    sharp (its `autoOrient`) go by EXIF alone. `frames` is counted up to 1,000; of a TIFF only the
    first page is ever read, which counts as 1. `scans` are JPEG's. `end` is the offset behind the picture's last byte,
    None when the file ends before it, because it is cut off or is a JPEG that lacks only its end mark. `extension` has its dot.
    """

    format: Format
    mime_type: str
    extension: str
    width: int
    height: int
    orientation: int
    frames: int
    has_alpha: bool
    scans: int
    end: int | None


def read_header(data: bytes) -> Header:
    """Read type and size from the bytes themselves; names and extensions do not count.

    Raises NotAnImage, which says what the bytes are instead.
    """
    found = format_of(data)
    try:
        match found:
            case "png":
                return _png_header(data)
            case "jpeg":
                return _jpeg_header(data)
            case "webp":
                return _webp_header(data)
            case "gif":
                return _gif_header(data)
            case "tiff":
                _check_tiff(data)
            case "bmp":
                _check_bmp(data)
        return _opened_header(data, found)
    except (struct.error, IndexError) as error:
        raise _cut_off(found) from error


def check_bounds(header: Header, data: bytes, *, made: bool = False) -> None:
    """Raise NotAnImage for a file that would cost too much time or memory to decode, before anything is decoded.

    Bounds: 64 MiB of file, 60 megapixels, 30,000 pixels a side, 100 JPEG scans, 8 MB of metadata in a PNG, also after
    decompression. Animations pass, because only their first frame is ever decoded. What was `made` here may be as large
    as it is made.
    """
    most_bytes, most_pixels = (MADE_BYTES, MADE_PIXELS) if made else (MAX_FILE_BYTES, MAX_PIXELS)
    if len(data) > most_bytes:
        raise NotAnImage(
            f"The file has {len(data) / 1e6:.0f} MB; at most {most_bytes // 2**20} MiB are read. {_SMALLER}"
        )
    if header.width * header.height > most_pixels:
        raise NotAnImage(
            f"The picture is {header.width}x{header.height} ({header.width * header.height / 1e6:.0f} megapixels); "
            f"at most {most_pixels // 1_000_000} megapixels are read. {_SMALLER}"
        )
    if max(header.width, header.height) > MAX_SIDE:
        raise NotAnImage(
            f"The picture is {header.width}x{header.height}; a side may have at most {MAX_SIDE} pixels. {_SMALLER}"
        )
    if header.scans > MAX_SCANS:
        raise NotAnImage(
            f"This JPEG has {header.scans} scans; at most {MAX_SCANS} are decoded. Save it again as a baseline JPEG."
        )
    if header.format == "png":
        _check_png_metadata(data)


def open_picture(data: bytes, found: Format) -> Image.Image:
    """Open bytes with the one plugin of their format, without decoding pixels and, but for BMP and TIFF, without metadata.

    Raises NotAnImage when the plugin cannot, NotEnoughMemory.
    """
    name = FORMATS[found].words
    try:
        image = Image.open(BytesIO(stripped(data, found)), formats=[FORMATS[found].pillow])
        image.info.pop("xmp", None)  # by which Pillow would turn a TIFF or an AVIF that has no EXIF
        return image
    except MemoryError as error:
        raise NotEnoughMemory(
            f"There is not enough memory free here to open this {name} file. {_MORE_MEMORY}"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise NotAnImage(
            f"This {name} picture has over {MADE_PIXELS // 1_000_000} megapixels; at most {MAX_PIXELS // 1_000_000} megapixels "
            f"are read. {_SMALLER}"
        ) from error
    except PILLOW_ERRORS as error:
        raise NotAnImage(
            f"This {name} file is damaged or of a kind that is not read ({reason(error)}). "
            "Open it in an image editor, save it as PNG or JPEG and pass that."
        ) from error


@contextmanager
def memory_for(header: Header) -> Iterator[None]:
    """Raise NotEnoughMemory, which names the picture's size, where memory runs out while the picture is worked on."""
    try:
        yield
    except MemoryError as error:
        raise NotEnoughMemory(
            f"There is not enough memory free here to decode {header.width}x{header.height} pixels of "
            f"{FORMATS[header.format].words}; the file itself may well be whole. {_MORE_MEMORY}"
        ) from error


def reason(error: BaseException) -> str:
    """Return the first line of an error of Pillow's, short enough for a message, without the address of an object."""
    words = str(error).partition("\n")[0].partition(" <")[0]
    if len(words) > 120:
        words = f"{words[:120].rpartition(' ')[0].rstrip('(,;: ')}..."
    return words or type(error).__name__


def _cut_off(found: Format) -> NotAnImage:
    return NotAnImage(
        f"This {FORMATS[found].words} file is cut off or damaged before its size can be read. Fetch or save it again."
    )


def _header(
    found: Format,
    size: tuple[int, int],
    *,
    end: int | None,
    orientation: int = 1,
    frames: int = 1,
    has_alpha: bool = False,
    scans: int = 1,
) -> Header:
    width, height = size if orientation < 5 else size[::-1]
    if width < 1 or height < 1:
        raise NotAnImage(
            f"This {FORMATS[found].words} file claims to be {width}x{height}, which is not a picture. Save it again."
        )
    return Header(
        format=found,
        mime_type=FORMATS[found].mime_type,
        extension=FORMATS[found].extension,
        width=width,
        height=height,
        orientation=orientation,
        frames=min(max(frames, 1), MAX_FRAMES_COUNTED),
        has_alpha=has_alpha,
        scans=scans,
        end=end,
    )


def _png_header(data: bytes) -> Header:
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise _cut_off("png")
    width, height, _, colour = struct.unpack_from(">IIBB", data, 16)
    orientation, frames, has_alpha, has_palette = 1, 1, colour in (4, 6), False
    for part in png_chunks(data):
        if part.name == b"eXIf":
            orientation = exif_orientation(data[part.content : part.stop - 4])
        elif part.name == b"acTL" and part.stop - part.content >= 8:
            frames = int.from_bytes(data[part.content : part.content + 4], "big")
        elif part.name == b"tRNS":
            has_alpha = True
        elif part.name == b"PLTE":
            has_palette = True
    if colour == 3 and not has_palette:
        raise NotAnImage("This PNG is damaged: its pixels use a palette that it does not have. Save it again.")
    end = picture_end(data, "png")
    return _header("png", (width, height), end=end, orientation=orientation, frames=frames, has_alpha=has_alpha)


def _jpeg_header(data: bytes) -> Header:
    frame = jpeg_frame(data)
    if frame is None:
        raise _cut_off("jpeg")
    exif, scans, end = b"", 0, None
    for part in jpeg_segments(data):  # once: this looks at every byte
        if part.name == b"\xda":
            scans += 1
        elif part.name == b"\xd9":
            end = part.stop
        elif part.name == b"\xe1" and not scans and not exif and data.startswith(b"Exif\0\0", part.content):
            exif = data[part.content : part.stop]
    return _header("jpeg", frame[:2], end=end, orientation=exif_orientation(exif), scans=scans)


def _webp_header(data: bytes) -> Header:
    if len(data) < 30:
        raise _cut_off("webp")
    kind, end = data[12:16], picture_end(data, "webp")
    if kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
        return _header("webp", (width, height), end=end)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        size = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        return _header("webp", size, end=end, has_alpha=bool(bits >> 28 & 1))
    if kind != b"VP8X":
        raise _cut_off("webp")
    size = 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    chunks = list(webp_chunks(data))
    exif = next((data[part.content : part.stop] for part in chunks if part.name == b"EXIF"), b"")
    frames = sum(part.name == b"ANMF" for part in chunks)
    turned, has_alpha = exif_orientation(exif), bool(data[20] & 0x10)
    return _header("webp", size, end=end, orientation=turned, frames=frames, has_alpha=has_alpha)


def _gif_header(data: bytes) -> Header:
    width, height = struct.unpack_from("<HH", data, 6)
    frames, has_alpha = 0, False
    for part in gif_blocks(data):
        if part.name == b"\xf9" and frames == 0:
            has_alpha = bool(data[part.content + 1] & 1)
        if part.name == b",":
            if frames == 0:  # Pillow widens the canvas for a frame that juts out
                left, top, frame_width, frame_height = struct.unpack_from("<HHHH", data, part.start + 1)
                width, height = max(width, left + frame_width), max(height, top + frame_height)
            frames += 1
    return _header("gif", (width, height), end=picture_end(data, "gif"), frames=frames, has_alpha=has_alpha)


def _opened_header(data: bytes, found: Format) -> Header:
    image = open_picture(data, found)
    width, height = image.size
    orientation, frames = 1, 1
    if found == "tiff":
        orientation = exif_orientation(data)
        if orientation >= 5:  # Pillow has turned it already
            width, height = height, width
    elif found == "avif":
        orientation = image.getexif().get(ORIENTATION_TAG, 1)  # Pillow puts its irot and imir boxes there
    if found in ("avif", "heic"):
        frames = int(getattr(image, "n_frames", 1))
    has_alpha = image.has_transparency_data
    end = picture_end(data, found)
    return _header(found, (width, height), end=end, orientation=orientation, frames=frames, has_alpha=has_alpha)


def _check_bmp(data: bytes) -> None:
    compression = int.from_bytes(data[30:34], "little") if data[14] >= 40 else 0
    if compression in (1, 2) and len(data) > MAX_RUN_LENGTH_BYTES:
        raise NotAnImage(
            f"This BMP is run-length coded and has {len(data) / 1e6:.0f} MB. Save it as PNG and pass that."
        )


def _check_tiff(data: bytes) -> None:
    """Refuse directories that claim more than the file holds, since Pillow copies every field, and camera raw files."""
    first = list(tiff_entries(data))
    # The EXIF, GPS and interoperability directories, which Pillow reads when it decodes.
    others = [entry.value for entry in first if entry.tag in (34665, 34853, 40965)]
    claimed = sum(entry.size for entry in first)
    claimed += sum(entry.size for offset in others for entry in tiff_entries(data, offset))
    if claimed > len(data):
        raise NotAnImage("This TIFF is damaged: its fields are larger than the file. Save it again as PNG or JPEG.")
    if any(entry.tag in (273, 279, 324, 325) and entry.number > MAX_TIFF_TILES for entry in first):
        raise NotAnImage(f"This TIFF is cut into more than {MAX_TIFF_TILES} strips. Save it as PNG and pass that.")
    # The first page of DNG, NEF and the like is a small preview that would stand in for the photograph.
    tags = {entry.tag for entry in first}
    reduced = any(entry.tag == 254 and entry.value & 1 for entry in first)
    if 50706 in tags or data[8:10] == b"CR" or (reduced and 330 in tags):
        raise NotAnImage("This is a camera raw file. Develop it to JPEG or PNG and pass that.")


def _check_png_metadata(data: bytes) -> None:
    expanded = 0
    for part in png_chunks(data):
        if part.name not in (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf"):
            continue
        content = data[part.content : part.stop - 4]
        expanded += max(len(content), _expanded_bytes(part.name, content))
        if expanded > MAX_METADATA_BYTES:
            raise NotAnImage(
                f"This PNG carries more than {MAX_METADATA_BYTES // 1_000_000} MB of text, EXIF or profile. "
                "Save it without metadata and pass that."
            )


def _expanded_bytes(name: bytes, content: bytes) -> int:
    """Return how large a compressed chunk gets, stopping right behind the bound; 0 for one that is not compressed."""
    _, _, rest = content.partition(b"\0")
    compressed = rest[1:]
    if name == b"iTXt" and rest[:1] == b"\1":
        compressed = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    elif name not in (b"zTXt", b"iCCP"):
        return 0
    try:
        return len(zlib.decompressobj().decompress(compressed, MAX_METADATA_BYTES + 1))
    except zlib.error:
        return 0
