"""Exact files: size, shape, colours, transparency, bounds, and what they say of their origin."""

import json
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageDraw

from nanobanana_mcp.domain.errors import NotAnImage, RequestError
from nanobanana_mcp.pixels.files.labels import Label, read_label
from nanobanana_mcp.pixels.outputs.assets import asset_set
from nanobanana_mcp.pixels.outputs.render import render
from tests.support.scenes import as_bytes, photo

FORMATS = ["png", "jpeg", "webp", "avif"]
CORNERS = {"red": (0, 0), "green": (1, 0), "blue": (0, 1), "white": (1, 1)}


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _opened(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data))
    image.load()
    return image


def _corners(width: int = 80, height: int = 60) -> bytes:
    image = Image.new("RGB", (width, height))
    for name, (right, low) in CORNERS.items():
        image.paste(name, (right * width // 2, low * height // 2, (right + 1) * width // 2, (low + 1) * height // 2))
    return as_bytes(image)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    source=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    fit=st.sampled_from(["cover", "contain", "pad", "stretch"]),
    output_format=st.sampled_from(["png", "jpeg", "webp"]),
)
def test_the_file_has_exactly_the_size_that_was_asked_for(
    source: tuple[int, int], width: int, height: int, fit: str, output_format: str
) -> None:
    made = render(
        as_bytes(Image.new("RGB", source, "teal")), width=width, height=height, fit=fit, output_format=output_format
    )
    image = _opened(made.data)
    assert image.size == (made.width, made.height)
    assert Image.MIME[str(image.format)] == made.mime_type
    if fit == "contain":
        assert (made.width == width) or (made.height == height)
        assert made.width <= width
        assert made.height <= height
    else:
        assert (made.width, made.height) == (width, height)


def test_one_side_follows_the_other_and_without_both_the_pixels_stay_what_they_are() -> None:
    source = photo(200, 150)
    assert (render(as_bytes(source), width=100).height, render(as_bytes(source), height=30).width) == (75, 40)
    assert (np.asarray(_opened(render(as_bytes(source)).data)) == np.asarray(source)).all()


@pytest.mark.parametrize("output_format", FORMATS)
def test_every_format_shows_the_picture(output_format: str) -> None:
    source = photo(320, 240)
    made = render(as_bytes(source), output_format=output_format, quality=90)
    assert np.abs(np.asarray(_opened(made.data).convert("RGB"), int) - np.asarray(source, int)).mean() < 6


def test_cover_cuts_off_on_the_side_away_from_the_focus() -> None:
    left = _opened(render(_corners(), width=30, height=60, focus=(0, 0.5)).data)
    assert [left.getpixel(at) for at in ((5, 5), (24, 5))] == [(255, 0, 0), (255, 0, 0)]
    right = _opened(render(_corners(), width=30, height=60, focus=(1, 0.5)).data)
    assert right.getpixel((5, 5)) == (0, 128, 0)


def test_pad_leaves_transparent_room_or_the_background() -> None:
    clear = _opened(render(_corners(), width=100, height=100, fit="pad").data)
    assert clear.getpixel((50, 2)) == (0, 0, 0, 0)
    assert clear.getpixel((10, 20))[3] == 255
    filled = _opened(render(_corners(), width=100, height=100, fit="pad", background="#102030").data)
    assert filled.mode == "RGB"
    assert filled.getpixel((50, 2)) == (16, 32, 48)


def test_a_crop_and_a_quarter_turn_are_exact() -> None:
    cut = _opened(render(_corners(), crop=[0.5, 0, 1, 0.5]).data)
    assert cut.size == (40, 30)
    assert cut.getcolors() == [(1200, (0, 128, 0))]
    turned = _opened(render(_corners(), rotate=90).data)
    assert turned.size == (60, 80)
    assert turned.getpixel((55, 5)) == (255, 0, 0)
    assert (np.asarray(_opened(render(_corners(), rotate=-450).data)) == np.asarray(turned)[::-1, ::-1]).all()


def test_any_other_angle_turns_clockwise_and_leaves_transparent_corners() -> None:
    turned = _opened(render(_corners(), rotate=10).data)
    assert turned.width > 80
    assert turned.getpixel((0, 0))[3] == 0
    alpha = np.asarray(turned)[..., 3]
    assert np.flatnonzero(alpha[2] > 100).mean() < turned.width / 2  # the upper left corner has risen to the top


def test_shrinking_keeps_the_light_of_fine_detail() -> None:
    stripes = Image.fromarray(np.tile(np.array([[0, 255], [255, 0]], np.uint8), (100, 100))).convert("RGB")
    made = np.asarray(_opened(render(as_bytes(stripes), width=50).data))
    assert abs(int(made[25, 25, 0]) - 188) <= 2  # half the light


def test_shrinking_transparent_edges_brings_no_halo() -> None:
    image = Image.new("RGBA", (200, 200), (0, 255, 0, 0))
    ImageDraw.Draw(image).ellipse((30, 30, 170, 170), fill=(230, 20, 20, 255))
    small = np.asarray(_opened(render(as_bytes(image), width=37).data), int)
    seen = small[small[..., 3] > 30]
    assert np.abs(seen[:, :3] - (230, 20, 20)).max() <= 3


def test_jpeg_fills_transparency_with_white_and_says_so_or_with_the_background() -> None:
    clear = as_bytes(Image.new("RGBA", (20, 20), (0, 0, 0, 0)))
    made = render(clear, output_format="jpeg")
    assert _opened(made.data).getpixel((5, 5)) == (255, 255, 255)
    assert "white" in made.notes[0]
    blue = render(clear, output_format="jpeg", background="blue")
    assert _opened(blue.data).getpixel((5, 5))[2] > 250
    assert blue.notes == ()


def test_enlarging_is_said() -> None:
    assert "2.0 times" in render(_corners(), width=160).notes[0]


@pytest.mark.parametrize("output_format", FORMATS)
def test_a_profile_is_kept_or_converted_away(output_format: str) -> None:
    source = as_bytes(photo(64, 64), icc_profile=SRGB)
    assert _opened(render(source, output_format=output_format, width=32).data).info["icc_profile"] == SRGB
    assert not _opened(render(source, output_format=output_format, profile="srgb").data).info.get("icc_profile")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"width": 16_385}, "too large"),
        ({"width": 12_000, "height": 12_000}, "100 megapixels"),
        ({"width": 0, "height": 5}, "at least 1"),
        ({"quality": 0}, "quality"),
        ({"background": "mauvish"}, "no colour"),
        ({"crop": [0, 0, 900, 900]}, "crop"),
        ({"rotate": float("nan")}, "degrees"),
        ({"focus": (2, 0)}, "focus"),
        ({"width": 16_384, "height": 1, "fit": "stretch", "output_format": "webp"}, "WebP ends"),
    ],
)
def test_what_cannot_be_made_is_refused_in_words(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        render(_corners(), **arguments)


def test_bytes_that_are_no_picture_are_refused() -> None:
    with pytest.raises(NotAnImage):
        render(b"hello", width=5)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    output_format=st.sampled_from(FORMATS),
    recipe=st.none()
    | st.dictionaries(st.text(max_size=9), st.text(max_size=40) | st.integers() | st.none(), max_size=4),
    indent=st.sampled_from([None, 2]),
    ascii_only=st.booleans(),
)
def test_the_label_is_read_back_from_every_format(
    output_format: str, recipe: dict[str, object] | None, indent: int | None, ascii_only: bool
) -> None:
    text = None if recipe is None else json.dumps(recipe, indent=indent, ensure_ascii=ascii_only)
    label = Label(source_type="compositeWithTrainedAlgorithmicMedia", recipe=text)
    found = read_label(render(as_bytes(Image.new("RGB", (16, 16))), output_format=output_format, label=label).data)
    assert found is not None
    assert found.source_type == label.source_type
    assert (found.recipe and json.loads(found.recipe)) == (text and json.loads(text))


