"""Draws a picture in a terminal, in the way that the terminal's own variables say it can.

kitty's protocol (PNG in base64, by 4096 characters), iTerm2's (OSC 1337), sixel (DEC's six rows of pixels a character), and
else two pixels a character, the upper half of a block over a background.
"""

import base64
import io
import os
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
from PIL import Image

Protocol = Literal["kitty", "iterm2", "sixel", "blocks"]

_SIXEL_TERMS = ("foot", "mlterm", "contour", "yaft", "xterm-sixel")
_COLUMNS, _PIXELS = 80, 512
"""The most columns that blocks take, and the most pixels a side of what a terminal scales itself."""


def protocol_of(environment: Mapping[str, str]) -> Protocol | None:
    """Find the way of drawing that the terminal says it knows; None where it has no colours. Inside tmux and screen, which swallow
    what they do not know, it is blocks.
    """
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if term in ("", "dumb") or "NO_COLOR" in environment:
        return None
    if "TMUX" in environment or term.startswith(("tmux", "screen")):
        return "blocks"
    if "KITTY_WINDOW_ID" in environment or term in ("xterm-kitty", "xterm-ghostty") or program == "ghostty":
        return "kitty"
    if program in ("iTerm.app", "WezTerm", "mintty") or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm2"
    if term.startswith(_SIXEL_TERMS):
        return "sixel"
    return "blocks"


def drawn(data: bytes, protocol: Protocol, *, columns: int) -> str:
    """Encode the picture in `data` for the terminal, with the line's end."""
    with Image.open(io.BytesIO(data)) as opened:
        picture = opened.convert("RGBA")
    picture.thumbnail((_PIXELS, _PIXELS))
    if protocol == "blocks":
        return _blocks(picture, min(columns, _COLUMNS))
    if protocol == "sixel":
        return _sixel(picture)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    payload = base64.b64encode(buffer.getvalue()).decode()
    if protocol == "iterm2":
        return f"\x1b]1337;File=inline=1;size={len(buffer.getvalue())};preserveAspectRatio=1:{payload}\a\n"
    parts = [payload[at : at + 4096] for at in range(0, len(payload), 4096)]
    first = [f"\x1b_Ga=T,f=100,m={int(len(parts) > 1)};{parts[0]}\x1b\\"]
    rest = [f"\x1b_Gm={int(at < len(parts) - 1)};{part}\x1b\\" for at, part in enumerate(parts) if at]
    return "".join([*first, *rest, "\n"])


def _blocks(picture: Image.Image, columns: int) -> str:
    width = max(1, min(columns, picture.width))
    height = max(2, round(picture.height * width / picture.width))
    small = picture.resize((width, height + height % 2))
    flat = np.asarray(Image.alpha_composite(Image.new("RGBA", small.size, "black"), small))[..., :3]
    deep = os.environ.get("COLORTERM") in ("truecolor", "24bit")
    lines = []
    for row in range(0, flat.shape[0], 2):
        cells = (
            f"\x1b[38;{_colour(top, deep)};48;{_colour(bottom, deep)}m\u2580"
            for top, bottom in zip(flat[row].tolist(), flat[row + 1].tolist(), strict=True)
        )
        lines.append(f"{''.join(cells)}\x1b[0m\n")
    return "".join(lines)


def _colour(pixel: list[int], deep: bool) -> str:
    """The colour as an escape sequence ends: in 24 bits, or as the nearest of the 6 x 6 x 6 colours that every terminal
    with 256 has.
    """
    if deep:
        return "2;{};{};{}".format(*pixel)
    red, green, blue = (round(value / 255 * 5) for value in pixel)
    return f"5;{16 + 36 * red + 6 * green + blue}"


def _sixel(picture: Image.Image) -> str:
    flat = Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture).convert("RGB").quantize(64)
    table = np.asarray(flat.getpalette("RGB"), np.uint16).reshape(-1, 3) * 100 // 255
    pixels = np.asarray(flat)
    colours = "".join(f"#{number};2;{r};{g};{b}" for number, (r, g, b) in enumerate(table.tolist()))
    bands = "-".join(_bands(pixels))
    return f'\x1bPq"1;1;{picture.width};{picture.height}{colours}{bands}\x1b\\\n'


def _bands(pixels: np.ndarray) -> Iterator[str]:
    """Six rows at a time; in each, one pass over the line for every colour that is in it."""
    for top in range(0, pixels.shape[0], 6):
        band = pixels[top : top + 6]
        weights = (1 << np.arange(band.shape[0], dtype=np.uint8))[:, None]
        passes = []
        for colour in np.unique(band).tolist():
            bits = ((band == colour) * weights).sum(axis=0)
            passes.append(f"#{colour}{''.join(chr(63 + bit) for bit in bits.tolist())}")
        yield "$".join(passes)
