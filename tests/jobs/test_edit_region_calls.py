"""An edit of a region costs two calls at most, and pays nothing twice and pastes nothing blindly."""

import asyncio
import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastmcp.exceptions import ToolError
from PIL import Image, ImageFilter

from nanobanana_mcp.domain.budget import Limits
from nanobanana_mcp.emulator.control import Edit, Finish, Picture
from nanobanana_mcp.jobs.recipes import region as patching
from nanobanana_mcp.studio.edits import EditRequest, region_job
from nanobanana_mcp.studio.studio import Studio
from tests.conftest import Connect, Emulated
from tests.support.easel import beyond, charged, drawing, elsewhere, files, same, saved, seen, use
from tests.support.fakes import FakeModel
from tests.support.scenes import as_bytes, photo

DRIFT = Edit(shift=(0.01, -0.008), scale=1.012, gain=(0.95, 1.02, 1.04), offset=(4, -3, 2))


@pytest.mark.slow
async def test_an_answer_that_shows_something_else_is_asked_for_once_more(emulated: Emulated, tmp_path: Path) -> None:
    source = saved(tmp_path, photo(600, 450, seed=8), "s.png")
    drawing(emulated, elsewhere(), DRIFT)
    facts = await use(emulated, "edit_region", image=str(source), instruction="a hat", box=[200, 130, 350, 280])
    assert len(facts["parts"]) == 2 and len(emulated.drawn) == 2
    assert any("asked for once more" in warning for warning in facts["warnings"])
    assert facts["cost_usd"] == pytest.approx(charged(emulated), abs=1e-5)
    record = emulated.studio.library.get(facts["images"][0]["id"])
    assert record is not None and record.parents[-1].image_id == facts["parts"][1]["id"]
    same(seen(source), seen(facts["file_paths"][0]), beyond((600, 450), (200, 130, 350, 280), 16))


@pytest.mark.slow
async def test_two_answers_that_show_something_else_are_kept_and_not_pasted(emulated: Emulated, tmp_path: Path) -> None:
    source = saved(tmp_path, photo(600, 450, seed=8), "s.png")
    before = source.read_bytes()
    drawing(emulated, elsewhere(), Picture(as_bytes(photo(1024, 1024, seed=78), "JPEG"), "image/jpeg"))
    arguments = {"image": str(source), "instruction": "a hat", "box": [200, 130, 350, 280], "idempotency_key": "hat"}
    with pytest.raises(ToolError, match=r"not pasted.*2 answers were paid for \(\$0\.\d+\) and are kept") as caught:
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
    source = saved(tmp_path, photo(480, 360, seed=6), "s.png")
    result = await emulated.client.call_tool(
        "edit_region", {"image": str(source), "instruction": "a hat", "box": [0.3, 0.3, 0.6, 0.6], "dry_run": True}
    )
    facts = result.structured_content
    assert facts["dry_run"] and facts["calls_at_most"] == 2
    assert facts["estimated_usd"] == pytest.approx(2 * facts["estimated_usd_each"])
    assert "at most" in result.content[0].text
    assert emulated.emulator.requests == [] and not files(tmp_path / "pictures")
    assert emulated.studio.library.find_by_content(hashlib.sha256(source.read_bytes()).hexdigest()) is None


@pytest.mark.parametrize("cut", [-2000, 400])
async def test_a_damaged_photograph_is_named_and_nothing_is_paid_for_it(
    emulated: Emulated, tmp_path: Path, cut: int
) -> None:
    source = saved(tmp_path, photo(480, 360, seed=6), "holiday.jpg")
    source.write_bytes(source.read_bytes()[:cut])
    for dry_run in (True, False):
        with pytest.raises(ToolError, match=r"holiday\.jpg: .*cut off"):
            await use(
                emulated,
                "edit_region",
                image=str(source),
                instruction="a hat",
                box=[0.3, 0.3, 0.6, 0.6],
                dry_run=dry_run,
            )
    assert emulated.emulator.requests == []