def test_the_label_names_the_iptc_source_type_for_other_programs() -> None:
    made = render(_corners(), output_format="jpeg", label=Label(source_type="trainedAlgorithmicMedia"))
    assert b"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia" in made.data


FOREIGN = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" Iptc4xmpExt:DigitalSourceType='
    b'"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/></rdf:RDF></x:xmpmeta>'
)


def test_a_label_of_another_program_is_read_too() -> None:
    assert read_label(as_bytes(photo(32, 32), "JPEG", xmp=FOREIGN)) == Label(source_type="trainedAlgorithmicMedia")


def test_a_packet_that_could_expand_without_end_is_not_parsed() -> None:
    bomb = b'<!DOCTYPE a [<!ENTITY b "bbbbbbbb">]>' + FOREIGN
    assert read_label(as_bytes(photo(32, 32), "JPEG", xmp=bomb)) is None


def test_a_recipe_with_characters_that_xml_lacks_comes_back_equal() -> None:
    recipe = json.dumps({"prompt": "a\ufffe b\uffff c\ud800 d"}, ensure_ascii=False)
    made = render(_corners(), label=Label(source_type="trainedAlgorithmicMedia", recipe=recipe))
    found = read_label(made.data)
    assert found is not None
    assert json.loads(found.recipe or "") == json.loads(recipe)


