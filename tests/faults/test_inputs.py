"""Hundreds of hostile inputs: each is answered in words or with success, at once, and only pictures leave the machine."""

import asyncio
import hashlib
import io
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastmcp import Client
from fastmcp.exceptions import ToolError
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nanobanana_mcp.domain.errors import StudioError
from nanobanana_mcp.pixels.files.header import check_bounds, read_header
from nanobanana_mcp.storage.paths import Places, plan_target
from nanobanana_mcp.storage.reading import read_input
from nanobanana_mcp.storage.writing import write_new
from nanobanana_mcp.studio.studio import Studio
from tests.conftest import Connect
from tests.support import hostile
from tests.support.fakes import FakeModel, photo
from tests.support.rooms import library_at, tree

ONE_ANSWER_S = 300.0
"""An answer that takes longer never comes; the machine may be busy."""
MASKED = "masked"
MOST_CALLS = 300_000
"""Three times what the worst takes, a JPEG of 2,000 scans."""
TRIES = 3000


async def said(client: Client[Any], arguments: dict[str, Any]) -> str:
    """The answer to generate_image, which must come in words and soon; MASKED when it was no error of ours."""
    try:
        result = await asyncio.wait_for(client.call_tool("generate_image", arguments), ONE_ANSWER_S)
    except ToolError as error:
        if "Error calling tool" in str(error):
            return MASKED
        assert 10 < len(str(error)) < 2500, arguments
        assert "Traceback" not in str(error)
        return str(error)
    assert result.content
    return ""


def check_what_left(model: FakeModel, own: set[str]) -> None:
    """Only whole pictures of a kind that Gemini takes were sent, and no secret in them."""
    for request in model.requests:
        for part in request.inputs:
            assert part.data is not None
            assert b"PRIVATE KEY" not in part.data
            assert b"root:x:0" not in part.data
            if hashlib.sha256(part.data).hexdigest() not in own:
                with Image.open(io.BytesIO(part.data), formats=["PNG", "JPEG", "WEBP"]) as image:
                    image.load()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes, sockets and devices are those of POSIX")
async def test_no_hostile_input_is_sent_waited_for_or_masked_and_other_calls_go_on(
    make_studio: Callable[..., Studio], connect: Connect, model: FakeModel, tmp_path: Path, places: Places
) -> None:
    project = tmp_path / "project"
    photo(project / "holiday.jpg")
    (project / "notes.txt").write_text("mine\n")
    mine = tree(project)
    files = tmp_path / "files"
    files.mkdir()
    studio = make_studio(uploading="never")
    looks, enough = 0, asyncio.Event()

    async def look(client: Client[Any]) -> None:
        nonlocal looks
        while not enough.is_set():
            await asyncio.wait_for(client.call_tool("output_stats", {"recent": 0}), ONE_ANSWER_S)
            looks += 1

    async with connect(open_it=lambda: studio) as client:
        await said(client, {"prompt": "the first, so that there is a state to name"})
        looking = asyncio.create_task(look(client))
        cases: list[dict[str, Any]] = list(hostile.arguments(project))
        cases += [{"prompt": "a", "input_image_path_1": path} for path in hostile.paths(tmp_path / "odd", places.state)]
        for name, data in hostile.contents():
            (files / name).write_bytes(data)
            cases.append({"prompt": "a", "input_images": [str(files / name)]})
        assert len(cases) >= 300
        answers = [await said(client, case) for case in cases]
        enough.set()
        await looking
    assert [case for case, answer in zip(cases, answers, strict=True) if answer == MASKED] == []
    assert sum(map(bool, answers)) > 200
    check_what_left(model, set())
    assert looks > 20
    assert {name: kept for name, kept in tree(project).items() if name in mine} == mine
    assert all(name.startswith(("notes", "holiday")) for name in set(tree(project)) - set(mine))
    assert not Path("/tmp/owned").exists()
    await studio.close()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    (
        *(
            "prompt",
            "n",
            "negative_prompt",
            "system_instruction",
            "input_image_path_1",
            "input_images",
            "file_id",
            "mode",
        ),
        *("model_tier", "resolution", "thinking_level", "enable_grounding", "aspect_ratio", "output_path", "dry_run"),
        *("idempotency_key", "seed", "safety", "width", "height", "fit", "quality", "background", "continue_from"),
    )
)
SENSIBLE = st.sampled_from(
    ("a", "edit", "pro", "4k", "high", "1:1", "img_0", "files/x", "../x", True, 1, 3, ["x"], 512)
)


