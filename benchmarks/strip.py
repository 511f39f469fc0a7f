"""Draws docs/edits.jpg: three edits of photographs before and after, made by the studio on the emulator.

The photographs come with two packages, which only need to lie somewhere; they are not installed for the project:

    pip install --no-deps --target /tmp/photographs scikit-image scikit-learn
    PYTHONPATH=/tmp/photographs python -m benchmarks.strip

`coffee.png` is by Rachel Michetti (CC0, says scikit-image); `china.jpg` by danielbuechele and `flower.jpg` by vultilion
(both on Flickr, CC BY 2.0, says scikit-learn). No model is asked: the answers are drawn here out of the same photographs,
moved, scaled and recoloured as a model's are, and the emulator hands them to the studio.
"""

import asyncio
import io
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import httpx2
import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from nanobanana_mcp.domain.catalog import BY_ID, DEFAULTS
from nanobanana_mcp.emulator.app import Emulator
from nanobanana_mcp.emulator.control import Picture
from nanobanana_mcp.gemini.client import Gemini
from nanobanana_mcp.jobs.planner import Job
from nanobanana_mcp.jobs.recipes.extend import Extension
from nanobanana_mcp.jobs.recipes.region import RegionEdit
from nanobanana_mcp.library.database import Database
from nanobanana_mcp.storage.paths import Places
from nanobanana_mcp.studio.edits import EditRequest, cutout_job, extension_job, region_job
from nanobanana_mcp.studio.studio import Studio
from tests.support.scenes import as_bytes, on_background, redrawn

TILE = (330, 248)
BOX = (410, 55, 510, 165)
NIGHT = (24, 58, 74)
FOOTER = (
    "Photographs: danielbuechele and vultilion (CC BY 2.0), Rachel Michetti (CC0). The emulator handed out the drawn answers; "
    "no real model."
)


def photograph(package: str, inside: str) -> Image.Image:
    """A photograph out of a package's files, which are found without importing it."""
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"{package} is not there; the top of this file says how to get its photographs.")
    return Image.open(Path(found.submodule_search_locations[0]) / inside).convert("RGB")


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        emulator = Emulator()
        studio = _studio(root, emulator)
        try:
            tiles = [await _region(studio, emulator, root), await _extended(studio, emulator, root)]
            tiles.append(await _cut(studio, emulator, root))
        finally:
            await studio.close()
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("docs/edits.jpg")
    _composed(tiles).save(target, "JPEG", quality=80, optimize=True, progressive=True)
    sys.stdout.write(f"{target}: {target.stat().st_size / 1000:.0f} kB\n")


