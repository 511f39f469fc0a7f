"""Exact files: the size and format that was asked for, beside a master that stays as it was delivered."""

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from fastmcp.exceptions import ToolError
from PIL import Image

from nanobanana_mcp.emulator.control import Edit, Picture
from nanobanana_mcp.jobs import files as stored
from nanobanana_mcp.jobs import inputs as sources
from nanobanana_mcp.pixels.files import clean, header
from nanobanana_mcp.pixels.files.labels import read_label
from nanobanana_mcp.storage import reading
from tests.conftest import Emulated
from tests.support.easel import drawing, files, label_of, recipe_of, saved, shapes, use
from tests.support.lanes import cases
from tests.support.scenes import as_bytes, cutout, on_background, photo

MASTER = as_bytes(photo(640, 480, seed=3), "JPEG", quality=90)
FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP", "avif": "AVIF"}


def _is(path: str, kind: str, size: tuple[int, int]) -> None:
    with Image.open(path) as image:
        image.load()
        assert (image.format, image.size) == (kind, size)


@cases(
    ("shape", "size"),
    [
        ({"width": 300, "height": 200}, (300, 200)),
        ({"width": 301, "height": 200, "fit": "contain"}, (267, 200)),
        ({"width": 300, "height": 200, "fit": "pad"}, (300, 200)),
        ({"width": 300, "height": 200, "fit": "stretch"}, (300, 200)),
        ({"width": 320}, (320, 240)),
        ({"height": 96}, (128, 96)),
        ({}, (640, 480)),
    ],
    ids=["cover", "contain", "pad", "stretch", "width", "height", "format"],
)
async def test_the_file_has_exactly_the_size_and_format_that_was_asked_for(
    emulated: Emulated, shape: dict[str, Any], size: tuple[int, int]
) -> None:
    for output_format, kind in FORMATS.items():
        drawing(emulated, Picture(MASTER, "image/jpeg"))
        facts = await use(emulated, "generate_image", prompt="a heron", output_format=output_format, **shape)
        _is(facts["file_paths"][0], kind, size)
        assert (facts["images"][0]["width"], facts["images"][0]["height"]) == size
        assert Path(facts["images"][0]["master_path"]).read_bytes() == MASTER


async def test_the_master_is_kept_as_delivered_and_the_file_is_its_child_with_a_label(emulated: Emulated) -> None:
    drawing(emulated, Picture(MASTER, "image/jpeg"))
    facts = await use(emulated, "generate_image", prompt="a heron", width=300, height=200)
    made = facts["images"][0]
    assert Path(made["master_path"]).read_bytes() == MASTER and read_label(MASTER) is None
    record = emulated.studio.library.get(made["id"])
    assert record is not None and record.origin == "derived"
    assert [(parent.image_id, parent.role) for parent in record.parents] == [(made["master"], "base")]
    assert label_of(made["path"]).source_type == "trainedAlgorithmicMedia"
    recipe = recipe_of(made["path"])
    assert (recipe["from"], recipe["width"], recipe["height"]) == (made["master"], 300, 200)
    with Image.open(made["path"]) as image:
        assert image.format == "JPEG"  # as delivered, where no format is named


async def test_output_path_names_the_exact_file(emulated: Emulated, tmp_path: Path) -> None:
    drawing(emulated, Picture(MASTER, "image/jpeg"))
    wanted = tmp_path / "site" / "hero.webp"
    facts = await use(
        emulated, "generate_image", prompt="a heron", width=300, output_format="webp", output_path=str(wanted)
    )
    assert facts["file_paths"] == [str(wanted)]
    _is(str(wanted), "WEBP", (300, 225))
    assert Path(facts["images"][0]["master_path"]).parent == emulated.studio.places.output
    assert files(wanted.parent) == [wanted]


@pytest.mark.parametrize(("name", "kind"), [("cat.png", "PNG"), ("cat.webp", "WEBP"), ("cat.avif", "AVIF")])
async def test_the_name_asked_for_is_the_format_delivered_and_the_master_is_kept_beside(
    emulated: Emulated, tmp_path: Path, name: str, kind: str
) -> None:
    drawing(emulated, Picture(MASTER, "image/jpeg"))
    wish = {"prompt": "a cat", "output_path": str(tmp_path / "site" / name), "idempotency_key": "k"}
    facts = await use(emulated, "generate_image", **wish)
    assert facts["file_paths"] == [str(tmp_path / "site" / name)]
    _is(facts["file_paths"][0], kind, (640, 480))
    master = Path(facts["images"][0]["master_path"])
    assert master.read_bytes() == MASTER and master.parent == emulated.studio.places.output
    assert (await emulated.studio.stats()).total.pictures == 1
    again = await use(emulated, "generate_image", **wish)
    assert again["file_paths"] == facts["file_paths"] and len(emulated.drawn) == 1


