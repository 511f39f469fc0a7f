"""A number that tells how a picture looks, the same for its copies in other sizes and formats or nearly so."""

from io import BytesIO

from PIL import Image

ALIKE = 6
"""The most of 64 bits that may differ: re-encoded and scaled copies stay below, other pictures are at 20 and more."""


def look_of(data: bytes) -> int:
    """The look of a thumbnail of ours: for 8 x 8 places, whether it gets brighter to the right. Raises OSError, ValueError."""
    with Image.open(BytesIO(data), formats=["JPEG", "WEBP", "PNG"]) as image:
        image.draft("L", (64, 64))
        if image.mode in ("RGBA", "LA"):
            ground = Image.new("RGB", image.size, (128, 128, 128))
            ground.paste(image, mask=image.getchannel("A"))
            small = ground.convert("L")
        else:
            small = image.convert("L")
    rows = small.resize((9, 8), Image.Resampling.BOX).tobytes()
    bits = 0
    for row in range(8):
        for column in range(8):
            bits = bits << 1 | (rows[row * 9 + column] < rows[row * 9 + column + 1])
    return bits - (1 << 64) if bits >= 1 << 63 else bits  # as a whole number of SQLite, which has a sign


def distance(one: int, other: int) -> int:
    """Counts the places of 64 in which two looks differ."""
    return ((one ^ other) & ((1 << 64) - 1)).bit_count()
