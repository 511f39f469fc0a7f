"""extend_image: the picture stays bit for bit in its place, whatever the shape, the steps and the model's drift."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastmcp.exceptions import ToolError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from nanobanana_mcp.domain.budget import Limits
from nanobanana_mcp.domain.catalog import RATIOS
from nanobanana_mcp.domain.shapes import answer_pixels
from nanobanana_mcp.emulator.control import Edit, Extension, Finish, Picture
from nanobanana_mcp.pixels.edits.canvas import canvas_with_margins, padded, planned, started
from nanobanana_mcp.studio.studio import Studio
from tests.conftest import Connect, Emulated
from tests.support.easel import charged, drawing, elsewhere, files, recipe_of, saved, seen, shapes, use
from tests.support.fakes import FakeModel
from tests.support.lanes import cases
from tests.support.scenes import as_bytes, photo

STILL = Edit(where=(0.9, 0.9, 1, 1))  # in a corner: a panel in the middle hides half of a small picture
DRIFT = Edit(shift=(0.01, -0.012), scale=1.015, gain=(0.95, 1.02, 1.04), offset=(4, -3, 2), where=(0.9, 0.9, 1, 1))


def _stands(source: Path, result: str, left: int, top: int) -> None:
    """The source is in the result, bit for bit, at this place."""
    old, new = seen(source), seen(result)
    height, width = old.shape[:2]
    assert (new[top : top + height, left : left + width, : old.shape[2]] == old).all()


@pytest.mark.slow
async def test_margins_on_every_side_leave_the_picture_bit_for_bit_in_its_place(
    emulated: Emulated, tmp_path: Path
) -> None:
    source = saved(tmp_path, photo(450, 300, seed=2), "s.jpg", quality=85)
    before = source.read_bytes()
    drawing(emulated, DRIFT)
    facts = await use(emulated, "extend_image", image=str(source), top=60, right=120, bottom=40, left=80)
    assert (facts["images"][0]["width"], facts["images"][0]["height"]) == (650, 400)
    assert facts["images"][0]["mime_type"] == "image/png"
    _stands(source, facts["file_paths"][0], 80, 60)
    assert seen(facts["file_paths"][0])[:50].std() > 8
    assert source.read_bytes() == before
    report = facts["images"][0]["report"]
    assert (report["source_left"], report["source_top"], report["steps"]) == (80, 60, 1)


@pytest.mark.slow
@settings(
    derandomize=True,
    deadline=None,
    max_examples=6,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    size=st.tuples(st.integers(120, 400), st.integers(120, 400)),
    margins=st.tuples(*(st.integers(0, 120) for _ in range(4))).filter(any),
    kind=st.sampled_from(["jpg", "png", "rgba.png", "webp", "gif"]),
    drift=st.sampled_from([STILL, DRIFT]),
)
async def test_the_picture_stays_whatever_the_margins_and_the_format(
    emulated: Emulated,
    tmp_path: Path,
    size: tuple[int, int],
    margins: tuple[int, int, int, int],
    kind: str,
    drift: Edit,
) -> None:
    image = photo(*size, seed=3)
    if kind == "rgba.png":
        image = Image.merge("RGBA", (*image.split(), Image.linear_gradient("L").resize(size)))
    source = saved(tmp_path, image.quantize(64) if kind == "gif" else image, f"s.{kind}")
    left, top, right, bottom = margins
    emulated.emulator.control.standing = drift
    drawing(emulated)
    facts = await use(emulated, "extend_image", image=str(source), left=left, top=top, right=right, bottom=bottom)
    made = facts["images"][0]
    assert (made["width"], made["height"]) == (size[0] + left + right, size[1] + top + bottom)
    _stands(source, facts["file_paths"][0], left, top)


async def test_a_narrow_margin_beside_white_is_not_called_unpainted(emulated: Emulated, tmp_path: Path) -> None:
    fading = Image.merge("RGBA", (*photo(120, 120, seed=3).split(), Image.linear_gradient("L").resize((120, 120))))
    source = saved(tmp_path, fading, "s.png")
    emulated.emulator.control.standing = STILL
    drawing(emulated)
    facts = await use(emulated, "extend_image", image=str(source), top=4, bottom=1)
    _stands(source, facts["file_paths"][0], 0, 4)


@pytest.mark.slow
async def test_a_thing_drawn_into_the_picture_that_ends_at_its_edge_is_no_edge_of_what_was_painted(
    emulated: Emulated, tmp_path: Path
) -> None:
    fading = Image.merge("RGBA", (*photo(120, 120, seed=3).split(), Image.linear_gradient("L").resize((120, 120))))
    source = saved(tmp_path, fading, "s.png")
    emulated.emulator.control.standing = Edit(where=(0.22, 0.34, 0.78, 0.66))  # its panel begins 3 px below the join
    drawing(emulated)
    facts = await use(emulated, "extend_image", image=str(source), top=56, right=1)
    _stands(source, facts["file_paths"][0], 0, 56)


@pytest.mark.slow
@cases(
    ("ratio", "tier", "size"),
    [
        ("16:9", "flash", (356, 200)),
        ("9:16", "flash", (250, 444)),
        ("1:4", "pro", (250, 1000)),
        ("3:1", "flash", (600, 200)),
        ("2.39:1", "flash", (478, 200)),
    ],
)
async def test_a_ratio_is_reached_even_one_that_the_model_lacks(
    emulated: Emulated, tmp_path: Path, ratio: str, tier: str, size: tuple[int, int]
) -> None:
    source = saved(tmp_path, photo(250, 200, seed=4), "s.png")
    emulated.emulator.control.standing = DRIFT
    drawing(emulated)
    facts = await use(emulated, "extend_image", image=str(source), aspect_ratio=ratio, model_tier=tier)
    made = facts["images"][0]
    assert (made["width"], made["height"]) == size
    place = recipe_of(facts["file_paths"][0])["place"]
    _stands(source, facts["file_paths"][0], place[0], place[1])
    if tier == "pro":
        assert all(sent not in ("1:4", "4:1", "1:8", "8:1") for sent, _ in shapes(emulated))


@pytest.mark.slow
async def test_a_size_beyond_one_call_takes_several_steps_and_the_quote_says_so(
    emulated: Emulated, tmp_path: Path
) -> None:
    source = saved(tmp_path, photo(500, 400, seed=5), "s.png")
    wish = {"image": str(source), "width": 2400, "height": 900, "resolution": "1k", "instruction": "a long beach"}
    quoted = await use(emulated, "extend_image", **wish, dry_run=True)
    assert emulated.emulator.requests == []
    emulated.emulator.control.standing = DRIFT
    drawing(emulated)
    facts = await use(emulated, "extend_image", **wish)
    made = facts["images"][0]
    assert (made["width"], made["height"]) == (2400, 900)
    steps = made["report"]["steps"]
    assert steps >= 2 and len(emulated.drawn) == steps == quoted["calls_at_most"] - 1
    _stands(source, facts["file_paths"][0], *recipe_of(facts["file_paths"][0])["place"][:2])
    assert facts["cost_usd"] == pytest.approx(charged(emulated), abs=1e-5)
    assert emulated.studio.journal.spending("gemini").hour_usd == pytest.approx(charged(emulated), abs=1e-5)
    assert charged(emulated) <= quoted["estimated_usd"]
    record = emulated.studio.library.get(made["id"])
    assert record is not None
    assert [parent.role for parent in record.parents] == ["base"] + steps * ["part"]
    assert files(emulated.studio.places.output) == [Path(facts["file_paths"][0])]
    assert all("a long beach" in request["contents"][0]["parts"][0]["text"] for request in emulated.drawn)


@pytest.mark.slow
async def test_of_two_sizes_at_one_price_the_sharper_is_asked_for(emulated: Emulated, tmp_path: Path) -> None:
    source = saved(tmp_path, photo(500, 400, seed=5), "s.png")
    drawing(emulated)
    await use(emulated, "extend_image", image=str(source), right=100, model_tier="pro")
    await use(emulated, "extend_image", image=str(source), right=100, model_tier="flash")
    assert [size for _, size in shapes(emulated)] == ["2K", "1K"]


@pytest.mark.slow
async def test_an_answer_that_does_not_go_on_from_the_picture_is_asked_for_once_more(
    emulated: Emulated, tmp_path: Path
) -> None:
    source = saved(tmp_path, photo(450, 300, seed=2), "s.png")
    drawing(emulated, elsewhere(), DRIFT)
    facts = await use(emulated, "extend_image", image=str(source), right=200)
    assert len(facts["parts"]) == 2
    assert any("asked for once more" in warning for warning in facts["warnings"])
    assert facts["cost_usd"] == pytest.approx(charged(emulated), abs=1e-5)
    _stands(source, facts["file_paths"][0], 0, 0)


@pytest.mark.slow
async def test_nonsense_twice_is_refused_with_what_was_paid_and_nothing_pasted(
    emulated: Emulated, tmp_path: Path
) -> None:
    source = saved(tmp_path, photo(450, 300, seed=2), "s.png")
    drawing(emulated, elsewhere(), Picture(as_bytes(photo(1024, 1024, seed=78))))
    wish = {"image": str(source), "right": 200, "idempotency_key": "wider"}
    with pytest.raises(ToolError, match=r"2 answers were paid for \(\$0\.\d+\) and are kept") as caught:
        await use(emulated, "extend_image", **wish)
    kept = list(emulated.studio.places.parts.iterdir())
    assert len(kept) == 2 and all(str(path) in str(caught.value) for path in kept)
    assert files(emulated.studio.places.output) == []
    with pytest.raises(ToolError, match="not put together"):
        await use(emulated, "extend_image", **wish)
    assert len(emulated.emulator.charges) == 2


@pytest.mark.slow
@cases(
    ("beyond", "words"),
    [
        ("left", "left 99% of what was to be painted"),
        ("framed", "behind a hard edge"),
        ("foreign", "behind a hard edge"),
    ],
)
async def test_a_canvas_left_framed_or_painted_with_another_scene_is_not_delivered_and_told_with_its_price(
    emulated: Emulated, tmp_path: Path, beyond: Any, words: str
) -> None:
    source = saved(tmp_path, photo(450, 300, seed=2), "s.png")
    emulated.emulator.control.drift = "L2"
    drawing(emulated, Extension(beyond), Extension(beyond))
    with pytest.raises(ToolError, match=words) as caught:
        await use(emulated, "extend_image", image=str(source), right=150, left=100)
    assert f"2 answers were paid for (${charged(emulated):.3f}) and are kept" in str(caught.value)
    assert files(emulated.studio.places.output) == []
    assert all(str(path) in str(caught.value) for path in emulated.studio.places.parts.iterdir())


@pytest.mark.slow
@cases("margin", [6, 24])
async def test_a_narrow_margin_that_was_left_is_told_and_one_that_was_painted_is_delivered(
    emulated: Emulated, tmp_path: Path, margin: Any
) -> None:
    source = saved(tmp_path, photo(300, 420, seed=3), "s.png")
    drawing(emulated, Extension("left"), Extension("left"), None)
    with pytest.raises(ToolError, match=r"left \d+% of what was to be painted"):
        await use(emulated, "extend_image", image=str(source), top=margin)
    facts = await use(emulated, "extend_image", image=str(source), top=margin)
    _stands(source, facts["file_paths"][0], 0, margin)


@pytest.mark.slow
@pytest.mark.parametrize(("painted", "told"), [(1.0, False), (0.76, True)])
async def test_a_quarter_of_a_canvas_that_looks_as_it_was_sent_is_told_and_delivered(
    emulated: Emulated, tmp_path: Path, painted: float, told: bool
) -> None:
    wide = photo(700, 480, seed=2)
    source = saved(tmp_path, wide.crop((0, 0, 450, 480)), "s.png")
    canvas = canvas_with_margins((450, 480), right=250)
    (step,) = planned(canvas, ratios={ratio: answer_pixels(ratio, "1K") for ratio in RATIOS})
    answer = padded(started(wide.crop((0, 0, 450, 480)), canvas), step)
    below = round(480 * painted)
    answer.paste(wide.crop((0, 0, 700, below)), (-step.box[0], -step.box[1]))
    answer.paste(wide.crop((0, 0, 450, 480)), (-step.box[0], -step.box[1]))
    drawing(emulated, Picture(as_bytes(answer, "PNG"), "image/png"))
    facts = await use(emulated, "extend_image", image=str(source), right=250)
    assert any("% of what was to be painted looks as it was sent" in warning for warning in facts["warnings"]) == told
    _stands(source, facts["file_paths"][0], 0, 0)


@pytest.mark.slow
async def test_a_canvas_that_was_left_is_asked_for_once_more_and_then_delivered(
    emulated: Emulated, tmp_path: Path
) -> None:
    source = saved(tmp_path, photo(450, 300, seed=2), "s.png")
    drawing(emulated, Extension("left"), None)
    facts = await use(emulated, "extend_image", image=str(source), right=200)
    assert any("as it was sent" in warning and "once more" in warning for warning in facts["warnings"])
    assert facts["cost_usd"] == pytest.approx(charged(emulated), abs=1e-5)
    _stands(source, facts["file_paths"][0], 0, 0)


@pytest.mark.slow
@cases("drift", ["L1", "L2", "L3"])
async def test_an_extension_redrawn_as_models_redraw_is_delivered_without_a_word(
    emulated: Emulated, tmp_path: Path, drift: Any
) -> None:
    source = saved(tmp_path, photo(450, 300, seed=2), "s.png")
    emulated.emulator.control.drift = drift
    drawing(emulated, None)
    facts = await use(emulated, "extend_image", image=str(source), right=200)
    assert facts["warnings"] == [] and len(emulated.drawn) == 1
    _stands(source, facts["file_paths"][0], 0, 0)


@pytest.mark.slow
@cases("level", [128, 255])
async def test_what_goes_on_plain_around_a_product_on_a_plain_backdrop_is_no_canvas_that_was_left(
    emulated: Emulated, tmp_path: Path, level: int
) -> None:
    backdrop = Image.new("RGB", (450, 300), (level, level, level))
    backdrop.paste(photo(200, 150, seed=4), (120, 70))
    source = saved(tmp_path, backdrop, "s.png")
    drawing(emulated, None)
    facts = await use(emulated, "extend_image", image=str(source), right=150, left=50)
    assert len(emulated.drawn) == 1
    assert np.abs(seen(facts["file_paths"][0])[:50, -100:].astype(int) - level).max() <= 12


@pytest.mark.slow
async def test_a_refusal_in_the_second_step_tells_what_the_first_one_cost(emulated: Emulated, tmp_path: Path) -> None:
    source = saved(tmp_path, photo(500, 400, seed=5), "s.png")
    drawing(emulated, DRIFT, Finish("IMAGE_SAFETY"))
    with pytest.raises(ToolError, match=r"safety filter.*paid for.*kept"):
        await use(emulated, "extend_image", image=str(source), width=2400, height=900, resolution="1k")


@pytest.mark.slow
async def test_the_same_key_again_gives_the_extended_picture_and_pays_nothing(
    emulated: Emulated, tmp_path: Path
) -> None:
    source = saved(tmp_path, photo(500, 400, seed=5), "s.png")
    drawing(emulated, DRIFT)
    wish = {"image": str(source), "right": 100, "idempotency_key": "wider"}
    first = await use(emulated, "extend_image", **wish)
    again = await use(emulated, "extend_image", **wish)
    assert again["file_paths"] == first["file_paths"] and len(emulated.drawn) == 1


@pytest.mark.slow
async def test_an_extension_may_be_written_as_another_format(emulated: Emulated, tmp_path: Path) -> None:
    source = saved(tmp_path, photo(500, 400, seed=5), "s.png")
    drawing(emulated, None)
    facts = await use(
        emulated,
        "extend_image",
        image=str(source),
        right=100,
        output_format="webp",
        output_path=str(tmp_path / "w.webp"),
    )
    assert facts["file_paths"] == [str(tmp_path / "w.webp")]
    with Image.open(tmp_path / "w.webp") as image:
        assert (image.format, image.size) == ("WEBP", (600, 400))
    _stands(source, facts["images"][0]["master_path"], 0, 0)


@pytest.mark.slow
async def test_the_profile_and_the_transparency_of_the_picture_stay(emulated: Emulated, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    veil = Image.linear_gradient("L").resize((300, 200))
    image = Image.merge("RGBA", (*photo(300, 200, seed=6).split(), veil))
    source = saved(tmp_path, image, "s.png", icc_profile=profile)
    drawing(emulated, None)
    facts = await use(emulated, "extend_image", image=str(source), left=50)
    _stands(source, facts["file_paths"][0], 50, 0)
    assert (seen(facts["file_paths"][0])[:, :50, 3] == 255).all()
    with Image.open(facts["file_paths"][0]) as made:
        assert made.info["icc_profile"] == profile


async def test_limits_count_every_step_before_the_first_is_sent(
    make_studio: Callable[..., Studio], connect: Connect, model: FakeModel, tmp_path: Path
) -> None:
    source = saved(tmp_path, photo(500, 400, seed=5), "s.png")
    studio = make_studio(limits=Limits(per_call_usd=0.11))
    wish = {"image": str(source), "width": 2400, "height": 900, "resolution": "1k"}
    async with connect(open_it=lambda: studio) as client:
        quoted = await client.call_tool("extend_image", wish | {"dry_run": True})
        assert "limit" in quoted.structured_content["would_be_refused"]
        with pytest.raises(ToolError, match="for one request"):
            await client.call_tool("extend_image", wish)
    assert model.requests == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "how far to extend"),
        ({"right": 10, "aspect_ratio": "16:9"}, "by one of"),
        ({"width": 900}, "both width and height"),
        ({"width": 400, "height": 900}, "does not fit into"),
        ({"aspect_ratio": "5:4"}, "nothing to extend"),
        ({"aspect_ratio": "wide"}, "two numbers such as 3:1"),
        ({"aspect_ratio": "0:1"}, "above 0"),
        ({"aspect_ratio": "900:1"}, "at most"),
        ({"right": -5}, "right"),
        ({"width": 16384, "height": 16384}, "at most"),
        ({"width": 9000, "height": 9000, "resolution": "1k"}, "calls. Extend by less"),
    ],
)
async def test_an_extension_that_is_none_is_refused_before_anything_is_sent(
    emulated: Emulated, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    source = saved(tmp_path, photo(500, 400, seed=5), "s.png")
    with pytest.raises(ToolError, match=words):
        await use(emulated, "extend_image", image=str(source), **changes)
    assert emulated.emulator.requests == []
