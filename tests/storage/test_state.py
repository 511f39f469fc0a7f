"""The files that the studio keeps for itself: raw answers, records, and signs of life."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nanobanana_mcp.domain.records import Parent
from nanobanana_mcp.storage.paths import Places
from nanobanana_mcp.storage.processes import ProcessLock, anybody_alive, is_alive
from nanobanana_mcp.storage.sidecars import Sidecars, read_record
from nanobanana_mcp.storage.spool import Spool
from tests.support.rooms import at_once, folders, record


@pytest.fixture
def rooms(tmp_path: Path) -> Places:
    return folders(tmp_path)


def test_a_raw_answer_waits_on_the_disk_until_it_is_dropped(rooms: Places) -> None:
    assert Spool(rooms).read("c1") is None
    Spool(rooms).put("c1", b"{}")
    assert Spool(rooms).read("c1") == b"{}"
    assert Spool(rooms).calls() == ["c1"]
    Spool(rooms).drop("c1")
    Spool(rooms).drop("c1")
    assert Spool(rooms).read("c1") is None
    assert Spool(rooms).calls() == []


def test_a_raw_answer_goes_to_a_second_place_when_the_first_takes_nothing(
    rooms: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = os.write, [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))]

    def write(descriptor: int, data: Any) -> int:
        if failures:
            raise failures.pop()
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    path = Spool(rooms).put("c1", b"{}")
    assert path.is_relative_to(rooms.own)
    assert Spool(rooms).read("c1") == b"{}"
    assert Spool(rooms).calls() == ["c1"]
    Spool(rooms).drop("c1")
    assert not path.exists()


def test_a_pictures_record_is_read_back_as_it_was(rooms: Places) -> None:
    kept = record(
        prompt="Zoë 🍌", parents=(Parent(image_id="img_a", role="base"), Parent(image_id="img_b", role="mask"))
    )
    Sidecars(rooms).write_record(kept, extra={"cost_usd": 0.04, "request": "{}"})
    assert read_record(rooms.records / f"{kept.id}.json") == kept


@pytest.mark.parametrize(
    "junk", [b"", b"{", b"[]", b"{}", b'{"parents": 3}', b"\xff\xfe", b'{"parents": [{"x": 1}]}', b"null"]
)
def test_a_file_that_is_no_record_is_none(junk: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(junk)
    assert read_record(tmp_path / "a.json") is None
    assert read_record(tmp_path / "gone.json") is None


def test_a_living_process_is_told_from_one_that_is_gone(rooms: Places) -> None:
    one, two = ProcessLock(rooms), ProcessLock(rooms)
    assert one.is_alive(one.name)
    assert one.is_alive(two.name)
    two.close()
    assert not one.is_alive(two.name)
    assert not one.is_alive("1-never")
    one.close()
    assert list((rooms.state / "processes").iterdir()) == []


@pytest.mark.slow
def test_a_killed_process_is_known_to_be_dead_and_its_sign_is_swept(rooms: Places) -> None:
    code = """
import os, signal
from nanobanana_mcp.storage.processes import ProcessLock
from tests.support.rooms import folders
ProcessLock(folders(Path(sys.argv[2])))
os.kill(os.getpid(), signal.SIGKILL)
"""
    with pytest.raises(AssertionError):
        at_once(1, code, rooms.state.parent)
    (left,) = (rooms.state / "processes").iterdir()
    mine = ProcessLock(rooms)
    assert not mine.is_alive(left.stem)
    assert mine.others() == (False, [left])
    mine.sweep([left])
    assert [path.stem for path in (rooms.state / "processes").iterdir()] == [mine.name]
    mine.close()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not tell when a process began")
def test_a_process_whose_sign_was_cleaned_away_is_still_alive_until_it_ends(rooms: Places) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom nanobanana_mcp.storage.processes import ProcessLock\n"
        "from tests.support.rooms import folders\nhere = ProcessLock(folders(Path(sys.argv[1])))\n"
        "print(here.name, flush=True)\nsys.stdin.readline()\nprint(here.renew(), flush=True)\nsys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(rooms.state.parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        name = child.stdout.readline().strip()
        sign = rooms.state / "processes" / f"{name}.lock"
        sign.unlink()
        assert is_alive(name, rooms)
        child.stdin.write("go\n")
        child.stdin.flush()
        assert child.stdout.readline().strip() == name
        assert sign.exists(), "it has put its sign back"
        assert anybody_alive(rooms)
    assert not is_alive(name, rooms)