async def test_a_photograph_of_which_a_part_is_sent_has_the_notes_of_one_that_is_sent(
    emulated: Emulated, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    source = saved(tmp_path, photo(480, 360, seed=6), "holiday.jpg", exif=exif.tobytes())
    source.write_bytes(source.read_bytes() + b"x" * 77)
    whole = await use(emulated, "generate_image", prompt="a hat", input_images=[str(source)], dry_run=True)
    part = await use(
        emulated, "edit_region", image=str(source), instruction="a hat", box=[0.3, 0.3, 0.6, 0.6], dry_run=True
    )
    told = [note for note in whole["warnings"] if "holiday" in note]
    assert len(told) == 2 and told == [note for note in part["warnings"] if "holiday" in note]


@pytest.mark.slow
async def test_what_is_charged_is_what_the_answer_and_the_ledger_say_and_no_more_than_was_reserved(
    emulated: Emulated, tmp_path: Path
) -> None:
    source = saved(tmp_path, photo(480, 360, seed=6), "s.png")
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


@pytest.mark.slow
async def test_the_same_key_again_gives_the_finished_picture_and_pays_nothing(
    emulated: Emulated, tmp_path: Path
) -> None:
    source = saved(tmp_path, photo(480, 360, seed=6), "s.png")
    wish = {"image": str(source), "instruction": "a hat", "box": [150, 110, 300, 230], "idempotency_key": "hat"}
    drawing(emulated, DRIFT)
    first = await use(emulated, "edit_region", **wish)
    again = await use(emulated, "edit_region", **wish)
    assert again["file_paths"] == first["file_paths"]
    assert again["parts"] == first["parts"] and again["cost_usd"] == first["cost_usd"]
    assert len(emulated.drawn) == 1
    with pytest.raises(ToolError, match="used before for a different request"):
        await use(emulated, "edit_region", **(wish | {"box": [150, 110, 310, 230]}))


@pytest.mark.slow
@pytest.mark.parametrize("by", ["recovery", "asking again"])
async def test_an_edit_whose_process_died_after_its_answer_came_is_finished_without_paying_again(
    emulated: Emulated,
    make_studio: Callable[..., Studio],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    by: str,
) -> None:
    source = saved(tmp_path, photo(480, 360, seed=6), "s.png")
    white = Image.new("L", (64, 48))
    white.paste(255, (20, 15, 40, 35))
    mask = saved(tmp_path, white, "mask.png")
    drawing(emulated, DRIFT)
    wish = EditRequest(image=str(source), instruction="a hat")
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
    first._process_lock.close()
    monkeypatch.undo()
    second = make_studio(model=emulated.gemini)
    try:
        if by == "recovery":
            found = await second.recover()
            assert any(one.record is not None and one.record.origin == "edited" for one in found)
        created = await ask(second)
        (image,) = created.images
        assert image.record.origin == "edited" and len(created.parts) == 1
        grown = white.resize((480, 360), Image.Resampling.BILINEAR).filter(ImageFilter.MaxFilter(15))
        same(seen(source), seen(str(image.record.path)), np.asarray(grown) < 16)
        assert len(files(second.places.output)) == 1
        assert len(emulated.emulator.charges) == 1
    finally:
        over.set()
        with pytest.raises(RuntimeError, match="dead"):
            await lost
        await first.close()
        await second.close()


@pytest.mark.slow
async def test_starts_do_not_try_for_ever_to_put_together_what_does_not_fit(
    emulated: Emulated, make_studio: Callable[..., Studio], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = saved(tmp_path, photo(480, 360, seed=6), "s.png")
    drawing(emulated, DRIFT)
    studio = make_studio(model=emulated.gemini)
    wish = EditRequest(image=str(source), instruction="a hat")
    job = await region_job(studio, wish, box=(150, 110, 300, 230), mask=None, feather=9, grow=7, context=0.5)

    async def killed(*_: Any, **__: Any) -> Any:
        raise RuntimeError("this process is dead")

    with monkeypatch.context() as patch:
        patch.setattr("nanobanana_mcp.jobs.recipes.region.keep_composed", killed)
        with pytest.raises(RuntimeError, match="dead"):
            await studio.carry_out(job)
    tried: list[str] = []
    monkeypatch.setattr("nanobanana_mcp.jobs.recovery.rejoin", lambda *_, **__: tried.append("once"))
    for _ in range(9):
        studio._process_lock.close()
        studio = make_studio(model=emulated.gemini)
        await studio.recover()
    assert 2 <= len(tried) <= 7
    monkeypatch.undo()
    created = await studio.carry_out(job)  # a person who asks again is not held to that
    assert created.images[0].record.origin == "edited" and len(emulated.emulator.charges) == 1
    await studio.close()
