"""A picture with transparency as a model is shown it, and what it drew there brought back to colour and alpha."""

import numpy as np
from PIL import Image, ImageChops, ImageFilter

_LIGHT = 170  # mean brightness of what is visible from which on white behind it would hide its edges
_WHITE, _GREY = 255, 112
_FROM, _TO = 14, 50  # 8-bit levels by which what was drawn differs from an empty background: nothing, and all of it


def background_of(crop: Image.Image) -> int:
    """The grey level of the background that an RGBA picture is shown on."""
    few = np.asarray(crop.resize((64, 64), Image.Resampling.BOX), np.float32)
    weight = few[..., 3]
    bright = float((few[..., :3].mean(axis=2) * weight).sum() / max(float(weight.sum()), 1.0))
    return _GREY if bright > _LIGHT else _WHITE


def composed(crop: Image.Image) -> Image.Image:
    """RGB, with its colour profile: an RGBA picture on its background, so that nothing hidden under alpha 0 leaves."""
    if crop.mode != "RGBA":
        return crop
    level = background_of(crop)
    whole = Image.alpha_composite(Image.new("RGBA", crop.size, (level, level, level, 255)), crop).convert("RGB")
    whole.info = dict(crop.info)
    return whole


def uncomposed(answer: Image.Image, source: Image.Image, level: int) -> Image.Image:
    """An aligned answer, RGB, as RGBA: with the source's alpha, and with alpha of its own where it drew on what was empty.

    What was solid, or nearly so, keeps its alpha: a change of its colour is no change of its shape.
    """
    before = np.asarray(source.getchannel("A"), np.float32)
    on_background = Image.alpha_composite(Image.new("RGBA", source.size, (level, level, level, 255)), source).convert(
        "RGB"
    )
    red, green, blue = ImageChops.difference(
        answer.filter(ImageFilter.BoxBlur(1)), on_background.filter(ImageFilter.BoxBlur(1))
    ).split()
    apart = np.asarray(ImageChops.lighter(ImageChops.lighter(red, green), blue), np.float32)
    drawn = np.where(before < 128, np.clip((apart - _FROM) / (_TO - _FROM), 0, 1), 0).astype(np.float32)
    alpha = before + (255 - before) * drawn
    part = np.maximum(alpha / 255, np.float32(0.02))[..., None]
    colour = (np.asarray(answer, np.float32) - (1 - part) * level) / part
    # Where nothing shows there is no colour to tell; the source's own stays.
    colour = np.where((alpha < 8)[..., None], np.asarray(source)[..., :3], np.clip(colour, 0, 255))
    return Image.fromarray(np.rint(np.dstack([colour, alpha])).astype(np.uint8))
