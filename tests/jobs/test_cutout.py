"""remove_background and background="transparent": alpha against the truth, and never a painted chequerboard."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastmcp.exceptions import ToolError
from PIL import Image, ImageColor, ImageDraw, ImageFilter

from nanobanana_mcp.domain.errors import RequestError
from nanobanana_mcp.emulator.control import Behaviour, Finish, Picture, Plate
from nanobanana_mcp.emulator.scenery import subject_of
from nanobanana_mcp.pixels.edits.key import key_colour
from nanobanana_mcp.pixels.edits.matte import key
from tests.conftest import Emulated
from tests.support.easel import charged, drawing, files, label_of, saved, seen, shapes, use
from tests.support.lanes import cases
from tests.support.scenes import as_bytes, cutout, on_background, photo, redrawn

SIZE = (480, 360)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def _subject(seed: int = 1, size: tuple[int, int] = SIZE) -> tuple[bytes, np.ndarray]:
    """An object of body, hair, glass and shadow as a PNG with alpha, and its true alpha, 0 to 1."""
    alpha, colour = cutout(*size, seed=seed)
    pixels = np.dstack([np.clip(colour, 0, 255), alpha * 255]).round().astype(np.uint8)
    return as_bytes(Image.fromarray(pixels)), alpha


def _chequered(size: tuple[int, int] = SIZE) -> Picture:
    """The picture of transparency that a model draws when it is asked for transparency."""
    board = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(board)
    for top in range(0, size[1], 16):
        for left in range(top // 16 % 2 * 16, size[0], 32):
            draw.rectangle((left, top, left + 15, top + 15), fill=(204, 204, 204))
    draw.ellipse((size[0] * 0.3, size[1] * 0.25, size[0] * 0.7, size[1] * 0.75), fill=(180, 60, 40))
    return Picture(as_bytes(board, "JPEG", quality=90), "image/jpeg")


def _plates(seed: int, *backgrounds: tuple[int, int, int], size: tuple[int, int] = SIZE) -> list[Picture]:
    """The object before these backgrounds, as a model delivers it: JPEG."""
    alpha, colour = cutout(*size, seed=seed)
    shown = [on_background(alpha, colour, background) for background in backgrounds]
    return [Picture(as_bytes(plate, "JPEG", quality=88), "image/jpeg") for plate in shown]


def _alpha(path: str) -> np.ndarray:
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("PNG", "RGBA")
        return np.asarray(image, np.float32)[..., 3] / 255


@pytest.mark.slow
async def test_a_background_that_the_model_left_as_it_was_is_no_cutout(emulated: Emulated, tmp_path: Path) -> None:
    rows, columns = np.mgrid[0:360, 0:480].astype(np.float32)
    gradient = np.dstack([columns / 480 * 255, rows / 360 * 255, 255 - columns / 480 * 255]).astype(np.uint8)
    noise = np.random.default_rng(3).integers(0, 256, (360, 480, 3), np.uint8)
    for pixels in (gradient, noise):
        emulated.emulator.control.standing = Picture(as_bytes(Image.fromarray(pixels)), "image/png")
        source = saved(tmp_path, Image.fromarray(pixels), "s.png")
        with pytest.raises(ToolError, match="could not be taken away"):
            await use(emulated, "remove_background", image=str(source))


@pytest.mark.slow
async def test_the_emulator_cuts_out_what_it_is_asked_for_in_words(emulated: Emulated, tmp_path: Path) -> None:
    drawing(emulated, None)
    source = saved(tmp_path, photo(*SIZE, seed=4), "s.png")
    cut = await use(emulated, "remove_background", image=str(source))
    new = await use(emulated, "generate_image", prompt="a mug", background="transparent")
    for facts in (cut, new):
        alpha = _alpha(facts["images"][0]["path"])
        assert alpha[0, 0] == alpha[-1, -1] == 0 and alpha[alpha.shape[0] // 2, alpha.shape[1] // 2] == 1
    assert cut["images"][0]["report"]["overlays_source"] == "yes"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_the_alpha_of_hair_glass_and_shadow_is_the_true_one(
    emulated: Emulated, tmp_path: Path, seed: int
) -> None:
    subject, truth = _subject(seed)
    behind = photo(*SIZE, seed=9)
    cut = Image.open(BytesIO(subject))
    behind.paste(cut, mask=cut)
    source = saved(tmp_path, behind, "s.jpg")
    before = source.read_bytes()
    drawing(emulated, *_plates(seed, WHITE, BLACK))
    facts = await use(emulated, "remove_background", image=str(source), subject="the furry ball")
    found = _alpha(facts["file_paths"][0])
    soft = (truth > 0.02) & (truth < 0.98)
    assert found.shape == truth.shape
    assert np.abs(found - truth).mean() < 0.02
    assert np.abs(found - truth)[soft].mean() < 0.03
    report = facts["images"][0]["report"]
    assert report["method"] == "white and black plates" and report["mismatch"] < 0.03
    assert report["transparent"] + report["semi_transparent"] + report["opaque"] == pytest.approx(1, abs=0.001)
    assert source.read_bytes() == before
    assert all(ratio == "4:3" for ratio, _ in shapes(emulated))
    assert "the furry ball" in emulated.drawn[0]["contents"][0]["parts"][0]["text"]
    record = emulated.studio.library.get(facts["images"][0]["id"])
    assert record is not None and [parent.role for parent in record.parents] == ["base", "part", "part"]


@pytest.mark.slow
async def test_a_cutout_lies_on_its_source_whatever_size_the_model_answered_in(
    emulated: Emulated, tmp_path: Path
) -> None:
    subject, truth = _subject(2, (900, 700))
    behind = photo(900, 700, seed=9)
    cut = Image.open(BytesIO(subject))
    behind.paste(cut, mask=cut)
    source = saved(tmp_path, behind, "s.jpg")
    plates = []
    for background in ("white", "black"):
        plate = Image.new("RGB", (900, 700), background)
        plate.paste(cut, mask=cut)
        moved = redrawn(plate, shift=(12, -7), scale=1.015, size=(1152, 928), quality=90)
        plates.append(Picture(as_bytes(moved, "JPEG", quality=90), "image/jpeg"))
    drawing(emulated, *plates)
    facts = await use(emulated, "remove_background", image=str(source))
    found = _alpha(facts["file_paths"][0])
    assert found.shape == truth.shape and np.abs(found - truth).mean() < 0.02
    assert facts["images"][0]["report"]["overlays_source"] == "yes"
    assert not facts["warnings"]


@pytest.mark.slow
async def test_a_cutout_that_shows_another_framing_keeps_its_size_and_tells_both(
    emulated: Emulated, tmp_path: Path
) -> None:
    source = saved(tmp_path, photo(400, 300, seed=9), "s.png")
    drawing(emulated, *_plates(2, WHITE, BLACK))
    facts = await use(emulated, "remove_background", image=str(source))
    assert (facts["images"][0]["width"], facts["images"][0]["height"]) == SIZE
    assert facts["images"][0]["report"]["overlays_source"] == "no"
    assert any("480x360" in warning and "400x300" in warning for warning in facts["warnings"])


def _outstanding() -> tuple[Image.Image, Image.Image]:
    """A picture, and what stands out of it as the emulator cuts it out."""
    picture = Image.new("RGB", (900, 700), (120, 150, 190))
    picture.paste(photo(420, 400, seed=12), (230, 140))
    return picture, subject_of(picture, picture.size)


def _deep(subject: Image.Image) -> np.ndarray:
    return np.asarray(np.asarray(subject.getchannel("A").filter(ImageFilter.MinFilter(15))) == 255)


@pytest.mark.slow
async def test_a_pane_that_lets_a_little_through_is_not_taken_for_a_brighter_plate(
    emulated: Emulated, tmp_path: Path
) -> None:
    grain = np.random.default_rng(3).normal(0, 4, (*SIZE[::-1], 1))
    colour = np.clip(np.array([150, 140, 130]) + grain, 0, 255)
    alpha = np.zeros(SIZE[::-1], np.float32)
    alpha[SIZE[1] // 4 : 3 * SIZE[1] // 4, SIZE[0] // 4 : 3 * SIZE[0] // 4] = 0.85
    plates = [
        Picture(as_bytes(on_background(alpha, colour, plain), "JPEG", quality=90), "image/jpeg")
        for plain in (WHITE, BLACK)
    ]
    drawing(emulated, *plates)
    facts = await use(emulated, "generate_image", prompt="a pane of glass", background="transparent")
    found = _alpha(facts["file_paths"][0])
    assert np.abs(found[alpha > 0] - 0.85).mean() < 0.03


@pytest.mark.slow
@cases(("drift", "squeezed"), [("L1", 6), ("L2", 6), ("L3", 6), ("L3", 1), ("L3", 7)])
async def test_a_cutout_has_the_own_pixels_of_its_picture_inside_however_the_model_redrew_it(
    emulated: Emulated, tmp_path: Path, drift: Any, squeezed: int
) -> None:
    picture, subject = _outstanding()
    source = saved(tmp_path, picture, "s.png", compress_level=squeezed)  # other bytes are another draw of the drift
    emulated.emulator.control.drift = drift
    drawing(emulated, None)
    facts = await use(emulated, "remove_background", image=str(source))
    report = facts["images"][0]["report"]
    assert (report["method"], report["overlays_source"]) == ("white and black plates", "yes")
    assert report["own_pixels"] > 0.97
    found, deep = seen(facts["file_paths"][0]), _deep(subject)
    assert found.shape == (700, 900, 4)
    assert (found[deep][:, :3] == np.asarray(picture)[deep]).mean() > 0.98
    assert (found[deep][:, 3] >= 253).mean() > 0.99
    assert np.abs(found[..., 3] / 255 - np.asarray(subject.getchannel("A")) / 255).mean() < 0.015


@pytest.mark.slow
async def test_a_picture_larger_than_the_answer_keeps_its_own_detail_and_the_outline_is_told(
    emulated: Emulated, tmp_path: Path
) -> None:
    picture, _ = _outstanding()
    picture = picture.resize((2700, 2100), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(5).integers(-9, 10, (2100, 2700, 1))
    picture = Image.fromarray(np.clip(np.asarray(picture, int) + grain, 0, 255).astype(np.uint8))
    source = saved(tmp_path, picture, "s.png")
    emulated.emulator.control.drift = "L1"
    drawing(emulated, None)
    facts = await use(emulated, "remove_background", image=str(source), resolution="1k")
    found, deep = seen(facts["file_paths"][0]), _deep(subject_of(picture, picture.size))
    assert (found[deep][:, :3] == np.asarray(picture)[deep]).mean() > 0.98
    assert any("The outline was drawn 2." in warning for warning in facts["warnings"])


@pytest.mark.slow
async def test_what_hid_a_part_of_the_subject_is_the_models_drawing_and_told(
    emulated: Emulated, tmp_path: Path
) -> None:
    picture, subject = _outstanding()
    hidden = picture.copy()
    hidden.paste((20, 200, 40), (330, 250, 520, 420))
    source = saved(tmp_path, hidden, "s.png")
    drawing(emulated, Plate(subject=as_bytes(subject)), Plate(subject=as_bytes(subject)))
    facts = await use(emulated, "remove_background", image=str(source))
    found = seen(facts["file_paths"][0]).astype(int)
    assert np.abs(found[270:400, 350:500, :3] - np.asarray(picture, int)[270:400, 350:500]).mean() < 12
    assert 0.5 < facts["images"][0]["report"]["own_pixels"] < 0.9
    assert any("the model drew something else" in warning for warning in facts["warnings"])


@pytest.mark.slow
async def test_a_black_plate_that_is_darker_leaves_no_solid_part_see_through(
    emulated: Emulated, tmp_path: Path
) -> None:
    picture, subject = _outstanding()
    source = saved(tmp_path, picture, "s.png")
    plates = []
    for colour, level in (("white", 1.0), ("black", 0.8)):
        plate = Image.new("RGB", picture.size, colour)
        plate.paste(subject, mask=subject)
        dimmed = plate.point([round(value * level) for value in range(256)] * 3)
        plates.append(Picture(as_bytes(dimmed, "JPEG", quality=92), "image/jpeg"))
    drawing(emulated, *plates)
    facts = await use(emulated, "remove_background", image=str(source))
    assert facts["images"][0]["report"]["method"] == "white and black plates"
    assert (seen(facts["file_paths"][0])[_deep(subject)][:, 3] >= 253).mean() > 0.98


def _patterns() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Objects that are chequered themselves: grey levels and alpha, 640 x 640."""
    rows, columns = np.mgrid[0:640, 0:640]
    ones, board = np.ones((640, 640)), (rows // 40 + columns // 40) % 2
    inside = ((rows > 40) & (rows < 600) & (columns > 40) & (columns < 600)).astype(float)
    gingham = 120 + 60 * (rows // 24 % 2) + 60 * (columns // 24 % 2)
    return {
        "a chess board": (np.where(board, 235, 60), inside),
        "pale tiles to the edges": (np.where(board, 250, 205), (columns < 560) * ones),
        "a checked cloth": (gingham, (rows > 100) * ones),
        "a checked scarf": (np.where((rows // 16 + columns // 16) % 2, 230, 180), ((rows + columns) > 500) * ones),
        "lace": (90 * ones, inside * np.where(board, 1.0, 0.2)),
    }


@pytest.mark.slow
@cases("name", list(_patterns()))
async def test_what_is_chequered_itself_is_cut_out_and_not_taken_for_a_painted_chequerboard(
    emulated: Emulated, tmp_path: Path, name: str
) -> None:
    grey, alpha = _patterns()[name]
    colour = np.repeat(grey[..., None], 3, axis=2).astype(np.float32)
    behind = np.asarray(Image.new("RGB", (640, 640), (70, 110, 160)), np.float32)
    shown = colour * alpha[..., None] + behind * (1 - alpha[..., None])
    source = saved(tmp_path, Image.fromarray(shown.astype(np.uint8)), "s.png")
    plates = [on_background(alpha.astype(np.float32), colour, background) for background in (WHITE, BLACK)]
    drawing(emulated, *(Picture(as_bytes(plate, "JPEG", quality=90), "image/jpeg") for plate in plates))
    facts = await use(emulated, "remove_background", image=str(source))
    assert facts["images"][0]["report"]["method"] == "white and black plates"
    assert not any("chequerboard" in warning for warning in facts["warnings"])
    assert np.abs(_alpha(facts["file_paths"][0]) - alpha).mean() < 0.03


@pytest.mark.slow
async def test_colour_is_unmixed_from_the_background(emulated: Emulated, tmp_path: Path) -> None:
    alpha, colour = cutout(*SIZE, seed=3)
    source = saved(tmp_path, photo(*SIZE, seed=9), "s.png")
    drawing(emulated, *_plates(3, WHITE, BLACK))
    facts = await use(emulated, "remove_background", image=str(source))
    blue = Image.new("RGBA", SIZE, (40, 90, 200, 255))
    with Image.open(facts["file_paths"][0]) as cut:
        shown = np.asarray(Image.alpha_composite(blue, cut), np.float32)[..., :3]
    assert np.abs(shown - np.asarray(on_background(alpha, colour, (40, 90, 200)), np.float32)).mean() < 4


@pytest.mark.slow
async def test_a_new_picture_comes_with_real_transparency(emulated: Emulated) -> None:
    subject, truth = _subject(4, (1024, 1024))
    drawing(emulated, Plate(subject=subject), Plate(subject=subject))
    facts = await use(emulated, "generate_image", prompt="a furry ball", background="transparent", aspect_ratio="1:1")
    assert np.abs(_alpha(facts["file_paths"][0]) - truth).mean() < 0.02
    assert label_of(facts["file_paths"][0]).source_type == "compositeWithTrainedAlgorithmicMedia"
    assert facts["cost_usd"] == pytest.approx(charged(emulated), abs=1e-5)
    assert len(emulated.drawn) == 2
    assert emulated.studio.journal.spending("gemini").hour_usd == pytest.approx(charged(emulated), abs=1e-5)


@pytest.mark.slow
async def test_plates_that_do_not_match_lead_to_a_key_colour_and_the_answer_says_so(
    emulated: Emulated, tmp_path: Path
) -> None:
    truth, _ = cutout(*SIZE, seed=5)
    source = saved(tmp_path, photo(*SIZE, seed=9), "s.png")
    colour = ImageColor.getrgb(key_colour(_plates(5, WHITE)[0].data))[:3]
    drawing(emulated, *_plates(5, WHITE), *_plates(6, BLACK), *_plates(5, colour))
    facts = await use(emulated, "remove_background", image=str(source))
    assert len(emulated.drawn) == len(facts["parts"]) == 3
    report = facts["images"][0]["report"]
    assert report["method"].startswith("key colour #")
    assert any("key colour" in warning and "changed the subject between" in warning for warning in facts["warnings"])
    found = _alpha(facts["file_paths"][0])
    solid, empty = truth > 0.99, truth < 0.005
    assert found[solid].mean() > 0.9 and found[empty].mean() < 0.03
    assert facts["cost_usd"] == pytest.approx(charged(emulated), abs=1e-5)


@pytest.mark.slow
async def test_a_painted_chequerboard_is_recognised_and_replaced_by_a_key_colour(
    emulated: Emulated, tmp_path: Path
) -> None:
    subject, truth = _subject(5, (1200, 896))
    source = saved(tmp_path, photo(*SIZE, seed=9), "s.png")
    drawing(emulated, _chequered(), Plate(subject=subject))
    facts = await use(emulated, "remove_background", image=str(source))
    assert any("chequerboard" in warning for warning in facts["warnings"])
    assert _alpha(facts["file_paths"][0])[truth < 0.005].mean() < 0.03
    assert len(emulated.drawn) == 2


@cases(
    "answered",
    [
        lambda: (_chequered(), _chequered()),
        lambda: (*_plates(1, WHITE), *(Picture(as_bytes(photo(*SIZE, seed=seed))) for seed in (31, 32))),
        lambda: tuple(Picture(as_bytes(photo(*SIZE, seed=seed))) for seed in (41, 42, 43)),
        lambda: tuple(_plates(1, WHITE, WHITE, WHITE)),
        lambda: tuple(Picture(as_bytes(Image.new("RGB", SIZE, colour))) for colour in ("#fff", "#000", "#0f0")),
    ],
    ids=["chequerboards", "only one plate", "photographs", "always white", "nothing there"],
)
async def test_without_real_transparency_nothing_is_delivered_and_the_cost_is_told(
    emulated: Emulated, tmp_path: Path, answered: Callable[[], tuple[Behaviour, ...]]
) -> None:
    source = saved(tmp_path, photo(*SIZE, seed=9), "s.png")
    answers = answered()
    drawing(emulated, *answers)
    wish = {"image": str(source), "idempotency_key": "cut"}
    with pytest.raises(
        ToolError, match=r"could not be taken away: the model[^.]*\. \d answers were paid for"
    ) as caught:
        await use(emulated, "remove_background", **wish)
    assert f"{len(answers)} answers were paid for (${charged(emulated):.3f})" in str(caught.value)
    kept = list(emulated.studio.places.parts.iterdir())
    assert len(kept) == len(answers) and all(str(path) in str(caught.value) for path in kept)
    assert files(emulated.studio.places.output) == []
    with pytest.raises(ToolError, match="not put together"):
        await use(emulated, "remove_background", **wish)
    assert len(emulated.drawn) == len(answers)


@pytest.mark.slow
async def test_a_refusal_of_the_second_plate_tells_of_the_first(emulated: Emulated, tmp_path: Path) -> None:
    source = saved(tmp_path, photo(300, 200, seed=9), "s.png")
    drawing(emulated, Plate(), Finish("IMAGE_SAFETY"))
    with pytest.raises(ToolError, match=r"safety filter.*paid for.*kept"):
        await use(emulated, "remove_background", image=str(source))


@pytest.mark.slow
async def test_two_transparent_pictures_have_names_and_alpha_of_their_own(emulated: Emulated, tmp_path: Path) -> None:
    drawing(emulated, *_plates(1, WHITE, WHITE, BLACK, BLACK))
    wish: dict[str, Any] = {"prompt": "a furry ball", "background": "transparent", "n": 2, "idempotency_key": "balls"}
    facts = await use(emulated, "generate_image", **wish, output_path=str(tmp_path / "ball.png"))
    assert facts["returned"] == 2 and len(facts["parts"]) == len(emulated.drawn) == 4
    assert sorted(facts["file_paths"]) == [str(tmp_path / "ball-1.png"), str(tmp_path / "ball-2.png")]
    for path in facts["file_paths"]:
        assert 0.1 < _alpha(path).mean() < 0.9
    assert facts["cost_usd"] == pytest.approx(charged(emulated), abs=1e-5)
    again = await use(emulated, "generate_image", **wish, output_path=str(tmp_path / "ball.png"))
    assert sorted(again["file_paths"]) == sorted(facts["file_paths"]) and len(emulated.drawn) == 4


@pytest.mark.slow
async def test_one_of_two_may_fail_and_the_other_is_delivered(emulated: Emulated) -> None:
    drawing(emulated, Finish("IMAGE_SAFETY"), *_plates(1, WHITE, BLACK))
    facts = await use(emulated, "generate_image", prompt="a furry ball", background="transparent", n=2)
    assert (facts["requested"], facts["returned"]) == (2, 1)
    assert any("safety filter" in warning for warning in facts["warnings"])
    assert facts["cost_usd"] == pytest.approx(emulated.studio.journal.spending("gemini").hour_usd, abs=1e-5)


@pytest.mark.slow
async def test_a_dry_run_counts_the_third_call_and_what_is_made_stays_below_it(
    emulated: Emulated, tmp_path: Path
) -> None:
    source = saved(tmp_path, photo(600, 448, seed=9), "s.png")
    cut = await use(emulated, "remove_background", image=str(source), dry_run=True)
    new = await use(emulated, "generate_image", prompt="a ball", background="transparent", n=2, dry_run=True)
    assert (cut["calls_at_most"], new["calls_at_most"]) == (3, 6)
    assert emulated.emulator.requests == []
    drawing(emulated, *_plates(1, WHITE, BLACK))
    await use(emulated, "generate_image", prompt="a ball", background="transparent")
    assert max(charge.usd for charge in emulated.emulator.charges) <= new["estimated_usd_each"]


@pytest.mark.slow
async def test_an_exact_cutout_keeps_its_alpha_and_asks_for_pixels_enough(emulated: Emulated, tmp_path: Path) -> None:
    source = saved(tmp_path, photo(400, 300, seed=9), "s.png")
    drawing(emulated, *_plates(2, WHITE, BLACK, size=(1200, 896)))
    facts = await use(emulated, "remove_background", image=str(source), width=800, height=600, output_format="webp")
    with Image.open(facts["file_paths"][0]) as image:
        assert (image.format, image.mode, image.size) == ("WEBP", "RGBA", (800, 597))
    assert shapes(emulated) == [("4:3", "1K")] * 2
    assert seen(facts["images"][0]["master_path"]).shape == (896, 1200, 4)
    larger = await use(emulated, "remove_background", image=str(source), width=1600, dry_run=True)
    assert larger["image_size"] == "2K"


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("remove_background", {"image": "s.png", "output_format": "jpeg"}, "no transparency"),
        ("generate_image", {"prompt": "a", "background": "transparent", "output_format": "jpeg"}, "no transparency"),
        ("generate_image", {"prompt": "a", "background": "transparent", "input_image_path_1": "s.png"}, "remove_background"),
        ("remove_background", {"image": "nowhere.png"}, "no image"),
        ("generate_image", {"prompt": "a", "background": "none"}, "background"),
    ],
)  # fmt: skip
async def test_what_cannot_be_transparent_is_refused_before_anything_is_sent(
    emulated: Emulated, tmp_path: Path, tool: str, arguments: dict[str, Any], words: str
) -> None:
    saved(tmp_path, photo(300, 200, seed=9), "s.png")
    with pytest.raises(ToolError, match=words):
        await use(emulated, tool, **arguments)
    assert emulated.emulator.requests == []


def test_a_plate_without_the_key_colour_is_refused_in_words() -> None:
    for plate in (photo(300, 200, seed=1), Image.new("RGB", (300, 200), "white"), Image.new("RGB", (5, 5))):
        with pytest.raises(RequestError, match="not put the subject on the key colour"):
            key(plate, (0, 255, 0))
