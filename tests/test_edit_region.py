"""edit_region: only the region changes, the report tells the truth, and nothing is paid twice or pasted blindly."""

import asyncio
import hashlib
import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Connect, Emulated
from easel import Pixels, charged, drawing, files, recipe_of, saved, seen, shapes, use
from fakes import FakeModel
from fastmcp.exceptions import ToolError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageDraw, ImageFilter

from nanobanana_mcp.budget import Limits
from nanobanana_mcp.domain import is_image_id
from nanobanana_mcp.edits import Wish, region_job
from nanobanana_mcp.emulator.control import Edit, Finish, Picture
from nanobanana_mcp.pixels.patch import join, prepare
from nanobanana_mcp.recipes import patching
from nanobanana_mcp.shapes import answer_pixels
from nanobanana_mcp.studio import Studio
from nanobanana_mcp.tiers import RATIOS
from tests.scenes import as_bytes, photo

DRIFT = Edit(shift=(0.01, -0.008), scale=1.012, gain=(0.95, 1.02, 1.04), offset=(4, -3, 2))
MIDDLE = (0.42, 0.42, 0.58, 0.58)
ELSEWHERE = Picture(as_bytes(photo(1024, 1024, seed=77)))
FORMATS = ("jpg", "png", "webp", "gif", "rgba.png", "p.png", "cmyk.jpg", "cmyk.tif", "16.png", "grey.png")


def _as(kind: str, image: Image.Image) -> Image.Image:
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


def _reach(size: tuple[int, int], box: tuple[int, int, int, int], grow: int) -> np.ndarray:
    """Where nothing may change: all that is further from the box than `grow`."""
    outside = np.ones((size[1], size[0]), bool)
    outside[max(0, box[1] - grow) : box[3] + grow, max(0, box[0] - grow) : box[2] + grow] = False
    return outside


def _same(before: Pixels, after: Pixels, outside: np.ndarray) -> None:
    assert before.shape == after.shape
    assert (before[outside] == after[outside]).all()


