import asyncio
import hashlib
import io
from typing import Any

import numpy as np
import pytest
from google.genai import errors
from PIL import Image, ImageDraw

from nanobanana_mcp.emulator import drift, pictures
from nanobanana_mcp.emulator.app import Emulator
from nanobanana_mcp.emulator.control import Edit, HttpError, Plate
from nanobanana_mcp.emulator.models import MODELS
from tests.support.emulated import BANANA, ask, browser, image_of, opened, part, picture, shape, told


async def test_equal_requests_give_equal_series_of_different_pictures() -> None:
    async def series() -> list[str]:
        emulator = Emulator()
        answers = [await ask(emulator, image_config=shape("1:1")) for _ in range(3)]
        return [hashlib.sha256(image_of(answer)).hexdigest() for answer in answers]

    first, second = await series(), await series()
    assert first == second
    assert len(set(first)) == 3


async def test_a_failed_attempt_does_not_change_the_picture_of_the_next() -> None:
    emulator, untroubled = Emulator(), Emulator()
    emulator.control.queue.append(HttpError(503, "UNAVAILABLE"))
    with pytest.raises(errors.ServerError):
        await ask(emulator)
    assert image_of(await ask(emulator)) == image_of(await ask(untroubled))


async def test_parallel_equal_requests_get_different_pictures_and_overlap() -> None:
    emulator = Emulator()
    emulator.control.latency_s = 0.01
    answers = await asyncio.gather(*(ask(emulator) for _ in range(4)))
    assert len({image_of(answer) for answer in answers}) == 4
    state = (await browser(emulator).get("/emulator/state")).json()
    assert state["counts"]["peak_in_flight"] == 4
    assert state["counts"]["in_flight"] == 0


async def test_an_edit_keeps_the_edges_and_the_shape_of_its_input() -> None:
    emulator = Emulator()
    emulator.control.mime = "image/png"
    response = await ask(emulator, [part(picture(size=(1376, 768))), "make it blue"])
    image = opened(image_of(response))
    assert image.size == (1376, 768)
    pixels = np.asarray(image.convert("RGB"))
    assert (pixels[:200] == (200, 30, 30)).all()
    assert (pixels[-200:] == (200, 30, 30)).all()
    assert not (pixels[300:450] == (200, 30, 30)).all()


async def test_several_inputs_all_appear_in_the_answer() -> None:
    emulator = Emulator()
    emulator.control.mime = "image/png"
    colors = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    response = await ask(emulator, [*(part(picture(color)) for color in colors), "together"], image_config=shape("1:1"))
    pixels = np.asarray(opened(image_of(response)).convert("RGB")).reshape(-1, 3)
    for color in colors:
        assert (pixels == color).all(axis=1).mean() > 0.01


async def test_without_a_ratio_the_last_input_decides() -> None:
    emulator = Emulator()
    tall, wide = picture(size=(40, 71)), picture(size=(80, 10))
    assert opened(image_of(await ask(emulator, [part(wide), part(tall), "x"]))).size == (768, 1376)
    assert opened(image_of(await ask(emulator, [part(tall), part(wide), "x"]))).size == (2928, 352)


@pytest.mark.parametrize(("mime", "kind"), [("image/jpeg", "JPEG"), ("image/png", "PNG"), ("image/webp", "WEBP")])
async def test_the_answer_has_the_type_it_was_told(mime: Any, kind: str) -> None:
    emulator = Emulator()
    emulator.control.mime = mime
    response = await ask(emulator)
    assert opened(image_of(response)).format == kind
    assert response.parts[-1].inline_data.mime_type == mime