def test_files_without_a_label_broken_packets_and_no_files_have_none() -> None:
    assert read_label(_corners()) is None
    assert read_label(b"hello") is None
    assert read_label(as_bytes(photo(32, 32), "JPEG", xmp=b"<x:xmpmeta")) is None


def test_a_recipe_that_is_no_json_or_too_long_is_refused() -> None:
    for recipe, words in (("{", "not JSON"), (json.dumps("x" * 70_000), "too long")):
        with pytest.raises(RequestError, match=words):
            render(_corners(), label=Label(source_type="trainedAlgorithmicMedia", recipe=recipe))


def _logo(width: int = 300, height: int = 200) -> bytes:
    image = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    ImageDraw.Draw(image).rectangle((0, 0, width - 1, height - 1), fill=(200, 30, 60, 255))
    image.putpixel((0, 0), (0, 0, 0, 0))
    return as_bytes(image)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["favicon", "app_icons", "social"])
@pytest.mark.parametrize("master", [as_bytes(photo(500, 400), icc_profile=SRGB), _logo()])
def test_every_asset_has_the_size_and_type_it_claims(kind: str, master: bytes) -> None:
    label = Label(source_type="trainedAlgorithmicMedia", recipe="{}")
    for asset in asset_set(master, kind, label=label):
        image = _opened(asset.data)
        assert image.size == (asset.width, asset.height)
        assert Image.MIME[image.format] in (asset.mime_type, "image/x-icon")
        assert not image.info.get("icc_profile")
        if asset.name != "favicon.ico":
            assert read_label(asset.data) == label


def test_a_favicon_holds_three_sizes() -> None:
    ico = {asset.name: asset for asset in asset_set(_logo(), "favicon")}["favicon.ico"]
    assert _opened(ico.data).info["sizes"] == {(16, 16), (32, 32), (48, 48)}


def test_a_maskable_icon_keeps_the_logo_within_the_safe_circle_and_is_opaque() -> None:
    icons = {asset.name: _opened(asset.data) for asset in asset_set(_logo(), "app_icons", background="#00ff00")}
    pixels = np.asarray(icons["icon-maskable-512.png"].convert("RGB"), int)
    rows, columns = np.nonzero(np.abs(pixels - (0, 255, 0)).max(axis=2) > 40)
    assert 0.4 * 512 - 4 <= np.hypot(rows - 255.5, columns - 255.5).max() <= 0.4 * 512 + 1
    assert icons["icon-maskable-512.png"].mode == "RGB"
    assert icons["apple-touch-icon.png"].mode == "RGB"
    assert icons["icon-512.png"].mode == "RGBA"


def test_an_unknown_asset_set_is_refused() -> None:
    with pytest.raises(RequestError, match="app_icons"):
        asset_set(_logo(), "stickers")
