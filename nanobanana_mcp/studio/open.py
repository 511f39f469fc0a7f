"""Opens the studio from the settings: the one place where the parts are chosen."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import httpx2

from nanobanana_mcp.domain.catalog import BY_ID, DEFAULTS, ModelSpec, TierName
from nanobanana_mcp.domain.errors import NoPicture, RequestError, SetupError
from nanobanana_mcp.domain.provider import RemoteFile
from nanobanana_mcp.domain.wire import ModelReply, ModelRequest
from nanobanana_mcp.gemini.client import Gemini
from nanobanana_mcp.gemini.response import read_reply, unsigned
from nanobanana_mcp.library.database import Database
from nanobanana_mcp.settings import Settings, env_file, load_settings, misspelt, project_folder
from nanobanana_mcp.storage.paths import Places, check_encodable
from nanobanana_mcp.studio.studio import Studio

T = TypeVar("T")

NO_KEY = (
    "There is no Gemini key. Set GEMINI_API_KEY in the environment of this MCP server (get one at "
    "https://aistudio.google.com/apikey), {file}or NANOBANANA_AUTH=vertex_ai. To try everything without a key, set "
    "NANOBANANA_BACKEND=emulator."
)


class Reached:
    """Gemini with the current key; while there is none or it is refused, the sentence that says what to set.

    After a refusal, the next use reads the settings file again, so that a corrected key needs no restart. Only the
    key is taken up: if other settings, such as a limit, were changed with it, the studio keeps those that it was opened
    with.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._model: Gemini | None = None
        self._left: list[Gemini] = []
        self._doubtful = False
        self._problem = ""
        try:
            self._model = reach(settings)
        except SetupError as error:
            self._problem = str(error)

    def problem(self) -> str | None:
        """The sentence that says what has to be set; None once Gemini can be reached."""
        try:
            self._reached()
        except SetupError as error:
            return str(error)
        return None

    async def generate(self, request: ModelRequest, *, setting: str = "") -> bytes:
        return await self._with(lambda model: model.generate(request, setting=setting))

    def read(self, raw: bytes) -> ModelReply:
        return read_reply(raw)  # an answer that was paid for is read without a key, too

    def unsigned(self, raw: bytes) -> NoPicture | None:
        return unsigned(raw)

    async def upload(self, name: str, data: bytes, mime_type: str, display_name: str | None) -> RemoteFile:
        return await self._with(lambda model: model.upload(name, data, mime_type, display_name))

    async def look_up(self, name: str) -> RemoteFile | None:
        return await self._with(lambda model: model.look_up(name))

    async def files(self) -> list[RemoteFile]:
        return await self._with(lambda model: model.files())

    async def look_at(self, model_id: str, *, setting: str = "") -> None:
        """Ask whether the key is accepted and the model exists, which costs nothing. Raises as `generate` does."""
        await self._with(lambda model: model.look_at(model_id, setting=setting))

    async def close(self) -> None:
        for model in (*self._left, self._model):
            if model is not None:
                await model.close()

    async def _with(self, ask: Callable[[Gemini], Awaitable[T]]) -> T:
        try:
            return await ask(self._reached())
        except SetupError:
            self._doubtful = True
            raise

    def _reached(self) -> Gemini:
        if self._model is not None and not self._doubtful:
            return self._model
        fresh = load_settings()
        changed = fresh.gemini_api_key != self._settings.gemini_api_key
        if self._model is not None and not changed:
            self._doubtful = False
            return self._model
        if _without_key(fresh) != _without_key(self._settings):
            if self._model is not None:
                return self._model
            raise SetupError(
                f"{self._problem} Other settings than the key have changed since this server started; restart it "
                "to use them."
            )
        model = reach(fresh)
        if self._model is not None:
            self._left.append(self._model)  # another call may be under way on it
        self._model, self._settings, self._doubtful = model, fresh, False
        return model


def _without_key(settings: Settings) -> dict[str, object]:
    return settings.model_dump(exclude={"gemini_api_key"})


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
        backend=settings.effective_backend,
        models=models(settings),
        uploading=settings.uploading,
        limits=settings.limits,
        max_concurrency=settings.max_concurrency,
        setup_problem=model.problem,
        index_prompts=settings.index_prompts,
    )


def _check_not_lost(database: Path, places: Places) -> None:
    """Refuse to begin a new library beside the records of an old one: it would forget what was made and spent."""
    try:
        there = database.exists()
        if there and database.stat().st_size:
            return
        has_records = places.records.is_dir() and next(places.records.glob("img_*.json"), None) is not None
    except OSError as error:
        raise SetupError(
            f"The folder of {error.filename} cannot be read ({error.strerror}); name another in "
            "NANOBANANA_OUTPUT_DIR or NANOBANANA_DATABASE_URL, or give this user access."
        ) from None
    if has_records:
        raise SetupError(
            f"The library {database} is {'empty' if there else 'missing'}, but {places.output} has records of "
            "pictures that were in one; no new one was made. Put it back, or run 'nanobanana rebuild' to make it "
            "from those records. To start a new library, name another NANOBANANA_OUTPUT_DIR."
        )


def open_model(settings: Settings) -> Reached:
    """The model that draws. When a key, a proxy or certificates are missing, only calls to Gemini fail, each saying
    what to set.
    """
    return Reached(settings)


def reach(settings: Settings) -> Gemini:
    """Gemini, or the emulator in its place. Raises SetupError saying what to set."""
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
        file = env_file()
        within = f"or in {file}, which 'nanobanana setup' writes and the next call reads, "
        raise SetupError(" ".join([NO_KEY.format(file=within), *misspelt()]))
    if settings.key_problem is not None:
        raise SetupError(
            f"{settings.key_problem}. Nothing was sent. Set it to a key (get one at https://aistudio.google.com/apikey); to "
            "try everything without one, set NANOBANANA_BACKEND=emulator."
        )
    return Gemini(
        api_key=settings.gemini_api_key.get_secret_value(),
        key_variable=settings.variable("gemini_api_key"),
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
            check_encodable(folder)
        except RequestError as error:
            raise SetupError(f"{named_by}: {error}") from error
    return Places(
        output=output,
        state=state,
        base=project_folder(),
        allowed=tuple(_resolved(folder) for folder in settings.allowed_dirs),
    )


def models(settings: Settings) -> dict[TierName, ModelSpec]:
    """The model of each tier. One that the table does not know is expected to do what the tier's usual model does, at
    an unknown price.
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
    """The path with links followed, so that a path of a caller can be compared with it."""
    return path.resolve()
