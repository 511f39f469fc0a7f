"""Redraws a picture as an image model does, at four levels: moved, turned, bent, recoloured, smoothed, with new grain.

Where each pixel went is known exactly, so that what an alignment makes of it can be measured in pixels.
"""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Plane = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Level:
    """The amounts of a drift: parts of a side, degrees, px at 1024 px, parts of 1, and 8-bit levels of grain."""

    shift: float
    scale: float
    degrees: float
    aspect: float
    bend: float
    gain: float
    gamma: float
    saturation: float
    light: float
    smooth: float
    grain: float
    quality: int


LEVELS = {
    "L1": Level(shift=0.003, scale=0.003, degrees=0, aspect=0, bend=0.3, gain=0.02, gamma=0.02, saturation=0.03,
                light=0.01, smooth=0.4, grain=1.0, quality=92),
    "L2": Level(shift=0.01, scale=0.01, degrees=0, aspect=0.003, bend=1, gain=0.04, gamma=0.05, saturation=0.08,
                light=0.03, smooth=0.6, grain=1.5, quality=90),
    "L3": Level(shift=0.02, scale=0.02, degrees=0.3, aspect=0.006, bend=2.5, gain=0.07, gamma=0.1, saturation=0.15,
                light=0.06, smooth=0.8, grain=2.5, quality=88),
    "L4": Level(shift=0.03, scale=0.03, degrees=0.5, aspect=0.01, bend=4, gain=0.1, gamma=0.15, saturation=0.22,
                light=0.09, smooth=1.0, grain=3.0, quality=85),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Redrawn:
    """An answer, and for a point of it (parts of the sides) the point of the picture that is shown there."""

    image: Image.Image
    matrix: Plane
    bends: Plane  # four waves: their sizes in x and y, and their phases
    reach: float

    def shows(self, x: Plane, y: Plane) -> tuple[Plane, Plane]:
        return _shows(self.matrix, self.bends, self.reach, x, y)


def redrawn(
    picture: Image.Image, level: Level, *, seed: int, size: tuple[int, int], zoom: float = 1.0,
    moved: tuple[float, float] = (0.0, 0.0), stretched: tuple[float, float] = (1.0, 1.0),
) -> Redrawn:  # fmt: skip
    """The picture in `size`. `zoom`, `moved` and `stretched` are further drift, as parts of the sides."""
    random = np.random.default_rng(seed)
    sign = random.choice([-1, 1], 6)
    width, height = picture.size
    grown = 1 + sign[0] * level.scale
    turn = np.radians(sign[1] * level.degrees)
    ratio = width / height
    scale_x = grown * zoom * stretched[0] * (1 + sign[2] * level.aspect / 2)
    scale_y = grown * zoom * stretched[1] * (1 - sign[2] * level.aspect / 2)
    matrix = np.array(
        [
            [np.cos(turn) / scale_x, np.sin(turn) / scale_x / ratio, sign[3] * level.shift + moved[0]],
            [-np.sin(turn) / scale_y * ratio, np.cos(turn) / scale_y, sign[4] * level.shift * 0.7 + moved[1]],
        ]
    )
    bends = random.normal(0, 1, (4, 6))
    reach = level.bend / 1024
    x, y = np.meshgrid(np.linspace(0, 1, 65), np.linspace(0, 1, 65))
    fine_x, fine_y = _shows(matrix, bends, reach, x, y)
    margin = round(0.25 * max(width, height))
    wide = Image.fromarray(np.pad(np.asarray(picture), ((margin, margin), (margin, margin), (0, 0)), mode="reflect"))
    left, top = fine_x * width + margin, fine_y * height + margin
    columns, rows = (np.linspace(0, side, 65).round().astype(int) for side in size)
    mesh = []
    for row in range(64):
        for column in range(64):
            corners = [(row, column), (row + 1, column), (row + 1, column + 1), (row, column + 1)]
            quad = tuple(float(value) for at in corners for value in (left[at], top[at]))
            cell = (int(columns[column]), int(rows[row]), int(columns[column + 1]), int(rows[row + 1]))
            if cell[0] < cell[2] and cell[1] < cell[3]:  # a picture narrower than the mesh has fewer cells
                mesh.append((cell, quad))
    image = wide.transform(size, Image.Transform.MESH, mesh, Image.Resampling.BICUBIC)
    return Redrawn(image=_recoloured(image, level, random), matrix=matrix, bends=bends, reach=reach)


def _shows(matrix: Plane, bends: Plane, reach: float, x: Plane, y: Plane) -> tuple[Plane, Plane]:
    across, down = x - 0.5, y - 0.5
    left = matrix[0, 0] * across + matrix[0, 1] * down + matrix[0, 2] + 0.5
    top = matrix[1, 0] * across + matrix[1, 1] * down + matrix[1, 2] + 0.5
    for number, (size_x, size_y, phase_x, phase_y, along_x, along_y) in enumerate(bends):
        turns = 2 * np.pi * (0.5 + 0.4 * number)
        wave = np.sin(turns * (x * np.cos(along_x) + y * np.sin(along_x)) + 3 * phase_x)
        other = np.sin(turns * (x * np.cos(along_y) + y * np.sin(along_y)) + 3 * phase_y)
        left, top = left + reach * size_x * wave / 2, top + reach * size_y * other / 2
    return left, top


def _recoloured(image: Image.Image, level: Level, random: np.random.Generator) -> Image.Image:
    values = np.asarray(image.filter(ImageFilter.GaussianBlur(level.smooth)), np.float32) / 255
    values = values ** np.float32(1 + random.choice([-1, 1]) * level.gamma)
    values = values * (1 + random.uniform(-1, 1, 3) * level.gain).astype(np.float32)
    grey = values @ np.array([0.299, 0.587, 0.114], np.float32)
    values = grey[..., None] + (values - grey[..., None]) * np.float32(1 + random.choice([-1, 1]) * level.saturation)
    height, width = grey.shape
    slope = random.uniform(-1, 1, 2)
    light = slope[0] * np.linspace(-1, 1, width)[None, :] + slope[1] * np.linspace(-1, 1, height)[:, None]
    values = values * (1 + level.light * light[..., None] / 2).astype(np.float32)
    values = values * 255 + random.normal(0, level.grain, (height, width, 1)).astype(np.float32)
    stream = io.BytesIO()
    Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(stream, "JPEG", quality=level.quality)
    return Image.open(stream).convert("RGB")
