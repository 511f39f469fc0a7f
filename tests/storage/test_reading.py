"""Reading a file that a caller named: pictures are read, and everything else is refused in words and never waited on."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanobanana_mcp.domain.errors import NotAllowed, RequestError, SourceNotFound
from nanobanana_mcp.domain.terms import MAX_FILE_BYTES
from nanobanana_mcp.storage.paths import Places
from nanobanana_mcp.storage.reading import read_input, read_own
from tests.support.rooms import as_somebody_else, folders, png, public_folder

POSIX = pytest.mark.skipif(os.name != "posix", reason="pipes, devices and permissions of POSIX")


@pytest.fixture
def rooms(tmp_path: Path) -> Places:
    return folders(tmp_path)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A picture of the user's own, somewhere else."""
    path = tmp_path / "photos" / "cat.png"
    path.parent.mkdir()
    path.write_bytes(png())
    return path


@pytest.fixture
def public() -> Iterator[Path]:
    with public_folder() as folder:
        yield folder


def test_a_picture_is_read_with_its_resolved_path(rooms: Places, photo: Path) -> None:
    assert read_input(str(photo), rooms) == (photo, png())


def test_a_relative_path_is_relative_to_the_project(rooms: Places) -> None:
    (rooms.base / "sub").mkdir()
    (rooms.base / "sub" / "a.png").write_bytes(png())
    assert read_input("sub/a.png", rooms)[0] == rooms.base / "sub" / "a.png"
    assert read_input("./sub/../sub/a.png", rooms)[0] == rooms.base / "sub" / "a.png"


def test_a_tilde_is_the_users_home(rooms: Places) -> None:
    (Path.home() / "a.png").write_bytes(png())
    assert read_input("~/a.png", rooms)[1] == png()


def test_a_link_to_a_picture_is_followed_to_where_it_leads(rooms: Places, photo: Path) -> None:
    (rooms.base / "link.png").symlink_to(photo)
    assert read_input("link.png", rooms) == (photo, png())


@pytest.mark.parametrize(
    "name", ["two words.png", "ünï猫.png", "$HOME.png", "%2e%2e.png", "a;b&c.png", "-rf.png", "'q\".png"]
)
def test_odd_names_are_names(name: str, rooms: Places) -> None:
    (rooms.base / name).write_bytes(png())
    assert read_input(name, rooms)[0].name == name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty path"),
        ("   ", "empty path"),
        ("a\0b.png", "control characters"),
        ("a\nb.png", "control characters"),
        ("\x1b[31ma.png", "control characters"),
        ("\ud800.png", "control characters"),
        ("x" * 5000, "longer than 4096 bytes"),
        ("猫" * 1500, "longer than 4096 bytes"),
        ("http://example.com/a.png", "is an address"),
        ("https://example.com/a.png", "is an address"),
        ("file:///etc/passwd", "is an address"),
        ("data:image/png;base64,AAAA", "data: address"),
        ("\\\\host\\share\\a.png", "network path"),
        ("//host/share/a.png", "network path"),
        ("\\\\?\\C:\\a.png", "network path"),
        ("x" * 300, "too long"),
        ("missing.png", "There is no image"),
        ("../missing.png", "There is no image"),
        ("missing/../also/missing.png", "There is no image"),
        (".", "folder"),
        ("./", "folder"),
        ("..", "folder"),
        ("/", "folder"),
    ],
)
def test_what_is_no_file_here_is_refused_by_name_before_anything_is_read(text: str, words: str, rooms: Places) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        read_input(text, rooms)
    assert len(str(caught.value)) < 700
    assert str(caught.value).isprintable()


@settings(derandomize=True, deadline=None, max_examples=200)
@given(text=st.text(max_size=60) | st.text(alphabet="./~\\:%$ a\0\n-", max_size=20))
def test_no_text_that_a_model_may_write_is_more_than_a_refusal(text: str) -> None:
    places = Places(output=Path("/nonexistent/o"), state=Path("/nonexistent/s"), base=Path("/nonexistent/b"))
    with pytest.raises(RequestError):
        read_input(text, places)


