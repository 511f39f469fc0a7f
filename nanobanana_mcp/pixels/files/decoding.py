"""Turns a file's bytes into the pixels that every edit is exact about.

The decoded source is 8 bits a channel and upright: RGBA where a pixel is not opaque, else RGB. It is what `clean`
decodes (16-bit samples keep their upper byte, CMYK goes through its profile to sRGB), with grey spread over three
channels, through its profile where it has one. RGB keeps its numbers and its ICC profile, or one made of what the file
says of its colours, in `image.info["icc_profile"]`. "Bit-identical to the source" always means: to these numbers.
"""

from io import BytesIO

from PIL import Image, ImageCms

from nanobanana_mcp.pixels.files.clean import DECODES, decode, eight_bit, to_srgb, upright, with_its_end
from nanobanana_mcp.pixels.files.header import Header, check_bounds, memory_for, read_header

Box = tuple[int, int, int, int]  # left, top, right, bottom; the last two lie just outside, as in Pillow
Size = tuple[int, int]  # width, height


def decoded(data: bytes, header: Header | None = None) -> Image.Image:
    """The decoded source of a file; its header is read unless it is given. Hold a slot of `clean.DECODES` meanwhile.

    Raises NotAnImage for bytes that are no whole picture, or one beyond what is made here: a stranger's file was held
    to its bounds where it came in. Raises NotEnoughMemory.
    """
    header = header or read_header(data)
    check_bounds(header, data, made=True)
    with memory_for(header):
        image = upright(eight_bit(decode(with_its_end(data, header), header), header), header)
        return to_srgb(image).convert("RGB") if image.mode == "L" else image


def is_flat(data: bytes) -> bool:
    """Tells whether a picture has one colour all over, give or take the 3 levels of 255 that JPEG changes."""
    with DECODES:
        image = decoded(data)
        bounds = image.getextrema()
    return all(highest - lowest <= 3 for lowest, highest in bounds)  # type: ignore[misc]  # RGB and RGBA have pairs


def from_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An sRGB picture in the numbers of `profile`, to be set into a source that has it; None leaves it as it is."""
    if profile is None:
        return image
    try:
        target = ImageCms.ImageCmsProfile(BytesIO(profile))
        converted = ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), target, outputMode=image.mode)
    except (ImageCms.PyCMSError, OSError):  # a damaged profile: viewers read such numbers as sRGB
        return image
    assert converted is not None  # None comes only with inPlace
    converted.info = {"icc_profile": profile}
    return converted
