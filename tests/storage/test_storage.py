"""The disk: names that every system takes, places that pictures may go to, and files that are written whole, once."""

import errno
import ntpath
import os
import re
import stat
import threading
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nanobanana_mcp.domain.errors import NotAllowed, RequestError, SetupError
from nanobanana_mcp.storage.paths import Places, picture_stem, plan_target, slug
from nanobanana_mcp.storage.writing import check_room, move_new, replace_durably, write_new
from tests.support.rooms import NOON, as_somebody_else, at_once, folders, png, public_folder, tree

POSIX = pytest.mark.skipif(os.name != "posix", reason="pipes, devices and permissions of POSIX")


@pytest.fixture
def rooms(tmp_path: Path) -> Places:
    return folders(tmp_path)


@pytest.fixture
def public() -> Iterator[Path]:
    with public_folder() as folder:
        yield folder


# Names


def _is_a_good_name(name: str) -> bool:
    return (
        0 < len(name.encode()) <= 120
        and not name.startswith((".", "-", "~"))
        and not name.endswith((".", " "))
        and not set(name) & set('/\\:*?"<>|')
        and all(unicodedata.category(character)[0] not in "CZ" for character in name)
        and not ntpath.isreserved(name)
        if hasattr(ntpath, "isreserved")
        else name.split(".")[0].rstrip().upper() not in {"CON", "PRN", "AUX", "NUL", "COM1", "LPT1", "COM¹"}
    )


@settings(derandomize=True, deadline=None, max_examples=300)
@given(prompt=st.text(max_size=500))
@example(prompt="")
@example(prompt="../../etc/passwd")
@example(prompt="猫" * 300)
@example(prompt="CON")
@example(prompt="x:stream\0\n\u202e.png")
@example(prompt="\ud800 lone")
@example(prompt="-rf ~ .hidden")
@example(prompt="É" * 200)
@example(prompt="İ" * 200)
def test_every_prompt_gives_a_name_that_every_system_takes(prompt: str) -> None:
    name = picture_stem(prompt, "img_0123456789abcdef", NOON)
    assert _is_a_good_name(f"{name}.png")
    assert name.endswith("abcdef")


@settings(derandomize=True, deadline=None, max_examples=300)
@given(prompt=st.text(max_size=500))
@example(prompt="nul")
@example(prompt="Com1")
@example(prompt="LPT³")
def test_the_words_of_a_prompt_alone_are_a_good_name_or_nothing(prompt: str) -> None:
    words = slug(prompt)
    assert words == "" or _is_a_good_name(words)
    assert len(words.encode()) <= 70
    assert slug(words) == words


def test_a_name_is_for_people() -> None:
    name = picture_stem("A fat, happy Bär -- 4K!", "img_0123456789abcdef", NOON)
    assert name.endswith("_a-fat-happy-bär-4k_abcdef")
    assert re.match(r"2026-11-\d\d_\d{6}_", name)


def test_names_of_one_day_sort_by_age() -> None:
    made = [NOON + timedelta(minutes=minutes) for minutes in (0, 1, 90)]
    prompts = ["zebra", "ant", "moth"]
    names = [picture_stem(prompt, "img_0123456789abcdef", at) for prompt, at in zip(prompts, made, strict=True)]
    assert names == sorted(names)


# Where pictures may go


@pytest.mark.parametrize(
    ("text", "folder", "stem"),
    [
        (None, "pictures", None),
        ("out/cat.png", "project/out", "cat"),
        ("out/", "project/out", None),
        ("out", "project/out", None),
        (".", "project", None),
        ("cat.JPG", "project", "cat"),
        ("there.d", "project/there.d", None),
        ("a/../b/cat.v2.png", "project/b", "cat.v2"),
        ("logo.v2", "project", "logo.v2"),
    ],
)
def test_output_path_is_a_file_or_a_folder(
    text: str | None, folder: str, stem: str | None, rooms: Places, tmp_path: Path
) -> None:
    (rooms.base / "there.d").mkdir()
    before = tree(tmp_path)
    target = plan_target(text, rooms)
    assert (target.folder, target.stem) == (tmp_path / folder, stem)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (".git/hooks/x.png", "hidden folder"),
        ("sub/.hidden.png", "hidden file"),
        ("../state/x.png", "studio's own folder"),
        ("../pictures/.nanobanana/trash/x.png", "studio's own folder"),
        ("file/x.png", "is a file"),
        ("loop/x.png", "."),
        ("loop", "."),
        ("x" * 300 + ".png", "cannot be used"),
        ("x" * 240 + ".png", "more than 200 bytes"),
        ("https://example.com/a.png", "is an address"),
        ("\\\\host\\share\\", "network path"),
        ("", "empty path"),
        ("a\0.png", "control characters"),
    ],
)
def test_places_that_pictures_may_not_go_to_are_refused_and_nothing_is_made(
    text: str, words: str, rooms: Places, tmp_path: Path
) -> None:
    (rooms.base / "file").write_text("mine")
    (rooms.base / "loop").symlink_to(rooms.base / "loop")
    before = tree(tmp_path)
    with pytest.raises(RequestError, match=words):
        plan_target(text, rooms)
    assert tree(tmp_path) == before


