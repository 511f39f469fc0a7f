"""edit_region: only the region changes, whatever the picture and the mask, and the report tells the truth."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastmcp.exceptions import ToolError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageDraw, ImageFilter

from benchmarks.photographs import wide_profile
from nanobanana_mcp.domain.catalog import RATIOS
from nanobanana_mcp.domain.errors import RequestError
from nanobanana_mcp.domain.ids import is_image_id
from nanobanana_mcp.domain.shapes import answer_pixels
from nanobanana_mcp.emulator.control import Edit, Picture
from nanobanana_mcp.pixels.edits.patch import Patch, join, prepare
from nanobanana_mcp.pixels.outputs.thumbnails import thumbnail
from tests.conftest import Emulated
from tests.support.easel import beyond, drawing, files, of_kind, recipe_of, same, saved, seen, shapes, use
from tests.support.lanes import cases
from tests.support.scenes import as_bytes, photo

DRIFT = Edit(shift=(0.01, -0.008), scale=1.012, gain=(0.95, 1.02, 1.04), offset=(4, -3, 2))
MIDDLE = (0.42, 0.42, 0.58, 0.58)
FORMATS = ("jpg", "png", "webp", "gif", "rgba.png", "p.png", "cmyk.jpg", "cmyk.tif", "16.png", "grey.png")


@pytest.mark.slow
@settings(
    derandomize=True,
    deadline=None,
    max_examples=9,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    kind=st.sampled_from(FORMATS),
    size=st.tuples(st.integers(40, 420), st.integers(40, 420)),
    place=st.tuples(st.floats(0, 0.7), st.floats(0, 0.7), st.floats(0.1, 0.3), st.floats(0.1, 0.3)),
    fractions=st.booleans(),
    grow=st.integers(0, 12),
    feather=st.integers(0, 20),
    drift=st.sampled_from([Edit(), DRIFT, Edit(shift=(-0.02, 0.02), scale=0.985, blur=0.7)]),
)
async def test_every_pixel_outside_the_region_is_that_of_the_file_whatever_its_format(
    emulated: Emulated,
    tmp_path: Path,
    kind: str,
    size: tuple[int, int],
    place: tuple[float, float, float, float],
    fractions: bool,
    grow: int,
    feather: int,
    drift: Edit,
) -> None:
    width, height = size
    source = saved(tmp_path, of_kind(kind, photo(*size, seed=3)), f"source.{kind}")
    box = (
        int(place[0] * width),
        int(place[1] * height),
        int((place[0] + place[2]) * width) + 1,
        int((place[1] + place[3]) * height) + 1,
    )
    sent: list[float] = list(box)
    if fractions:
        sent = [box[0] / width, box[1] / height, box[2] / width, box[3] / height]
    drawing(emulated, drift, drift)
    earlier = files(emulated.studio.places.output)
    try:
        facts = await use(
            emulated, "edit_region", image=str(source), instruction="a red hat", box=sent, grow=grow, feather=feather
        )
    except ToolError as error:  # nothing to align by, or nothing drawn in the region; then nothing may have been made
        assert "pasted" in str(error) and files(emulated.studio.places.output) == earlier
        return
    same(seen(source), seen(facts["file_paths"][0]), beyond(size, box, grow))


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=30)
@given(
    kind=st.sampled_from(FORMATS),
    size=st.tuples(st.integers(24, 300), st.integers(24, 300)),
    mask_size=st.tuples(st.integers(8, 400), st.integers(8, 400)),
    ellipse=st.tuples(st.floats(0, 0.6), st.floats(0, 0.6), st.floats(0.2, 0.4), st.floats(0.2, 0.4)),
    alpha=st.booleans(),
    soft=st.booleans(),
    grow=st.integers(0, 9),
    feather=st.integers(0, 9),
)
def test_every_pixel_outside_a_mask_is_that_of_the_file_whatever_the_mask(
    kind: str,
    size: tuple[int, int],
    mask_size: tuple[int, int],
    ellipse: tuple[float, float, float, float],
    alpha: bool,
    soft: bool,
    grow: int,
    feather: int,
) -> None:
    data = as_bytes(
        of_kind(kind, photo(*size, seed=5)), {"jpg": "JPEG", "tif": "TIFF"}.get(kind[-3:], kind.split(".")[-1].upper())
    )
    white = Image.new("L", mask_size)
    across, down = mask_size
    corners = (
        ellipse[0] * across,
        ellipse[1] * down,
        (ellipse[0] + ellipse[2]) * across,
        (ellipse[1] + ellipse[3]) * down,
    )
    ImageDraw.Draw(white).ellipse(corners, fill=255)
    white = white.filter(ImageFilter.GaussianBlur(2)) if soft else white
    stretched = white.resize(size, Image.Resampling.BILINEAR)
    file = Image.merge("RGBA", (*Image.new("RGB", mask_size).split(), white)) if alpha else white
    if np.asarray(stretched).max() < 16 or np.asarray(stretched).min() > 16:
        return
    ratios = {ratio: answer_pixels(ratio, "1K") for ratio in RATIOS}
    try:
        patch = prepare(data, box=None, mask=as_bytes(file), grow=grow, feather=feather, context=0.5, ratios=ratios)
    except RequestError as error:  # black beside as much transparency could mean either
        assert alpha and "Nothing was sent" in str(error)
        return
    with Image.open(io.BytesIO(patch.crop)) as crop:
        answer = as_bytes(crop.convert("RGB").filter(ImageFilter.GaussianBlur(0.6)), "JPEG")
    joined = join(data, answer, patch)
    if joined.data is None:
        return
    grown = stretched.point(lambda value: 255 if value >= 16 else 0).filter(ImageFilter.MaxFilter(2 * grow + 1))
    same(seen(data), seen(joined.data), np.asarray(grown) == 0)


@pytest.mark.slow
async def test_what_was_asked_for_is_there_and_the_rest_of_the_photo_is_untouched(
    emulated: Emulated, tmp_path: Path
) -> None:
    source = saved(tmp_path, photo(800, 600, seed=2), "harbour.jpg", quality=92)
    before, stamp = source.read_bytes(), source.stat().st_mtime_ns
    drawing(emulated, DRIFT)
    facts = await use(emulated, "edit_region", image=str(source), instruction="a red hat", box=[300, 200, 450, 350])
    old, new = seen(source), seen(facts["file_paths"][0])
    same(old, new, beyond((800, 600), (300, 200, 450, 350), 16))
    assert np.abs(new[245:305, 345:405].astype(int) - old[245:305, 345:405]).mean() > 10
    assert (source.read_bytes(), source.stat().st_mtime_ns) == (before, stamp)
    assert facts["images"][0]["mime_type"] == "image/png"
    assert (facts["images"][0]["width"], facts["images"][0]["height"]) == (800, 600)


@pytest.mark.slow
async def test_the_report_tells_the_drift_that_the_model_had(emulated: Emulated, tmp_path: Path) -> None:
    source = saved(tmp_path, photo(800, 600, seed=2), "harbour.png")
    drawing(emulated, Edit(shift=(0.012, -0.008), scale=1.01, gain=(0.9, 1.0, 1.05), offset=(6, 0, -4), where=MIDDLE))
    wish = {"image": str(source), "instruction": "a hat", "box": [300, 200, 450, 350], "context": 1.5}
    result = await emulated.client.call_tool("edit_region", wish)
    (made,) = result.structured_content["images"]
    left, top, right, bottom = recipe_of(made["path"])["crop"]
    report = made["report"]
    assert report["drift_shift_x_px"] == pytest.approx(0.012 * (right - left), abs=0.5)
    assert report["drift_shift_y_px"] == pytest.approx(-0.008 * (bottom - top), abs=0.5)
    assert report["drift_scale"] == pytest.approx(1.01, abs=0.002)
    assert 3 < report["drift_colour_levels"] < 12
    assert 0.1 <= report["drift_left_px"] < 0.5
    assert f"which is taken back to within {report['drift_left_px']:g} px; the join" in result.content[0].text
    assert report["verdict"] == "good" and report["seam"] < 0.5 and report["drift_confidence"] > 0.8


@pytest.mark.slow
async def test_a_drift_that_nothing_tells_of_is_reported_as_not_known(emulated: Emulated, tmp_path: Path) -> None:
    source = saved(tmp_path, Image.new("RGB", (800, 600), (190, 200, 215)), "wall.png")
    drawing(emulated, Edit(where=MIDDLE), Edit(where=MIDDLE, offset=(6, 6, 6)))
    wish = {"image": str(source), "instruction": "a hat", "box": [300, 200, 450, 350], "context": 1.5}
    result = await emulated.client.call_tool("edit_region", wish)
    report = result.structured_content["images"][0]["report"]
    assert report["verdict"] == "good" and report["drift"] == "not known"
    assert not {"drift_scale", "drift_shift_x_px", "drift_colour_levels"} & set(report)
    assert "There is too little around the region to tell" in result.content[0].text
    recoloured = await use(emulated, "edit_region", **wish)
    assert recoloured["images"][0]["report"]["verdict"] == "good" and not recoloured["warnings"], (
        "its colours are mended"
    )


@pytest.mark.slow
async def test_a_region_in_a_large_photo_is_sent_alone_in_a_ratio_and_size_that_fit_it(
    emulated: Emulated, tmp_path: Path
) -> None:
    source = saved(tmp_path, photo(2000, 1500, seed=4), "wide.jpg")
    drawing(emulated, None, None)
    small = await use(emulated, "edit_region", image=str(source), instruction="a hat", box=[1000, 1000, 1300, 1150])
    large = await use(
        emulated, "edit_region", image=str(source), instruction="a hat", box=[300, 200, 1500, 1300], context=0.1
    )
    for facts, (ratio, size) in zip((small, large), shapes(emulated), strict=True):
        left, top, right, bottom = recipe_of(facts["file_paths"][0])["crop"]
        across, down = (int(part) for part in str(ratio).split(":"))
        assert (right - left) / (bottom - top) == pytest.approx(across / down, rel=0.03)
        assert size == ("1K" if facts is small else "2K")
    for request in emulated.drawn:
        assert len([part for part in request["contents"][0]["parts"] if "inlineData" in part]) == 1


@pytest.mark.slow
@cases("kind", ["alpha", "grey", "as large", "jpg"])
async def test_a_mask_of_any_size_by_alpha_or_grey_names_the_region(
    emulated: Emulated, tmp_path: Path, kind: str
) -> None:
    source = saved(tmp_path, photo(480, 360, seed=6), "s.png")
    size = (480, 360) if kind == "as large" else (200, 90)
    white = Image.new("L", size)
    ImageDraw.Draw(white).ellipse((size[0] * 0.4, size[1] * 0.3, size[0] * 0.7, size[1] * 0.7), fill=255)
    file = white if kind != "alpha" else Image.merge("RGBA", (*Image.new("RGB", size, "red").split(), white))
    mask = saved(tmp_path, file, "mask.jpg" if kind == "jpg" else "mask.png")
    drawing(emulated, DRIFT)
    facts = await use(emulated, "edit_region", image=str(source), instruction="a hat", mask=str(mask), grow=8)
    old, new = seen(source), seen(facts["file_paths"][0])
    reached = white.resize((480, 360), Image.Resampling.BILINEAR).point(lambda value: 255 * (value > 8))
    same(old, new, np.asarray(reached.filter(ImageFilter.MaxFilter(21))) == 0)
    assert (old[175:185, 255:265] != new[175:185, 255:265]).any()


@pytest.mark.slow
async def test_a_picture_knows_what_it_was_made_from_and_its_part_lies_out_of_the_way(
    emulated: Emulated, tmp_path: Path
) -> None:
    source = saved(tmp_path, photo(480, 360, seed=6), "s.png")
    white = Image.new("L", (64, 48))
    white.paste(255, (20, 15, 40, 35))
    mask = saved(tmp_path, white, "mask.png")
    drawing(emulated, None)
    facts = await use(emulated, "edit_region", image=str(source), instruction="a hat", mask=str(mask))
    record = emulated.studio.library.get(facts["images"][0]["id"])
    assert record is not None and record.origin == "edited"
    roles = {parent.role: emulated.studio.library.get(parent.image_id) for parent in record.parents}
    assert {role: found.path for role, found in roles.items() if found is not None and role in ("base", "mask")} == {
        "base": str(source),
        "mask": str(mask),
    }
    part = roles["part"]
    assert part is not None and part.origin == "part" and is_image_id(part.id)
    assert files(emulated.studio.places.output) == [Path(facts["file_paths"][0])]
    assert Path(str(part.path)).parent == emulated.studio.places.parts
    assert [one["id"] for one in facts["parts"]] == [part.id]


@pytest.mark.slow
async def test_transparency_and_colour_profile_of_the_source_stay(emulated: Emulated, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = saved(tmp_path, of_kind("rgba", photo(480, 360, seed=6)), "s.png", icc_profile=profile)
    drawing(emulated, DRIFT)
    facts = await use(emulated, "edit_region", image=str(source), instruction="a hat", box=[200, 150, 400, 300])
    old, new = seen(source), seen(facts["file_paths"][0])
    solid = old[..., 3] >= 128
    assert (old[..., 3] == new[..., 3])[solid].all()
    same(old, new, beyond((480, 360), (200, 150, 400, 300), 16))
    with Image.open(facts["file_paths"][0]) as image:
        assert image.info["icc_profile"] == profile


@pytest.mark.slow
async def test_a_photo_that_was_given_by_its_id_is_read_as_the_file_it_is(emulated: Emulated, tmp_path: Path) -> None:
    source = saved(tmp_path, of_kind("cmyk", photo(320, 240, seed=6)), "s.jpg", quality=80)
    drawing(emulated, None, None)
    first = await use(emulated, "edit_region", image=str(source), instruction="a hat", box=[100, 80, 200, 160])
    (base,) = (one for one in first["images"][0]["parents"] if one not in {part["id"] for part in first["parts"]})
    again = await use(emulated, "edit_region", image=base, instruction="a coat", box=[100, 80, 200, 160])
    same(seen(source), seen(again["file_paths"][0]), beyond((320, 240), (100, 80, 200, 160), 16))


async def test_a_picture_that_is_also_in_the_files_api_is_edited_from_its_file(
    emulated: Emulated, tmp_path: Path
) -> None:
    source = saved(tmp_path, photo(320, 240, seed=6), "s.jpg")
    uploaded = await use(emulated, "upload_file", path=str(source))
    drawing(emulated, None)
    facts = await use(emulated, "edit_region", image=uploaded["name"], instruction="a hat", box=[100, 80, 200, 160])
    same(seen(source), seen(facts["file_paths"][0]), beyond((320, 240), (100, 80, 200, 160), 16))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dry_run": True}, "Give box or mask, and not both"),
        ({"box": [0, 0, 1, 1], "mask": "mask.png"}, "and not both"),
        ({"box": [100, 100, 100, 200]}, "empty or reversed"),
        ({"box": [100, 100, 900, 200]}, "outside the picture"),
        ({"box": [-0.1, 0, 0.5, 0.5]}, "outside the picture"),
        ({"box": [0, 0, 1, 1]}, "whole picture"),
        ({"box": [0, 0, 100]}, "box"),
        ({"mask": "black.png"}, "no white"),
        ({"mask": "notes.txt"}, "notes.txt"),
        ({"mask": "nowhere.png"}, "no image"),
        ({"box": [10, 10, 90, 90], "image": "files/abc123"}, "only in the Files API"),
        ({"box": [10, 10, 90, 90], "width": 16384, "height": 16384}, "too large"),
    ],
)  # fmt: skip
async def test_a_region_that_is_none_is_refused_before_anything_is_sent(
    emulated: Emulated, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    saved(tmp_path, photo(320, 240, seed=6), "s.png")
    saved(tmp_path, Image.new("L", (32, 24), 255), "mask.png")
    saved(tmp_path, Image.new("L", (32, 24), 0), "black.png")
    (tmp_path / "notes.txt").write_text("no picture")
    arguments = {"image": "s.png", "instruction": "a hat"} | changes
    with pytest.raises(ToolError, match=words):
        await use(emulated, "edit_region", **arguments)
    assert emulated.emulator.requests == []


@pytest.mark.slow
async def test_the_thumbnail_of_an_edit_is_that_of_its_file(emulated: Emulated, tmp_path: Path) -> None:
    source = saved(tmp_path, photo(900, 600, seed=4), "sea.png")
    drawing(emulated, Edit(shift=(0.002, -0.001)))
    answer = await use(emulated, "edit_region", image=str(source), instruction="a hat", box=[300, 200, 500, 400])
    (made,) = answer["images"]
    shown = np.asarray(Image.open(made["thumbnail_path"]).convert("RGB"), float)
    again = thumbnail(Path(made["path"]).read_bytes())
    assert shown.shape[:2] == (again.height, again.width)
    assert np.abs(shown - np.asarray(Image.open(io.BytesIO(again.data)).convert("RGB"), float)).mean() < 1


@pytest.mark.slow
async def test_a_mask_that_could_mean_two_things_is_asked_about_and_nothing_is_sent(
    emulated: Emulated, tmp_path: Path
) -> None:
    source = saved(tmp_path, photo(480, 360, seed=6), "s.png")
    dark = Image.new("RGB", (480, 360), "white")
    dark.paste((0, 0, 0), (100, 100, 200, 200))
    red = Image.new("RGB", (480, 360))
    red.paste((200, 0, 0), (100, 100, 200, 200))
    arguments = {"image": str(source), "instruction": "a hat"}
    for dry_run in (True, False):
        with pytest.raises(ToolError, match="dark shape on white"):
            await emulated.client.call_tool(
                "edit_region", arguments | {"mask": str(saved(tmp_path, dark, "dark.png")), "dry_run": dry_run}
            )
    assert emulated.drawn == []
    quote = await emulated.client.call_tool(
        "edit_region", arguments | {"mask": str(saved(tmp_path, red, "red.png")), "dry_run": True}
    )
    assert "The mask covers 6% of the picture, fully." in quote.content[0].text
    drawing(emulated, None)
    facts = await use(emulated, "edit_region", **arguments, mask=str(tmp_path / "red.png"))
    assert "The mask's colour on black was read as what to edit." in facts["warnings"]


@pytest.mark.slow
async def test_what_is_hidden_does_not_leave_and_what_is_drawn_on_nothing_gets_alpha(
    emulated: Emulated, tmp_path: Path
) -> None:
    picture = photo(640, 480, seed=8).convert("RGBA")
    shape = Image.new("L", (640, 480))
    ImageDraw.Draw(shape).rectangle((0, 240, 640, 480), fill=255)
    picture.paste((255, 0, 255, 255), (0, 0, 640, 240))
    picture.putalpha(shape)
    source = saved(tmp_path, picture, "figure.png")
    box = (240, 150, 400, 300)
    ratios = {ratio: answer_pixels(ratio, "1K") for ratio in RATIOS}
    patch = prepare(source.read_bytes(), box=box, mask=None, grow=16, feather=16, context=0.5, ratios=ratios)
    shown = Image.open(io.BytesIO(patch.crop)).convert("RGB")
    pixels = np.asarray(shown).astype(int)
    assert not ((pixels[..., 0] > 200) & (pixels[..., 1] < 60) & (pixels[..., 2] > 200)).any()
    hat = (290 - patch.box[0], 190 - patch.box[1], 350 - patch.box[0], 260 - patch.box[1])
    shown.paste((20, 90, 40), hat)
    drawing(emulated, Picture(as_bytes(shown.resize((1024, 1024)), "JPEG", quality=92), "image/jpeg"))
    facts = await use(emulated, "edit_region", image=str(source), instruction="a hat", box=list(box))
    old, new = seen(source), seen(facts["file_paths"][0])
    same(old, new, beyond((640, 480), box, 16))
    assert (new[200:235, 300:340, 3] > 240).all() and np.abs(
        new[200:235, 300:340, :3].astype(int) - (20, 90, 40)
    ).max() < 25
    assert (new[160:180, 250:280, 3] < 8).all(), "what stays empty stays see-through"


def _vivid(rough: float = 1) -> tuple[Image.Image, bytes, Patch]:
    """A picture of colours beyond sRGB, as a file, and what is sent of it."""
    across, down = np.meshgrid(np.linspace(0, 1, 640), np.linspace(0, 1, 480))
    noise = np.asarray(photo(640, 480, seed=8), float) * rough
    vivid = np.dstack([235 - noise[..., 0] / 8 * across, 15 + noise[..., 1] / 10, 20 + noise[..., 2] / 6 * down])
    picture = Image.fromarray(vivid.astype(np.uint8))
    source = as_bytes(picture, "PNG", icc_profile=wide_profile())
    ratios = {ratio: answer_pixels(ratio, "1K") for ratio in RATIOS}
    box = (250, 180, 370, 290)
    return picture, source, prepare(source, box=box, mask=None, grow=0, feather=0, context=0.5, ratios=ratios)


def test_colours_beyond_srgb_that_come_back_clipped_are_no_edit() -> None:
    _, source, patch = _vivid(rough=3)
    joined = join(source, patch.crop, patch)
    assert (joined.verdict, joined.change.told, joined.data) == ("unchanged", "no", None)
    assert joined.beside is None, "nor is it a change beside the region"


def test_colours_beyond_srgb_come_back_near_to_what_they_were() -> None:
    vivid, source, patch = _vivid()
    joined = join(source, patch.crop, patch, anyway=True)
    assert joined.data is not None and joined.seam.score > 0.1, "what is left is not hidden by judging it clipped"
    with Image.open(io.BytesIO(joined.data)) as made:
        after = np.asarray(made.convert("RGB"), int)[180:290, 250:370]
    assert np.abs(after - np.asarray(vivid, int)[180:290, 250:370]).mean() < 4
