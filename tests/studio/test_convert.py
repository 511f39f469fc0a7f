"""convert_image: any size, shape, format and asset set of any picture, for nothing and with the truth about it."""

import asyncio
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastmcp.exceptions import ToolError
from PIL import Image, ImageCms

from nanobanana_mcp.emulator.control import Picture
from nanobanana_mcp.pixels.files.labels import Label, read_label
from nanobanana_mcp.pixels.outputs.render import render
from tests.conftest import Emulated
from tests.support.easel import drawing, files, label_of, of_kind, recipe_of, saved, seen, use
from tests.support.rooms import rows
from tests.support.scenes import as_bytes, photo

SETS = {
    "favicon": {"favicon.ico", "apple-touch-icon.png", "favicon-16x16.png", "favicon-32x32.png", "icon-192.png", "icon-512.png"},
    "social": {"og-image.jpg", "twitter-card.jpg", "square.jpg", "portrait.jpg", "story.jpg"},
}  # fmt: skip


def _opened(path: str | Path) -> Image.Image:
    image = Image.open(BytesIO(Path(path).read_bytes()))
    image.load()
    return image


async def _made(emulated: Emulated, data: bytes | None = None) -> dict[str, Any]:
    """A picture that was generated here."""
    drawing(emulated, Picture(data or as_bytes(photo(320, 240, seed=3), "JPEG"), "image/jpeg"))
    facts = await use(emulated, "generate_image", prompt="a heron")
    found: dict[str, Any] = facts["images"][0]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wish", "kind", "size"),
    [
        ({"width": 100, "height": 100}, "PNG", (100, 100)),
        ({"width": 100}, "PNG", (100, 75)),
        ({"height": 60}, "PNG", (80, 60)),
        ({"width": 100, "height": 100, "fit": "contain"}, "PNG", (100, 75)),
        ({"width": 100, "height": 100, "fit": "pad", "background": "navy"}, "PNG", (100, 100)),
        ({"width": 100, "height": 100, "fit": "stretch"}, "PNG", (100, 100)),
        ({"crop": [0.25, 0.25, 0.75, 0.75]}, "PNG", (160, 120)),
        ({"crop": [10, 20, 110, 70]}, "PNG", (100, 50)),
        ({"rotate": 90}, "PNG", (240, 320)),
        ({"rotate": -90, "width": 120}, "PNG", (120, 160)),
        ({"output_format": "webp", "quality": 60}, "WEBP", (320, 240)),
        ({"output_format": "avif"}, "AVIF", (320, 240)),
        ({"output_format": "jpeg", "width": 640}, "JPEG", (640, 480)),
    ],
)
async def test_a_photo_becomes_what_was_asked_for_without_a_call_and_without_a_label(
    emulated: Emulated, tmp_path: Path, wish: dict[str, Any], kind: str, size: tuple[int, int]
) -> None:
    source = saved(tmp_path, photo(320, 240, seed=6), "s.png")
    before, stamp = source.read_bytes(), source.stat().st_mtime_ns
    facts = await use(emulated, "convert_image", image=str(source), **wish)
    made = _opened(facts["file_paths"][0])
    assert (made.format, made.size) == (kind, size)
    assert facts["cost_usd"] == 0 and emulated.emulator.requests == []
    assert read_label(Path(facts["file_paths"][0]).read_bytes()) is None
    assert (source.read_bytes(), source.stat().st_mtime_ns) == (before, stamp)
    record = emulated.studio.library.get(facts["images"][0]["id"])
    assert record is not None and (record.origin, record.model_id, record.call_id) == ("derived", None, None)
    (parent,) = record.parents
    base = emulated.studio.library.get(parent.image_id)
    assert base is not None and (base.path, base.origin, parent.role) == (str(source), "imported", "base")
    assert emulated.studio.journal.spending("gemini").hour_usd == 0


