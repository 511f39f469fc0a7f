"""Paths as people and models write them: the one file that is meant is taken, and what is no path here is told."""

import base64
import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from fastmcp.exceptions import ToolError

from nanobanana_mcp.domain.errors import NotAllowed
from nanobanana_mcp.storage.paths import Places, plan_target
from nanobanana_mcp.storage.reading import read_input
from tests.conftest import Connect
from tests.support.fakes import FakeModel, photo
from tests.support.rooms import folders, png

POSIX = pytest.mark.skipif(os.name != "posix", reason="paths of POSIX")
SCREENSHOT = "Screenshot 2026-11-28 at 9.41.00\u202fPM.png"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the client has open, which is the one of the studio's relative paths."""
    monkeypatch.setenv("CLAUDE_PROJECT_DIR", str(tmp_path))
    return tmp_path


async def _taken(connect: Connect, given: str, **arguments: Any) -> str:
    """The words of a free conversion of what was named."""
    async with connect() as client:
        answer = await client.call_tool("convert_image", {"image": given, "width": 20} | arguments)
        return str(answer.content[0].text)


async def _refused(connect: Connect, given: str) -> str:
    with pytest.raises(ToolError) as caught:
        await _taken(connect, given)
    return str(caught.value)


@POSIX
@pytest.mark.parametrize(
    "written",
    [
        "file://{folder}/my%20cat%20%231.png",
        "FILE://localhost{folder}/my%20cat%20%231.png",
        "file:{folder}/my%20cat%20%231.png",
        "{folder}/my\\ cat\\ \\#1.png",
        "my%20cat%20%231.png",
        "'{folder}/my cat #1.png'",
        '"my cat #1.png"',
        "`my cat #1.png`",
        "\u201cmy cat #1.png\u201d",
        "  my cat #1.png\n",
        ' "file://{folder}/my%20cat%20%231.png" ',
        "~/my cat #1.png",
        "my\u00a0cat #1.png",
    ],
)
async def test_a_path_is_taken_as_people_write_it(
    written: str, project: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(project))
    photo(project / "my cat #1.png", (40, 40))
    assert "Made without cost" in await _taken(connect, written.replace("{folder}", str(project)))


async def test_an_image_address_of_ours_is_its_id(project: Path, connect: Connect, model: FakeModel) -> None:
    async with connect() as client:
        made = (await client.call_tool("generate_image", {"prompt": "a cat"})).structured_content["images"][0]["id"]
        for written in (f"image://{made}", f" {made} ", f'"{made}"'):
            await client.call_tool("convert_image", {"image": written, "width": 20})
            lineage = await client.call_tool("output_stats", {"lineage_of": written})
            assert made in lineage.content[0].text
            edit = {"prompt": "blue", "input_images": [written], "continue_from": written, "dry_run": True}
            await client.call_tool("generate_image", edit)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        (SCREENSHOT, SCREENSHOT.replace("\u202f", " ")),
        (SCREENSHOT, SCREENSHOT.replace("\u202f", "\u00a0")),
        (unicodedata.normalize("NFD", "caf\u00e9.png"), "caf\u00e9.png"),
        ("caf\u00e9.png", unicodedata.normalize("NFD", "caf\u00e9.png")),
        (f"f\u00a0\u00e9/{SCREENSHOT}", unicodedata.normalize("NFD", f"f \u00e9/{SCREENSHOT}").replace("\u202f", " ")),
    ],
)
async def test_a_name_that_looks_the_same_is_taken_and_said(
    name: str, written: str, project: Path, connect: Connect
) -> None:
    (project / name).parent.mkdir(exist_ok=True)
    photo(project / name, (40, 40))
    said = await _taken(connect, written)
    assert "does not exist" in said and "look the same" in said
    assert "look the same" not in await _taken(connect, name)