def test_a_link_into_a_hidden_folder_is_no_way_to_write_there(rooms: Places) -> None:
    (rooms.base / ".git").mkdir()
    (rooms.base / "innocent").symlink_to(rooms.base / ".git")
    with pytest.raises(NotAllowed, match="hidden folder"):
        plan_target("innocent/hook.png", rooms)


def test_allowed_folders_narrow_where_pictures_go(tmp_path: Path) -> None:
    rooms = folders(tmp_path, allowed=(tmp_path / "allowed",))
    assert plan_target(str(tmp_path / "allowed" / "a.png"), rooms).stem == "a"
    assert plan_target(None, rooms).folder == rooms.output
    for text in (str(tmp_path / "allowed-not" / "a.png"), "a.png", f"{tmp_path}/allowed/../a.png"):
        with pytest.raises(NotAllowed, match="NANOBANANA_ALLOWED_DIRS"):
            plan_target(text, rooms)


def test_a_full_disk_is_known_before_anything_is_paid(rooms: Places) -> None:
    check_room(1, rooms.output / "not" / "made" / "yet")
    with pytest.raises(SetupError, match=r"MB left.*Free some space"):
        check_room(10**18, rooms.output)
    (rooms.base / "file").write_text("mine")
    with pytest.raises(SetupError, match=r"file is a file; nothing was sent.*NANOBANANA_OUTPUT_DIR"):
        check_room(1, rooms.base / "file" / "pictures")
    with pytest.raises(SetupError, match="NANOBANANA_DATABASE_URL"):
        check_room(1, rooms.output, rooms.base / "file")


# Writing


def test_a_picture_is_written_under_its_name_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = write_new(tmp_path / "a" / "b", "cat", ".png", png(), key="k")
    assert path == tmp_path / "a" / "b" / "cat.png"
    assert path.read_bytes() == png()
    assert sorted(child.name for child in path.parent.iterdir()) == ["cat.png"]
    if os.name == "posix":
        umask = os.umask(0)
        os.umask(umask)
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("taken", ["file", "folder", "link", "dangling link"])
def test_a_name_that_is_taken_is_never_written_over(taken: str, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    folder = tmp_path / "pictures"
    folder.mkdir()
    if taken == "file":
        (folder / "cat.png").write_text("mine")
    elif taken == "folder":
        (folder / "cat.png").mkdir()
    else:
        (folder / "cat.png").symlink_to(elsewhere if taken == "link" else tmp_path / "nowhere")
    before = tree(tmp_path)
    assert write_new(folder, "cat", ".png", png(), key="k").name == "cat-2.png"
    assert write_new(folder, "cat", ".png", png(1), key="l").name == "cat-3.png"
    assert {name: what for name, what in tree(tmp_path).items() if name in before} == before


def _without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)