@settings(max_examples=8, derandomize=True, deadline=None)
@given(calls=st.lists(st.dictionaries(NAMES, JSON | SENSIBLE, max_size=5), min_size=20, max_size=30))
@pytest.mark.slow
def test_whatever_the_arguments_are_the_answer_is_in_words(calls: list[dict[str, Any]]) -> None:
    async def ask(folder: Path) -> None:
        model = FakeModel()
        places = Places(output=folder / "pictures", state=folder / "state", base=folder)
        with opened(places, model) as client_of:
            async with client_of as client:
                for arguments in calls:
                    assert await said(client, {"prompt": "a"} | arguments) != MASKED, arguments
        check_what_left(model, set())

    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        asyncio.run(ask(Path(folder)))


@contextmanager
def opened(places: Places, model: FakeModel) -> Iterator[Client[Any]]:
    """A client of a server in this process, without any fixture: hypothesis runs one test many times."""
    from nanobanana_mcp.domain.catalog import BY_ID, DEFAULTS
    from nanobanana_mcp.server.app import build_server
    from nanobanana_mcp.server.session import LazyStudio
    from nanobanana_mcp.settings import Settings

    studio = Studio(
        model=model,
        database=library_at(places.state / "library.db"),
        places=places,
        backend="gemini",
        models={tier: BY_ID[model_id] for tier, model_id in DEFAULTS.items()},
        uploading="never",
    )
    yield Client(build_server(Settings(NANOBANANA_OUTPUT_DIR=places.output), LazyStudio(lambda: studio)))


@contextmanager
def counted_calls() -> Iterator[list[str]]:
    """The events of calls and returns while the block runs: work that is the same on every machine, unlike time."""
    events: list[str] = []
    sys.setprofile(lambda _frame, event, _argument: events.append(event))
    try:
        yield events
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("name", hostile.BOMBS)
def test_a_bomb_is_refused_or_bounded_by_its_header_with_little_work(name: str) -> None:
    data = hostile.bombs()[name]
    with counted_calls() as calls:
        try:
            header = read_header(data)
            check_bounds(header, data)
        except StudioError as error:
            assert len(str(error)) < 500
        else:
            assert header.width * header.height <= 60_000_000
    assert len(calls) < MOST_CALLS


@contextmanager
def swapping(door: Path, outside: Path) -> Iterator[None]:
    """Let a folder be itself and a link to `outside` by turns, as fast as it goes."""
    stop = threading.Event()
    aside, link = door.with_name("aside"), door.with_name("link")
    link.symlink_to(outside)
    made = itertools.count()

    def put(what: Path) -> None:
        while True:
            try:
                what.rename(door)
            except OSError:  # who writes there makes the folder when it is missing
                door.rename(door.with_name(f"made{next(made)}"))
            else:
                return

    def swap() -> None:
        while not stop.is_set():
            door.rename(aside)
            put(link)
            time.sleep(0)
            door.rename(link)
            put(aside)
            time.sleep(0)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Places]:
    """Only `allowed` may be read and written, and a folder in it leads outside half of the time."""
    allowed, outside = tmp_path / "allowed", tmp_path / "outside"
    photo(allowed / "door" / "a.png", color=(1, 2, 3))
    photo(outside / "a.png", color=(9, 9, 9))
    before = tree(outside)
    with swapping(allowed / "door", outside):
        yield Places(output=tmp_path / "pictures", state=tmp_path / "state", base=tmp_path, allowed=(allowed,))
    assert tree(outside) == before, "something was written outside"


@pytest.mark.slow
def test_a_racing_link_never_leads_a_read_out_of_the_allowed_folders(narrow: Places) -> None:
    foreign = hashlib.sha256((narrow.base / "outside" / "a.png").read_bytes()).digest()
    read = refused = 0
    while read + refused < TRIES or not (read > 20 and refused > 20):
        try:
            _, data = read_input(str(narrow.allowed[0] / "door" / "a.png"), narrow)
        except StudioError:
            refused += 1
            continue
        assert hashlib.sha256(data).digest() != foreign, "a foreign byte was read"
        read += 1


@pytest.mark.slow
def test_a_racing_link_never_leads_a_write_out_of_the_allowed_folders(narrow: Places) -> None:
    written = failed = 0
    while written + failed < TRIES or not (written > 20 and failed > 20):
        try:
            target = plan_target(str(narrow.allowed[0] / "door") + os.sep, narrow)
            write_new(target.folder, "b", ".png", b"bytes", key=f"img_{written}")
        except (StudioError, OSError):
            failed += 1
            continue
        written += 1
