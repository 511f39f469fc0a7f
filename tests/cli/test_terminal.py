"""Pictures in terminals: which way is chosen, and that what is written is the picture."""

import base64
import io
import re

import pytest
from PIL import Image

from nanobanana_mcp.cli.terminal import Protocol, drawn, protocol_of


@pytest.mark.parametrize(
    ("variables", "chosen"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "xterm-256color"}, "blocks"),
        ({"TERM": "tmux-256color", "TERM_PROGRAM": "tmux", "KITTY_WINDOW_ID": "1"}, "blocks"),
        ({"TERM": "xterm-kitty", "NO_COLOR": "1"}, None),
        ({"TERM": "dumb"}, None),
        ({}, None),
    ],
)
def test_the_terminal_says_what_it_can_draw(variables: dict[str, str], chosen: Protocol | None) -> None:
    assert protocol_of(variables) == chosen


def two_halves() -> Image.Image:
    """Red above, blue below."""
    picture = Image.new("RGB", (60, 48), "red")
    picture.paste("blue", (0, 24, 60, 48))
    return picture


def written(protocol: Protocol, columns: int = 20) -> str:
    buffer = io.BytesIO()
    two_halves().save(buffer, "PNG")
    return drawn(buffer.getvalue(), protocol, columns=columns)


def test_kitty_and_iterm2_get_the_picture_itself() -> None:
    kitty = "".join(re.findall(r"\x1b_G[^;]*;([^\x1b]*)\x1b\\", written("kitty")))
    iterm2 = re.findall(r"\x1b\]1337;File=[^:]*:([^\a]*)\a", written("iterm2"))[0]
    for payload in (kitty, iterm2):
        with Image.open(io.BytesIO(base64.b64decode(payload))) as opened:
            assert opened.convert("RGB").tobytes() == two_halves().tobytes()


def test_sixels_draw_every_row_in_its_colour() -> None:
    found = re.fullmatch(r'\x1bPq"1;1;60;48((?:#\d+;2;\d+;\d+;\d+)+)(.*)\x1b\\\n', written("sixel"))
    assert found is not None
    colours = dict(re.findall(r"#(\d+);2;(\d+;\d+;\d+)", found[1]))
    bands = found[2].split("-")
    assert len(bands) == 8
    for number, band in enumerate(bands):
        ((colour, dots),) = re.findall(r"#(\d+)([^#$]*)", band)
        assert dots == "~" * 60
        assert colours[colour] == ("100;0;0" if number < 4 else "0;0;100")


def test_blocks_are_as_wide_as_the_terminal_and_two_pixels_high(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLORTERM", "truecolor")
    lines = written("blocks", columns=20).splitlines()
    assert [line.count("\u2580") for line in lines] == [20] * 8
    assert lines[0].startswith("\x1b[38;2;255;0;0;48;2;255;0;0m")
    assert lines[-1].startswith("\x1b[38;2;0;0;255;48;2;0;0;255m")
    monkeypatch.delenv("COLORTERM")
    assert written("blocks").startswith("\x1b[38;5;196;48;5;196m")
