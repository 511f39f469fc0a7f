"""Shapes: the nearest ratio, and saying where a picture is not what was asked for."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanobanana_mcp.domain.catalog import RATIOS, TEN_RATIOS, AspectRatio, ImageSize
from nanobanana_mcp.domain.requests import ImageRequest
from nanobanana_mcp.domain.shapes import differences, nearest_ratio, ratio_value, size_class
from nanobanana_mcp.emulator.models import MODELS
from nanobanana_mcp.studio.studio import Studio
from tests.support.fakes import FakeModel, jpeg, reply

SIZES: tuple[ImageSize, ...] = ("1K", "2K", "4K")


@pytest.mark.parametrize(
    ("width", "height", "ratio"),
    [
        (1024, 1024, "1:1"),
        (1000, 999, "1:1"),
        (1920, 1080, "16:9"),
        (1080, 1920, "9:16"),
        (6000, 4000, "3:2"),
        (4032, 3024, "4:3"),
        (3440, 1440, "21:9"),
        (3000, 750, "4:1"),
        (100, 9000, "1:8"),
    ],
)
def test_the_ratio_of_a_photo_is_found(width: int, height: int, ratio: str) -> None:
    assert nearest_ratio(width, height, RATIOS) == ratio


@settings(derandomize=True, deadline=None)
@given(st.integers(1, 20_000), st.integers(1, 20_000), st.sampled_from([RATIOS, TEN_RATIOS]))
def test_no_other_ratio_is_nearer_and_turning_a_picture_turns_its_ratio(
    width: int, height: int, ratios: tuple[AspectRatio, ...]
) -> None:
    def stretch(ratio: AspectRatio) -> float:
        return abs(math.log(ratio_value(ratio) * height / width))

    found = nearest_ratio(width, height, ratios)
    assert found in ratios
    assert stretch(found) == min(stretch(ratio) for ratio in ratios)
    turned = ratio_value(nearest_ratio(height, width, [r for r in ratios if r != "21:9"]))
    upright = ratio_value(nearest_ratio(width, height, [r for r in ratios if r != "21:9"]))
    assert turned * upright == pytest.approx(1) or stretch(found) == pytest.approx(
        sorted(stretch(ratio) for ratio in ratios)[1]
    )


def test_every_picture_that_gemini_makes_is_held_to_be_what_it_is() -> None:
    """Over every real size of every model: none of them may be called a shortfall."""
    for model in MODELS.values():
        for size in SIZES:
            for ratio in [known for known in RATIOS if known in model.pixels and size in model.tokens]:
                width, height = model.size_of(ratio, size)
                assert differences(width, height, size=size, ratio=ratio, source=None) == []


@pytest.mark.parametrize(("side", "size"), [(512, "512"), (1024, "1K"), (2048, "2K"), (4096, "4K"), (900, "1K")])
def test_a_size_is_known_by_its_area(side: int, size: str) -> None:
    assert size_class(side, side) == size
    assert size_class(side * 2, side // 2) == size


async def test_a_4k_picture_that_came_back_as_2k_says_so(studio: Studio, model: FakeModel) -> None:
    model.answers.append(reply(jpeg((2048, 2048))))
    created = await studio.create(ImageRequest(prompt="a cat", resolution="4k", model_tier="pro"))
    assert created.warnings == ("4K was asked for and 2K came back (2048x2048).",)


async def test_a_picture_of_another_shape_says_so(studio: Studio, model: FakeModel) -> None:
    model.answers.append(reply(jpeg((1024, 1024))))
    created = await studio.create(ImageRequest(prompt="a cat", aspect_ratio="16:9"))
    assert created.warnings == ("Aspect ratio 16:9 was asked for and 1024x1024 came back.",)


async def test_an_edit_that_lost_the_shape_of_its_source_says_so(studio: Studio, model: FakeModel) -> None:
    source = await studio.create(ImageRequest(prompt="a cat", aspect_ratio="16:9"))
    model.answers.append(reply(jpeg((1024, 1024))))
    created = await studio.create(ImageRequest(prompt="a hat on it", inputs=(source.images[0].record.id,)))
    (warning,) = created.warnings
    assert warning == "The source is 1365x768 and the edit came back as 1024x1024."