@settings(
    derandomize=True,
    deadline=None,
    max_examples=14,
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
    source = saved(tmp_path, _as(kind, photo(*size, seed=3)), f"source.{kind}")
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
    try:
        facts = await use(
            emulated, "edit_region", image=str(source), instruction="a red hat", box=sent, grow=grow, feather=feather
        )
    except ToolError as error:  # a flat crop gives nothing to align by; then nothing may have been kept
        assert "not pasted" in str(error) and not files(emulated.studio.places.output)
        return
    _same(seen(source), seen(facts["file_paths"][0]), _reach(size, box, grow))


@settings(derandomize=True, deadline=None, max_examples=40)
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
        _as(kind, photo(*size, seed=5)), {"jpg": "JPEG", "tif": "TIFF"}.get(kind[-3:], kind.split(".")[-1].upper())
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
    patch = prepare(data, box=None, mask=as_bytes(file), grow=grow, feather=feather, context=0.5, ratios=ratios)
    with Image.open(io.BytesIO(patch.crop)) as crop:
        answer = as_bytes(crop.convert("RGB").filter(ImageFilter.GaussianBlur(0.6)), "JPEG")
    joined = join(data, answer, patch)
    if joined.data is None:
        return
    grown = stretched.point(lambda value: 255 if value >= 16 else 0).filter(ImageFilter.MaxFilter(2 * grow + 1))
    _same(seen(data), seen(joined.data), np.asarray(grown) == 0)


async def test_what_was_asked_for_is_there_and_the_rest_of_the_photo_is_untouched(
    emulated: Emulated, tmp_path: Path
) -> None:
    source = saved(tmp_path, photo(1600, 1200, seed=2), "harbour.jpg", quality=92)
    before, stamp = source.read_bytes(), source.stat().st_mtime_ns
    drawing(emulated, DRIFT)
    facts = await use(emulated, "edit_region", image=str(source), instruction="a red hat", box=[600, 400, 900, 700])
    old, new = seen(source), seen(facts["file_paths"][0])
    _same(old, new, _reach((1600, 1200), (600, 400, 900, 700), 16))
    assert np.abs(new[480:620, 680:820].astype(int) - old[480:620, 680:820]).mean() > 10
    assert (source.read_bytes(), source.stat().st_mtime_ns) == (before, stamp)
    assert facts["images"][0]["mime_type"] == "image/png"
    assert (facts["images"][0]["width"], facts["images"][0]["height"]) == (1600, 1200)


async def test_the_report_tells_the_drift_that_the_model_had(emulated: Emulated, tmp_path: Path) -> None:
    source = saved(tmp_path, photo(1600, 1200, seed=2), "harbour.png")
    drawing(emulated, Edit(shift=(0.012, -0.008), scale=1.01, gain=(0.9, 1.0, 1.05), offset=(6, 0, -4), where=MIDDLE))
    facts = await use(
        emulated, "edit_region", image=str(source), instruction="a hat", box=[600, 400, 900, 700], surroundings=1.5
    )
    left, top, right, bottom = recipe_of(facts["file_paths"][0])["crop"]
    report = facts["images"][0]["report"]
    assert report["drift_shift_x_px"] == pytest.approx(0.012 * (right - left), abs=0.5)
    assert report["drift_shift_y_px"] == pytest.approx(-0.008 * (bottom - top), abs=0.5)
    assert report["drift_scale"] == pytest.approx(1.01, abs=0.002)
    gains = [float(gain) for gain in report["drift_gain"].split()]
    assert gains == pytest.approx([1 / 0.9, 1.0, 1 / 1.05], abs=0.03)
    assert report["verdict"] == "good" and report["seam"] < 0.5 and report["drift_confidence"] > 0.8


async def test_a_region_in_a_large_photo_is_sent_alone_in_a_ratio_and_size_that_fit_it(
    emulated: Emulated, tmp_path: Path
) -> None:
    source = saved(tmp_path, photo(2000, 1500, seed=4), "wide.jpg")
    drawing(emulated, None, None)
    small = await use(emulated, "edit_region", image=str(source), instruction="a hat", box=[1000, 1000, 1300, 1150])
    large = await use(
        emulated, "edit_region", image=str(source), instruction="a hat", box=[300, 200, 1500, 1300], surroundings=0.1
    )
    for facts, (ratio, size) in zip((small, large), shapes(emulated), strict=True):
        left, top, right, bottom = recipe_of(facts["file_paths"][0])["crop"]
        across, down = (int(part) for part in str(ratio).split(":"))
        assert (right - left) / (bottom - top) == pytest.approx(across / down, rel=0.03)
        assert size == ("1K" if facts is small else "2K")
    for request in emulated.drawn:
        assert len([part for part in request["contents"][0]["parts"] if "inlineData" in part]) == 1


@pytest.mark.parametrize("kind", ["alpha", "grey", "as large", "jpg"])
async def test_a_mask_of_any_size_by_alpha_or_grey_names_the_region(
    emulated: Emulated, tmp_path: Path, kind: str
) -> None:
    source = saved(tmp_path, photo(640, 480, seed=6), "s.png")
    size = (640, 480) if kind == "as large" else (200, 90)
    white = Image.new("L", size)
    ImageDraw.Draw(white).ellipse((size[0] * 0.4, size[1] * 0.3, size[0] * 0.7, size[1] * 0.7), fill=255)
    file = white if kind != "alpha" else Image.merge("RGBA", (*Image.new("RGB", size, "red").split(), white))
    mask = saved(tmp_path, file, "mask.jpg" if kind == "jpg" else "mask.png")
    drawing(emulated, DRIFT)
    facts = await use(emulated, "edit_region", image=str(source), instruction="a hat", mask=str(mask), grow=8)
    old, new = seen(source), seen(facts["file_paths"][0])
    reached = white.resize((640, 480), Image.Resampling.BILINEAR).point(lambda value: 255 * (value > 8))
    _same(old, new, np.asarray(reached.filter(ImageFilter.MaxFilter(21))) == 0)
    assert (old[235:245, 345:355] != new[235:245, 345:355]).any()


async def test_a_picture_knows_what_it_was_made_from_and_its_part_lies_out_of_the_way(
    emulated: Emulated, tmp_path: Path
) -> None:
    source = saved(tmp_path, photo(640, 480, seed=6), "s.png")
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


async def test_an_answer_that_shows_something_else_is_asked_for_once_more(emulated: Emulated, tmp_path: Path) -> None:
    source = saved(tmp_path, photo(900, 700, seed=8), "s.png")
    drawing(emulated, ELSEWHERE, DRIFT)
    facts = await use(emulated, "edit_region", image=str(source), instruction="a hat", box=[300, 200, 500, 400])
    assert len(facts["parts"]) == 2 and len(emulated.drawn) == 2
    assert any("asked for once more" in warning for warning in facts["warnings"])
    assert facts["cost_usd"] == pytest.approx(charged(emulated), abs=1e-5)
    record = emulated.studio.library.get(facts["images"][0]["id"])
    assert record is not None and record.parents[-1].image_id == facts["parts"][1]["id"]
    _same(seen(source), seen(facts["file_paths"][0]), _reach((900, 700), (300, 200, 500, 400), 16))


async def test_two_answers_that_show_something_else_are_kept_and_not_pasted(emulated: Emulated, tmp_path: Path) -> None:
    source = saved(tmp_path, photo(900, 700, seed=8), "s.png")
    before = source.read_bytes()
    drawing(emulated, ELSEWHERE, Picture(as_bytes(photo(1024, 1024, seed=78), "JPEG"), "image/jpeg"))
    arguments = {"image": str(source), "instruction": "a hat", "box": [300, 200, 500, 400], "idempotency_key": "hat"}
    with pytest.raises(ToolError, match=r"not pasted.*2 answers were paid for and are kept") as caught:
        await use(emulated, "edit_region", **arguments)
    kept = files_of_parts(emulated)
    assert len(kept) == 2 and all(str(path) in str(caught.value) for path in kept)
    assert files(emulated.studio.places.output) == [] and source.read_bytes() == before
    with pytest.raises(ToolError, match="new idempotency_key") as caught:
        await use(emulated, "edit_region", **arguments)
    assert all(str(path) in str(caught.value) for path in kept)
    assert len(emulated.emulator.charges) == 2


def files_of_parts(emulated: Emulated) -> list[Path]:
    return sorted(emulated.studio.places.parts.iterdir())


async def test_a_refusal_by_gemini_is_told_and_the_second_call_is_given_back(
    emulated: Emulated, tmp_path: Path
) -> None:
    source = saved(tmp_path, photo(300, 200, seed=8), "s.png")
    drawing(emulated, Finish("IMAGE_SAFETY"))
    with pytest.raises(ToolError, match="safety filter"):
        await use(emulated, "edit_region", image=str(source), instruction="a hat", box=[100, 50, 200, 150])
    assert len(emulated.drawn) == 1
    assert emulated.studio.journal.spending("gemini").hour_usd < 0.01


async def test_a_dry_run_sends_nothing_and_says_two_calls_at_most(emulated: Emulated, tmp_path: Path) -> None:
    source = saved(tmp_path, photo(640, 480, seed=6), "s.png")
    result = await emulated.client.call_tool(
        "edit_region", {"image": str(source), "instruction": "a hat", "box": [0.3, 0.3, 0.6, 0.6], "dry_run": True}
    )
    facts = result.structured_content
    assert facts["dry_run"] and facts["calls_at_most"] == 2
    assert facts["estimated_usd"] == pytest.approx(2 * facts["estimated_usd_each"])
    assert "at most" in result.content[0].text
    assert emulated.emulator.requests == [] and not files(tmp_path / "pictures")
    assert emulated.studio.library.find_by_content(hashlib.sha256(source.read_bytes()).hexdigest()) is None


async def test_what_is_charged_is_what_the_answer_and_the_ledger_say_and_no_more_than_was_reserved(
    emulated: Emulated, tmp_path: Path
) -> None:
    source = saved(tmp_path, photo(640, 480, seed=6), "s.png")
    wish = {"image": str(source), "instruction": "a hat", "box": [0.3, 0.3, 0.6, 0.6]}
    quoted = await use(emulated, "edit_region", **wish, dry_run=True)
    drawing(emulated, None)
    facts = await use(emulated, "edit_region", **wish)
    assert facts["cost_usd"] == pytest.approx(charged(emulated), abs=1e-5)
    assert emulated.studio.journal.spending("gemini").hour_usd == pytest.approx(charged(emulated), abs=1e-5)
    assert charged(emulated) <= quoted["estimated_usd_each"]


async def test_a_limit_on_one_request_counts_both_calls(
    make_studio: Callable[..., Studio], connect: Connect, model: FakeModel, tmp_path: Path
) -> None:
    source = saved(tmp_path, photo(300, 200, seed=8), "s.png")
    studio = make_studio(limits=Limits(per_call_usd=0.07))
    async with connect(open_it=lambda: studio) as client:
        with pytest.raises(ToolError, match=r"limit of \$0\.07 for one request"):
            await client.call_tool(
                "edit_region", {"image": str(source), "instruction": "a hat", "box": [100, 50, 200, 150]}
            )
    assert model.requests == []


async def test_a_policy_that_denies_the_tool_stops_it_before_anything_is_sent(
    connect: Connect, model: FakeModel, tmp_path: Path
) -> None:
    rules = tmp_path / "policy.yaml"
    rules.write_text("tools: {edit_region: {rules: [{action: deny, on_deny: Ask the owner.}]}}")
    source = saved(tmp_path, photo(300, 200, seed=8), "s.png")
    async with connect(policy=rules) as client:
        with pytest.raises(ToolError, match=r"edit_region is denied .* Ask the owner"):
            await client.call_tool(
                "edit_region", {"image": str(source), "instruction": "a hat", "box": [100, 50, 200, 150]}
            )
    assert model.requests == []


async def test_the_same_key_again_gives_the_finished_picture_and_pays_nothing(
    emulated: Emulated, tmp_path: Path
) -> None:
    source = saved(tmp_path, photo(640, 480, seed=6), "s.png")
    wish = {"image": str(source), "instruction": "a hat", "box": [200, 150, 400, 300], "idempotency_key": "hat"}
    drawing(emulated, DRIFT)
    first = await use(emulated, "edit_region", **wish)
    again = await use(emulated, "edit_region", **wish)
    assert again["file_paths"] == first["file_paths"]
    assert again["parts"] == first["parts"] and again["cost_usd"] == first["cost_usd"]
    assert len(emulated.drawn) == 1
    with pytest.raises(ToolError, match="used before for a different request"):
        await use(emulated, "edit_region", **(wish | {"box": [200, 150, 410, 300]}))


@pytest.mark.parametrize("by", ["recovery", "asking again"])
async def test_an_edit_whose_process_died_after_its_answer_came_is_finished_without_paying_again(
    emulated: Emulated,
    make_studio: Callable[..., Studio],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    by: str,
) -> None:
    source = saved(tmp_path, photo(640, 480, seed=6), "s.png")
    white = Image.new("L", (64, 48))
    white.paste(255, (20, 15, 40, 35))
    mask = saved(tmp_path, white, "mask.png")
    drawing(emulated, DRIFT)
    wish = Wish(image=str(source), instruction="a hat")
    died, over = asyncio.Event(), threading.Event()
    here = asyncio.get_running_loop()

    def dies(*_: Any, **__: Any) -> Any:
        here.call_soon_threadsafe(died.set)
        over.wait(20)
        raise RuntimeError("this process is dead")

    async def ask(studio: Studio) -> Any:
        job = await region_job(studio, wish, box=None, mask=str(mask), feather=9, grow=7, context=0.5)
        return await studio.carry_out(job)

    monkeypatch.setattr(patching, "join", dies)
    first = make_studio(model=emulated.gemini)
    lost = asyncio.create_task(ask(first))
    await died.wait()
    first._presence.close()
    monkeypatch.undo()
    second = make_studio(model=emulated.gemini)
    try:
        if by == "recovery":
            found = await second.recover()
            assert any(one.record is not None and one.record.origin == "edited" for one in found)
        created = await ask(second)
        (image,) = created.images
        assert image.record.origin == "edited" and len(created.parts) == 1
        grown = white.resize((640, 480), Image.Resampling.BILINEAR).filter(ImageFilter.MaxFilter(15))
        _same(seen(source), seen(str(image.record.path)), np.asarray(grown) < 16)
        assert len(files(second.places.output)) == 1
        assert len(emulated.emulator.charges) == 1
    finally:
        over.set()
        with pytest.raises(RuntimeError, match="dead"):
            await lost
        await first.close()
        await second.close()


async def test_transparency_and_colour_profile_of_the_source_stay(emulated: Emulated, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = saved(tmp_path, _as("rgba", photo(640, 480, seed=6)), "s.png", icc_profile=profile)
    drawing(emulated, DRIFT)
    facts = await use(emulated, "edit_region", image=str(source), instruction="a hat", box=[200, 150, 400, 300])
    old, new = seen(source), seen(facts["file_paths"][0])
    assert (old[..., 3] == new[..., 3]).all()
    with Image.open(facts["file_paths"][0]) as image:
        assert image.info["icc_profile"] == profile


async def test_a_photo_that_was_given_by_its_id_is_read_as_the_file_it_is(emulated: Emulated, tmp_path: Path) -> None:
    source = saved(tmp_path, _as("cmyk", photo(320, 240, seed=6)), "s.jpg", quality=80)
    drawing(emulated, None, None)
    first = await use(emulated, "edit_region", image=str(source), instruction="a hat", box=[100, 80, 200, 160])
    (base,) = (one for one in first["images"][0]["parents"] if one not in {part["id"] for part in first["parts"]})
    again = await use(emulated, "edit_region", image=base, instruction="a coat", box=[100, 80, 200, 160])
    _same(seen(source), seen(again["file_paths"][0]), _reach((320, 240), (100, 80, 200, 160), 16))


async def test_a_picture_that_is_also_in_the_files_api_is_edited_from_its_file(
    emulated: Emulated, tmp_path: Path
) -> None:
    source = saved(tmp_path, photo(320, 240, seed=6), "s.jpg")
    uploaded = await use(emulated, "upload_file", path=str(source))
    drawing(emulated, None)
    facts = await use(emulated, "edit_region", image=uploaded["name"], instruction="a hat", box=[100, 80, 200, 160])
    _same(seen(source), seen(facts["file_paths"][0]), _reach((320, 240), (100, 80, 200, 160), 16))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "by box or by mask"),
        ({"box": [0, 0, 1, 1], "mask": "mask.png"}, "by one of them"),
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
