"""A library that may only be read is looked at as any other, and what would change it says why it cannot."""

import asyncio
import os
from pathlib import Path

import pytest

from nanobanana_mcp.library.pictures import Library
from nanobanana_mcp.settings import Settings
from nanobanana_mcp.studio.open import open_studio
from tests.support.rooms import as_somebody_else, hang, library_at, png, public_folder
from tests.support.visitor import visit

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks to become another user")


def test_a_sealed_library_is_shown_and_refuses_what_would_change_it() -> None:
    with public_folder() as root:
        settings = Settings(
            NANOBANANA_OUTPUT_DIR=root / "pictures", database_url=f"sqlite:///{root / 'state' / 'library.db'}"
        )
        database = library_at(settings.database_path)
        kept = hang(Library(database), settings.output_dir / "a.png", data=png(3), prompt="a heron")
        database.close()
        for path in sorted(root.rglob("*"), reverse=True):
            path.chmod(0o555 if path.is_dir() else 0o444)

        async def look() -> None:
            async with visit(settings, lambda: open_studio(settings)) as visitor:
                assert kept.id in (await visitor.enter()).text
                assert kept.id in (await visitor.get("?query=heron")).text
                assert (await visitor.get(f"files/{kept.id}")).content == png(3)
                assert (await visitor.get(f"pictures/{kept.id}")).status_code == 200
                assert (await visitor.get(f"paint/{kept.id}")).status_code == 200
                for where, fields in (
                    ("notes", {"rating": "3"}),
                    ("trash", {}),
                    ("restore", {}),
                ):
                    refused = await visitor.post(f"pictures/{kept.id}/{where}", fields)
                    assert refused.status_code in (400, 503) and refused.json()["error"], where
                refused = await visitor.mask(kept.id, png(0xFFFFFF))
                assert refused.status_code == 503 and "cannot be written" in refused.json()["error"]

        as_somebody_else(lambda: asyncio.run(look()))
        assert Path(str(kept.path)).read_bytes() == png(3)
