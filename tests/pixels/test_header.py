"""Bytes are told by their content, measured without decoding, and refused in words when they would cost too much."""

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nanobanana_mcp.domain.errors import NotAnImage
from nanobanana_mcp.pixels.files import formats
from nanobanana_mcp.pixels.files.decoding import decoded
from nanobanana_mcp.pixels.files.header import check_bounds, read_header

FORMATS = {
    "png": ("PNG", "image/png", ".png"),
    "jpeg": ("JPEG", "image/jpeg", ".jpg"),
    "webp": ("WEBP", "image/webp", ".webp"),
    "gif": ("GIF", "image/gif", ".gif"),
    "bmp": ("BMP", "image/bmp", ".bmp"),
    "tiff": ("TIFF", "image/tiff", ".tif"),
    "avif": ("AVIF", "image/avif", ".avif"),
    "heic": ("HEIF", "image/heic", ".heic"),
}


def saved(image: Image.Image, pillow: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, pillow, **options)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    idat = chunk(b"IDAT", zlib.compress(bytes(((width + 7) // 8 + 1) * min(height, 64))))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + idat + chunk(b"IEND", b"")


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def tiff(*entries: tuple[int, int, int, int]) -> bytes:
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + bytes(4)


def refusal(data: bytes) -> str:
    with pytest.raises(NotAnImage) as caught:
        check_bounds(read_header(data), data)
    return str(caught.value)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_told_by_its_bytes(name: str) -> None:
    pillow, mime_type, extension = FORMATS[name]
    header = read_header(saved(Image.new("RGB", (40, 30), "red"), pillow))
    assert (header.format, header.mime_type, header.extension) == (name, mime_type, extension)
    assert (header.width, header.height, header.orientation, header.frames) == (40, 30, 1, 1)
    assert not header.has_alpha


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("pillow", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_the_size_is_the_one_a_viewer_shows(pillow: str, orientation: int) -> None:
    header = read_header(saved(Image.new("RGB", (40, 30), "red"), pillow, exif=oriented(orientation)))
    assert header.orientation == orientation
    assert (header.width, header.height) == ((40, 30) if orientation < 5 else (30, 40))


@pytest.mark.parametrize(
    ("mode", "pillow", "options"),
    [
        ("RGBA", "PNG", {}),
        ("LA", "PNG", {}),
        ("P", "PNG", {"transparency": 0}),
        ("RGB", "PNG", {"transparency": (0, 0, 0)}),
        ("RGBA", "WEBP", {"lossless": True}),
        ("RGBA", "WEBP", {"lossless": False}),
        ("P", "GIF", {"transparency": 0}),
        ("RGBA", "TIFF", {}),
        ("RGBA", "AVIF", {}),
    ],
)
def test_transparency_is_seen_in_the_header(mode: str, pillow: str, options: dict[str, object]) -> None:
    image = Image.new("RGBA", (9, 9), (10, 20, 30, 40)).convert(mode)
    assert read_header(saved(image, pillow, **options)).has_alpha


@pytest.mark.parametrize(("pillow", "frames"), [("GIF", 3), ("PNG", 3), ("WEBP", 3), ("AVIF", 3), ("TIFF", 1)])
def test_frames_are_counted_and_only_the_first_page_of_a_tiff_exists(pillow: str, frames: int) -> None:
    first, *others = (Image.new("RGB", (9, 9), colour) for colour in ("red", "green", "blue"))
    data = saved(first, pillow, save_all=True, append_images=others, duration=50)
    assert read_header(data).frames == frames
    check_bounds(read_header(data), data)


def test_a_number_of_frames_is_capped() -> None:
    data = png(8, 8, chunk(b"acTL", struct.pack(">II", 4_000_000_000, 0)))
    assert read_header(data).frames == 1000


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"%PDF-1.7 x", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "EPS"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<?xml version='1.0'?>\n<!-- c -->\n<svg width='1'/>", "SVG"),
        (b"\n<!DOCTYPE html><html></html>", "HTML"),
        (b"PK\x03\x04\x14\0", "zip"),
        (b"\xff\x0a\x01", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\0\0\0\x18ftypisom\0\0\0\0mp41", "video"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "raw"),
        (b"RIFF\0\0\0\0AVI LIST", "video"),
        ("Grüße an GEMINI_API_KEY=AIza\n".encode(), "text"),
        (b"#!/bin/sh\nrm -rf /\n", "text"),
        (b"\x7fELF\2\1\1", "program"),
        (bytes(range(128, 256)), "not a picture"),
        (b"\0", "not a picture"),
    ],
)
def test_what_is_no_picture_is_named(data: bytes, words: str) -> None:
    assert words in refusal(data)


def test_the_first_heic_that_a_process_meets_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.heic"
    path.write_bytes(saved(Image.new("RGB", (40, 30), "red"), "HEIF"))
    code = f"import pathlib, nanobanana_mcp.pixels.outputs.thumbnails as p; p.examine(pathlib.Path({str(path)!r}).read_bytes())"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_heic_without_its_decoder_is_refused_with_two_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(Image.new("RGB", (40, 30), "red"), "HEIF")
    monkeypatch.setattr(formats, "heic_is_readable", lambda: False)
    message = refusal(data)
    assert "pillow-heif" in message
    assert "Convert" in message


@pytest.mark.parametrize("size", [(30_000, 30_000), (13_300, 13_300), (1, 65_500), (7_746, 7_746)])
def test_a_bomb_is_refused_by_its_header(size: tuple[int, int]) -> None:
    data = png(*size)
    assert len(data) < 250_000
    assert f"{size[0]}x{size[1]}" in refusal(data)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(9_500, 10_000), (14_000, 14_000)])
@pytest.mark.parametrize("pillow", ["TIFF", "BMP"])
def test_a_picture_beyond_pillows_own_bound_is_told_ours(pillow: str, size: tuple[int, int]) -> None:
    message = refusal(saved(Image.new("1", size), pillow))
    assert "at most 60 megapixels are read" in message and "damaged" not in message


def test_a_png_without_the_palette_that_its_pixels_name_is_damaged() -> None:
    data = bytearray(png(8, 8))
    data[24:26] = b"\x08\x03"
    assert "palette that it does not have" in refusal(bytes(data))


@pytest.mark.parametrize("offset", [2**62, 2**63 - 9, 2**63, 2**64 - 1])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_bigtiff_whose_directory_lies_beyond_any_file_is_damaged(order: str, offset: int) -> None:
    begins = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HHH", 43, 8, 0)
    assert "damaged" in refusal(begins + struct.pack(f"{order}Q", offset) + bytes(40))
    exif = struct.pack(f"{order}QQHHQQ", 16, 1, 34665, 16, 1, offset)
    assert "damaged" in refusal(begins + exif + bytes(60))


def test_a_photograph_of_fifty_megapixels_passes() -> None:
    data = png(8_660, 5_773)
    check_bounds(read_header(data), data)


def test_a_jpeg_that_lies_about_its_size_is_refused() -> None:
    data = bytearray(saved(Image.new("RGB", (40, 30)), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65_500, 65_500)
    assert "megapixels" in refusal(bytes(data))


def test_an_animated_webp_with_a_huge_canvas_is_refused_before_it_is_opened() -> None:
    body = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + b"\xfe\xff\xff" * 2
    data = b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
    assert "megapixels" in refusal(data)


def test_a_gif_frame_larger_than_its_canvas_counts() -> None:
    data = bytearray(saved(Image.new("P", (8, 8)), "GIF"))
    frame = data.index(b",", 13 + 6)
    data[frame + 5 : frame + 9] = struct.pack("<HH", 60_000, 60_000)
    assert "megapixels" in refusal(bytes(data))


def test_a_jpeg_of_two_thousand_scans_is_refused_and_an_ordinary_progressive_one_passes() -> None:
    data = saved(Image.new("RGB", (64, 64), "red"), "JPEG", progressive=True)
    check_bounds(read_header(data), data)
    last = data.rindex(b"\xff\xda")
    assert "scans" in refusal(data[:-2] + data[last:-2] * 2000 + b"\xff\xd9")


@pytest.mark.parametrize(
    "bomb",
    [
        lambda: chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(60_000_000))),
        lambda: chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(60_000_000))),
        lambda: chunk(b"iCCP", b"ICC\0\0" + zlib.compress(bytes(60_000_000))),
        lambda: chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1_000_000))) * 9,
        lambda: chunk(b"tEXt", b"Comment\0" + b"x" * 8_000_001),
        lambda: chunk(b"eXIf", bytes(8_000_001)),
    ],
    ids=["zTXt", "iTXt", "iCCP", "many", "tEXt", "eXIf"],
)
def test_png_metadata_that_swells_is_refused(bomb: Callable[[], bytes]) -> None:
    assert "8 MB" in refusal(png(64, 64, bomb()))