async def test_a_name_that_fits_the_delivered_format_is_the_picture_as_delivered(
    emulated: Emulated, tmp_path: Path
) -> None:
    for name in ("cat.jpg", "hen.jpeg", "DOG.JPG"):
        drawing(emulated, Picture(MASTER, "image/jpeg"))
        facts = await use(emulated, "generate_image", prompt=name, output_path=str(tmp_path / name))
        assert facts["file_paths"] == [str(tmp_path / name)] and "master" not in facts["images"][0]
        assert (tmp_path / name).read_bytes() == MASTER


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["edit_region", "extend_image"])
async def test_a_lossy_name_for_an_exact_edit_says_that_bit_identity_ends_there(
    emulated: Emulated, tmp_path: Path, tool: str
) -> None:
    source = saved(tmp_path, photo(320, 240, seed=6), "s.png")
    how = {"instruction": "a hat", "box": [90, 60, 220, 180]} if tool == "edit_region" else {"right": 80}
    wish = {"image": str(source), **how, "output_path": str(tmp_path / "x.jpg")}
    drawing(emulated, Edit())
    for facts in (await use(emulated, tool, **wish, dry_run=True), await use(emulated, tool, **wish)):
        assert any("not bit-identical" in warning for warning in facts["warnings"])
    assert facts["file_paths"] == [str(tmp_path / "x.jpg")]
    assert facts["images"][0]["master_path"].endswith(".png")


async def test_a_cutout_into_a_name_without_transparency_is_refused_before_it_is_paid_for(
    emulated: Emulated, tmp_path: Path
) -> None:
    source = saved(tmp_path, photo(320, 240, seed=6), "s.png")
    with pytest.raises(ToolError, match="no transparency"):
        await use(emulated, "remove_background", image=str(source), output_path=str(tmp_path / "x.jpeg"))
    assert emulated.emulator.requests == []


async def test_several_exact_files_are_numbered_as_their_calls_and_all_masters_are_kept(
    emulated: Emulated, tmp_path: Path
) -> None:
    masters = [as_bytes(photo(320, 240, seed=seed), "JPEG") for seed in (1, 2, 3)]
    drawing(emulated, *(Picture(master, "image/jpeg") for master in masters))
    wish = {"prompt": "a heron", "n": 3, "width": 100, "height": 100, "output_format": "png", "idempotency_key": "k"}
    facts = await use(emulated, "generate_image", **wish, output_path=str(tmp_path / "icon.png"))
    assert facts["file_paths"] == [str(tmp_path / f"icon-{number}.png") for number in (1, 2, 3)]
    assert not any("already existed" in warning for warning in facts["warnings"])
    for path in facts["file_paths"]:
        _is(path, "PNG", (100, 100))
    assert sorted(Path(image["master_path"]).read_bytes() for image in facts["images"]) == sorted(masters)
    again = await use(emulated, "generate_image", **wish, output_path=str(tmp_path / "icon.png"))
    assert again["file_paths"] == facts["file_paths"] and len(emulated.drawn) == 3
    assert [image["master"] for image in again["images"]] == [image["master"] for image in facts["images"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "sent"),
    [
        ({"width": 1200, "height": 630}, ("16:9", "1K")),
        ({"width": 1920, "height": 1080}, ("16:9", "2K")),
        ({"width": 3000, "height": 3000}, ("1:1", "4K")),
        ({"width": 1080, "height": 1920}, ("9:16", "2K")),
        ({"width": 2000, "height": 500}, ("4:1", "1K")),
        ({"width": 1500}, (None, "2K")),
        ({"width": 100, "height": 100, "aspect_ratio": "3:2"}, ("3:2", "1K")),
        ({"width": 100, "height": 100, "resolution": "2k"}, ("1:1", "2K")),
        ({"width": 2000, "height": 500, "model_tier": "pro"}, ("21:9", "2K")),
    ],
)
async def test_the_nearest_ratio_and_the_smallest_size_that_covers_it_are_asked_for(
    emulated: Emulated, shape: dict[str, Any], sent: tuple[str | None, str]
) -> None:
    quoted = await use(emulated, "generate_image", prompt="a heron", **shape, dry_run=True)
    assert (quoted["aspect_ratio_sent"], quoted["image_size"]) == sent
    drawing(emulated, Picture(MASTER, "image/jpeg"))
    await use(emulated, "generate_image", prompt="a heron", **shape, output_format="jpeg")
    assert shapes(emulated) == [sent]


