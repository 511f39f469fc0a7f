"""A painted chequerboard, along the edges of a plate or in the alpha that was solved from it, and what only looks so."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from nanobanana_mcp.pixels.edits.chequer import looks_like_checkerboard
from nanobanana_mcp.pixels.edits.cutout import CHEQUERBOARD, from_plates
from tests.support.lanes import cases
from tests.support.scenes import as_bytes, cutout, noise, on_background, photo


def _plate(picture: Image.Image) -> bytes:
    return as_bytes(picture, "JPEG", quality=88)


@pytest.mark.slow
@cases(
    ("cell", "greys", "margin"),
    [
        (128, (204, 255), 0),
        (4, (255, 204), 0),
        (24, (255, 204), 0.2),
        (24, (204, 255), 0.1),
        (64, (255, 240), 0.08),
        (96, (255, 204), 0),
        (200, (255, 204), 0),
    ],
)
def test_a_board_of_any_cell_behind_an_object_is_not_delivered_as_alpha(
    cell: int, greys: tuple[int, int], margin: float
) -> None:
    side = 1024
    alpha, colour = cutout(side, side, seed=3)
    rows, columns = np.mgrid[0:side, 0:side]
    board = np.where((columns + 7) // cell % 2 == (rows + 11) // cell % 2, *greys).astype(np.float32)
    plain = round(margin * side)
    framed = np.full_like(board, 255)
    framed[plain : side - plain, plain : side - plain] = board[plain : side - plain, plain : side - plain]
    pixels = colour * alpha[..., None] + (framed * (1 - alpha))[..., None]
    white = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    cut = from_plates(_plate(white), _plate(on_background(alpha, colour, (0, 0, 0))))
    assert cut.data is None and cut.problem in (CHEQUERBOARD, "the model did not put the subject on plain white")


def _veils() -> dict[str, np.ndarray]:
    """Honest alpha that comes nearest to a chequerboard, 640 x 640."""
    rows, columns = np.mgrid[0:640, 0:640]
    away = np.hypot(rows - 320, columns - 320)
    inside = away < 260
    cell = 32
    across, down = columns // cell % 2, rows // cell % 2
    fence = (columns % cell < 5) | (rows % cell < 5)
    return {
        "chequers with holes": inside * (across ^ down),
        "a fence": inside * fence,
        "a tulle net": inside * fence * 0.5,
        "a window of panes": inside * np.where(fence, 1, 0.35),
        "panes that hang apart": inside * np.where(fence, 0, 0.35),
        "gingham": inside * (0.3 * across + 0.3 * down),
        "stripes": inside * across * 0.5,
        "diamonds": inside * ((rows + columns) // cell % 2 ^ (rows - columns) // cell % 2) * 0.5,
        "dots": inside * (np.hypot(columns % cell - 16, rows % cell - 16) < 11) * 0.5,
        "smoke": np.clip(noise(640, 640, seed=4) * 1.5 - 0.4, 0, 1) * inside,
        "one pane": inside * 0.3,
        "a shadow": np.maximum(0.5 * np.exp(-(((rows - 500) / 60) ** 2) - ((columns - 320) / 150) ** 2), away < 150),
    }


@pytest.mark.slow
@cases("name", list(_veils()))
def test_nets_panes_cloth_and_shadows_keep_their_alpha(name: str) -> None:
    alpha = _veils()[name].astype(np.float32)
    colour = np.broadcast_to(np.array([70, 70, 70], np.float32), (640, 640, 3))
    cut = from_plates(*(_plate(on_background(alpha, colour, background)) for background in ((255,) * 3, (0,) * 3)))
    assert cut.data is not None and cut.problem is None
    with Image.open(BytesIO(cut.data)) as image:
        assert np.abs(np.asarray(image, np.float32)[..., 3] / 255 - alpha).mean() < 0.03


@pytest.mark.slow
def test_an_object_with_opaque_chequers_is_cut_out() -> None:
    rows, columns = np.mgrid[0:640, 0:640]
    alpha = (np.hypot(rows - 320, columns - 320) < 240).astype(np.float32)
    squares = np.where((rows // 40 + columns // 40) % 2, 250, 200)
    colour = np.repeat(squares[..., None], 3, axis=2).astype(np.float32)
    cut = from_plates(*(_plate(on_background(alpha, colour, background)) for background in ((255,) * 3, (0,) * 3)))
    assert cut.data is not None


def _board(cell: int, greys: tuple[int, int], *, blur: float = 0.0, size: tuple[int, int] = (900, 700)) -> Image.Image:
    rows, columns = np.mgrid[0 : size[1], 0 : size[0]]
    values = np.where(((columns + 3) // cell + (rows + 5) // cell) % 2, *greys).astype(np.uint8)
    image = Image.fromarray(values).convert("RGB").filter(ImageFilter.GaussianBlur(blur))
    return Image.open(BytesIO(as_bytes(image, "JPEG", quality=80)))


@cases("cell", [6, 9, 16, 23, 40, 64])
@cases(("greys", "blur"), [((255, 204), 0.0), ((153, 102), 1.5)])
def test_a_painted_chequerboard_behind_an_object_is_recognised(cell: int, greys: tuple[int, int], blur: float) -> None:
    image = _board(cell, greys, blur=blur)
    disc = Image.new("L", (500, 460))
    ImageDraw.Draw(disc).ellipse((0, 0, 499, 459), fill=255)
    image.paste(photo(500, 460, seed=cell), (200, 120), disc)
    assert looks_like_checkerboard(image)


def test_a_chequerboard_behind_a_small_icon_is_recognised() -> None:
    assert looks_like_checkerboard(_board(8, (255, 204), size=(160, 160)))


@pytest.mark.slow
@cases("seed", range(4))
def test_photographs_are_not_taken_for_chequerboards(seed: int) -> None:
    assert not looks_like_checkerboard(photo(640, 520, seed=seed))
    assert not looks_like_checkerboard(photo(640, 520, seed=seed).convert("L"))


@pytest.mark.slow
def test_other_patterns_are_not_taken_for_chequerboards() -> None:
    rows, columns = np.mgrid[0:500, 0:500]
    stripes, diagonals = (columns // 20) % 2, ((rows + columns) // 15) % 2
    grid, noise = (rows % 20 < 3) | (columns % 20 < 3), np.random.default_rng(1).integers(0, 2, (500, 500))
    for pattern in (stripes, diagonals, grid, noise):
        assert not looks_like_checkerboard(Image.fromarray(np.where(pattern, 250, 150).astype(np.uint8)))
    red = Image.merge("RGB", [_board(20, (250, 120)).getchannel("R"), *[Image.new("L", (900, 700), 20)] * 2])
    assert not looks_like_checkerboard(red)
    assert not looks_like_checkerboard(Image.new("RGB", (500, 500), "white"))