@pytest.mark.parametrize("links", [True, False])
def test_eight_threads_that_want_one_name_get_eight(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:
        _without_links(monkeypatch)
    start = threading.Barrier(8)

    def write(number: int) -> Path:
        start.wait()
        return write_new(tmp_path, "cat", ".png", png(number), key=str(number))

    with ThreadPoolExecutor(8) as threads:
        paths = list(threads.map(write, range(8)))
    assert len(set(paths)) == 8
    assert [path.read_bytes() for path in paths] == [png(number) for number in range(8)]
    assert len(list(tmp_path.iterdir())) == 8


@pytest.mark.slow
def test_eight_processes_that_want_one_name_overwrite_nothing(tmp_path: Path) -> None:
    code = """
for number in range(25):
    write_new(Path(sys.argv[2]), f"cat{number}", ".png", sys.argv[1].encode() * 9, key=f"{sys.argv[1]}-{number}")
"""
    at_once(8, code, tmp_path)
    files = list(tmp_path.iterdir())
    assert len(files) == 200
    assert sorted(path.read_bytes() for path in files) == sorted([str(n).encode() * 9 for n in range(8)] * 25)


def _full_after(monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    """Let the disk take so many pieces of 10 bytes, then half a piece, then nothing."""
    real, left = os.write, [writes]

    def write(descriptor: int, data: Any) -> int:
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] -= 1
        return real(descriptor, data[: 5 if left[0] < 0 else 10])

    monkeypatch.setattr(os, "write", write)


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("writes", [0, 1, 9, 10, 11, 15, 19])
def test_a_disk_that_fills_up_leaves_no_part_of_a_picture(
    writes: int, links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:
        _without_links(monkeypatch)
    (tmp_path / "cat.png").write_text("mine")
    data = b"0123456789" * 10
    with monkeypatch.context() as patch:
        _full_after(patch, writes)
        if writes >= (10 if links else 20):
            write_new(tmp_path, "cat", ".png", data, key="k")
            return
        with pytest.raises(OSError, match="No space left"):
            write_new(tmp_path, "cat", ".png", data, key="k")
    assert [child.name for child in tmp_path.iterdir()] == ["cat.png"]
    assert (tmp_path / "cat.png").read_text() == "mine"
    assert write_new(tmp_path, "cat", ".png", data, key="k").read_bytes() == data


def test_a_write_that_is_repeated_takes_up_its_own_file(tmp_path: Path) -> None:
    first = write_new(tmp_path, "cat", ".png", png(), key="k")
    again = write_new(tmp_path, "cat", ".png", png(), key="k", written_after=first.stat().st_mtime - 1)
    assert again == first
    assert len(list(tmp_path.iterdir())) == 1


def test_a_write_that_is_repeated_takes_up_nothing_that_is_older_or_different_or_a_link(tmp_path: Path) -> None:
    old = tmp_path / "cat.png"
    old.write_bytes(png())
    os.utime(old, (1000, 1000))
    (tmp_path / "cat-2.png").write_bytes(png(1))
    (tmp_path / "cat-3.png").symlink_to(tmp_path / "theirs.png")
    (tmp_path / "theirs.png").write_bytes(png())
    made = write_new(tmp_path, "cat", ".png", png(), key="k", written_after=2000)
    assert made.name == "cat-4.png"


def test_what_a_killed_write_left_is_gone_after_its_repetition(tmp_path: Path) -> None:
    (tmp_path / ".k.tmp").write_bytes(b"half")
    write_new(tmp_path, "cat", ".png", png(), key="k")
    assert [child.name for child in tmp_path.iterdir()] == ["cat.png"]


def test_state_is_replaced_whole_and_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state" / "a.json"
    replace_durably(path, b"old" * 10)
    with monkeypatch.context() as patch:
        _full_after(patch, 1)
        with pytest.raises(OSError, match="No space left"):
            replace_durably(path, b"new" * 100)
    assert path.read_bytes() == b"old" * 10
    assert [child.name for child in path.parent.iterdir()] == ["a.json"]
    replace_durably(path, b"new")
    assert path.read_bytes() == b"new"
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("links", [True, False])
def test_a_move_never_goes_over_another_file(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not links:
        _without_links(monkeypatch)
    source = tmp_path / "a" / "cat.png"
    source.parent.mkdir()
    source.write_bytes(png())
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "cat.png").write_text("mine")
    moved = move_new(source, tmp_path / "b", "cat.png")
    assert moved.name == "cat-2.png"
    assert moved.read_bytes() == png()
    assert (tmp_path / "b" / "cat.png").read_text() == "mine"
    assert not source.exists()


@POSIX
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_picture_is_kept_below_a_folder_that_may_be_entered_but_not_listed(public: Path) -> None:
    (public / "home" / "me").mkdir(parents=True)
    (public / "home" / "me").chmod(0o777)
    (public / "home").chmod(0o711)

    def write() -> None:
        assert write_new(public / "home" / "me" / "pictures", "a", ".png", png(), key="k").read_bytes() == png()

    as_somebody_else(write)