async def test_what_the_picture_shows_is_kept(emulated: Emulated, tmp_path: Path) -> None:
    source = saved(tmp_path, photo(320, 240, seed=6), "s.png")
    turned = await use(emulated, "convert_image", image=str(source), rotate=90)
    cut = await use(emulated, "convert_image", image=str(source), crop=[10, 20, 110, 70])
    assert (seen(turned["file_paths"][0]) == np.rot90(seen(source), -1)).all()
    assert (seen(cut["file_paths"][0]) == seen(source)[20:70, 10:110]).all()


async def test_a_picture_by_the_model_stays_labelled_however_often_it_is_converted(emulated: Emulated) -> None:
    image = await _made(emulated)
    first = await use(emulated, "convert_image", image=image["id"], width=200)
    second = await use(emulated, "convert_image", image=first["images"][0]["id"], output_format="avif")
    by_path = await use(emulated, "convert_image", image=second["file_paths"][0], output_format="webp")
    for facts, parent in ((first, image), (second, first["images"][0]), (by_path, second["images"][0])):
        assert label_of(facts["file_paths"][0]).source_type == "trainedAlgorithmicMedia"
        assert recipe_of(facts["file_paths"][0])["from"] == parent["id"]
    assert len(emulated.drawn) == 1


async def test_a_users_own_photo_gets_no_label_however_often_it_is_converted(
    emulated: Emulated, tmp_path: Path
) -> None:
    source = saved(tmp_path, photo(320, 240, seed=6), "s.jpg")
    first = await use(emulated, "convert_image", image=str(source), width=200)
    second = await use(emulated, "convert_image", image=first["images"][0]["id"], output_format="webp")
    assert all(read_label(Path(facts["file_paths"][0]).read_bytes()) is None for facts in (first, second))
    assert _opened(first["file_paths"][0]).format == "JPEG"


async def test_a_picture_that_says_a_model_made_it_goes_on_saying_so(emulated: Emulated, tmp_path: Path) -> None:
    elsewhere = render(
        as_bytes(photo(320, 240, seed=6)), label=Label(source_type="trainedAlgorithmicMedia"), output_format="jpeg"
    )
    source = tmp_path / "from-another-program.jpg"
    source.write_bytes(elsewhere.data)
    facts = await use(emulated, "convert_image", image=str(source), width=100, output_format="webp")
    assert label_of(facts["file_paths"][0]).source_type == "trainedAlgorithmicMedia"


async def test_the_same_conversion_again_is_the_same_file_unless_that_is_gone(
    emulated: Emulated, tmp_path: Path
) -> None:
    source = saved(tmp_path, photo(320, 240, seed=6), "s.png")
    wish = {"image": str(source), "width": 100, "output_format": "webp"}
    first = await use(emulated, "convert_image", **wish)
    again = await use(emulated, "convert_image", **wish)
    other = await use(emulated, "convert_image", **(wish | {"width": 101}))
    assert again["images"] == first["images"] and other["file_paths"] != first["file_paths"]
    data = Path(first["file_paths"][0]).read_bytes()
    Path(first["file_paths"][0]).unlink()
    anew = await use(emulated, "convert_image", **wish)
    assert Path(anew["file_paths"][0]).read_bytes() == data
    assert len(files(emulated.studio.places.output)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["favicon", "app_icons", "social"])
async def test_a_set_of_files_comes_from_one_master(emulated: Emulated, tmp_path: Path, kind: str) -> None:
    image = await _made(emulated)
    facts = await use(emulated, "convert_image", image=image["id"], assets=kind, output_path=str(tmp_path / "site"))
    names = {Path(path).name for path in facts["file_paths"]}
    assert names == SETS.get(kind, names) and len(names) >= 5
    assert {path.name for path in files(tmp_path / "site")} == names
    for made in facts["images"]:
        file = _opened(made["path"])
        assert (made["width"], made["height"]) == (max(file.info["sizes"]) if file.format == "ICO" else file.size)
        assert made["mime_type"] == (
            "image/vnd.microsoft.icon" if file.format == "ICO" else Image.MIME[str(file.format)]
        )
        assert made["parents"] == [image["id"]]
        if file.format != "ICO":
            assert label_of(made["path"]).source_type == "trainedAlgorithmicMedia"
    again = await use(emulated, "convert_image", image=image["id"], assets=kind, output_path=str(tmp_path / "site"))
    assert again["file_paths"] == facts["file_paths"]
    assert len(files(tmp_path / "site")) == len(names) and len(emulated.drawn) == 1