def test_an_empty_file_is_refused(rooms: Places) -> None:
    (rooms.base / "empty.png").touch()
    with pytest.raises(SourceNotFound, match="is empty"):
        read_input("empty.png", rooms)


def test_a_folder_is_refused(rooms: Places) -> None:
    with pytest.raises(SourceNotFound, match="is a folder"):
        read_input(str(rooms.base), rooms)


@POSIX
def test_a_pipe_is_refused_and_not_waited_on(rooms: Places) -> None:
    os.mkfifo(rooms.base / "pipe.png")
    with pytest.raises(SourceNotFound, match="pipe, socket or device"):
        read_input("pipe.png", rooms)


@POSIX
def test_a_socket_is_refused(rooms: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(rooms.base)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s.png")
        with pytest.raises(SourceNotFound, match="pipe, socket or device"):
            read_input("s.png", rooms)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no devices here")
@pytest.mark.parametrize(
    "device", ["/dev/zero", "/dev/null", "/dev/urandom", "/dev/stdin", "/dev/tty", "/proc/self/mem"]
)
def test_a_device_is_refused_and_not_read(device: str, rooms: Places) -> None:
    with pytest.raises(RequestError):
        read_input(device, rooms)


def test_a_huge_file_is_refused_by_its_size(rooms: Places) -> None:
    path = rooms.base / "huge.png"
    with path.open("wb") as file:
        file.truncate(200 * 2**30)
    with pytest.raises(NotAllowed, match=r"214748 MB; at most 64 MiB"):
        read_input("huge.png", rooms)


def test_the_biggest_file_that_may_be_read_is_read(rooms: Places) -> None:
    with (rooms.base / "big.png").open("wb") as file:
        file.truncate(MAX_FILE_BYTES)
    assert len(read_input("big.png", rooms)[1]) == MAX_FILE_BYTES


@pytest.mark.parametrize("length", [1, 2, 40])
def test_links_that_lead_in_a_circle_are_refused(length: int, rooms: Places) -> None:
    for number in range(length):
        (rooms.base / f"{number}.png").symlink_to(rooms.base / f"{(number + 1) % length}.png")
    with pytest.raises(RequestError, match=r"symbolic link|cannot be read"):
        read_input("0.png", rooms)


def test_a_link_to_nowhere_is_no_image(rooms: Places) -> None:
    (rooms.base / "a.png").symlink_to(rooms.base / "gone.png")
    with pytest.raises(SourceNotFound, match="There is no image"):
        read_input("a.png", rooms)


@pytest.mark.parametrize("name", [".ssh/id.png", ".secret.png", "a/.git/b/c.png"])
def test_hidden_files_and_folders_are_not_read_not_even_through_a_link(name: str, rooms: Places) -> None:
    path = rooms.base / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png())
    (rooms.base / "innocent.png").symlink_to(path)
    (rooms.base / "folder").symlink_to(path.parent)
    for text in (str(path), "innocent.png", f"folder/{path.name}"):
        with pytest.raises(NotAllowed, match=r"hidden.*copy the picture elsewhere"):
            read_input(text, rooms)


def test_the_studios_own_state_is_not_read(rooms: Places) -> None:
    own = [rooms.state / "library.db", rooms.spool / "c1.json", rooms.records / "a.json", rooms.trash / "a.png"]
    for path in own:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png())
        with pytest.raises(NotAllowed, match="studio's own records"):
            read_input(str(path), rooms)


@pytest.mark.skipif(not hasattr(os, "link"), reason="hard links")
def test_the_studios_own_state_is_not_read_under_another_name(rooms: Places) -> None:
    beside = [rooms.state.with_name(f"{rooms.state.name}{end}") for end in ("-journal", "-wal", "-shm", ".upgrade")]
    second = rooms.own / "spool" / "c2.json"
    for number, path in enumerate((*beside, rooms.spool / "c1.json", rooms.state / "processes" / "1.lock", second)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png())
        os.link(path, rooms.base / f"{number}.png")
        (rooms.base / f"link{number}.png").symlink_to(rooms.base / f"{number}.png")
        for name in (f"{number}.png", f"link{number}.png"):
            with pytest.raises(NotAllowed, match="studio's own records"):
                read_input(name, rooms)


