"""The demo as a person runs it: once against the emulator inside the server, once against a served one."""

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from nanobanana_mcp.cli.demo.sheet import caption, draw_tree
from nanobanana_mcp.cli.demo.snapshot import take_snapshot
from nanobanana_mcp.cli.demo.tour import Shown

PARENTS = {
    1: (),
    2: (),
    3: (),
    4: (),
    5: (),
    6: (),
    7: (1,),
    8: (6,),
    9: (2,),
    10: (7, 8),
    11: (6,),
    12: (6,),
    13: (6,),
}


class Ran(NamedTuple):
    code: int
    out: str
    err: str
    folder: Path
    home: Path


def run_demo(folder: Path, *arguments: str, **variables: str) -> Ran:
    home = folder.parent / "home"
    home.mkdir()
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("NANOBANANA_", "GEMINI_", "XDG_"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "nanobanana_mcp", "demo", "--output", str(folder), *arguments],
        env=kept | {"HOME": str(home), "PYTHONIOENCODING": "utf-8"} | variables,
        cwd=folder.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    return Ran(done.returncode, done.stdout, done.stderr, folder, home)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("emulated")
    (folder / "nanobanana-policy.yaml").write_text('hide: ["*"]\ndefault: deny\n')  # some other project's rules
    variables = {"NANOBANANA_FLASH_MODEL": "no-such-model", "GEMINI_API_KEY": "not-to-be-used"}
    return run_demo(folder / "demo", **variables)