async def test_a_name_that_could_mean_two_files_is_refused(project: Path, connect: Connect) -> None:
    for name in ("a\u00a0b.png", "a\u202fb.png", "c d.png", "c\\ d.png", "c%20d.png", "e f.png"):
        photo(project / name, (40, 40))
    assert "look the same; rename" in await _refused(connect, "a b.png")
    assert "could mean" in await _refused(connect, "c\\%20d.png")
    assert "Made" in await _taken(connect, "c%20d.png")  # a name that is there is that file


@POSIX
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("C:\\Users\\me\\cat.png", "Windows path.*WSL.*/mnt/c/Users/me/cat.png"),
        ("d:/photos/cat.png", "Windows path.*/mnt/d/photos/cat.png"),
        ('"C:\\cat.png"', "Windows path"),
        ("$HOME/cat.png", "variable"),
        ("${HOME}/cat.png", "variable"),
        ("%USERPROFILE%\\cat.png", "variable"),
        ("$env:USERPROFILE\\cat.png", "variable"),
        ("/home/$USER/cat.png", "variable"),
        ("null", "word for none"),
        ("None", "word for none"),
        ("undefined", "word for none"),
        ("/mnt/user-data/uploads/cat.png", "chat's own machine"),
    ],
)
async def test_a_path_of_another_machine_is_refused_in_words_in_and_out(
    given: str, words: str, project: Path, connect: Connect
) -> None:
    photo(project / "cat.png", (40, 40))
    before = sorted(project.iterdir())
    with pytest.raises(ToolError, match=words):
        await _taken(connect, given)
    if given != "null":  # an argument that is null says nothing
        with pytest.raises(ToolError, match=words):
            await _taken(connect, "cat.png", output_path=given)
    assert [path for path in sorted(project.iterdir()) if path.name != "state"] == before


@POSIX
async def test_a_file_address_of_windows_is_told_as_a_path_of_windows(project: Path, connect: Connect) -> None:
    assert "/mnt/c/a b.png" in await _refused(connect, "file:///C:/a%20b.png")


@POSIX
async def test_an_output_path_with_backslashes_makes_no_odd_file(project: Path, connect: Connect) -> None:
    photo(project / "cat.png", (40, 40))
    with pytest.raises(ToolError, match="backslashes; write /"):
        await _taken(connect, "cat.png", output_path="out\\cat.png")


