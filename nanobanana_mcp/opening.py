"""Opening the studio from the settings: the one place where the parts are chosen."""

from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import httpx2

from nanobanana_mcp.domain import ModelRequest
from nanobanana_mcp.errors import RequestError, SetupError
from nanobanana_mcp.gemini.client import Gemini, RemoteFile
from nanobanana_mcp.library.database import Database
from nanobanana_mcp.model import ImageModel
from nanobanana_mcp.settings import Settings, project_folder
from nanobanana_mcp.storage.paths import Places, check_words
from nanobanana_mcp.studio import Studio
from nanobanana_mcp.tiers import BY_ID, DEFAULTS, ModelSpec, TierName

NO_KEY = (
    "There is no Gemini key. Set GEMINI_API_KEY in the environment of this MCP server (get one at "
    "https://aistudio.google.com/apikey), or NANOBANANA_AUTH=vertex_ai. To try everything without a key, set "
    "NANOBANANA_BACKEND=emulator."
)


class Keyless:
    """Stands where Gemini would when there is no key: everything that would reach Google says what to set."""

    async def generate(self, request: ModelRequest, *, setting: str = "") -> bytes:
        self._refuse()

    async def upload(self, name: str, data: bytes, mime_type: str, display_name: str | None) -> RemoteFile:
        self._refuse()

    async def look_up(self, name: str) -> RemoteFile | None:
        self._refuse()

    async def files(self) -> list[RemoteFile]:
        self._refuse()

    async def close(self) -> None:
        return

    def _refuse(self) -> NoReturn:
        raise SetupError(NO_KEY)


def open_studio(settings: Settings) -> Studio:
    """Connect everything. Raises SetupError when the library cannot be opened, or was there once and is gone."""
    places = open_places(settings)
    _check_not_lost(settings.database_path, places)
    database = Database.open(settings.database_path)
    model = open_model(settings)
    return Studio(
        model=model,
        database=database,
        places=places,
        backend=settings.origin,
        models=models(settings),
        uploading=settings.uploading,
        limits=settings.limits,
        max_concurrency=settings.max_concurrency,
        setup_problem=NO_KEY if isinstance(model, Keyless) else None,
    )


def _check_not_lost(database: Path, places: Places) -> None:
    """A new library beside the records of an old one would forget what was made and what was spent."""
    if database.exists() and database.stat().st_size:
        return
    if places.records.is_dir() and next(places.records.glob("img_*.json"), None) is not None:
        raise SetupError(
            f"The library {database} is {'empty' if database.exists() else 'not there'}, but {places.output} has records of "
            "pictures that were in one; nothing was made anew. Put it back, or run 'nanobanana rebuild' to make it from "
            "those records. For a library that shall begin afresh, name another NANOBANANA_OUTPUT_DIR."
        )


def open_model(settings: Settings) -> ImageModel:
    timeout = settings.timeout_s
    if settings.backend == "emulator":
        from nanobanana_mcp.emulator.app import Emulator  # 18 ms that a real start does not pay

        transport = httpx2.ASGITransport(app=Emulator().app)
        return Gemini(api_key="emulated", api_version="v1beta", timeout_s=timeout, transport=transport)
    if settings.auth == "vertex_ai":
        return Gemini(
            vertex_project=settings.vertex_project, vertex_location=settings.vertex_location, timeout_s=timeout
        )
    if settings.gemini_api_key is None:
        return Keyless()
    return Gemini(
        api_key=settings.gemini_api_key.get_secret_value(),
        base_url=settings.gemini_base_url,
        api_version=settings.api_version,
        timeout_s=timeout,
    )


def open_places(settings: Settings) -> Places:
    """Relative paths are relative to the project that the client has open. Raises SetupError for a folder whose name
    the library cannot keep.
    """
    output, state = _resolved(settings.output_dir), _resolved(settings.state_dir)
    for folder, named_by in ((output, "NANOBANANA_OUTPUT_DIR"), (state, "NANOBANANA_DATABASE_URL")):
        try:
            check_words(folder)
        except RequestError as error:
            raise SetupError(f"{named_by}: {error}") from error
    return Places(
        output=output,
        state=state,
        base=project_folder(),
        allowed=tuple(_resolved(folder) for folder in settings.allowed_dirs),
    )


def models(settings: Settings) -> dict[TierName, ModelSpec]:
    """The model of each tier. One that the table does not know is taken to do what the tier's usual one does, at a
    price nobody knows.
    """
    chosen: dict[TierName, str] = {
        "flash": settings.flash_model,
        "pro": settings.pro_model,
        "lite": settings.lite_model,
    }
    found: dict[TierName, ModelSpec] = {}
    for tier, model_id in chosen.items():
        known = BY_ID.get(model_id)
        if known is not None:
            found[tier] = replace(known, tier=tier)
        else:
            usual = BY_ID[DEFAULTS[tier]]
            found[tier] = replace(usual, id=model_id, nickname=model_id, input_usd=None, text_usd=None, image_usd=None)
    return found


def _resolved(path: Path) -> Path:
    """With links followed, so that a path of a caller can be compared with it."""
    return path.resolve()