async def test_a_favicon_has_its_three_sizes_and_a_set_without_a_place_has_a_folder_of_its_own(
    emulated: Emulated, tmp_path: Path
) -> None:
    source = saved(tmp_path, photo(320, 240, seed=6), "s.png")
    result = await emulated.client.call_tool("convert_image", {"image": str(source), "assets": "favicon"})
    facts = result.structured_content
    (icon,) = (path for path in facts["file_paths"] if path.endswith(".ico"))
    assert _opened(icon).info["sizes"] == {(16, 16), (32, 32), (48, 48)}
    assert Path(icon).parent.parent == emulated.studio.places.output
    assert any(block.type == "image" for block in result.content)


@pytest.mark.slow
@pytest.mark.parametrize("place", [None, "icons/"])
async def test_a_set_made_again_is_the_same_files_and_no_two_records_share_one(
    emulated: Emulated, tmp_path: Path, place: str | None
) -> None:
    source = saved(tmp_path, photo(320, 240, seed=6), "s.png")
    wish = {"image": str(source), "assets": "favicon"} | ({"output_path": place} if place else {})
    first = await use(emulated, "convert_image", **wish)
    again = await use(emulated, "convert_image", **wish)
    other = await use(emulated, "convert_image", **wish, background="white")
    assert again["file_paths"] == first["file_paths"]
    assert not any("-2." in path for path in other["file_paths"])
    shared = rows(emulated.studio.library.database.path, "SELECT path FROM images GROUP BY path HAVING count(*) > 1")
    assert shared == []


@pytest.mark.slow
@pytest.mark.parametrize("output_format", ["png", "webp", "avif"])
async def test_transparency_and_profile_are_kept_where_the_format_can(
    emulated: Emulated, tmp_path: Path, output_format: str
) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    veil = Image.linear_gradient("L").resize((320, 240))
    image = Image.merge("RGBA", (*photo(320, 240, seed=6).split(), veil))
    source = saved(tmp_path, image, "s.png", icc_profile=profile)
    facts = await use(emulated, "convert_image", image=str(source), output_format=output_format)
    made = _opened(facts["file_paths"][0])
    assert made.mode == "RGBA" and made.info["icc_profile"] == profile
    assert np.abs(np.asarray(made)[..., 3].astype(int) - np.asarray(veil)).mean() < 2


@pytest.mark.slow
async def test_the_same_conversion_at_once_is_one_file(emulated: Emulated, tmp_path: Path) -> None:
    source = saved(tmp_path, photo(300, 200), "s.png")
    for wish in ({"assets": "favicon"}, {"width": 100}, {"output_format": "webp"}):
        told = await asyncio.gather(*(use(emulated, "convert_image", image=str(source), **wish) for _ in range(4)))
        assert len({tuple(facts["file_paths"]) for facts in told}) == 1
        assert all(Path(path).is_file() for path in told[0]["file_paths"])
    assert not list(tmp_path.rglob("*-2.*"))