@pytest.fixture
def served() -> Iterator[str]:
    command = [sys.executable, "-m", "nanobanana_mcp", "emulator", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        yield process.stderr.readline().split()[-1]
        process.kill()


@pytest.mark.slow
def test_the_demo_goes_through_the_whole_main_job_whatever_this_machine_is_set_to(ran: Ran) -> None:
    assert (ran.code, ran.err) == (0, "")
    steps = re.findall(r"^ *(\d+)/17  (.+?)  +\d+\.\d s  \S", ran.out, re.MULTILINE)
    assert [int(number) for number, _ in steps] == list(range(1, 18))
    assert [name for _, name in steps][5:14] == [
        "Edit, by path", "Edit, by Files API id", "Edit, by picture id", "Two reference pictures",
        "Change one region only", "A close look at the edit", "Extend beyond the edges", "Take the background away",
        "Convert, for nothing",
    ]  # fmt: skip
    assert "emulated: nothing was charged" in ran.out


@pytest.mark.slow
def test_the_demo_ends_with_where_the_pictures_and_the_sheet_are(ran: Ran) -> None:
    lines = ran.out.splitlines()
    assert lines[-2] == f"Pictures       {ran.folder / 'pictures'}"
    assert lines[-1] == f"Contact sheet  {ran.folder / 'contact-sheet.png'}"
    sizes = []
    for path in (ran.folder / "pictures").glob("*.jpg"):
        with Image.open(path) as picture:
            sizes.append(picture.size)
    assert len(sizes) == 9
    assert (5504, 3072) in sizes


@pytest.mark.slow
def test_the_tree_has_every_picture_below_what_it_was_made_from(ran: Ran) -> None:
    found: dict[int, list[int]] = {number: [] for number in PARENTS}
    path: list[int] = []
    for line in ran.out[ran.out.index("Lineage") :].splitlines()[1:]:
        entry = re.match(r"(?P<guide>[^\d]*?)(?P<number>\d+)  [0-9a-z]{6}  ", line)
        if entry is None:
            break
        depth = len(entry["guide"].rstrip()) // 4
        path = [*path[:depth], int(entry["number"])]
        if depth:
            found[path[-1]].append(path[-2])
    assert {number: tuple(parents) for number, parents in found.items()} == PARENTS


@pytest.mark.slow
def test_the_contact_sheet_shows_thirteen_different_pictures(ran: Ran) -> None:
    data = (ran.folder / "contact-sheet.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    sheet = Image.open(io.BytesIO(data)).convert("RGB")
    width, height = sheet.size
    assert 1 < width / height < 2
    cells = {
        sheet.crop(
            (width * column // 5 + 60, height * row // 3 + 140, width * (column + 1) // 5 - 60, height * row // 3 + 300)
        ).tobytes()
        for row in range(3)
        for column in range(5)
        if 5 * row + column < 13
    }
    assert len(cells) == 13


@pytest.mark.slow
def test_the_demo_writes_only_into_its_own_folder(ran: Ran) -> None:
    assert list(ran.home.rglob("*")) == []
    assert sorted(path.name for path in ran.folder.parent.iterdir()) == ["demo", "home", "nanobanana-policy.yaml"]
    assert (ran.folder / "your photo" / "breakfast.jpg").read_bytes() == take_snapshot()


@pytest.mark.slow
def test_a_live_demo_makes_one_picture_and_one_edit_and_says_what_they_cost(served: str, tmp_path: Path) -> None:
    ran = run_demo(tmp_path / "demo", "--live", "--yes", GEMINI_API_KEY="test-key", GEMINI_BASE_URL=served)
    assert (ran.code, ran.err) == (0, "")
    assert "2 pictures in" in ran.out
    assert "Gemini took $0.08 for them." in ran.out
    assert "emulated" not in ran.out
    assert len(list((tmp_path / "demo" / "pictures").glob("*.jpg"))) == 2


@pytest.mark.slow
def test_a_step_that_fails_ends_the_demo_with_its_name_and_reason(served: str, tmp_path: Path) -> None:
    ran = run_demo(
        tmp_path / "demo", "--live", "--yes",
        GEMINI_API_KEY="test-key", GEMINI_BASE_URL=served, NANOBANANA_FLASH_MODEL="gemini-9-image",
    )  # fmt: skip
    assert ran.code == 1
    assert "The step 'A flash picture' failed: " in ran.err
    assert "NANOBANANA_FLASH_MODEL" in ran.err
    assert not (tmp_path / "demo" / "contact-sheet.png").exists()


def shown(id: str, prompt: str = "A fox", *parents: str, how: str = "", tier: str | None = "flash") -> Shown:  # noqa: A002
    return Shown(
        id=id,
        path=Path("x"),
        thumbnail=Path("x"),
        prompt=prompt,
        how=how,
        tier=tier,
        width=4,
        height=3,
        parents=parents,
    )


def test_a_caption_says_what_was_asked_where_it_came_from_the_tier_and_the_size() -> None:
    all_of_them = [
        shown("a"),
        shown("b", "Your own photo", how="left as it is", tier=None),
        shown("c", "Both on a bench", "a", "b", how="from"),
    ]
    assert [caption(one, all_of_them) for one in all_of_them] == [
        "A fox: flash 4x3",
        "Your own photo: left as it is, 4x3",
        "Both on a bench: from 1 and 2, flash 4x3",
    ]


def test_a_picture_with_two_parents_stands_below_both_and_its_edits_only_once() -> None:
    tree = draw_tree([shown("a"), shown("b"), shown("c", "C", "a", "b"), shown("d", "D", "c")])
    below_a, below_b = (root.children for root in tree.children)
    assert [len(branch.children) for branch in (*below_a, *below_b)] == [1, 0]
    assert "see above" in str(below_b[0].label)


def test_the_tree_shortens_long_prompts_to_a_few_words() -> None:
    prompts = ("one two three", "one two three four five six, seven; eight")
    tree = draw_tree([shown("a", prompts[0]), shown("b", prompts[1])])
    assert "  one two three  " in str(tree.children[0].label)
    assert "  one two three four five six, seven...  " in str(tree.children[1].label)


@pytest.mark.slow
def test_the_snapshot_is_the_same_every_time_and_says_where_it_was_taken() -> None:
    first = take_snapshot()
    assert first == take_snapshot()
    with Image.open(io.BytesIO(first)) as photo:
        assert photo.size == (1280, 960)
        assert photo.getexif().get_ifd(0x8825)[1] == "N"
