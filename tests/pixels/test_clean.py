"""Only whole pictures leave, with their pixels as they were and nothing of what a camera wrote beside them."""

import hashlib
import struct
import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin
from PIL.PngImagePlugin import PngInfo

from nanobanana_mcp.domain.errors import NotAnImage
from nanobanana_mcp.pixels.files.clean import DECODES, clean
from nanobanana_mcp.pixels.files.containers import jpeg_segments, png_chunks
from nanobanana_mcp.pixels.files.decoding import decoded
from nanobanana_mcp.pixels.files.profiles import described
from tests.support.strange import png_with, with_tags

CANARY = b"CANARY-48.8584N-2.2945E"
OWNER = "Anna K."
MAGIC = {"image/png": b"\x89PNG", "image/jpeg": b"\xff\xd8\xff", "image/webp": b"RIFF"}


def scene(width: int = 120, height: int = 90, mode: str = "RGB") -> Image.Image:
    """A gradient with a corner of its own, so that no turn looks like another."""
    rows, columns = np.mgrid[0:height, 0:width]
    planes = np.stack([columns * 255 // width, rows * 255 // height, (rows + columns) % 256], axis=-1).astype(np.uint8)
    planes[: height // 4, : width // 4] = (250, 10, 10)
    if mode == "RGBA":
        planes = np.dstack([planes, np.full((height, width), 128, np.uint8)])
    return Image.fromarray(planes)


def saved(image: Image.Image, pillow: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, pillow, **options)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _personal_profile() -> bytes:
    """Display P3, with a screen's name, its maker and owner, and tags of a maker's own."""
    coded = png_with(saved(Image.new("RGB", (1, 1)), "PNG"), (b"cICP", bytes([12, 13, 0, 1])))
    profile = described(coded, "png", None)
    assert profile is not None
    tags = dict.fromkeys((b"dmnd", b"dmdd", b"mmod", b"CIED", b"meta", b"vcgt"), b"text" + bytes(4) + CANARY + b"\0")
    named = with_tags(profile.replace("profile".encode("utf-16-be"), OWNER.encode("utf-16-be")), tags)
    return named[:4] + CANARY[:4] + named[8:48] + CANARY[:8] + named[56:80] + CANARY[:20] + named[100:]


PROFILE = _personal_profile()


def colours(profile: bytes) -> np.ndarray:
    """The colours in sRGB that littlecms makes of many in a profile."""
    many = Image.fromarray(np.random.default_rng(3).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    opened = ImageCms.ImageCmsProfile(BytesIO(profile))
    return np.asarray(ImageCms.profileToProfile(many, opened, ImageCms.createProfile("sRGB")))


def has_colours_and_no_names(profile: bytes) -> bool:
    assert CANARY[:4] in PROFILE and OWNER.encode("utf-16-be") in PROFILE
    hidden = CANARY[:4] not in profile and OWNER.encode("utf-16-be") not in profile
    return hidden and bool((colours(profile) == colours(PROFILE)).all())


def personal_exif(orientation: int = 1) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = CANARY.decode()
    exif[0x013B] = CANARY.decode()
    exif.get_ifd(0x8825)[29] = CANARY.decode()
    return exif


def personal_png(image: Image.Image, orientation: int = 1) -> bytes:
    text = PngInfo()
    text.add_text("Author", CANARY.decode())
    text.add_text("Description", CANARY.decode(), zip=True)
    text.add_itxt("XML:com.adobe.xmp", CANARY.decode())
    data = saved(image, "PNG", pnginfo=text, exif=personal_exif(orientation), icc_profile=PROFILE)
    return data[:33] + chunk(b"caBX", CANARY) + chunk(b"tIME", CANARY[:7]) + data[33:]


def personal_jpeg(image: Image.Image, orientation: int = 1) -> bytes:
    data = saved(
        image,
        "JPEG",
        exif=personal_exif(orientation),
        comment=CANARY,
        xmp=CANARY,
        icc_profile=PROFILE,
        progressive=True,
    )
    extra = b"".join(
        bytes((0xFF, marker)) + struct.pack(">H", len(CANARY) + len(name) + 2) + name + CANARY
        for marker, name in [
            (0xEB, b"JP"),
            (0xED, b"Photoshop 3.0\0"),
            (0xE0, b"JFXX\0"),
            (0xE2, b"FPXR\0"),
            (0xFE, b""),
        ]
    )
    second_scan = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    return data[:20] + extra + data[20:second_scan] + extra + data[second_scan:]


def personal_webp(image: Image.Image, orientation: int = 1) -> bytes:
    data = saved(image, "WEBP", exif=personal_exif(orientation), xmp=CANARY, icc_profile=PROFILE, lossless=True)
    body = data[8:] + b"C2PA" + struct.pack("<I", len(CANARY) + 1) + CANARY + b"\0"
    return b"RIFF" + struct.pack("<I", len(body)) + body


PERSONAL = {"PNG": personal_png, "JPEG": personal_jpeg, "WEBP": personal_webp}


def pixels(data: bytes) -> np.ndarray:
    with Image.open(BytesIO(data)) as image:
        return np.asarray(image)


def shown(data: bytes) -> np.ndarray:
    with Image.open(BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(int)


@pytest.mark.parametrize("pillow", PERSONAL)
def test_nothing_personal_leaves_and_every_pixel_stays(pillow: str) -> None:
    data = PERSONAL[pillow](scene())
    assert CANARY in data
    result = clean(data)
    assert CANARY not in result.data
    assert CANARY[:7] not in result.data
    assert np.array_equal(pixels(result.data), pixels(data))
    with Image.open(BytesIO(result.data)) as image:
        assert has_colours_and_no_names(image.info["icc_profile"])
        assert not image.getexif()
        assert not {"comment", "xmp", "Author", "XML:com.adobe.xmp", "photoshop"} & set(image.info)
    assert result.mime_type == f"image/{pillow.lower()}"
    assert (result.width, result.height, result.notes) == (120, 90, ())
    assert result.sha256 == hashlib.sha256(result.data).hexdigest()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("pillow", PERSONAL)
def test_a_picture_that_lies_on_its_side_is_sent_standing_upright(pillow: str, orientation: int) -> None:
    data = PERSONAL[pillow](scene(), orientation)
    result = clean(data)
    assert pixels(result.data).shape[:2] == (result.height, result.width)
    assert shown(data).shape[:2] == (result.height, result.width)
    assert np.abs(shown(result.data) - shown(data)).mean() < (4 if orientation != 1 and pillow != "PNG" else 0.001)
    assert result.mime_type == f"image/{pillow.lower()}"
    assert result.notes == (() if orientation == 1 else ("turned upright",))
    with Image.open(BytesIO(result.data)) as image:
        assert not image.getexif()
        assert has_colours_and_no_names(image.info["icc_profile"])
    assert CANARY not in result.data


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("pillow", ["TIFF", "AVIF", "HEIF"])
def test_a_converted_picture_stands_upright(pillow: str, orientation: int) -> None:
    options: dict[str, object] = {} if pillow == "TIFF" else {"quality": 95}
    result = clean(saved(scene(), pillow, exif=personal_exif(orientation).tobytes(), **options))
    wanted = np.asarray(ImageOps.exif_transpose(_oriented(scene(), orientation))).astype(int)
    assert shown(result.data).shape == wanted.shape
    assert np.abs(shown(result.data) - wanted).mean() < 4
    assert CANARY not in result.data
    with Image.open(BytesIO(result.data)) as image:
        assert not image.getexif()


def _oriented(image: Image.Image, orientation: int) -> Image.Image:
    image.getexif()[0x0112] = orientation
    return image


@pytest.mark.parametrize(
    ("image", "pillow", "options"),
    [
        (scene().quantize(16), "PNG", {"transparency": 3}),
        (scene().convert("1"), "PNG", {}),
        (scene().convert("LA"), "PNG", {}),
        (scene(mode="RGBA"), "PNG", {}),
        (scene().convert("L"), "JPEG", {}),
        (scene(), "JPEG", {"keep_rgb": True}),
        (scene(), "JPEG", {"subsampling": "4:2:0", "restart_marker_blocks": 2}),
        (scene(mode="RGBA"), "WEBP", {}),
        (scene(1, 1), "PNG", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_decoding_needs_stays(image: Image.Image, pillow: str, options: dict[str, object]) -> None:
    data = saved(image, pillow, **options)
    result = clean(data)
    assert np.array_equal(shown(result.data), shown(data))
    assert np.array_equal(pixels(result.data), pixels(data))


def test_a_jpeg_whose_colours_only_the_adobe_marker_tells_keeps_them() -> None:
    plain = saved(scene(), "JPEG")
    adobe = b"Adobe\0\x64\0\0\0\0\0"  # the last byte: no colour transform, so the components are red, green and blue
    data = plain[:2] + b"\xff\xee\0\x0e" + adobe + plain[20:]
    assert not np.array_equal(shown(data), shown(plain))
    assert np.array_equal(shown(clean(data).data), shown(data))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made", "mime_type", "note"),
    [
        (lambda: saved(scene().quantize(32), "GIF"), "image/png", "converted from GIF to PNG"),
        (lambda: saved(scene(), "BMP"), "image/png", "converted from BMP to PNG"),
        (lambda: saved(scene(1300, 900), "BMP"), "image/png", "converted from BMP to PNG"),
        (lambda: saved(scene(), "TIFF", compression="tiff_lzw"), "image/png", "converted from TIFF to PNG"),
        (lambda: saved(scene(1300, 900), "TIFF"), "image/jpeg", "converted from TIFF to JPEG"),
        (lambda: saved(scene(1300, 900), "AVIF"), "image/jpeg", "converted from AVIF to JPEG"),
        (lambda: saved(scene(1300, 900), "HEIF"), "image/jpeg", "converted from HEIC to JPEG"),
        (lambda: saved(scene(1300, 900, "RGBA"), "TIFF"), "image/png", "converted from TIFF to PNG"),
        (lambda: saved(scene().convert("CMYK"), "JPEG"), "image/jpeg", "converted from CMYK to RGB colours"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_gemini_does_not_read_is_converted_with_a_note(
    made: Callable[[], bytes], mime_type: str, note: str
) -> None:
    data = made()
    result = clean(data)
    assert (result.mime_type, result.notes) == (mime_type, (note,))
    assert result.data.startswith(MAGIC[mime_type])
    assert np.abs(shown(result.data) - shown(data)).mean() < 2


@pytest.mark.parametrize("pillow", ["GIF", "PNG", "WEBP", "AVIF"])
def test_of_an_animation_only_the_first_frame_leaves(pillow: str) -> None:
    red, blue = Image.new("RGB", (64, 64), (250, 0, 0)), Image.new("RGB", (64, 64), (0, 0, 250))
    result = clean(saved(red, pillow, save_all=True, append_images=[blue, red], duration=50))
    assert "only the first of its 3 frames is used" in result.notes
    with Image.open(BytesIO(result.data)) as image:
        assert getattr(image, "n_frames", 1) == 1
        assert image.convert("RGB").getpixel((32, 32))[0] > 240


def test_sixteen_bits_keep_their_upper_byte_and_their_transparent_colour() -> None:
    samples = (np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16)
    data = saved(Image.fromarray(samples), "PNG")
    result = clean(data)
    assert result.notes == ("converted from 16 to 8 bits a channel",)
    assert np.array_equal(pixels(result.data), samples >> 8)
    keyed = data[:33] + chunk(b"tRNS", struct.pack(">H", int(samples[3, 5]))) + data[33:]
    alpha = pixels(clean(keyed).data)[..., -1]
    assert [tuple(place) for place in np.argwhere(alpha == 0)] == [(3, 5)]


def test_samples_without_an_agreed_white_are_refused() -> None:
    with pytest.raises(NotAnImage, match="32-bit or signed samples"):
        clean(saved(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF"))


def test_a_profile_goes_along_when_it_fits_the_converted_pixels() -> None:
    with Image.open(BytesIO(clean(saved(scene(), "TIFF", icc_profile=PROFILE)).data)) as image:
        assert has_colours_and_no_names(image.info["icc_profile"])
    with Image.open(BytesIO(clean(saved(scene().convert("L"), "TIFF", icc_profile=PROFILE)).data)) as image:
        assert "icc_profile" not in image.info


@pytest.mark.parametrize("kind", ["in the stream", "behind the stream", "in a chunk of its own"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "1", "interlaced"])
def test_what_hides_behind_the_last_row_of_a_png_stays_at_home(kind: str, mode: str) -> None:
    picture = scene(mode="RGBA") if mode == "RGBA" else scene() if mode == "interlaced" else scene().convert(mode)
    data = interlaced(np.asarray(picture)) if mode == "interlaced" else saved(picture, "PNG")
    chunks = [data[part.content : part.stop - 4] for part in png_chunks(data) if part.name == b"IDAT"]
    packed = b"".join(chunks)
    if kind == "in the stream":
        hiding = chunk(b"IDAT", zlib.compress(zlib.decompress(packed) + CANARY, 0))
    elif kind == "behind the stream":
        hiding = chunk(b"IDAT", packed + CANARY)
    else:
        hiding = chunk(b"IDAT", packed) + chunk(b"IDAT", CANARY)
    first, *_, last = (part for part in png_chunks(data) if part.name in (b"IDAT", b"IEND"))
    spoilt = data[: first.start] + hiding + data[last.start :]
    assert CANARY in spoilt
    result = clean(spoilt)
    assert CANARY not in result.data
    assert zlib.decompress(_image_data(result.data)) == zlib.decompress(packed)
    assert np.array_equal(pixels(result.data), pixels(data))
    assert _image_data(clean(data).data) == packed  # what hides nothing is not packed anew


def _image_data(data: bytes) -> bytes:
    return b"".join(data[part.content : part.stop - 4] for part in png_chunks(data) if part.name == b"IDAT")


def interlaced(picture: np.ndarray) -> bytes:
    """An RGB picture as a PNG in the seven passes of Adam7."""
    rows = b""
    for left, top, across, down in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        for row in picture[top::down, left::across]:
            rows += b"\0" + row.tobytes()
    header = struct.pack(">IIBBBBB", picture.shape[1], picture.shape[0], 8, 2, 0, 0, 1)
    return (
        MAGIC["image/png"]
        + b"\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_a_later_page_of_a_tiff_is_never_read() -> None:
    buffer = BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(buffer) as writer:
        for colour in ("red", "blue"):
            Image.new("RGB", (20, 20), colour).save(writer, "TIFF")
            writer.newFrame()
    assert (shown(clean(buffer.getvalue()).data) == (255, 0, 0)).all()


@pytest.mark.parametrize("pillow", PERSONAL)
@pytest.mark.parametrize("tail", [b"PK\x03\x04" + CANARY, b"\0", b"\xff\xd9" + CANARY * 1000])
def test_what_hides_behind_the_end_of_a_picture_stays_at_home(pillow: str, tail: bytes) -> None:
    data = saved(scene(), pillow)
    result = clean(data + tail)
    assert CANARY not in result.data
    assert result.notes == (f"{len(tail)} bytes behind the end of the picture were left out",)
    assert result.sha256 == clean(data).sha256


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("pillow", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF"])
def test_a_file_cut_off_anywhere_is_refused(pillow: str) -> None:
    data = saved(scene(), pillow)
    clean(data)
    last = 12 if pillow == "JPEG" else 1  # of its last two bytes a JPEG may lack one or both
    for length in [*(len(data) * percent // 100 for percent in range(5, 100, 5)), len(data) - last]:
        with pytest.raises(NotAnImage):
            clean(data[:length])


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}], ids=str)
@pytest.mark.parametrize("lost", [1, 2])
def test_a_jpeg_that_lacks_only_its_end_mark_is_taken_and_leaves_with_one(
    mode: str, options: dict[str, int], lost: int
) -> None:
    stream = BytesIO()
    scene(160, 120).convert(mode).save(stream, "JPEG", quality=90, **options)
    whole = clean(stream.getvalue())
    result = clean(stream.getvalue()[:-lost])
    assert result.data == whole.data
    assert result.notes == ("the file ends without its end mark; the picture in it is whole",)
    assert np.array_equal(np.asarray(decoded(stream.getvalue()[:-lost])), np.asarray(decoded(stream.getvalue())))


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_lacks_a_part_of_its_picture_is_refused(progressive: bool) -> None:
    stream = BytesIO()
    scene(160, 120).save(stream, "JPEG", quality=90, progressive=progressive)
    data = stream.getvalue()
    scans = [part.stop for part in jpeg_segments(data) if part.name == b"\xda"]
    for length in [*scans[:-1], *range(scans[-1] - 60, scans[-1] - 4, 5)]:
        for end in (b"", b"\xff"):
            with pytest.raises(NotAnImage, match="cut off"):
                clean(data[:length] + end)


def test_a_webp_cut_off_within_its_metadata_is_refused() -> None:
    with pytest.raises(NotAnImage, match="cut off"):
        clean(personal_webp(scene())[:-3])


@pytest.mark.parametrize("secret", [b"GEMINI_API_KEY=" + CANARY, b"%PDF-" + CANARY, b"<svg>" + CANARY, b""])
def test_what_is_no_picture_does_not_leave(secret: bytes) -> None:
    with pytest.raises(NotAnImage):
        clean(secret)


def test_a_secret_with_the_beginning_of_a_picture_does_not_leave() -> None:
    for beginning in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", saved(scene(), "PNG")[:60]):
        with pytest.raises(NotAnImage):
            clean(beginning + CANARY * 50)


@pytest.mark.parametrize("pillow", PERSONAL)
def test_a_large_picture_is_shrunk_in_its_own_format(pillow: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    data = PERSONAL[pillow](Image.fromarray(noise), 6)
    result = clean(data, max_bytes=40_000)
    assert len(result.data) <= 40_000
    assert result.mime_type == f"image/{pillow.lower()}"
    assert result.notes == ("turned upright", f"shrunk from 300x400 to {result.width}x{result.height} pixels")
    assert shown(result.data).shape[:2] == (result.height, result.width)
    assert result.width * 4 == pytest.approx(result.height * 3, abs=4)
    assert CANARY not in result.data
    with Image.open(BytesIO(result.data)) as image:
        assert has_colours_and_no_names(image.info["icc_profile"])


def test_a_longer_side_than_wanted_is_shrunk_to_it_exactly() -> None:
    result = clean(saved(scene(400, 200), "JPEG"), max_side=100)
    assert (result.width, result.height) == (100, 50)
    assert clean(saved(scene(100, 50), "JPEG"), max_side=100).notes == ()


def test_a_bound_that_nothing_keeps_is_said_so() -> None:
    with pytest.raises(NotAnImage, match="small enough"):
        clean(saved(scene(), "PNG"), max_bytes=20)


def test_a_refused_picture_gives_its_place_back() -> None:
    damaged = bytearray(saved(scene(), "PNG"))
    damaged[70] ^= 1
    for _ in range(3):
        with pytest.raises(NotAnImage):
            clean(bytes(damaged))
    assert DECODES.acquire(blocking=False)
    assert DECODES.acquire(blocking=False)
    assert not DECODES.acquire(blocking=False)
    DECODES.release(2)


@cache
def _small(kind: str) -> bytes:
    """A small picture of this kind of file; where PERSONAL has the kind, with a camera's notes."""
    return PERSONAL[kind](scene(24, 18), 6) if kind in PERSONAL else saved(scene(24, 18), kind)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@given(
    kind=st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", *PERSONAL]),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=4),
)
@settings(derandomize=True, deadline=None, max_examples=400)
def test_flipped_bits_are_refused_or_leave_a_picture_that_decodes(kind: str, flips: list[tuple[float, int]]) -> None:
    damaged = bytearray(_small(kind))
    for place, bit in flips:
        damaged[int(place * len(damaged))] ^= 1 << bit
    try:
        result = clean(bytes(damaged))
    except NotAnImage as error:
        assert str(error)
    else:
        assert shown(result.data).shape[:2] == (result.height, result.width)
        assert clean(result.data).data == result.data
