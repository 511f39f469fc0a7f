"""Libraries, pictures and processes in a temporary folder, and snapshots to tell whether anything moved."""

import hashlib
import io
import os
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from nanobanana_mcp.domain.ids import new_id, new_image_id, now
from nanobanana_mcp.domain.records import ImageRecord, Upload
from nanobanana_mcp.library.database import Database
from nanobanana_mcp.library.journal import Journal, RequestRow
from nanobanana_mcp.library.pictures import Library
from nanobanana_mcp.storage.paths import Places

SAFELY: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
"""Arguments with which `extractall` of tarfile unpacks an archive of ours; Python 3.11.0 to 3.11.3 have no filters."""

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def png(shade: int = 0, size: tuple[int, int] = (24, 16)) -> bytes:
    """A small picture; another `shade` (below 2^24) makes other bytes."""
    out = io.BytesIO()
    Image.new("RGB", size, (shade >> 16 & 255, shade >> 8 & 255, shade & 255)).save(out, "PNG")
    return out.getvalue()


def record(**changes: Any) -> ImageRecord:
    """A generated picture that has no file; `changes` replace its fields."""
    made = changes.pop("id", None) or new_image_id()
    values: dict[str, Any] = {
        "id": made,
        "created_at": now(),
        "origin": "generated",
        "path": f"/pictures/{made}.png",
        "thumbnail_path": None,
        "mime_type": "image/png",
        "width": 24,
        "height": 16,
        "bytes": 100,
        "sha256": hashlib.sha256(made.encode()).hexdigest(),
        "prompt": "a banana",
        "mode": "generate",
        "tier": "flash",
        "model_id": "some-model",
        "backend": "gemini",
    }
    return ImageRecord(**(values | changes))


def hang(
    library: Library, path: Path, *, data: bytes | None = None, days_old: float = 0, **changes: Any
) -> ImageRecord:
    """A picture in the library with its file on the disk, made so many days ago."""
    data = data if data is not None else png(int.from_bytes(hashlib.sha256(path.name.encode()).digest()[:3]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    kept = record(
        path=str(path),
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        created_at=now() - timedelta(days=days_old),
        **changes,
    )
    library.add(kept)
    return kept


def clutter(library: Library, places: Places) -> None:
    """Makes something for every operation to do, and as much that none of them may touch."""
    output = places.output
    hang(library, output / "old.png", days_old=30)
    hang(library, output / "older.png", days_old=60)
    moved = hang(library, output / "moved.png", days_old=1)
    Path(str(moved.path)).rename(output / "renamed.png")
    Path(str(hang(library, output / "lost.png", days_old=1).path)).unlink()
    trashed = hang(library, output / "trashed.png", days_old=30)
    places.trash.mkdir(parents=True)
    Path(str(trashed.path)).rename(places.trash / "trashed.png")
    library.move_to_trash(trashed, places.trash / "trashed.png")
    library.add_upload(upload(trashed.id, expires_at=now() - timedelta(hours=1)))
    library.add_upload(upload(trashed.id, state="pending", expires_at=None, created_at=now() - timedelta(hours=3)))
    library.add_upload(upload(trashed.id))


def holiday(folder: Path) -> list[Path]:
    """The user's own photos where the studio keeps its pictures."""
    names = ["IMG_0001.jpg", "2026-10-01_a-cat_abcdef.png", "old.png.bak", "sub/beach.png", ".hidden.png"]
    paths = [folder / name for name in names]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number + 900))
        os.utime(path, (1_000_000_000, 1_000_000_000))
    (folder / "link.png").symlink_to(paths[0])
    return paths


def upload(image_id: str, **changes: Any) -> Upload:
    """A live stay in the Files API."""
    values: dict[str, Any] = {
        "id": new_id(),
        "image_id": image_id,
        "name": f"files/nb-{new_id()}",
        "uri": "https://files.example/1",
        "mime_type": "image/png",
        "bytes": 100,
        "sha256": "0" * 64,
        "display_name": None,
        "state": "active",
        "created_at": now(),
        "expires_at": now() + timedelta(hours=47),
        "backend": "gemini",
    }
    return Upload(**(values | changes))