def gradient() -> bytes:
    y, x = np.mgrid[0:768, 0:1376]
    pixels = np.stack([x * 200 / 1376, y * 200 / 768, 60 + 40 * np.sin(x / 30)], axis=-1).astype(np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


async def redrawn(behaviour: Edit) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The input and the upper band of an edit of it, where no panel lies."""
    emulator = Emulator()
    emulator.control.mime = "image/png"
    emulator.control.queue.append(behaviour)
    source = gradient()
    response = await ask(emulator, [part(source), "change it"])
    both = (np.asarray(opened(each).convert("RGB")).astype(float) for each in (source, image_of(response)))
    before, after = both
    return before, after


async def test_a_redrawing_edit_moves_everything() -> None:
    before, after = await redrawn(Edit(shift=(16 / 1376, 8 / 768)))
    assert np.abs(after[20:200, 40:-40] - before[12:192, 24:-56]).max() <= 1
    assert np.abs(after[20:200, 40:-40] - before[20:200, 40:-40]).max() > 10


async def test_a_redrawing_edit_scales_about_the_centre() -> None:
    before, after = await redrawn(Edit(scale=1.25))
    assert np.abs(after[10, 688] - before[round(384 + (10 - 384) / 1.25), 688]).max() <= 2
    assert (
        np.abs(after[100, 1300] - before[round(384 + (100 - 384) / 1.25), round(688 + (1300 - 688) / 1.25)]).max() <= 3
    )


@pytest.mark.slow
async def test_a_redrawing_edit_recolours_and_blurs() -> None:
    before, after = await redrawn(Edit(gain=(0.5, 1.0, 1.0), offset=(10.0, 0.0, -5.0)))
    assert np.abs(after[:200, :, 0] - (before[:200, :, 0] * 0.5 + 10)).max() <= 1
    assert np.abs(after[:200, :, 2] - (before[:200, :, 2] - 5)).max() <= 1
    before, after = await redrawn(Edit(blur=20.0))
    assert after[60:180, 100:-100, 2].std() < 0.8 * before[60:180, 100:-100, 2].std()


def subject() -> bytes:
    pixels = np.zeros((1024, 1024, 4), np.uint8)
    pixels[300:700, 300:700] = (10, 200, 30, 255)
    pixels[300:700, 700:800] = (10, 200, 30, 128)
    target = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(target, "PNG")
    return target.getvalue()


async def test_two_plates_show_the_same_subject_on_different_colours() -> None:
    emulator = Emulator()
    emulator.control.mime = "image/png"
    emulator.control.queue.extend([Plate("#ffffff", subject()), Plate("#0000ff", pixel_subject()), Plate("#000000")])
    white = image_of(await ask(emulator, "a green box"))
    await ask(emulator, "something else")
    black = image_of(await ask(emulator, [part(white), "the same on black"]))
    first, second = (np.asarray(opened(each).convert("RGB")).astype(int) for each in (white, black))
    assert tuple(first[0, 0]) == (255, 255, 255)
    assert tuple(second[0, 0]) == (0, 0, 0)
    assert tuple(first[500, 500]) == tuple(second[500, 500]) == (10, 200, 30)
    assert abs((first - second)[500, 750] - 127).max() <= 1


def pixel_subject() -> bytes:
    target = io.BytesIO()
    Image.new("RGBA", (8, 8), (255, 0, 0, 255)).save(target, "PNG")
    return target.getvalue()


async def test_a_plate_can_be_misplaced_and_take_its_colour_from_the_prompt() -> None:
    emulator = Emulator()
    emulator.control.mime = "image/png"
    emulator.control.queue.extend([Plate(subject=subject()), Plate(subject=subject(), mismatch=10 / 1024), Plate()])
    first, second = [
        np.asarray(opened(image_of(await ask(emulator, "a box on #ff00ff"))).convert("RGB")) for _ in range(2)
    ]
    assert tuple(first[0, 0]) == (255, 0, 255)
    assert (second[10:, 10:] == first[:-10, :-10]).all()
    remembered = np.asarray(opened(image_of(await ask(emulator, "a box"))).convert("RGB"))
    assert tuple(remembered[500, 500]) == (10, 200, 30)


def test_a_plate_on_no_colour_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="#00ff00"):
        Plate("white")


async def test_a_plate_without_any_subject_shows_the_built_in_one() -> None:
    _, response = await told(Plate("#00ff00"))
    pixels = np.asarray(opened(image_of(response)).convert("RGB")).astype(int)
    assert np.abs(pixels[5, 5] - (0, 255, 0)).max() < 8
    assert np.abs(pixels[512, 470] - (0, 255, 0)).max() > 60


async def test_cheap_pictures_have_the_right_size_and_differ_in_bytes() -> None:
    emulator = Emulator()
    emulator.control.cheap = True
    first, second = image_of(await ask(emulator)), image_of(await ask(emulator))
    assert first != second
    assert opened(first).size == (1024, 1024)
    assert np.array_equal(np.asarray(opened(first)), np.asarray(opened(second)))


async def test_the_serial_number_shows_only_when_asked_for() -> None:
    emulator, numbered = Emulator(), Emulator()
    numbered.control.serial = True
    assert image_of(await ask(emulator)) != image_of(await ask(numbered))


def test_a_4k_picture_has_the_size_of_its_model() -> None:
    size = MODELS[BANANA].size_of("16:9", "4K")
    data = pictures.encode(pictures.compose("a cat", size=size, seed=bytes(32), footer="EMULATED"), "image/jpeg")
    assert opened(data).size == (5504, 3072)


AREA = "from 60% to 90% of the width and from 10% to 40% of the height"


def noisy() -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (77, 138, 3), np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).resize((1376, 768), Image.Resampling.BICUBIC).save(target, "PNG")
    return target.getvalue()


async def changed(prompt: str, **switches: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Returns the picture that was sent, and how far the answer is from it at each pixel."""
    emulator = Emulator()
    emulator.control.mime = "image/png"
    emulator.control.update(switches)
    response = await ask(emulator, [part(noisy()), prompt])
    before, after = (np.asarray(opened(each).convert("RGB"), int) for each in (noisy(), image_of(response)))
    return before, np.abs(after - before).max(axis=2)


async def test_an_edit_of_an_area_that_its_words_name_stays_within_it() -> None:
    _, apart = await changed(f"a red hat\n\nChange only the area {AREA} of this picture.")
    assert apart[120:250, 900:1150].mean() > 30
    apart[77:307, 826:1238] = 0
    assert apart.max() == 0


@pytest.mark.slow
@pytest.mark.parametrize(("beyond", "painted"), [("on", True), ("left", False), ("framed", True), ("foreign", True)])
async def test_a_canvas_goes_on_from_what_is_painted_or_fails_as_it_is_told(beyond: str, painted: bool) -> None:
    words = f"Extend it: what is grey is not painted yet. Painted is the area {AREA}."
    before, apart = await changed(words, queue=[{"behaviour": "Extension", "beyond": beyond}])
    assert apart[77:307, 826:1238].max() == 0
    assert bool(apart[:700, :800].mean() > 15) == painted
    if beyond == "framed":
        assert (before[0, 0] != 255).any() and apart[0, 0] == (255 - before[0, 0]).max()


@pytest.mark.slow
async def test_answers_drift_as_far_as_the_level_says() -> None:
    further = [(await changed("a hat", drift=level))[1][:200].mean() for level in ("none", "L1", "L2", "L3", "L4")]
    assert further[0] == 0
    assert further == sorted(further) and further[4] > 2 * further[1] > 0


async def test_the_subject_of_a_plate_is_what_stands_out_of_its_picture() -> None:
    source = Image.new("RGB", (640, 480), (90, 120, 160))
    ImageDraw.Draw(source).rectangle((200, 100, 420, 380), fill=(220, 60, 30))
    target = io.BytesIO()
    source.save(target, "PNG")
    emulator = Emulator()
    emulator.control.mime = "image/png"
    words = "the box alone on a perfectly uniform white background (#FFFFFF)"
    answer = opened(image_of(await ask(emulator, [part(target.getvalue()), words], image_config=shape("4:3"))))
    pixels = np.asarray(answer.convert("RGB").resize((640, 480)), int)
    assert (pixels[20, 20] == 255).all() and (pixels[240, 60] == 255).all()
    assert np.abs(pixels[140:340, 240:380] - (220, 60, 30)).max() < 4


@pytest.mark.parametrize("size", [(8, 8), (30, 200), (700, 8)])
def test_pictures_narrower_than_the_mesh_of_the_drift_drift_too(size: tuple[int, int]) -> None:
    picture = Image.linear_gradient("L").resize(size).convert("RGB")
    assert drift.redrawn(picture, drift.LEVELS["L3"], seed=1, size=size).image.size == size