async def _region(studio: Studio, emulator: Emulator, root: Path) -> tuple[str, Image.Image, Image.Image]:
    before = photograph("sklearn", "datasets/images/china.jpg").crop((0, 0, 569, 427))
    job = await region_job(studio, _wish(root, before), box=BOX, mask=None, feather=16, grow=16, context=0.5)
    assert isinstance(job.recipe, RegionEdit)
    left, top, right, bottom = job.recipe.patch.box
    painted = before.copy()
    drawn = balloon((BOX[2] - BOX[0] - 16, BOX[3] - BOX[1] - 16))
    painted.paste(drawn, (BOX[0] + 8, BOX[1] + 8), drawn)
    size = (1024, 1024 * (bottom - top) // (right - left))
    answer = redrawn(
        painted.crop((left, top, right, bottom)), shift=(2, -1), scale=1.01, gain=(0.97, 1.01, 1.02), size=size
    )
    after = await _made(studio, emulator, job, answer)
    framed = before.copy()
    ImageDraw.Draw(framed).rectangle(BOX, outline=(255, 255, 255), width=3)
    return "edit_region: a balloon, in the box only", framed, after


async def _extended(studio: Studio, emulator: Emulator, root: Path) -> tuple[str, Image.Image, Image.Image]:
    world = (
        photograph("skimage", "data/coffee.png").crop((10, 0, 543, 400)).resize((800, 600), Image.Resampling.LANCZOS)
    )
    before = world.crop((200, 100, 600, 500))
    job = await extension_job(studio, _wish(root, before), margins=(200, 100, 200, 100), aspect_ratio=None, size=None)
    assert isinstance(job.recipe, Extension)
    (step,) = job.recipe.steps
    answer = redrawn(world.crop(step.box), shift=(-5, 3), scale=1.012, gain=(1.03, 0.98, 0.97), size=(1200, 896))
    after = await _made(studio, emulator, job, answer)
    shown = Image.new("RGB", world.size, (238, 238, 238))
    shown.paste(before, (200, 100))
    return "extend_image: on every side", shown, after


async def _cut(studio: Studio, emulator: Emulator, root: Path) -> tuple[str, Image.Image, Image.Image]:
    before = photograph("sklearn", "datasets/images/flower.jpg").crop((35, 0, 604, 427))
    colour = np.asarray(before, np.float32)
    # The flower is orange on dark green: how far red lies above blue tells it, softly, at its very edge.
    bright = Image.fromarray(np.clip((colour[..., 0] - colour[..., 2] - 30) * 4, 0, 255).astype(np.uint8))
    flower = Image.new("L", before.size)
    ImageDraw.Draw(flower).ellipse((125, 70, 410, 372), fill=255)
    inner = Image.new("L", before.size)
    ImageDraw.Draw(inner).ellipse((160, 110, 375, 330), fill=255)
    alpha = np.asarray(ImageChops.lighter(ImageChops.multiply(bright, flower), inner), np.float32) / 255
    job = await cutout_job(studio, _wish(root, before), subject=None)
    plates = [on_background(alpha, colour, background) for background in ((255, 255, 255), (0, 0, 0))]
    found = (await _made(studio, emulator, job, *plates)).convert("RGBA")
    return (
        "remove_background: real transparency",
        before,
        Image.alpha_composite(_backdrop(found.size), found).convert("RGB"),
    )


def _wish(root: Path, image: Image.Image) -> EditRequest:
    path = root / "source.png"
    path.write_bytes(as_bytes(image))
    return EditRequest(image=str(path), instruction="An edit.")


async def _made(studio: Studio, emulator: Emulator, job: Job, *answers: Image.Image) -> Image.Image:
    emulator.control.queue.extend(Picture(as_bytes(answer, "JPEG", quality=92), "image/jpeg") for answer in answers)
    created = await studio.carry_out(job)
    return Image.open(io.BytesIO(Path(str(created.images[0].record.path)).read_bytes()))


def _studio(root: Path, emulator: Emulator) -> Studio:
    for name in ("pictures", "state"):
        (root / name).mkdir()
    return Studio(
        model=Gemini(api_key="TEST_KEY", transport=httpx2.ASGITransport(app=emulator.app)),
        database=Database.open(root / "state" / "library.db"),
        places=Places(output=root / "pictures", state=root / "state", base=root),
        backend="emulator",
        models={tier: BY_ID[model_id] for tier, model_id in DEFAULTS.items()},
        uploading="never",
    )


def balloon(size: tuple[int, int]) -> Image.Image:
    """A red balloon with its light from the upper left."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    across, down = (x - width * 0.5) / (width * 0.4), (y - height * 0.45) / (height * 0.43)
    inside = np.clip((1 - np.hypot(across, down)) * width * 0.4, 0, 1)
    light = np.clip(1.05 - 0.55 * np.hypot(across + 0.35, down + 0.4), 0.25, 1)
    shine = np.exp(-(((across + 0.4) / 0.18) ** 2) - ((down + 0.45) / 0.22) ** 2)
    base = np.stack([225 * light + 60 * shine, 35 * light + 190 * shine, 40 * light + 190 * shine], axis=-1)
    pixels = np.dstack([np.clip(base, 0, 255), inside * 255]).round().astype(np.uint8)
    return Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(0.6))


def _backdrop(size: tuple[int, int]) -> Image.Image:
    slope = np.linspace(1.25, 0.7, size[1], dtype=np.float32)[:, None, None] * np.array(NIGHT, np.float32)
    rows = np.broadcast_to(np.clip(slope, 0, 255).astype(np.uint8), (size[1], size[0], 3))
    return Image.fromarray(np.ascontiguousarray(rows)).convert("RGBA")


def _composed(tiles: list[tuple[str, Image.Image, Image.Image]]) -> Image.Image:
    gap, head, foot = 10, 26, 24
    size = (len(tiles) * (TILE[0] + gap) + gap, head + 2 * (TILE[1] + gap) + foot)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for column, (caption, before, after) in enumerate(tiles):
        left = gap + column * (TILE[0] + gap)
        draw.text((left, 6), caption, fill=(20, 20, 20), font=font)
        for row, image in enumerate((before, after)):
            shown = image.convert("RGB").resize(TILE, Image.Resampling.LANCZOS)
            sheet.paste(shown, (left, head + row * (TILE[1] + gap)))
    draw.text((gap, size[1] - foot), FOOTER, fill=(90, 90, 90), font=ImageFont.load_default(12))
    return sheet


if __name__ == "__main__":
    asyncio.run(main())
