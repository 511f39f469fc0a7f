"""Takes docs/gallery.jpg: the gallery in a browser, with photographs and an edit of one of them before and after.

The photographs come with two packages, as those of `benchmarks.strip`, and the browser is Debian's chromium:

    pip install --no-deps --target /tmp/photographs scikit-image scikit-learn
    PYTHONPATH=/tmp/photographs python -m benchmarks.window

They are free of rights or CC0, says scikit-image, but for `china.jpg` by danielbuechele and `flower.jpg` by vultilion (both
on Flickr, CC BY 2.0, says scikit-learn). The edit is drawn here, and no model is asked.
"""

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from benchmarks.strip import balloon, photograph
from nanobanana_mcp.domain.ids import new_image_id, now
from nanobanana_mcp.domain.records import ImageRecord, Parent
from nanobanana_mcp.library.database import Database
from nanobanana_mcp.library.pictures import Library

DRAWN = (
    # Package, file, the part of it that is shown (left, top, right, bottom in shares), and the words.
    ("sklearn", "datasets/images/flower.jpg", (0.2, 0, 1, 1), "an orange dahlia, close, soft light"),
    ("skimage", "data/coffee.png", (0, 0, 1, 1), "an espresso on a wooden table"),
    ("skimage", "data/rocket.jpg", (0.2, 0, 0.9, 1), "a rocket on its pad before dawn"),
    ("skimage", "data/astronaut.png", (0, 0, 1, 1), "portrait of an astronaut"),
    ("skimage", "data/hubble_deep_field.jpg", (0, 0, 0.6, 0.6), "a field of galaxies"),
    ("skimage", "data/chelsea.png", (0.15, 0, 0.85, 1), "a cat that looks at you"),
    ("skimage", "data/motorcycle_left.png", (0.05, 0, 0.85, 1), "a motorcycle in its garage"),
    ("skimage", "data/moon.png", (0, 0, 1, 1), "craters of the moon"),
    ("skimage", "data/retina.jpg", (0, 0, 1, 1), "a retina"),
    ("skimage", "data/coins.png", (0, 0, 0.7, 1), "old coins on felt"),
    ("skimage", "data/grass.png", (0, 0, 1, 1), "a lawn from above"),
    ("sklearn", "datasets/images/china.jpg", (0, 0, 0.55, 1), "a pagoda by the lake"),
)


def main() -> None:
    program = shutil.which("chromium")
    if program is None:
        raise SystemExit("There is no chromium to take the picture with.")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        edited = _hang_all(root)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": name,
            "NANOBANANA_BACKEND": "emulator",
            "NANOBANANA_OUTPUT_DIR": str(root / "pictures"),
            "NANOBANANA_DATABASE_URL": f"sqlite:///{root / 'library.db'}",
        }
        command = [sys.executable, "-m", "nanobanana_mcp", "gallery", "--no-browser", "--port", "0"]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as served:
            assert served.stdout is not None
            try:
                shots = _shots(program, served.stdout.readline().decode().strip(), edited)
            finally:
                served.terminate()
    sheet = Image.new("RGB", (sum(shot.width for shot in shots) + 12, shots[0].height), "white")
    sheet.paste(shots[0], (0, 0))
    sheet.paste(shots[1], (shots[0].width + 12, 0))
    target = Path(__file__).parents[1] / "docs" / "gallery.jpg"
    sheet.resize((1600, round(1600 * sheet.height / sheet.width)), Image.Resampling.LANCZOS).save(target, quality=80)
    sys.stdout.write(f"{target} ({target.stat().st_size:,} bytes)\n")


def _hang_all(root: Path) -> str:
    """Fill a library; the id of the edit."""
    database = Database.open(root / "library.db")
    library = Library(database)
    (root / "pictures").mkdir()
    count = 36
    for number in range(count):
        package, inside, part, words = DRAWN[(number * 5 + number // len(DRAWN)) % len(DRAWN)]
        picture = photograph(package, inside)
        left, top, right, bottom = part
        box = (left * picture.width, top * picture.height, right * picture.width, bottom * picture.height)
        picture = picture.crop(tuple(map(round, box)))
        _hang(library, root, picture, words, minutes=10 * (count - number))
    source = photograph("sklearn", "datasets/images/china.jpg")
    before = _hang(library, root, source, "a pagoda by the lake", minutes=3)
    after = _hang(
        library, root, _with_balloon(source), "a red balloon in the sky; all else stays", minutes=1, parent=before
    )
    database.close()
    return after


def _with_balloon(picture: Image.Image) -> Image.Image:
    found, drawn = picture.copy(), balloon((110, 130))
    found.paste(drawn, (420, 60), drawn)
    return found


def _hang(
    library: Library, root: Path, picture: Image.Image, words: str, *, minutes: float, parent: str | None = None
) -> str:
    out = io.BytesIO()
    picture.save(out, "PNG")
    made = new_image_id()
    path = root / "pictures" / f"{words.replace(' ', '-')}_{made[-6:]}.png"
    path.write_bytes(out.getvalue())
    library.add(
        ImageRecord(
            id=made,
            created_at=now() - timedelta(minutes=minutes),
            origin="edited" if parent else "generated",
            path=str(path),
            thumbnail_path=None,
            mime_type="image/png",
            width=picture.width,
            height=picture.height,
            bytes=len(out.getvalue()),
            sha256=hashlib.sha256(out.getvalue()).hexdigest(),
            prompt=words,
            mode="edit" if parent else "generate",
            backend="emulator",
            parents=(Parent(image_id=parent, role="base"),) if parent else (),
        )
    )
    return made


def _shots(program: str, address: str, edited: str) -> list[Image.Image]:
    """The grid in light, and the edit with its slider in dark."""
    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        page = browser.new_page(viewport={"width": 1040, "height": 760})
        page.goto(address)
        page.wait_for_url(re.compile(r"/[0-9a-f]{16}/$"))
        base, state = page.url, page.context.storage_state()
        page.wait_for_function("[...document.images].filter((one) => !one.complete).length === 0")
        found.append(page.screenshot())
        dark = browser.new_context(
            viewport={"width": 1040, "height": 760}, color_scheme="dark", storage_state=state
        ).new_page()
        dark.goto(f"{base}pictures/{edited}?compare=slider")
        dark.get_by_label("How much of the picture before").fill("74")
        dark.get_by_label("How much of the picture before").blur()
        dark.wait_for_function("[...document.images].filter((one) => !one.complete).length === 0")
        found.append(dark.screenshot())
        browser.close()
    return [Image.open(io.BytesIO(shot)).convert("RGB") for shot in found]


if __name__ == "__main__":
    main()
