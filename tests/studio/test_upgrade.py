"""An upgrade loses nothing: this version opens the libraries that earlier ones made.

The archives in tests/data are made by tests/support/earlier.py and named by the commit that made them.
"""

import hashlib
import json
import os
import re
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from nanobanana_mcp.domain.ids import child_id, now
from nanobanana_mcp.settings import Settings
from nanobanana_mcp.storage.paths import Places
from nanobanana_mcp.studio.rebuild import rebuild
from nanobanana_mcp.studio.studio import Studio
from tests.conftest import Emulated
from tests.support.earlier import ANSWERED, GOING_ON, KILLED, ROOT, UNANSWERED
from tests.support.fakes import FakeModel
from tests.support.lanes import cases
from tests.support.processes import Server
from tests.support.rooms import SAFELY, rows
from tests.support.world import world

DATA = Path(__file__).parents[1] / "data"
VERSIONS = ("e51eae7", "22f2bc9")
"""The last commit before the package was moved into rooms, and the last one before its plans and stores were rebuilt."""

FINGERPRINTS = {
    "plain": "5ef79d580abda53846ad4614e5c2da720d00b03cf84b03e4ace7d87f0164c8d8",
    "three": "6c22ea9e52812ecb05998d47234f2518e175b4b5df64cd332256a2339bfdfdbe",
    "exact": "2b0af3a6522ff65d9bf739f0032ad6ecd32ec3e7d035d4831833f6e6d5dd70f2",
    "named": "836c50f93d36bf79f82c24aee45a1278258bed57b85a445193554a34dceaa31c",
    "all options": "3dec2530cd5bf7ec3c156d69fc6450410ed8719f65de36591c4289a1a99f61da",
    "edit": "02aa7ba6c5b0fb76cea91f7c814ac22236b16b54260d04897e379e648c500b55",
    "region by box": "11c9a81639cb0ef400b40be08820e757f02899bf1b2a2145fb2d728846590046",
    "region by mask": "625bf296a69f4035aae9b9280634d2876219deba6757a997fa51afda7a72ab68",
    "extension": "6c2b955ded52f27889d6499c9846945e26cd2d6224147757c89d29818177706c",
    "cutout": "96c2dc7bdcfd13b17ee731f3cebf73911a9045b24433bd98cb1c0b707d6f4fbe",
    "transparent": "1b4cad0e30ce9d8f82ced96f28341ce96e1614932929eeefebad33bc9a6d3b3b",
}
"""Of wishes that name no picture by its id. Another one would make a wish that is repeated across the upgrade be paid twice."""


WITH_KEYS = {name: asked for name, asked in ANSWERED.items() if "idempotency_key" in asked[1]}
"""Of the wishes whose answers arrived, those that are no new wish when they are asked again."""

ENDED = {"unknown outcome": "may have cost $0.044", "never sent": "nothing was charged"}
"""The outcome that is told of the killed requests that have no picture."""


