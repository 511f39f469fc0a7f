"""Renders pictures with the structure of photographs, and answers as a model would give them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw


def noise(width: int, height: int, *, seed: int, octaves: int = 6, fall: float = 0.6) -> NDArray[np.float32]:
    """Multi-octave noise, height x width, 0 to 1: the spectrum of a natural picture falls about as 1/f."""
    random = np.random.default_rng(seed)
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        cells = 3 * 2**octave
        grid = random.random((max(2, cells * height // max(width, 1)), cells), np.float32)
        layer = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(layer) * np.float32(fall**octave)
    low, high = float(total.min()), float(total.max())
    return (total - low) / (high - low)


def photo(width: int = 900, height: int = 700, *, seed: int = 1) -> Image.Image:
    """A landscape of sorts, RGB: sky, textured ground, lit shapes, hair lines, lettering and sensor noise."""
    return _photo(width, height, seed).copy()


@lru_cache(64)
def _photo(width: int, height: int, seed: int) -> Image.Image:
    random = np.random.default_rng(seed)
    hue = random.uniform(60, 220, 3)
    texture = noise(width, height, seed=seed)
    slope = np.linspace(1.15, 0.55, height, dtype=np.float32)[:, None]
    shade = np.stack([(40 + texture * level) * slope for level in hue], axis=-1)
    image = Image.fromarray(np.clip(shade, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(14):
        x, y = random.uniform(0, width), random.uniform(0, height)
        across, down = random.uniform(0.03, 0.16, 2) * min(width, height)
        colour = tuple(int(value) for value in random.uniform(10, 245, 3))
        if random.random() < 0.5:
            draw.ellipse((x - across, y - down, x + across, y + down), fill=colour)
        else:
            draw.polygon([(x, y - down), (x + across, y + down / 2), (x - across, y + down)], fill=colour)
    for _ in range(40):
        x, y = random.uniform(0, width), random.uniform(0, height)
        tip = (x + random.normal(0, width / 12), y + random.normal(0, height / 12))
        draw.line((x, y, *tip), fill=tuple(int(value) for value in random.uniform(0, 255, 3)), width=1)
    draw.text((width * 0.1, height * 0.8), "OPEN TODAY", fill=(250, 250, 240), font_size=max(10, height // 14))
    grain = random.normal(0, 2.5, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))


def redrawn(
    image: Image.Image,
    *,
    shift: tuple[float, float] = (0.0, 0.0),
    scale: float = 1.0,
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0),
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0),
    size: tuple[int, int] | None = None,
    quality: int = 85,
) -> Image.Image:
    """The picture as a model gives it back: moved by `shift` px, `scale` times as large, recoloured, as JPEG."""
    width, height = image.size
    middle = (width / 2, height / 2)
    terms = (1 / scale, 0.0, middle[0] - (middle[0] + shift[0]) / scale)
    rows = (0.0, 1 / scale, middle[1] - (middle[1] + shift[1]) / scale)
    margin = 64
    wide = Image.fromarray(np.pad(np.asarray(image), ((margin, margin), (margin, margin), (0, 0)), mode="reflect"))
    data = (terms[0], terms[1], terms[2] + margin, rows[0], rows[1], rows[2] + margin)
    moved = wide.transform((width, height), Image.Transform.AFFINE, data, Image.Resampling.BICUBIC)
    colours = np.asarray(moved, np.float32) * np.array(gain, np.float32) + np.array(offset, np.float32)
    answer = Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8))
    if size is not None:
        answer = answer.resize(size, Image.Resampling.LANCZOS)
    return Image.open(BytesIO(as_bytes(answer, "JPEG", quality=quality))).convert("RGB")


@dataclass(frozen=True)
class Bent:
    """An answer, and for a point of it (parts of the sides) the point of the picture that is shown there."""

    image: Image.Image
    shows: Callable[[NDArray[np.float64], NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.float64]]]


def bent_by(image: Image.Image, *, degrees: float, stretched: float, px: float, quality: int = 88) -> Bent:
    """The picture turned, made wider and bent in one slow wave of `px`, as a JPEG."""
    width, height = image.size
    turn = np.radians(degrees)

    def shows(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        across, down = (x - 0.5) * width / stretched, (y - 0.5) * height
        left, top = across * np.cos(turn) + down * np.sin(turn), down * np.cos(turn) - across * np.sin(turn)
        wave_x, wave_y = px * np.sin(4 * y + 2 * x), px * np.cos(4.5 * x)
        return (left + wave_x) / width + 0.5, (top + wave_y) / height + 0.5

    columns, rows = (np.linspace(0, side, 65).round().astype(int) for side in image.size)
    x, y = np.meshgrid(columns / width, rows / height)
    left, top = shows(x, y)
    margin = 60
    wide = Image.fromarray(np.pad(np.asarray(image), ((margin, margin), (margin, margin), (0, 0)), mode="reflect"))
    mesh = [
        (
            (int(columns[column]), int(rows[row]), int(columns[column + 1]), int(rows[row + 1])),
            tuple(
                float(value)
                for at in ((row, column), (row + 1, column), (row + 1, column + 1), (row, column + 1))
                for value in (left[at] * width + margin, top[at] * height + margin)
            ),
        )
        for row in range(64)
        for column in range(64)
    ]
    moved = wide.transform(image.size, Image.Transform.MESH, mesh, Image.Resampling.BICUBIC)
    return Bent(Image.open(BytesIO(as_bytes(moved, "JPEG", quality=quality))).convert("RGB"), shows)


def as_bytes(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The picture as a file of this kind."""
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def cutout(width: int = 640, height: int = 512, *, seed: int = 1) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """An object of body, hair, glass and shadow: its true alpha, height x width, 0 to 1, and its colour, times 3."""
    alpha, colour = _cutout(width, height, seed)
    return alpha.copy(), colour.copy()


