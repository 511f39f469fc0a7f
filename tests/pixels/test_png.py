"""The PNG encoder: one file, however its rows were divided among threads."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nanobanana_mcp.pixels.files import png as encoder
from nanobanana_mcp.pixels.files.png import begin, png
from tests.support.scenes import photo


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    mode=st.sampled_from(["L", "RGB", "RGBA"]),
    size=st.tuples(st.integers(1, 60), st.integers(1, 90)),
    block=st.sampled_from([1, 300, 900, 2_000_000]),
    rows=st.tuples(st.integers(0, 90), st.integers(0, 90)),
)
def test_rows_that_are_compressed_before_the_others_change_give_the_same_file(
    mode: str, size: tuple[int, int], block: int, rows: tuple[int, int]
) -> None:
    picture = photo(60, 90, seed=4).crop((0, 0, *size)).convert(mode)
    top, bottom = sorted(min(row, size[1]) for row in rows)
    with pytest.MonkeyPatch.context() as patching, ThreadPoolExecutor(1) as pool:
        patching.setattr(encoder, "_BLOCK", block)
        begun = begin(picture, (0, top, size[0], bottom), pool)
        changed = np.asarray(picture).copy()
        changed[top:bottom] ^= 85
        if bottom > top:
            picture.paste(Image.fromarray(changed[top:bottom]), (0, top))
        data = png(picture, begun=begun)
        assert data == png(picture)
    with Image.open(io.BytesIO(data)) as read:
        assert read.mode == mode
        assert (np.asarray(read) == changed).all()
    if block == 1:  # a row each
        assert set(begun) == {row for row in range(size[1]) if row < top or row > bottom}
