"""Picks a colour that an object does not have, for a background that is to be keyed out."""

import numpy as np

from nanobanana_mcp.pixels.files.clean import DECODES
from nanobanana_mcp.pixels.files.decoding import decoded

CANDIDATES = {"#00FF00": (0, 255, 0), "#FF00FF": (255, 0, 255), "#0000FF": (0, 0, 255), "#00FFFF": (0, 255, 255)}


def key_colour(plate: bytes) -> str:
    """The candidate farthest from the colours of an object on white, judged by the nearest twentieth of its pixels."""
    with DECODES:
        image = decoded(plate).convert("RGB")
        image.thumbnail((256, 256))
    pixels = np.asarray(image, np.float32).reshape(-1, 3)
    coloured = pixels[np.ptp(pixels, axis=1) > 24]
    if not len(coloured):
        return "#00FF00"

    def clearance(name: str) -> float:
        away = np.abs(coloured - np.array(CANDIDATES[name], np.float32)).sum(axis=1)
        return float(np.quantile(away, 0.05))

    return max(CANDIDATES, key=clearance)
