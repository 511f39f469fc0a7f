"""A region edit that changed nothing, something beside it or more than it: told, and joined again for nothing."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastmcp.exceptions import ToolError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from nanobanana_mcp.domain.catalog import RATIOS
from nanobanana_mcp.domain.shapes import answer_pixels
from nanobanana_mcp.emulator.control import Picture
from nanobanana_mcp.pixels.edits.patch import join, prepare, prepared
from tests.conftest import Emulated
from tests.support.easel import beyond, drawing, recipe_of, same, saved, seen, use
from tests.support.scenes import as_bytes, photo, redrawn

SIZE, BOX = (640, 480), (250, 180, 370, 290)
OVER = (280, 200, 430, 275)
"""The box that the model changes where it goes over the right edge of the box."""


def _answer(source: Path, where: tuple[int, int, int, int] | None, *, context: float = 0.5) -> Picture:
    """A drifted redraw of what is sent for the box, with other content `where`, in px of the source."""
    data = source.read_bytes()
    ratios = {ratio: answer_pixels(ratio, "1K") for ratio in RATIOS}
    patch = prepare(data, box=BOX, mask=None, grow=16, feather=16, context=context, ratios=ratios)
    whole = Image.open(io.BytesIO(data)).convert("RGB")
    if where is not None:
        other = photo(where[2] - where[0], where[3] - where[1], seed=61)
        whole.paste(other.point(lambda value: 255 - value), where[:2])
    drifted = redrawn(whole.crop(patch.box), shift=(3, -2), scale=1.004, gain=(0.97, 1, 1.02), size=(1024, 1024))
    return Picture(as_bytes(drifted, "JPEG", quality=92), "image/jpeg")


def _image_id(words: str) -> str:
    found = re.search(r"image (img_\w+) and rejoin|image (img_\w+), rejoin", words)
    assert found is not None, words
    return found[1] or found[2]


def _box(words: str) -> list[int]:
    return [int(number) for number in re.findall(r"box \[([\d, ]+)\]", words)[-1].split(",")]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return saved(tmp_path, photo(*SIZE, seed=8), "harbour.png")


@pytest.mark.slow
async def test_a_region_that_comes_back_as_it_was_is_no_edit_and_not_asked_for_again(
    emulated: Emulated, source: Path
) -> None:
    drawing(emulated, _answer(source, None))
    wish = {"image": str(source), "instruction": "a hat", "box": list(BOX), "idempotency_key": "hat"}
    with pytest.raises(
        ToolError, match=r"as it was\. Nothing was pasted\. 1 answer was paid for \(\$0\.\d+\)"
    ) as caught:
        await use(emulated, "edit_region", **wish)
    assert len(emulated.drawn) == len(emulated.emulator.charges) == 1
    with pytest.raises(ToolError, match="nothing was charged again"):
        await use(emulated, "edit_region", **wish)
    facts = await use(emulated, "edit_region", image=_image_id(str(caught.value)), instruction="a hat", rejoin=True)
    assert facts["images"][0]["report"]["changed"] == "no" and facts["cost_usd"] == 0
    same(seen(source), seen(facts["file_paths"][0]), beyond(SIZE, BOX, 16))
    assert len(emulated.emulator.charges) == 1


@pytest.mark.slow
async def test_a_change_beside_the_region_is_told_and_joined_for_nothing_where_it_is(
    emulated: Emulated, source: Path
) -> None:
    drawing(emulated, _answer(source, (395, 200, 455, 270)))
    with pytest.raises(ToolError, match="left the region as it was and changed") as caught:
        await use(emulated, "edit_region", image=str(source), instruction="a hat", box=list(BOX))
    words = str(caught.value)
    wider = _box(words)
    assert wider[2] >= 455 and wider[0] <= BOX[0]
    facts = await use(emulated, "edit_region", image=_image_id(words), instruction="a hat", rejoin=True, box=wider)
    old, new = seen(source), seen(facts["file_paths"][0])
    assert np.abs(new[210:260, 405:445].astype(int) - old[210:260, 405:445]).mean() > 10
    same(old, new, beyond(SIZE, (wider[0], wider[1], wider[2], wider[3]), 16))
    assert len(emulated.emulator.charges) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "shown", [(0.03, 0, 1, 1), (0, 0, 1, 0.97), (0.1, 0.1, 0.9, 0.9), (0.1, 0.08, 1, 0.98)], ids=str
)
async def test_what_is_framed_in_another_way_is_mended_and_not_paid_for_twice(
    emulated: Emulated, source: Path, shown: tuple[float, float, float, float]
) -> None:
    answer = Image.open(io.BytesIO(_answer(source, (270, 200, 350, 270), context=1.0).data)).convert("RGB")
    part = answer.crop(tuple(round(1024 * edge) for edge in shown)).resize((1024, 1024), Image.Resampling.BICUBIC)
    drawing(emulated, Picture(as_bytes(part, "JPEG", quality=92), "image/jpeg"))
    facts = await use(emulated, "edit_region", image=str(source), instruction="a hat", box=list(BOX), context=1.0)
    assert facts["images"][0]["report"]["verdict"] == "good" and len(emulated.emulator.charges) == 1
    same(seen(source), seen(facts["file_paths"][0]), beyond(SIZE, BOX, 16))


@pytest.mark.slow
async def test_a_change_over_the_edge_is_told_with_the_box_that_has_all_of_it(emulated: Emulated, source: Path) -> None:
    drawing(emulated, _answer(source, OVER))
    first = await use(emulated, "edit_region", image=str(source), instruction="a hat", box=list(BOX))
    (note,) = (one for one in first["warnings"] if "goes over the region's edge" in one)
    assert first["images"][0]["report"]["verdict"] == "poor"
    again = await use(
        emulated, "edit_region", image=first["images"][0]["id"], instruction="a hat", rejoin=True, box=_box(note)
    )
    report = again["images"][0]["report"]
    assert report["verdict"] == "good" and report["changed"] == "yes" and again["cost_usd"] == 0
    assert _image_id(note) in again["images"][0]["parents"]
    assert len(emulated.emulator.charges) == 1


@pytest.mark.slow
async def test_a_region_that_grows_by_itself_goes_as_far_as_the_change(emulated: Emulated, source: Path) -> None:
    drawing(emulated, _answer(source, OVER))
    facts = await use(emulated, "edit_region", image=str(source), instruction="a hat", box=list(BOX), grow="auto")
    report = facts["images"][0]["report"]
    left, top, right, bottom = report["pasted_box"]
    assert report["verdict"] == "good" and report["grown"] == "yes"
    assert right >= OVER[2] and left <= BOX[0] and right - left < 260
    assert any("was grown to what the model changed" in warning for warning in facts["warnings"])
    same(seen(source), seen(facts["file_paths"][0]), beyond(SIZE, (left, top, right, bottom), 0))
    assert recipe_of(facts["file_paths"][0])["grow"] == "auto" and len(emulated.emulator.charges) == 1


@pytest.mark.slow
async def test_a_mask_stays_a_hard_limit_when_the_region_would_grow(
    emulated: Emulated, source: Path, tmp_path: Path
) -> None:
    mask = Image.new("L", SIZE)
    ImageDraw.Draw(mask).rectangle((BOX[0], BOX[1], BOX[2] - 1, BOX[3] - 1), fill=255)
    path = saved(tmp_path, mask, "mask.png")
    drawing(emulated, _answer(source, OVER))
    facts = await use(
        emulated, "edit_region", image=str(source), instruction="a hat", mask=str(path), grow="auto", feather=0
    )
    same(seen(source), seen(facts["file_paths"][0]), beyond(SIZE, BOX, 0))
    assert any("hard limit" in warning for warning in facts["warnings"])
    assert facts["images"][0]["report"]["changed_box"][2] >= OVER[2]


@pytest.mark.slow
async def test_the_same_join_again_is_the_same_picture_and_another_is_another(emulated: Emulated, source: Path) -> None:
    drawing(emulated, _answer(source, (270, 200, 350, 270)))
    first = await use(emulated, "edit_region", image=str(source), instruction="a hat", box=list(BOX), width=320)
    wish: dict[str, Any] = {"image": first["images"][0]["id"], "instruction": "a hat", "rejoin": True}
    softer = [await use(emulated, "edit_region", **wish, feather=30, grow=4) for _ in range(2)]
    harder = await use(emulated, "edit_region", **wish, feather=0)
    ids = [one["images"][0]["id"] for one in (first, *softer, harder)]
    assert ids[1] == ids[2] and len(set(ids)) == 3
    same(seen(source), seen(softer[0]["file_paths"][0]), beyond(SIZE, BOX, 4))
    told = await use(emulated, "edit_region", **wish, dry_run=True)
    assert told["estimated_usd"] == 0 and "for nothing" in told["summary"]
    Path(softer[0]["file_paths"][0]).unlink()
    made_anew = await use(emulated, "edit_region", **wish, feather=30, grow=4)
    assert Path(made_anew["file_paths"][0]).exists()
    assert len(emulated.emulator.charges) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": "harbour.png"}, "is neither"),
        ({"image": "img_000000000000000000"}, "is neither"),
        ({"resolution": "2k"}, "no say in it"),
        ({"box": [0, 0, 630, 470]}, "shows only"),
        ({"box": [0, 0, 90, 90], "mask": "harbour.png"}, "by one of them"),
        ({"grow": "wide"}, "auto"),
    ],
)
async def test_what_cannot_be_joined_again_is_refused_in_words(
    emulated: Emulated, source: Path, changes: dict[str, Any], words: str
) -> None:
    drawing(emulated, _answer(source, (270, 200, 350, 270)))
    first = await use(emulated, "edit_region", image=str(source), instruction="a hat", box=list(BOX))
    with pytest.raises(ToolError, match=words):
        await use(
            emulated,
            "edit_region",
            **({"image": first["images"][0]["id"], "instruction": "a hat", "rejoin": True} | changes),
        )
    assert len(emulated.emulator.charges) == 1


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(
    where=st.tuples(st.integers(200, 300), st.integers(150, 230), st.integers(60, 150), st.integers(50, 110)),
    grow=st.one_of(st.integers(0, 30), st.just("auto")),
    feather=st.integers(0, 30),
    mode=st.sampled_from(["RGB", "RGBA", "L"]),
)
def test_whatever_is_joined_and_however_it_grew_nothing_changes_outside_what_is_told(
    where: tuple[int, int, int, int], grow: Any, feather: int, mode: str
) -> None:
    picture = photo(*SIZE, seed=8).convert(mode)
    if mode == "RGBA":
        picture.putalpha(Image.linear_gradient("L").resize(SIZE))
    data = as_bytes(picture)
    ratios = {ratio: answer_pixels(ratio, "1K") for ratio in RATIOS}
    patch = prepare(data, box=BOX, mask=None, grow=16, feather=16, context=0.5, ratios=ratios)
    edited = Image.open(io.BytesIO(patch.crop)).convert("RGB")
    at = (where[0] - patch.box[0], where[1] - patch.box[1])
    edited.paste(photo(where[2], where[3], seed=61).point(lambda value: 255 - value), at)
    again = prepared(data, box=BOX, mask=None, grow=grow, feather=feather, crop=patch.box)
    joined = join(data, as_bytes(redrawn(edited, shift=(2, -1)), "JPEG", quality=92), again, anyway=True)
    if joined.data is not None:
        same(seen(data), seen(joined.data), beyond(SIZE, joined.pasted, 0))
