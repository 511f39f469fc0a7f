"""Pictures in which a model sees nothing are refused before anything is paid for, in a dry run too."""

from pathlib import Path
from typing import Any

import pytest
from fastmcp import Client
from fastmcp.exceptions import ToolError
from PIL import Image

from tests.support.fakes import FakeModel


def saved(path: Path, mode: str, size: tuple[int, int], colour: Any) -> str:
    Image.new(mode, size, colour).save(path)
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(
    ("mode", "size", "colour", "name", "said"),
    [
        ("RGB", (1, 1), (9, 9, 9), "dot.png", "1 x 1 pixels"),
        ("RGB", (7, 3), (9, 9, 9), "dash.jpg", "7 x 3 pixels"),
        ("RGBA", (64, 64), (200, 10, 10, 0), "ghost.png", "is transparent"),
        ("RGBA", (64, 64), (200, 10, 10, 0), "ghost.webp", "is transparent"),
        ("LA", (64, 64), (200, 0), "grey.png", "is transparent"),
    ],
)
async def test_nothing_to_be_seen_is_not_paid_for(
    caller: Client[Any], model: FakeModel, tmp_path: Path, mode: str, size: Any, colour: Any, name: str, said: str,
    dry_run: bool,
) -> None:  # fmt: skip
    picture = saved(tmp_path / name, mode, size, colour)
    calls: list[tuple[str, dict[str, Any]]] = [
        ("generate_image", {"prompt": "a cat", "input_images": [picture]}),
        ("edit_region", {"image": picture, "instruction": "a cat", "box": [0, 0, 0.5, 0.5]}),
        ("extend_image", {"image": picture, "left": 40}),
        ("remove_background", {"image": picture}),
    ]
    for tool, arguments in calls:
        with pytest.raises(ToolError, match=said):
            await caller.call_tool(tool, arguments | {"dry_run": dry_run})
    assert model.requests == []


async def test_one_flat_colour_has_no_subject_to_cut_out(caller: Client[Any], model: FakeModel, tmp_path: Path) -> None:
    for name in ("flat.jpg", "flat.png"):
        picture = saved(tmp_path / name, "RGB", (300, 200), (120, 87, 201))
        for dry_run in (True, False):
            with pytest.raises(ToolError, match="flat colour"):
                await caller.call_tool("remove_background", {"image": picture, "dry_run": dry_run})
    assert model.requests == []
    seen = saved(tmp_path / "palette.png", "P", (64, 64), 3)
    assert "1" in str((await caller.call_tool("generate_image", {"prompt": "a cat", "input_images": [seen]})).content)


async def test_what_is_hopeless_for_a_model_can_still_be_converted(caller: Client[Any], tmp_path: Path) -> None:
    picture = saved(tmp_path / "ghost.png", "RGBA", (64, 64), (200, 10, 10, 0))
    made = await caller.call_tool("convert_image", {"image": picture, "width": 32})
    assert not made.is_error