async def test_a_users_copy_of_a_conversion_stays_the_users(emulated: Emulated, tmp_path: Path) -> None:
    source = str(saved(tmp_path, photo(300, 200), "s.png"))
    output = emulated.studio.places.output
    first = await use(emulated, "convert_image", image=source, width=100, output_path=str(output / "a.png"))
    mine = output / "mine.png"
    mine.write_bytes(Path(first["file_paths"][0]).read_bytes())
    again = await use(emulated, "convert_image", image=source, width=100, output_path=str(mine))
    assert Path(again["file_paths"][0]).name == "mine-2.png"
    await use(emulated, "maintenance", operation="cleanup_local", dry_run=False, max_age_hours=0, keep_count=0)
    assert mine.is_file()


async def test_conversions_of_conversions_keep_the_name_of_the_photo(emulated: Emulated, tmp_path: Path) -> None:
    source = saved(tmp_path, photo(300, 200), "Anna.png")
    image = str(source)
    for wish in ({"width": 100}, {"output_format": "webp"}, {"rotate": 90}):
        facts = await use(emulated, "convert_image", image=image, **wish)
        assert Path(facts["file_paths"][0]).stem.startswith("Anna")
        image = facts["images"][0]["id"]


async def test_what_is_cut_off_to_fill_a_shape_is_told(emulated: Emulated, tmp_path: Path) -> None:
    source = str(saved(tmp_path, photo(300, 200), "s.png"))
    cut = await use(emulated, "convert_image", image=source, width=20, height=200)
    assert any("93% of the picture was cut off" in note for note in cut["notes"])
    for wish in ({"width": 20, "height": 200, "fit": "pad"}, {"width": 150, "height": 99}):
        whole = await use(emulated, "convert_image", image=source, **wish)
        assert not any("cut off" in note for note in whole["notes"])


async def test_a_format_that_is_not_written_is_told_each_time(emulated: Emulated, tmp_path: Path) -> None:
    wish = {"image": str(saved(tmp_path, photo(30, 20), "s.png")), "output_path": str(tmp_path / "x.tiff"), "width": 10}
    for _ in range(2):
        facts = await use(emulated, "convert_image", **wish)
        assert sum(".tiff files cannot be written" in note for note in facts["notes"]) == 1


@pytest.mark.parametrize("name", ['"q.png"', "'q.png'", " q.png", "q.png ", '"sub/q.png"'])
async def test_a_place_in_quotes_or_blanks_is_refused(emulated: Emulated, tmp_path: Path, name: str) -> None:
    with pytest.raises(ToolError, match="quotes or spaces around it"):
        await use(emulated, "convert_image", image="img_0123456789abcdef", width=10, output_path=name)
    assert not [path for path in tmp_path.rglob("*") if "q.png" in path.name or "sub" in path.name]


async def test_a_picture_of_16_bits_is_written_with_8_and_the_answer_says_so(
    emulated: Emulated, tmp_path: Path
) -> None:
    deep = saved(tmp_path, of_kind("16", photo(64, 48)), "deep.png")
    shallow = saved(tmp_path, photo(64, 48), "shallow.png")
    told = [
        (await use(emulated, "convert_image", image=str(source), output_format="png"))["notes"]
        for source in (deep, shallow)
    ]
    assert [["16 bits a channel became 8" in note for note in notes] for notes in told] == [[True], []]


async def test_transparency_is_laid_on_a_colour_for_jpeg_and_where_one_is_named(
    emulated: Emulated, tmp_path: Path
) -> None:
    source = saved(tmp_path, Image.new("RGBA", (40, 30)), "s.png")
    white = await use(emulated, "convert_image", image=str(source), output_format="jpeg")
    blue = await use(emulated, "convert_image", image=str(source), background="#0000ff")
    assert any("no transparency" in note for note in white["notes"])
    assert (seen(white["file_paths"][0]) == 255).all()
    assert (seen(blue["file_paths"][0]) == (0, 0, 255)).all()