def test_a_png_with_half_a_megabyte_of_workflow_text_passes() -> None:
    data = png(64, 64, chunk(b"tEXt", b"workflow\0" + b"x" * 500_000))
    check_bounds(read_header(data), data)


def test_a_file_of_more_than_64_mebibytes_is_refused() -> None:
    assert "64" in refusal(png(8, 8) + bytes(64 * 2**20))


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_a_picture_without_pixels_is_refused(size: tuple[int, int]) -> None:
    assert f"{size[0]}x{size[1]}" in refusal(png(*size))


def test_exif_that_claims_more_than_it_holds_costs_nothing_and_its_orientation_still_counts() -> None:
    entries = [(0x0112, 3, 1, 6), *((0x9000 + n, 7, 0xFFFF, 8) for n in range(4000))]
    exif = tiff(*entries)
    assert read_header(png(40, 30, chunk(b"eXIf", exif))).orientation == 6


def test_a_tiff_whose_fields_are_larger_than_the_file_is_refused() -> None:
    assert "damaged" in refusal(tiff(*((0x9000 + n, 7, 40_000, 8) for n in range(4000))))


def test_a_tiff_of_many_strips_is_refused() -> None:
    data = tiff((256, 4, 1, 8), (257, 4, 1, 8), (273, 4, 300_000, 8)) + bytes(1_300_000)
    assert "strips" in refusal(data)


