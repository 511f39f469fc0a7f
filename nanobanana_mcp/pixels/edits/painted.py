"""Checks a mask that was painted over a picture, and makes it what edit_region reads without a doubt."""

from io import BytesIO

from nanobanana_mcp.domain.errors import RequestError
from nanobanana_mcp.pixels.files.clean import DECODES
from nanobanana_mcp.pixels.files.decoding import Size, decoded
from nanobanana_mcp.pixels.files.header import read_header

_PAINTED = 128
"""The least brightness, of 255, that counts as painted."""


def painted_mask(data: bytes, size: Size) -> bytes:
    """A PNG of one grey channel: white where to edit. Raises RequestError for another size than the picture's, for one that
    is no PNG or partly transparent, and where nothing is painted; NotAnImage for bytes that are no picture.
    """
    header = read_header(data)
    if header.format != "png":
        raise RequestError("The mask is no PNG. Save it as one, white where to edit and black elsewhere.")
    if (header.width, header.height) != size:
        raise RequestError(
            f"The mask has {header.width}x{header.height} pixels and the picture {size[0]}x{size[1]}; it has to be as large."
        )
    with DECODES:
        image = decoded(data)
        if image.mode == "RGBA" and image.getchannel("A").getextrema()[0] < 255:  # type: ignore[operator]  # L has one pair
            raise RequestError("The mask is partly transparent. Save it white where to edit and black elsewhere.")
        plane = image.convert("RGB").convert("L")
        if plane.getextrema()[1] < _PAINTED:  # type: ignore[operator]  # L has one pair
            raise RequestError("Nothing is painted on the mask, so there is nothing to edit.")
        out = BytesIO()
        plane.save(out, "PNG", compress_level=6)
    return out.getvalue()
