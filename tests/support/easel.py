"""An emulator that really draws for the editing tools, and the pictures before and after to compare."""

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nanobanana_mcp.emulator.control import Behaviour, Picture
from nanobanana_mcp.pixels.files.labels import Label, read_label
from tests.conftest import Emulated
from tests.support.scenes import as_bytes, photo

Pixels = NDArray[np.uint8]


def drawing(emulated: Emulated, *behaviours: Behaviour | None) -> Emulated:
    """The same with an emulator that decodes and draws, and what it does with the next calls."""
    emulated.emulator.control.cheap = False
    emulated.emulator.control.queue.extend(behaviours)
    return emulated


@cache
def elsewhere() -> Picture:
    """An answer that has nothing to do with the picture it was asked to edit."""
    return Picture(as_bytes(photo(1024, 1024, seed=77)))


async def use(emulated: Emulated, tool: str, **arguments: Any) -> dict[str, Any]:
    """The structured answer of a tool; an error is raised as ToolError."""
    result = await emulated.client.call_tool(tool, arguments)
    facts = result.structured_content
    assert facts is not None
    return facts


def saved(folder: Path, image: Image.Image, name: str, **options: object) -> Path:
    """A caller's own picture on the disk; the extension says its format."""
    kinds = {".jpg": "JPEG", ".tif": "TIFF"}
    path = folder / name
    path.write_bytes(as_bytes(image, kinds.get(path.suffix, path.suffix[1:].upper()), **options))
    return path


def seen(file: Path | str | bytes) -> Pixels:
    """The 8-bit pixels of a file by Pillow alone: height x width x 3, or x 4 where a pixel is not opaque."""
    data = file if isinstance(file, bytes) else Path(file).read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        if image.mode.startswith("I;16"):
            return np.dstack([(np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)] * 3)
        pixels = np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))
    return pixels if pixels.shape[2] == 3 or (pixels[..., 3] < 255).any() else pixels[..., :3]


def label_of(path: str) -> Label:
    found = read_label(Path(path).read_bytes())
    assert found is not None, f"{path} has no label"
    return found


def recipe_of(path: str) -> dict[str, Any]:
    """The recipe that a file says it was made by."""
    recipe: dict[str, Any] = json.loads(label_of(path).recipe or "null")
    return recipe


def charged(emulated: Emulated) -> float:
    """USD that Google would have taken so far."""
    return sum(charge.usd for charge in emulated.emulator.charges)


def shapes(emulated: Emulated) -> list[tuple[str | None, str | None]]:
    """Aspect ratio and size of every request, as they went over the wire."""
    found = [request["generationConfig"].get("imageConfig", {}) for request in emulated.drawn]
    return [(shape.get("aspectRatio"), shape.get("imageSize")) for shape in found]


def files(folder: Path) -> list[Path]:
    """The pictures that lie open in a folder, below it as well, the studio's own things aside."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def of_kind(kind: str, image: Image.Image) -> Image.Image:
    """The picture in the mode that a kind of file stands for."""
    match kind.split(".")[0]:
        case "rgba":
            veil = Image.linear_gradient("L").resize(image.size)
            return Image.merge("RGBA", (*image.split(), veil))
        case "p" | "gif":
            return image.quantize(64)
        case "cmyk":
            return image.convert("CMYK")
        case "grey":
            return image.convert("L")
        case "16":
            high = np.asarray(image.convert("L"), np.uint16)
            return Image.fromarray(high * 256 + 255 - high)
    return image


def beyond(size: tuple[int, int], box: tuple[int, int, int, int], grow: int) -> NDArray[np.bool_]:
    """Marks the pixels that may not change: all that is further from the box than `grow`."""
    outside = np.ones((size[1], size[0]), bool)
    outside[max(0, box[1] - grow) : box[3] + grow, max(0, box[0] - grow) : box[2] + grow] = False
    return outside


def same(before: Pixels, after: Pixels, outside: NDArray[np.bool_]) -> None:
    assert before.shape == after.shape
    assert (before[outside] == after[outside]).all()