@pytest.mark.parametrize("entries", [[(50706, 1, 4, 1)], [(254, 4, 1, 1), (330, 4, 1, 8)]])
def test_a_camera_raw_file_does_not_pass_as_its_small_preview(entries: list[tuple[int, int, int, int]]) -> None:
    assert "raw" in refusal(tiff(*entries))


def test_a_large_run_length_coded_bmp_is_refused() -> None:
    data = bytearray(saved(Image.new("P", (8, 8)), "BMP"))
    data[30:34] = struct.pack("<I", 1)
    assert "run-length" in refusal(bytes(data) + bytes(8_000_000))


@pytest.mark.parametrize("name", FORMATS)
def test_the_beginning_of_a_file_is_read_or_refused_in_words(name: str) -> None:
    data = saved(Image.new("RGB", (40, 30), "red"), FORMATS[name][0])
    for length in range(min(len(data), 64)):
        try:
            read_header(data[:length])
        except NotAnImage as error:
            assert str(error).endswith(".")


@cache
def _red(name: str) -> bytes:
    return saved(Image.new("RGB", (40, 30), "red"), FORMATS[name][0])


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(
    name=st.sampled_from(list(FORMATS)),
    flips=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6),
)
@settings(derandomize=True, deadline=None, max_examples=300)
def test_damaged_headers_are_read_or_refused_and_never_crash(name: str, flips: list[tuple[int, int]]) -> None:
    damaged = bytearray(_red(name))
    for position, value in flips:
        damaged[position % len(damaged)] = value
    try:
        check_bounds(read_header(bytes(damaged)), bytes(damaged))
    except NotAnImage as error:
        assert str(error)


XMP_ON_ITS_SIDE = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


@pytest.mark.parametrize("pillow", ["JPEG", "WEBP", "AVIF", "TIFF"])
def test_what_xmp_says_of_the_orientation_turns_nothing(pillow: str) -> None:
    options = {"tiffinfo": {700: XMP_ON_ITS_SIDE}} if pillow == "TIFF" else {"xmp": XMP_ON_ITS_SIDE}
    data = saved(Image.new("RGB", (60, 30), "red"), pillow, **options)
    header = read_header(data)
    assert (header.orientation, header.width, header.height) == (1, 60, 30)
    assert decoded(data).size == (60, 30)
