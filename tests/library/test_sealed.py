"""A library and pictures that may only be read: what only looks goes on working, what writes says why it cannot."""

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nanobanana_mcp.domain.errors import SetupError
from nanobanana_mcp.domain.finding import FindRequest
from nanobanana_mcp.domain.requests import ImageRequest
from nanobanana_mcp.library.database import Database
from nanobanana_mcp.settings import Settings
from nanobanana_mcp.storage.paths import Places
from nanobanana_mcp.studio.open import models, open_studio
from nanobanana_mcp.studio.studio import Studio
from tests.conftest import no_sleep
from tests.support.fakes import FakeModel, jpeg
from tests.support.rooms import as_somebody_else, public_folder

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks to become another user")


@pytest.fixture
def root() -> Iterator[Path]:
    with public_folder() as folder:
        yield folder


def _studio(root: Path, model: FakeModel) -> Studio:
    state = root / "state" / "library.db.state"
    return Studio(
        model=model,
        database=Database.open(root / "state" / "library.db"),
        places=Places(output=root / "pictures", state=state, base=root),
        backend="gemini",
        models=models(Settings()),
        sleep=no_sleep,
    )


def _sealed(root: Path) -> str:
    """One picture in a library that may be read by everybody and written by nobody; its id."""

    async def make() -> str:
        studio = _studio(root, FakeModel())
        created = await studio.create(ImageRequest(prompt="a cat"))
        await studio.mark_delivered(created.request_id)
        await studio.close()
        return created.images[0].record.id

    image_id = asyncio.run(make())
    for path in sorted(root.rglob("*"), reverse=True):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return image_id


def _try(root: Path, work: Callable[[Studio], Any]) -> None:
    """Run `work` with a new studio as a user who may only read."""

    async def with_studio() -> None:
        studio = _studio(root, FakeModel())
        await work(studio)
        await studio.close()

    as_somebody_else(lambda: asyncio.run(with_studio()))


def test_a_sealed_library_can_be_looked_at(root: Path) -> None:
    image_id = _sealed(root)

    async def look(studio: Studio) -> None:
        stats = await studio.stats()
        assert [record.id for record in stats.recent] == [image_id] and stats.total.pictures == 1
        assert (await studio.picture(image_id))[0] == jpeg(comment="number 1")
        assert (await studio.picture(image_id, thumbnail=True))[0]
        quote = await studio.quote(await studio.job(ImageRequest(prompt="a hat", inputs=(image_id,)), offline=True))
        assert quote.refusal is None and quote.inputs[0].id == image_id

    _try(root, look)


def test_a_sealed_library_is_searched_by_words_and_says_why_nothing_is_noted(root: Path) -> None:
    image_id = _sealed(root)

    async def search(studio: Studio) -> None:
        for wanted in (FindRequest(query="cat"), FindRequest()):
            page = await studio.find_images(wanted)
            assert [found.id for found in page.pictures] == [image_id] and page.notes == ()
        with pytest.raises(SetupError, match="cannot be written"):
            await studio.annotate(image_id, rating=3)
        with pytest.raises(SetupError, match="cannot be written"):
            await studio.trash([image_id])

    before = sorted(path.name for path in (root / "state").iterdir())
    _try(root, search)
    assert sorted(path.name for path in (root / "state").iterdir()) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "operation", ["cleanup_expired", "cleanup_local", "database_hygiene", "full_cleanup", "restore", "recover"]
)
def test_a_dry_run_needs_to_write_nothing(operation: Any, root: Path) -> None:
    _sealed(root)

    async def look(studio: Studio) -> None:
        ages = {"max_age_hours": 0.0, "keep_count": 0} if operation in ("cleanup_local", "full_cleanup") else {}
        assert (await studio.maintain(operation, dry_run=True, **ages)).dry_run

    _try(root, look)


def test_a_sealed_library_says_why_nothing_can_be_made(root: Path) -> None:
    _sealed(root)

    async def make(studio: Studio) -> None:
        with pytest.raises(SetupError, match="cannot be written") as caught:
            await studio.create(ImageRequest(prompt="a dog"))
        assert "nothing was sent" in str(caught.value).lower()
        assert studio.model.requests == []  # type: ignore[attr-defined]

    _try(root, make)


def test_folders_that_this_user_may_not_enter_are_told_in_words() -> None:
    with public_folder() as folder:
        closed = folder / "closed"
        closed.mkdir(mode=0o700)
        (closed / "pictures").mkdir()

        def work() -> None:
            os.environ["HOME"] = str(folder)
            for changes in (
                {"NANOBANANA_OUTPUT_DIR": closed / "pictures", "database_url": f"sqlite:///{folder / 'a.db'}"},
                {"NANOBANANA_OUTPUT_DIR": folder / "out", "database_url": f"sqlite:///{closed / 'a.db'}"},
            ):
                with pytest.raises(SetupError, match=r"NANOBANANA_\w+"):
                    open_studio(Settings(GEMINI_API_KEY="a-key", **changes))

        if os.geteuid() != 0:
            closed.chmod(0o000)
        as_somebody_else(work)
        closed.chmod(0o700)