@pytest.mark.parametrize("count", [60, 6000])
async def test_a_picture_itself_is_called_what_it_is_and_not_repeated(
    count: int, project: Path, connect: Connect
) -> None:
    for head in (b"\x89PNG\r\n\x1a\n\0", b"\xff\xd8\xff\xe0", b"RIFFxxxxWEBP"):
        packed = base64.b64encode(head + bytes(range(256)) * (count // 50)).decode()
        for given, words in (
            (packed, "Base64 was given"),
            (f"data:image/png;base64,{packed}", "A data: address was given"),
        ):
            said = await _refused(connect, given)
            assert words in said and "give its path" in said and packed[:12] not in said


async def test_a_wrong_id_is_told_as_one_with_those_that_are_like_it(
    project: Path, connect: Connect, model: FakeModel
) -> None:
    async with connect() as client:
        made = (await client.call_tool("generate_image", {"prompt": "a cat"})).structured_content["images"][0]["id"]
    near = made[:-1] + ("0" if made[-1] != "0" else "1")
    assert f"Similar ids: {made}" in await _refused(connect, near)
    assert f"not an id: an id is img_ and 16 letters and digits. Similar ids: {made}" in await _refused(
        connect, made[:-1]
    )
    assert f"The newest: {made}" in await _refused(connect, "img_zzzzzzzzzzzzzzzz")


@POSIX
async def test_a_policy_sees_the_path_that_is_read(
    project: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(project))
    photo(project / "my secret.png", (40, 40))
    policy = project / "policy.yaml"
    condition = f"{{path: args.image, op: eq, value: '{project}/my secret.png'}}"
    policy.write_text(f"tools: {{convert_image: {{rules: [{{action: deny, conditions: [{condition}]}}]}}}}\n")
    async with connect(policy=policy) as client:
        for written in ("{}/my%20secret.png", "file://{}/my%20secret.png", "'{}/my secret.png'", "{}/my\u00a0secret.png",
                        "~/my secret.png", "{}/my\\ secret.png"):  # fmt: skip
            with pytest.raises(ToolError, match="Policy violation"):
                await client.call_tool("convert_image", {"image": written.format(project), "width": 9})


# Hidden folders


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    return folder


def _rooms(home: Path, base: Path) -> Places:
    return folders(home.parent, base=base)


def _put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png())
    return path


@pytest.mark.parametrize("above", [".claude/worktrees/x", ".cursor/worktrees/x/y", ".codex/worktrees/x", ".config/app"])
def test_hidden_folders_above_the_open_one_do_not_count_inside_it(above: str, home: Path) -> None:
    rooms = _rooms(home, home / "project" / above)
    inside = _put(rooms.base / "a" / "b.png")
    assert read_input("a/b.png", rooms)[1] == read_input(str(inside), rooms)[1] == png()
    assert plan_target("out/c.png", rooms).folder == rooms.base / "out"
    for path in (
        _put(rooms.base / ".hidden" / "b.png"),
        _put(rooms.base.parent / "b.png"),
        _put(home / ".x" / "b.png"),
    ):
        with pytest.raises(NotAllowed, match="hidden"):
            read_input(str(path), rooms)
        with pytest.raises(NotAllowed, match="hidden"):
            plan_target(str(path.with_name("new.png")), rooms)


@pytest.mark.parametrize("name", [".git", ".ssh", ".gnupg", ".aws", ".Git", ".SSH", ".g\u200cit", ".git."])
@pytest.mark.parametrize("where", ["open", "above", "inside", "output", "allowed", "linked"])
def test_folders_of_keys_and_of_version_control_are_closed_always(name: str, where: str, home: Path) -> None:
    closed = home / "p" / name
    path = _put(closed / "in" / "a.png")
    rooms = _rooms(home, {"open": closed, "above": closed / "in"}.get(where, home / "p"))
    if where == "output":
        rooms = folders(home.parent, base=home / "p", output=closed)
    elif where == "allowed":
        rooms = folders(home.parent, base=home / "p", allowed=(closed,))
    elif where == "linked":
        (home / "p" / "link").symlink_to(closed)
        path = home / "p" / "link" / "in" / "a.png"
    with pytest.raises(NotAllowed, match="hidden"):
        read_input(str(path), rooms)
    with pytest.raises(NotAllowed, match="hidden"):
        plan_target(str(path.with_name("new.png")), rooms)


@pytest.mark.parametrize("place", ["home/.claude/image-cache", "home/p/.gemini-clipboard", "home/p/.playwright-mcp"])
def test_pasted_pictures_are_read_and_nothing_beside_them(place: str, home: Path) -> None:
    rooms, folder = _rooms(home, home / "p"), home.parent / place
    pasted = _put(folder / "session" / "1.png")
    assert read_input(str(pasted), rooms)[1] == png()
    beside = _put(folder.with_name(f"{folder.name}-old") / "1.png")
    for path in (
        _put(folder.parent / ".x" / "1.png"),
        _put(folder / ".x" / "1.png"),
        beside,
        _put(folder / ".ssh" / "a"),
    ):
        with pytest.raises(NotAllowed, match="hidden"):
            read_input(str(path), rooms)
    with pytest.raises(NotAllowed, match="hidden"):
        plan_target(str(folder / "new.png"), rooms)
    narrow = folders(home.parent, base=home / "p", allowed=(home / "photos",))
    with pytest.raises(NotAllowed, match="NANOBANANA_ALLOWED_DIRS"):
        read_input(str(pasted), narrow)


def test_a_link_in_the_place_of_pasted_pictures_opens_nothing(home: Path) -> None:
    rooms = _rooms(home, home / "p")
    _put(home / ".secrets" / "a.png")
    (home / ".claude").mkdir()
    (home / ".claude" / "image-cache").symlink_to(home / ".secrets")
    with pytest.raises(NotAllowed, match="hidden"):
        read_input(str(home / ".claude" / "image-cache" / "a.png"), rooms)
