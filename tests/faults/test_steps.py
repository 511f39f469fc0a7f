"""Death and disk errors at every step between a request and its kept picture."""

import errno
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.checker import check
from tests.support.processes import Forge
from tests.support.world import World, world

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="forks its cases")]

STEPS = {
    # step: the state of its call after a kill before it and after it, and the next start
    "library.journal:Journal.reserve": ([], ["failed"]),
    "library.journal:Journal.mark_sent": (["failed"], ["unknown"]),
    "storage.spool:Spool.put": (["unknown"], ["saved"]),
    "library.journal:Journal.mark_spooled": (["saved"], ["saved"]),
    "jobs.store:write_new": (["saved"], ["saved"]),
    "storage.sidecars:Sidecars.write_thumbnail": (["saved"], ["saved"]),
    "storage.sidecars:Sidecars.write_record": (["saved"], ["saved"]),
    "library.journal:Journal.mark_saved": (["saved"], ["saved"]),
    "storage.spool:Spool.drop": (["saved"], ["saved"]),
    "library.journal:Journal.mark_delivered": (["saved"], ["done"]),
}

NTH = {"storage.sidecars:Sidecars.write_record": 2}
"""Steps that are not the first call of that name: the source's own record is written before."""


EVERYTHING = {"act": "tidy", "operation": "cleanup_local", "bounds": {"max_age_hours": 0, "keep_count": 0}}
"""A cleanup that takes every picture."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Forge]]:
    with world(tmp_path_factory.mktemp("steps")) as made, Forge(made) as forge:
        yield made, forge


@pytest.fixture
def fresh(bench: tuple[World, Forge]) -> tuple[World, Forge]:
    bench[0].forget()
    return bench


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_any_step_leaves_a_picture_or_an_honest_word(
    fresh: tuple[World, Forge], step: str, when: str
) -> None:
    world, forge = fresh
    assert forge.create(at=f"nanobanana_mcp.{step}", nth=NTH.get(step, 1), when=when, how="kill") == {"status": -9}
    said = forge.recover()
    check(world)
    expected = STEPS[step][when == "after"]
    assert world.states() == expected
    words = {"saved": "kept as", "unknown": "may have been charged", "failed": "nothing was charged"}
    if (
        expected
        and expected != ["done"]
        and step not in ("storage.spool:Spool.drop", "library.journal:Journal.mark_delivered")
    ):
        assert words[expected[0]] in said or (step, when) == ("library.journal:Journal.mark_saved", "after")


def test_the_same_wish_after_any_kill_gets_the_same_picture_or_is_told(fresh: tuple[World, Forge]) -> None:
    world, forge = fresh
    for step, (_, after) in STEPS.items():
        if after not in (["saved"], ["unknown"]):
            continue
        world.forget()
        forge.create(wish="one", at=f"nanobanana_mcp.{step}", nth=NTH.get(step, 1), when="after", how="kill")
        again = forge.create(wish="one")
        assert (again["error"] is None) == (after == ["saved"]), (step, again)
        assert "may have been charged" in again["text"] or "made before" in again["text"]
        assert len(world.emulator.charges) <= 1
        forge.recover()
        check(world)


def test_a_kill_at_every_call_to_the_disk_loses_nothing(fresh: tuple[World, Forge]) -> None:
    world, forge = fresh
    for number in range(1, _calls(world, forge) + 1):
        world.forget()
        outcome = forge.create(at="calls", nth=number, how="kill")
        assert outcome["status"] in (-9, 0)
        _recover_and_check(world, forge, number)


@pytest.mark.parametrize("how", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
def test_a_disk_error_at_every_call_is_told_in_words_and_loses_nothing(fresh: tuple[World, Forge], how: int) -> None:
    world, forge = fresh
    for number in range(1 + (how == errno.EIO), _calls(world, forge) + 1, 2):
        world.forget()
        outcome = forge.create(at="calls", nth=number, how=how)
        assert outcome["status"] == 0
        assert outcome["error"] in (None, "StudioError"), (number, outcome)
        _recover_and_check(world, forge, number)
        assert outcome["error"] is None or world.states() != ["saved"], "a kept picture was reported as an error"


def test_a_picture_that_no_disk_took_is_finished_by_a_later_start(fresh: tuple[World, Forge]) -> None:
    world, forge = fresh
    outcome = forge.create(
        at="nanobanana_mcp.jobs.store:write_new,nanobanana_mcp.storage.writing:write_new",
        how=errno.ENOSPC,
        lasting=True,
    )
    assert outcome["error"] == "StudioError"
    assert "operation 'recover'" in outcome["text"]
    assert "kept as" in forge.recover()
    assert world.states() == ["saved"]
    check(world)


def test_a_raw_answer_that_nobody_could_put_aside_is_still_kept_as_a_picture(fresh: tuple[World, Forge]) -> None:
    world, forge = fresh
    outcome = forge.create(
        at="nanobanana_mcp.storage.spool:replace_durably,nanobanana_mcp.storage.sidecars:replace_durably",
        how=errno.ENOSPC,
        nth=2,
        lasting=True,
    )
    assert outcome["error"] is None, outcome
    assert "could not be written to the spool" in outcome["text"]
    assert "its preview or its record could not be written" in outcome["text"]
    assert world.states() == ["done"]
    check(world)


def test_a_kill_in_the_middle_of_a_cleanup_leaves_every_picture_where_its_row_says(fresh: tuple[World, Forge]) -> None:
    world, forge = fresh
    for wish in ("one", "two"):
        assert forge.create(wish=wish)["error"] is None
    world.remember()
    for number in itertools.count(1):
        world.go_back()
        killed = forge.run(EVERYTHING | {"at": "calls", "nth": number, "how": "kill"})
        for operation in ("database_hygiene", "restore"):
            outcome = forge.run({"act": "tidy", "operation": operation})[0]
            assert outcome["error"] is None, outcome
        try:
            forge.recover()
            check(world)
            assert len(world.rows("SELECT id FROM images WHERE origin <> 'imported' AND trash_path IS NULL")) == 2
            assert not world.places.trash.is_dir() or list(world.places.trash.iterdir()) == []
        except (AssertionError, OSError) as error:
            error.add_note(f"call {number} of the cleanup to the disk")
            raise
        if killed[0]["status"] == 0:
            return


@pytest.mark.parametrize("mending", ["restore", "recover"])
def test_a_kill_in_the_middle_of_a_restore_leaves_every_picture_once_where_its_row_says(
    fresh: tuple[World, Forge], mending: str
) -> None:
    world, forge = fresh
    for wish in ("one", "two"):
        assert forge.create(wish=wish)["error"] is None
    assert forge.run(EVERYTHING)[0]["error"] is None
    taken = world.rows("SELECT path FROM images WHERE trash_path IS NOT NULL ORDER BY id")[0][0]
    world.remember()
    for number in itertools.count(1):
        world.go_back()
        Path(taken).write_bytes(b"somebody else's")
        restore = {"act": "tidy", "operation": "restore"}
        killed = forge.run(restore | {"at": "calls", "nth": number, "how": "kill"})[0]
        mended = forge.run({"act": "recover"} if mending == "recover" else restore | {"operation": mending})[0]
        assert mended["error"] is None, mended
        try:
            forge.recover()
            assert Path(taken).read_bytes() == b"somebody else's"
            Path(taken).unlink()
            check(world)
            (trashed,) = world.rows("SELECT count(trash_path) FROM images")[0]
            assert mending != "restore" or trashed == 0
            assert len(list(world.places.trash.iterdir())) == trashed, "a second name was left in the trash"
        except (AssertionError, OSError) as error:
            error.add_note(f"call {number} of the restore to the disk")
            raise
        if killed["status"] == 0:
            return


def _calls(world: World, forge: Forge) -> int:
    """Counts the calls to the disk that one picture takes."""
    calls = int(forge.create(at="calls", nth=0)["calls"])
    assert 30 < calls < 200
    check(world)
    return calls


def _recover_and_check(world: World, forge: Forge, number: int) -> None:
    """Start again and check; temporary files are leftovers only when they are older than the process that looks."""
    states = world.states() if world.database.exists() and world.database.stat().st_size else []
    for folder in (world.output, world.database.parent):
        for path in folder.rglob("*.tmp"):
            if path.stat().st_nlink == 1:  # else it is a finished picture, too
                os.utime(path, (path.stat().st_atime - 60, path.stat().st_mtime - 60))
    said = forge.recover()
    try:
        check(world)
    except AssertionError as error:
        error.add_note(f"call {number} to the disk; states were {states}, are {world.states()}; {said}")
        raise