@pytest.mark.slow
async def test_a_file_beyond_every_size_is_enlarged_and_the_answer_says_so(emulated: Emulated) -> None:
    drawing(emulated, Picture(MASTER, "image/jpeg"))
    facts = await use(emulated, "generate_image", prompt="a heron", width=5000, height=5000)
    assert shapes(emulated) == [("1:1", "4K")]
    assert any("4096x4096" in warning for warning in facts["warnings"])
    assert any("enlarged 10.4 times" in warning for warning in facts["warnings"])
    _is(facts["file_paths"][0], "JPEG", (5000, 5000))


async def test_quality_makes_the_file_smaller_or_better(emulated: Emulated) -> None:
    sizes = []
    for quality in (30, 95):
        drawing(emulated, Picture(MASTER, "image/jpeg"))
        facts = await use(emulated, "generate_image", prompt="a heron", output_format="webp", quality=quality)
        sizes.append(facts["images"][0]["bytes"])
    assert sizes[0] < sizes[1] / 2


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["edit", "edit_region", "extend_image", "remove_background", "transparent"])
async def test_every_tool_that_makes_pictures_makes_exact_files(emulated: Emulated, tmp_path: Path, tool: str) -> None:
    source = saved(tmp_path, photo(320, 240, seed=6), "s.png")
    alpha, colour = cutout(320, 240)
    plates = [
        Picture(as_bytes(on_background(alpha, colour, background), "PNG"))
        for background in ((255, 255, 255), (0, 0, 0))
    ]
    calls: dict[str, tuple[str, dict[str, Any]]] = {
        "edit": ("generate_image", {"prompt": "a hat", "input_image_path_1": str(source)}),
        "edit_region": ("edit_region", {"image": str(source), "instruction": "a hat", "box": [90, 60, 220, 180]}),
        "extend_image": ("extend_image", {"image": str(source), "right": 80}),
        "remove_background": ("remove_background", {"image": str(source)}),
        "transparent": ("generate_image", {"prompt": "a ball", "background": "transparent"}),
    }
    name, arguments = calls[tool]
    drawing(emulated, *(plates if tool in ("remove_background", "transparent") else [Edit()]))
    shape: dict[str, int] = {} if tool == "extend_image" else {"width": 160, "height": 120}
    wanted = tmp_path / "exact.webp"
    facts = await use(emulated, name, **arguments, **shape, output_format="webp", output_path=str(wanted))
    made = facts["images"][0]
    assert facts["file_paths"] == [str(wanted)]
    with Image.open(wanted) as image:
        assert image.format == "WEBP"
        expected = {"extend_image": (400, 240)}.get(tool, (160, 120))
        assert image.size == expected
        assert ("A" in image.mode) == (tool in ("remove_background", "transparent"))
    record = emulated.studio.library.get(made["id"])
    assert record is not None and record.origin == "derived"
    assert [parent.image_id for parent in record.parents] == [made["master"]]
    assert recipe_of(str(wanted))["from"] == made["master"]
    assert Path(made["master_path"]).parent == emulated.studio.places.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"width": 16384, "height": 16384}, "too large"),
        ({"width": 16384}, "too large"),
        ({"width": 16384, "height": 1000, "output_format": "webp"}, "WebP has at most"),
        ({"width": 16384, "height": 1000, "output_path": "x.webp"}, "WebP has at most"),
        ({"output_path": "x.png", "output_format": "jpeg"}, "Name one format"),
        ({"output_path": "x.jpg", "background": "transparent"}, "no transparency"),
        ({"output_path": "x.png", "quality": 80}, "quality"),
        ({"width": 0}, "width"),
        ({"width": 100, "fit": "fill"}, "fit"),
        ({"output_format": "gif"}, "output_format"),
        ({"output_format": "jpeg", "quality": 101}, "quality"),
        ({"width": 3000, "height": 3000, "model_tier": "lite", "resolution": "4k"}, "lite"),
    ],
)
async def test_what_cannot_be_written_is_refused_before_it_is_paid_for(
    emulated: Emulated, arguments: dict[str, Any], words: str
) -> None:
    for dry_run in (True, False):
        with pytest.raises(ToolError, match=words):
            await use(emulated, "generate_image", prompt="a heron", **arguments, dry_run=dry_run)
    assert emulated.emulator.requests == []


async def test_an_exact_file_that_fails_after_all_leaves_the_picture_that_was_paid_for(emulated: Emulated) -> None:
    narrow = as_bytes(Image.new("RGB", (40, 2000), "red"), "PNG")
    drawing(emulated, Picture(narrow))
    facts = await use(emulated, "generate_image", prompt="a pole", width=4000, output_format="png")
    assert any("exact file could not be made" in warning for warning in facts["warnings"])
    assert Path(facts["file_paths"][0]).read_bytes() == narrow