def test_pictures_in_the_output_folder_are_read_even_when_that_is_hidden(tmp_path: Path) -> None:
    rooms = folders(tmp_path, output=tmp_path / ".cache" / "pictures")
    (rooms.output / "a.png").write_bytes(png())
    assert read_input(str(rooms.output / "a.png"), rooms)[1] == png()
    (rooms.output / ".b.png").write_bytes(png())
    with pytest.raises(NotAllowed, match="hidden"):
        read_input(str(rooms.output / ".b.png"), rooms)


def test_allowed_folders_narrow_what_is_read(tmp_path: Path, photo: Path) -> None:
    rooms = folders(tmp_path, allowed=(tmp_path / "photos",))
    neighbour = tmp_path / "photos-private" / "b.png"
    neighbour.parent.mkdir()
    neighbour.write_bytes(png())
    (rooms.output / "made.png").write_bytes(png())
    (photo.parent / "way-out.png").symlink_to(neighbour)
    assert read_input(str(photo), rooms)[1] == png()
    assert read_input(str(rooms.output / "made.png"), rooms)[1] == png()
    outside = [
        str(neighbour),
        str(photo.parent / "way-out.png"),
        f"{photo.parent}/../photos-private/b.png",
        "/etc/hosts",
    ]
    for text in outside:
        with pytest.raises(NotAllowed, match="NANOBANANA_ALLOWED_DIRS"):
            read_input(text, rooms)


@POSIX
def test_a_folder_swapped_for_a_link_while_it_is_read_never_leads_out(tmp_path: Path) -> None:
    rooms = folders(tmp_path, allowed=(tmp_path / "allowed",))
    inside, outside = tmp_path / "allowed" / "folder", tmp_path / "secret"
    for folder, content in ((inside, b"picture"), (outside, b"SECRET")):
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes(content)
    other = tmp_path / "allowed" / "aside"
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            inside.rename(other)
            inside.symlink_to(outside)
            inside.unlink()
            other.rename(inside)

    swapper = threading.Thread(target=swap)
    swapper.start()
    read = refused = 0
    try:
        while read + refused < 3000 or (not (read and refused) and read + refused < 30_000):
            try:
                _, data = read_input(str(inside / "a.png"), rooms)
            except RequestError:
                refused += 1
            else:
                assert data == b"picture"
                read += 1
    finally:
        done.set()
        swapper.join()


@POSIX
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_picture_that_may_not_be_read_is_refused_with_the_reason(public: Path) -> None:
    (public / "a.png").write_bytes(png())
    (public / "a.png").chmod(0)
    places = Places(output=public / "o", state=public / "s", base=public)

    def read() -> None:
        with pytest.raises(SourceNotFound, match="may not be read by this user; check the permissions"):
            read_input("a.png", places)

    as_somebody_else(read)


@POSIX
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_picture_in_a_folder_that_may_be_entered_but_not_listed_is_read(public: Path) -> None:
    (public / "home" / "me").mkdir(parents=True)
    (public / "home" / "me" / "a.png").write_bytes(png())
    (public / "home" / "me" / "a.png").chmod(0o644)
    (public / "home").chmod(0o711)
    places = Places(output=public / "o", state=public / "s", base=public)

    def read() -> None:
        assert read_input("home/me/a.png", places)[1] == png()

    as_somebody_else(read)


def test_a_picture_of_the_library_that_is_gone_or_no_file_is_none(rooms: Places, photo: Path) -> None:
    (rooms.base / "link.png").symlink_to(photo)
    assert read_own(photo, rooms) == png()
    assert read_own(rooms.base / "gone.png", rooms) is None
    assert read_own(rooms.base / "link.png", rooms) is None
    assert read_own(rooms.base, rooms) is None