def order(**changes: Any) -> RequestRow:
    """A request for the journal; each has a wish of its own unless `fingerprint` is given."""
    made = new_id()
    values: dict[str, Any] = {
        "id": made,
        "created_at": now(),
        "process": "1-test",
        "mode": "generate",
        "tier": "flash",
        "model_id": "some-model",
        "backend": "gemini",
        "plan": "{}",
        "fingerprint": made,
    }
    return RequestRow(**(values | changes))


@cache
def _new_library() -> bytes:
    """A library in which nothing was ever done; its steps take 30 ms that not every test need pay."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "library.db"
        Database.open(path).close()
        return path.read_bytes()


def library_at(path: Path) -> Database:
    """The library at a path, opened; a new one where there is none."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(_new_library())
    return Database.open(path)


_opened: list[Database] = []


def opened(folder: Path) -> Database:
    """A library in a folder, for a test that calls close_all() when it ends."""
    made = library_at(folder / "library.db")
    _opened.append(made)
    return made


def close_all() -> None:
    """Close what opened() opened; one that is used again opens again."""
    while _opened:
        _opened.pop().close()


def journal(folder: Path) -> Journal:
    return Journal(opened(folder))


def folders(root: Path, **changes: Any) -> Places:
    """An output and a state folder, made; relative paths mean `project`."""
    values = {"output": root / "pictures", "state": root / "state", "base": root / "project"} | changes
    for name in ("output", "state", "base"):
        values[name].mkdir(parents=True, exist_ok=True)
    return Places(**values)


def dump(path: Path) -> list[str]:
    """All that a library file holds, as SQL."""
    connection = sqlite3.connect(path)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def tree(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Every name below a folder with what it is: a file's bytes, mode and time, or where a link leads."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = ("link", str(path.readlink()))
        elif path.is_dir():
            found[name] = ("folder",)
        elif path.is_file():
            status = path.stat()
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            found[name] = ("file", content, status.st_mode, status.st_mtime_ns)
        else:
            found[name] = ("other",)
    return found


def at_once(count: int, code: str, *arguments: object) -> list[str]:
    """Run the same program in so many processes, let go together; what each printed.

    The program runs `code` with `sys.argv[1:]` set to its number and `arguments`. All imports of ours are done before
    the start, so that the processes really meet.
    """
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from nanobanana_mcp.domain.budget import Limits\n"
        "from nanobanana_mcp.domain.errors import BudgetExceeded\n"
        "from nanobanana_mcp.library.database import Database\n"
        "from nanobanana_mcp.library.pictures import Library\n"
        "from nanobanana_mcp.storage.writing import write_new\n"
        "from tests.support.rooms import journal, order, record\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n" + code
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(number), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for number in range(count)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n", child.communicate()[1]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    ended = [child.communicate(timeout=120) for child in children]
    for child, (_, complaint) in zip(children, ended, strict=True):
        assert child.returncode == 0, complaint
    return [said for said, _ in ended]


def as_somebody_else(work: Callable[[], None]) -> None:
    """Run `work` in a child of this process, without root's rights; what it raises is printed there and fails here."""
    child = os.fork()
    if child:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        return
    code = 1
    try:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        work()
        code = 0
    finally:
        if code:
            traceback.print_exc()
        os._exit(code)


@contextmanager
def public_folder() -> Iterator[Path]:
    """A temporary folder that other users may enter, unlike pytest's own, wherever TMPDIR points."""
    place = next((base for base in (tempfile.gettempdir(), "/tmp", "/var/tmp") if _is_open_to_all(Path(base))), None)
    if place is None:
        pytest.skip("every temporary folder of this machine is closed to other users")
    with tempfile.TemporaryDirectory(dir=place) as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        yield folder


def _is_open_to_all(folder: Path) -> bool:
    """Tells whether any user may enter a folder and every one above it."""
    resolved = folder.resolve()
    return all(one.is_dir() and one.stat().st_mode & 0o001 for one in (resolved, *resolved.parents))