async def test_the_colours_of_a_profile_stay_with_the_exact_file(emulated: Emulated) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    master = as_bytes(photo(320, 240, seed=3), "JPEG", icc_profile=profile)
    drawing(emulated, Picture(master, "image/jpeg"))
    facts = await use(emulated, "generate_image", prompt="a heron", width=100, output_format="avif")
    with Image.open(BytesIO(Path(facts["file_paths"][0]).read_bytes())) as image:
        assert image.info["icc_profile"] == profile


def _in_a_small_world(monkeypatch: pytest.MonkeyPatch, *, pixels: int, size: int) -> None:
    """Strangers' files are held to so little that what is made of them is beyond it, without megapixels by the dozen."""
    for module in (header, clean, stored):
        monkeypatch.setattr(module, "MAX_PIXELS", pixels, raising=False)
    for module in (header, reading, sources, stored):
        monkeypatch.setattr(module, "MAX_FILE_BYTES", size, raising=False)
    monkeypatch.setattr(stored, "UPLOAD_BYTES", size)


@pytest.mark.slow
async def test_what_is_made_here_is_kept_and_used_again_though_a_strangers_file_may_not_be_so_large(
    emulated: Emulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = saved(tmp_path, photo(1000, 1000, seed=5), "s.png")
    _in_a_small_world(monkeypatch, pixels=1_200_000, size=source.stat().st_size + 1000)
    drawing(emulated)
    facts = await use(emulated, "extend_image", image=str(source), right=300, bottom=300)
    made, path = facts["images"][0]["id"], facts["images"][0]["path"]
    assert Path(path).stat().st_size > source.stat().st_size + 1000
    _is(path, "PNG", (1300, 1300))
    record = emulated.studio.library.get(made)
    assert record is not None and record.thumbnail_path is not None and Path(record.thumbnail_path).is_file()
    Path(record.thumbnail_path).unlink()  # as a power cut may leave it
    assert await emulated.studio.previews([record], 1024)
    assert await emulated.studio.previews([record] * 5, 320)
    assert (await emulated.studio.picture(made))[0] == Path(path).read_bytes()
    for given in (made, path):
        converted = await use(emulated, "convert_image", image=given, rotate=90)
        _is(converted["file_paths"][0], "PNG", (1300, 1300))
    renamed = Path(path).rename(tmp_path / "mine-now.png")  # known by its row and its bytes, not by its name
    await use(emulated, "convert_image", image=str(renamed), width=50)
    edited = await use(emulated, "edit_region", image=str(renamed), instruction="a hat", box=[500, 500, 700, 700])
    _is(edited["file_paths"][0], "PNG", (1300, 1300))
    await emulated.call(prompt="a heron beside it", input_images=[str(renamed)], output_path=str(tmp_path) + "/")
    await use(emulated, "upload_file", path=made)
    again = await use(
        emulated, "generate_image", prompt="a heron", width=1300, height=1300, resolution="1k", output_format="png"
    )
    _is(again["file_paths"][0], "PNG", (1300, 1300))
    stranger = saved(tmp_path, photo(1300, 1300, seed=6), "stranger.png")
    with pytest.raises(ToolError, match="at most"):
        await use(emulated, "convert_image", image=str(stranger), width=50)
    await emulated.studio.close()


@pytest.mark.parametrize("dry_run", [True, False])
async def test_an_exact_file_too_large_to_make_is_refused_before_it_is_paid_for(
    emulated: Emulated, tmp_path: Path, dry_run: bool
) -> None:
    source = saved(tmp_path, photo(300, 60, seed=5), "s.png")
    wishes: tuple[tuple[str, dict[str, Any]], ...] = (
        ("generate_image", {"prompt": "a heron", "width": 5000, "aspect_ratio": "1:8"}),
        ("generate_image", {"prompt": "a heron", "width": 10001, "height": 10001}),
        ("generate_image", {"prompt": "a heron", "input_images": [str(source)], "height": 9000}),
        ("edit_region", {"image": str(source), "instruction": "a hat", "box": [9, 9, 40, 40], "height": 9000}),
        ("remove_background", {"image": str(source), "height": 9000}),
    )
    for tool, wish in wishes:
        with pytest.raises(ToolError, match=r"at most 16384 px a side and 100 megapixels.*smaller"):
            await use(emulated, tool, **wish, dry_run=dry_run)
    assert emulated.drawn == []