async def test_output_path_names_the_file_and_nothing_is_written_over(emulated: Emulated, tmp_path: Path) -> None:
    source = saved(tmp_path, photo(320, 240, seed=6), "s.png")
    (tmp_path / "small.png").write_bytes(b"mine")
    wish = {"image": str(source), "width": 100, "output_path": str(tmp_path / "small.png")}
    facts = await use(emulated, "convert_image", **wish)
    again = await use(emulated, "convert_image", **wish)
    assert facts["file_paths"] == again["file_paths"] == [str(tmp_path / "small-2.png")]
    assert (tmp_path / "small.png").read_bytes() == b"mine"
    assert any("already existed" in note for note in facts["notes"])
    other = await use(emulated, "convert_image", image=str(source), width=90, output_path=str(tmp_path / "x.webp"))
    assert other["file_paths"] == [str(tmp_path / "x.webp")] and other["images"][0]["mime_type"] == "image/webp"
    plain = await use(emulated, "convert_image", image=str(source), output_path=str(tmp_path / "y.JPEG"))
    assert plain["file_paths"] == [str(tmp_path / "y.JPEG")] and plain["images"][0]["mime_type"] == "image/jpeg"
    odd = await use(emulated, "convert_image", image=str(source), width=90, output_path=str(tmp_path / "x.gif"))
    assert odd["file_paths"] == [str(tmp_path / "x.png")] and any(
        ".gif files cannot be written" in note for note in odd["notes"]
    )


async def test_the_recipe_in_the_file_repeats_the_conversion(emulated: Emulated) -> None:
    image = await _made(emulated)
    facts = await use(emulated, "convert_image", image=image["id"], crop=[0, 0, 0.5, 1], width=80, output_format="webp")
    recipe = json.loads(label_of(facts["file_paths"][0]).recipe or "")
    assert (recipe["crop"], recipe["width"], recipe["output_format"]) == ([0, 0, 0.5, 1], 80, "webp")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({}, "Say what to make of it"),
        ({"assets": "favicon", "width": 100}, "fixed sizes"),
        ({"assets": "favicon", "output_path": "icons/one.png"}, "folder"),
        ({"width": 10, "output_path": "s.webp", "output_format": "jpeg"}, "Name one format"),
        ({"width": 20000}, "width"),
        ({"width": 16000, "height": 16000}, "too large"),
        ({"width": 16384, "height": 10, "output_format": "webp"}, "WebP ends at"),
        ({"rotate": 30, "width": 16384}, "too large"),
        ({"background": "#ff000080", "output_format": "jpeg"}, "JPEG has no transparency"),
        ({"assets": "social", "background": "transparent"}, "not opaque"),
        ({"image": "cut.png", "width": 10}, "cut.png"),
        ({"width": 10, "output_path": "notes.txt/a.png"}, "is a file"),
        ({"crop": [0, 0, 900, 900]}, "outside the picture"),
        ({"crop": [0, 0, 1]}, "crop"),
        ({"background": "sky-blue-pink", "width": 10}, "no colour"),
        ({"output_format": "gif"}, "output_format"),
        ({"image": "files/abc123", "width": 10}, "Files API"),
        ({"image": "nowhere.png", "width": 10}, "no image"),
        ({"image": "notes.txt", "width": 10}, "notes.txt"),
    ],
)
async def test_a_conversion_that_is_none_is_refused_and_nothing_written(
    emulated: Emulated, tmp_path: Path, wish: dict[str, Any], words: str
) -> None:
    saved(tmp_path, photo(320, 240, seed=6), "s.png")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "cut.png").write_bytes((tmp_path / "s.png").read_bytes()[:9000])
    for dry_run in (True, False):
        with pytest.raises(ToolError, match=words):
            await use(emulated, "convert_image", **({"image": "s.png", "dry_run": dry_run} | wish))
    assert files(emulated.studio.places.output) == [] and emulated.emulator.requests == []


LOGO = Image.new("RGBA", (300, 200), (200, 30, 60, 255))
LOGO.paste((0, 0, 0, 0), (0, 0, 100, 200))
TIGHT = Image.new("RGBA", (90, 160))
TIGHT.paste((0, 90, 0, 255), (40, 70, 50, 90))