@dataclass(kw_only=True)
class Earlier:
    """A library of an earlier version, as it was left; `told` is what its server said."""

    root: Path
    database: Path
    told: dict[str, Any]

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return rows(self.database, query)

    def wish(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(one for one in self.told["wishes"] if one["name"] == name)
        return found


@pytest.fixture(params=[VERSIONS[0], pytest.param(VERSIONS[1], marks=pytest.mark.slow)])
def earlier(request: pytest.FixtureRequest, tmp_path: Path) -> Earlier:
    """The library, unpacked into the test's folder as if it had been made there, a minute ago."""
    with tarfile.open(DATA / f"{request.param}.tar.xz") as packed:
        packed.extractall(tmp_path, **SAFELY)
    told, sql = tmp_path / "told.json", tmp_path / "library.sql"
    for path in (told, sql, *tmp_path.glob("pictures/.nanobanana/*/*.json")):
        text, written_at = path.read_text("utf-8"), path.stat().st_mtime
        path.write_text(text.replace(ROOT, str(tmp_path)), "utf-8")
        os.utime(path, (written_at, written_at))
    database = tmp_path / "state" / "library.db"
    with closing(sqlite3.connect(database)) as library:
        library.executescript(sql.read_text("utf-8"))
        # A wish without a key is repeated within a day or anew.
        newest = library.execute("SELECT max(created_at) FROM requests").fetchone()[0]
        later = round((now() - timedelta(minutes=1)).timestamp() * 1000) - newest
        library.execute("UPDATE requests SET created_at = created_at + ?", (later,))
        library.commit()
    return Earlier(root=tmp_path, database=database, told=json.loads(told.read_text("utf-8")))


async def test_every_picture_is_found_with_its_bytes_and_its_lineage(earlier: Earlier, emulated: Emulated) -> None:
    assert len(earlier.told["lineage"]) > 30
    for image_id, before in earlier.told["lineage"].items():
        found = await emulated.client.call_tool("output_stats", {"lineage_of": image_id})
        assert _has(found.structured_content, before), image_id
    for image_id, digest in earlier.rows("SELECT id, sha256 FROM images WHERE path IS NOT NULL"):
        assert hashlib.sha256((await emulated.studio.picture(image_id))[0]).hexdigest() == digest


@cases("name", UNANSWERED | GOING_ON | WITH_KEYS)
async def test_a_repeated_wish_gets_the_earlier_answer_and_is_not_paid_again(
    name: str, earlier: Earlier, emulated: Emulated
) -> None:
    wish = earlier.wish(name)
    result = await emulated.client.call_tool(wish["tool"], wish["arguments"], raise_on_error=False)
    assert emulated.emulator.charges == []
    parts = {image_id for (image_id,) in earlier.rows("SELECT id FROM images WHERE origin = 'part'")}
    if "images" in wish and set(wish["images"]) <= parts:  # no answer of that version's emulator could be cut out
        assert result.is_error and "nothing was charged again" in result.content[0].text
        return
    assert not result.is_error, result.content[0].text
    assert "nothing was charged again" in " ".join(result.structured_content["warnings"])
    found = result.structured_content["images"]
    known = [image["id"] for image in wish["told"]["images"]] if "told" in wish else wish["images"]
    assert found and {image["id"] for image in found} <= set(known)
    assert all(hashlib.sha256(Path(one["path"]).read_bytes()).hexdigest() == one["sha256"] for one in found)


async def test_a_killed_call_comes_home_at_the_start_for_nothing(earlier: Earlier, emulated: Emulated) -> None:
    spooled = sorted(path.stem for path in (earlier.root / "state" / "library.db.state" / "spool").glob("*.json"))
    assert len(spooled) == 5
    await emulated.studio.recover()
    assert emulated.emulator.charges == []
    assert earlier.rows("SELECT id FROM calls WHERE state IN ('reserved', 'sent', 'spooled')") == []
    kept = [image_id for (image_id,) in earlier.rows("SELECT id FROM images")]
    assert {f"img_{call_id}" for call_id in spooled} <= set(kept)
    named = {path for (path,) in earlier.rows("SELECT COALESCE(trash_path, path) FROM images")}
    output = earlier.root / "pictures"
    found = {str(path) for folder in (output, output / ".nanobanana" / "parts") for path in folder.glob("*.*")}
    assert {path for path in found if Path(path).is_file()} <= named, "a file was written a second time"
    assert not [*(earlier.root / "state" / "library.db.state" / "spool").iterdir()]


@pytest.mark.slow
@cases("name", KILLED)
async def test_a_wish_whose_server_was_killed_is_told_how_it_ended_and_not_paid_again(
    name: str, earlier: Earlier, emulated: Emulated
) -> None:
    wish = earlier.wish(name)
    result = await emulated.client.call_tool(wish["tool"], wish["arguments"], raise_on_error=False)
    assert emulated.emulator.charges == []
    if name in ENDED:
        assert result.is_error and ENDED[name] in result.content[0].text
        return
    assert not result.is_error, result.content[0].text
    found = result.structured_content["images"]
    assert len(found) == wish["arguments"].get("n", 1)
    if name == "recipe":
        assert [(one["width"], one["height"]) for one in found] == [(160, 120)]
        assert found[0]["id"] == child_id(result.structured_content["parts"][0]["id"], "made")


@pytest.mark.slow
async def test_a_conversation_goes_on_with_the_turn_that_the_earlier_version_kept(
    earlier: Earlier, emulated: Emulated
) -> None:
    kite = earlier.wish("plain with a key")["told"]["images"][0]["id"]
    await emulated.call(prompt="and now at night", continue_from=kite)
    sent = emulated.drawn[0]
    assert [turn["role"] for turn in sent["contents"]] == ["user", "model", "user"]
    assert "a red kite" in json.dumps(sent["contents"][0])
    assert "thoughtSignature" in json.dumps(sent["contents"][1])


async def test_a_library_is_rebuilt_from_the_earlier_versions_records_and_answers(
    earlier: Earlier, settings: Settings, places: Places, make_studio: Callable[..., Studio], model: FakeModel
) -> None:
    columns = ", ".join(name for _, name, *_ in earlier.rows("PRAGMA table_info(images)"))
    pictures = f"SELECT {columns} FROM images WHERE path IS NOT NULL ORDER BY id"
    lineage = "SELECT * FROM image_sources ORDER BY image_id, position"
    before = earlier.rows(pictures), earlier.rows(lineage)
    earlier.database.unlink()
    rebuilt = rebuild(settings.database_path, places)
    assert rebuilt is not None and not rebuilt.unreadable
    found = earlier.rows(pictures)
    assert set(before[0]) <= set(found), "all of the old library, and what was kept and not yet entered"
    assert earlier.rows(lineage) == before[1]
    spooled = [path.stem for path in places.spool.glob("*.json")]
    studio = make_studio()
    await studio.recover()
    await studio.close()
    assert model.requests == []
    assert {f"img_{call_id}" for call_id in spooled} <= {row[0] for row in earlier.rows(pictures)}


@pytest.mark.slow
async def test_what_an_earlier_version_is_still_at_work_on_is_left_to_it(earlier: Earlier, emulated: Emulated) -> None:
    fcntl = pytest.importorskip("fcntl")  # as all versions lock, where there is one
    query = (
        "SELECT calls.state, requests.process FROM calls JOIN requests ON requests.id = calls.request_id "
        "WHERE requests.plan LIKE '%a lost lamp%'"
    )
    ((state, process),) = earlier.rows(query)
    sign = earlier.root / "state" / "library.db.state" / "processes" / f"{process}.lock"
    with sign.open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        await emulated.studio.recover()
        assert earlier.rows(query) == [(state, process)]
        assert len(earlier.rows("SELECT id FROM calls WHERE state IN ('reserved', 'sent', 'spooled')")) == 1
    await emulated.studio.recover()
    assert earlier.rows(query)[0][0] == "saved"
    assert emulated.emulator.charges == []


@pytest.mark.slow
def test_a_server_shows_that_it_lives_where_earlier_versions_look_for_it(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    with world(tmp_path) as made, Server(made).greet() as server:
        well, words = server.call("generate_image", prompt="a cup")
        assert well, words
        (sign,) = (tmp_path / "state" / "library.db.state" / "processes").iterdir()
        assert re.fullmatch(rf"{server.process.pid}-\d*-[0-9a-hjkmnp-tv-z]{{16}}\.lock", sign.name)
        assert made.rows("SELECT process FROM requests") == [(sign.stem,)]
        with sign.open("r+b") as looking, pytest.raises(BlockingIOError):
            fcntl.flock(looking, fcntl.LOCK_EX | fcntl.LOCK_NB)
        server.kill()
        with sign.open("r+b") as looking:
            fcntl.flock(looking, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.slow
@cases("name", FINGERPRINTS)
async def test_a_wish_has_the_fingerprint_that_it_always_had(name: str, earlier: Earlier, emulated: Emulated) -> None:
    asked = UNANSWERED[name]
    known = "SELECT fingerprint FROM requests ORDER BY created_at, id"
    assert (FINGERPRINTS[name],) in earlier.rows(known)
    with closing(sqlite3.connect(earlier.database)) as library:
        library.execute("UPDATE requests SET delivered_at = created_at, fingerprint = ''")
        library.commit()
    await emulated.client.call_tool(*asked, raise_on_error=False)
    assert earlier.rows(known)[-1] == (FINGERPRINTS[name],)


def test_what_is_made_of_a_picture_has_the_id_that_it_always_had() -> None:
    assert child_id("img_1m8k2dx6snmtjexz", "made") == "img_1m8k2dx6sq2zdm8p"
    assert child_id("img_1m8k2dx6snmtjexz", "exact") == "img_1m8k2dx6sw2fgd99"


def _has(found: Any, before: Any) -> bool:
    """Tells whether an answer says all that the earlier one did. It may say more: the start has finished what was
    killed.
    """
    if isinstance(before, dict):
        told = {key: value for key, value in before.items() if key not in ("summary", "child_count")}
        return all(key in found and _has(found[key], value) for key, value in told.items())
    if isinstance(before, list):
        return all(any(_has(one, other) for one in found) for other in before)
    return bool(found == before)