@lru_cache(16)
def _cutout(width: int, height: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    wide = (width * 3, height * 3)

    def drawn(paint: Callable[[ImageDraw.ImageDraw], None]) -> NDArray[np.float32]:
        plane = Image.new("L", wide)
        paint(ImageDraw.Draw(plane))
        return np.asarray(plane.resize((width, height), Image.Resampling.BOX), np.float32) / np.float32(255)

    def hair(draw: ImageDraw.ImageDraw) -> None:
        for angle in random.uniform(0, 2 * np.pi, 260):
            bend, reach = random.normal(0, 0.25), random.uniform(0.24, 0.4)
            points = [
                (wide[0] * 0.42 + np.cos(angle + bend * part) * part * reach * wide[0],
                 wide[1] * 0.45 + np.sin(angle + bend * part) * part * reach * wide[0])
                for part in np.linspace(0.3, 1, 9)
            ]  # fmt: skip
            draw.line(points, fill=255, width=int(random.integers(2, 5)))

    body = drawn(lambda draw: draw.ellipse([wide[0] * 0.24, wide[1] * 0.22, wide[0] * 0.6, wide[1] * 0.72], fill=255))
    strands = drawn(hair)
    glass = 0.4 * drawn(
        lambda draw: draw.rectangle([wide[0] * 0.7, wide[1] * 0.2, wide[0] * 0.86, wide[1] * 0.6], fill=255)
    )
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    shadow = 0.5 * np.exp(-(((columns / width - 0.45) / 0.16) ** 2) - ((rows / height - 0.82) / 0.05) ** 2)
    texture = np.asarray(photo(width, height, seed=seed), np.float32)
    alpha = np.zeros((height, width), np.float32)
    lit = np.zeros((height, width, 3), np.float32)
    for cover, colour in (
        (shadow.astype(np.float32), np.zeros(3, np.float32)),
        (glass, np.array([150, 200, 220], np.float32)),
        (strands, np.array([110, 70, 40], np.float32)),
        (body, texture),
    ):
        lit = lit * (1 - cover[..., None]) + colour * cover[..., None]
        alpha = alpha * (1 - cover) + cover
    return alpha.astype(np.float32), (lit / np.maximum(alpha, 1e-6)[..., None]).astype(np.float32)


def on_background(
    alpha: NDArray[np.float32],
    colour: NDArray[np.float32],
    background: tuple[int, int, int],
    *,
    quality: int | None = None,
) -> Image.Image:
    """The object before a flat colour, as a plate; as a JPEG of this quality when one is given."""
    behind = np.array(background, np.float32) * (1 - alpha[..., None])
    plate = Image.fromarray(np.rint(np.clip(colour * alpha[..., None] + behind, 0, 255)).astype(np.uint8))
    return plate if quality is None else Image.open(BytesIO(as_bytes(plate, "JPEG", quality=quality))).convert("RGB")