PHOTO = photo(320, 240)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("picture", "wish"),
    [
        (PHOTO, {"width": 100, "output_format": "webp"}),
        (PHOTO, {"width": 700, "height": 200, "fit": "cover"}),
        (PHOTO, {"width": 100, "height": 100, "fit": "pad", "output_format": "jpeg"}),
        (LOGO, {"width": 100, "height": 100, "fit": "pad", "output_format": "jpeg"}),
        (PHOTO, {"width": 100, "height": 101, "fit": "contain"}),
        (PHOTO, {"crop": [0.1, 0.2, 0.6, 0.9], "rotate": 90, "height": 51}),
        *((TIGHT, {"rotate": degrees}) for degrees in (-270, 0.01, 33.3, 44.9, 179.5, -91)),
        (PHOTO, {"rotate": 5, "width": 64, "output_format": "jpeg", "output_path": "out/"}),
        (PHOTO, {"background": "#ff000080"}),
        (LOGO, {"background": "#ff000080"}),
        (LOGO, {"assets": "favicon"}),
        (TIGHT, {"assets": "app_icons", "output_path": "icons/"}),
        (TIGHT, {"assets": "app_icons", "background": "white"}),
        (PHOTO, {"assets": "app_icons"}),
        (LOGO, {"assets": "social"}),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else value.mode,
)
async def test_a_dry_run_says_what_would_be_made_and_draws_nothing(
    emulated: Emulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: Image.Image, wish: dict[str, Any]
) -> None:
    source = str(saved(tmp_path, picture, "lake.png"))
    with monkeypatch.context() as patch:
        for work in ("save", "resize"):
            patch.setattr(Image.Image, work, lambda *_, **__: pytest.fail("the work was done"))
        told = await use(emulated, "convert_image", image=source, dry_run=True, **wish)
    assert [path.name for path in files(tmp_path) if "state" not in path.parts] == ["lake.png"]
    assert rows(emulated.studio.library.database.path, "SELECT * FROM images") == []
    assert told["dry_run"] and told["cost_usd"] == 0 and "Only the real run tells" in told["summary"]
    made = await use(emulated, "convert_image", image=source, **wish)
    facts = ("width", "height", "mime_type")
    assert [[one[fact] for fact in facts] for one in told["images"]] == [
        [one[fact] for fact in facts] for one in made["images"]
    ]
    assert told["notes"] == made["notes"]
    (folder,) = {Path(path).parent for path in made["file_paths"]}
    within = "in a folder of their own in" in told["summary"]
    assert str(folder.parent if within else folder) == told["folder"]
    assert {one["name"] for one in told["images"]} <= {None, *(Path(path).stem for path in made["file_paths"])}
    assert {one["bytes"] for one in told["images"]} == {None}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wish", "note"),
    [
        ({"rotate": 5, "output_format": "jpeg"}, "JPEG has no transparency"),
        ({"width": 50, "height": 50, "fit": "pad", "output_format": "jpeg"}, "JPEG has no transparency"),
        ({"width": 960}, "It was enlarged 3.0 times"),
        ({"width": 10, "height": 240}, "97% of the picture was cut off"),
        ({"assets": "app_icons"}, "25% of the picture was cut off"),
        ({"assets": "app_icons"}, "icon-1024.png 4.3 times, icon-maskable-512.png 1.7 times."),
    ],
    ids=str,
)
async def test_a_dry_run_says_what_the_picture_would_lose(
    emulated: Emulated, tmp_path: Path, wish: dict[str, Any], note: str
) -> None:
    source = str(saved(tmp_path, photo(320, 240), "lake.png"))
    told = await use(emulated, "convert_image", image=source, dry_run=True, **wish)
    assert any(note in one for one in told["notes"]), told["notes"]
    plain = await use(emulated, "convert_image", image=source, dry_run=True, width=100)
    assert plain["notes"] == []
