"""Measures the words that a client's model has to read, and the quality of the small pictures that it sees."""

import io
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.bench import Bench
from benchmarks.contestants import ours, wish
from benchmarks.results import Goal, Result
from benchmarks.samples import Sample, sample
from benchmarks.server import Server
from nanobanana_mcp.pixels.outputs.thumbnails import SINGLE_BYTES, thumbnail, within_bytes

_WINDOW = 8


def definitions(bench: Bench) -> Iterator[Result]:
    """The answer to tools/list as it is sent."""
    sizes = {}
    for one in bench.contestants():
        with Server(one, bench.folder / "words" / one.name) as server:
            sizes[one.name] = server.greet().bytes / 1000
    yield Result(job="all tool definitions", unit="kB", ours=sizes.pop("ours"), beside=sizes, goals=(Goal(most=18),))


def answers(bench: Bench) -> Iterator[Result]:
    """The answer about one picture, with its preview of 512 pixels and without."""
    bench.gemini.answer_with("1K JPEG")
    beside = {}
    found = {}
    plain = ours(bench.gemini.url, NANOBANANA_PREVIEW_PX="0")
    for label, one in (*((one.name, one) for one in bench.contestants()), ("plain", plain)):
        with Server(one, bench.folder / "words" / label) as server:
            server.greet()
            found[label] = server.call("generate_image", dict(wish(one.name, "1K JPEG", 0))).bytes / 1000
    if "peer" in found:
        beside["peer"] = found["peer"]
    yield Result(
        job="one-picture answer, with preview", unit="kB", ours=found["ours"], beside=beside, goals=(Goal(most=80),)
    )
    yield Result(job="   without", unit="kB", ours=found["plain"], goals=(Goal(most=2),))


def quality(_bench: Bench) -> Iterator[Result]:
    """Thumbnails of 512 pixels beside a full decode reduced by Lanczos and saved alike: what the short cuts cost."""
    kinds: tuple[Sample, ...] = ("1K JPEG", "4K JPEG")
    found: dict[str, float] = {}
    for kind in kinds:
        data = sample(kind).data
        made = Image.open(io.BytesIO(thumbnail(data).data)).convert("L")
        with Image.open(io.BytesIO(data)) as whole:
            small = whole.resize(made.size, Image.Resampling.LANCZOS)
        reference = Image.open(io.BytesIO(within_bytes(small, "image/jpeg", max_bytes=SINGLE_BYTES).data)).convert("L")
        found[kind] = _ssim(np.asarray(made, np.float64), np.asarray(reference, np.float64))
    yield Result(
        job="thumbnail's SSIM, the worst",
        unit="",
        ours=min(found.values()),
        goals=(Goal(most=0.98, at_least=True),),
        detail={**found},
    )


def _ssim(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Mean structural similarity over windows of 8 x 8 (Wang et al. 2004), values 0 to 255."""
    mean_one, mean_other = _mean(one), _mean(other)
    spread_one = _mean(one * one) - mean_one**2
    spread_other = _mean(other * other) - mean_other**2
    shared = _mean(one * other) - mean_one * mean_other
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    over = (2 * mean_one * mean_other + c1) * (2 * shared + c2)
    under = (mean_one**2 + mean_other**2 + c1) * (spread_one + spread_other + c2)
    return float(np.mean(over / under))


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    sums = np.pad(values, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    w = _WINDOW
    total: NDArray[np.float64] = sums[w:, w:] - sums[:-w, w:] - sums[w:, :-w] + sums[:-w, :-w]
    return total / (w * w)
