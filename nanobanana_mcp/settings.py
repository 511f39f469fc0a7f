"""Reads the settings: environment, settings file and the platform's folders."""

import io
import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from dotenv import dotenv_values
from platformdirs import user_config_path, user_data_path, user_pictures_path
from pydantic import (
    AliasChoices,
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from nanobanana_mcp.domain import addresses, keys
from nanobanana_mcp.domain.budget import Limits
from nanobanana_mcp.domain.catalog import DEFAULTS
from nanobanana_mcp.domain.errors import SetupError
from nanobanana_mcp.domain.problems import in_words
from nanobanana_mcp.domain.terms import Backend, tools_named

APP = "nanobanana-mcp"


def _default_output() -> Path:
    return user_pictures_path() / "nanobanana"


def _default_database() -> str:
    return f"sqlite:///{user_data_path(APP, appauthor=False) / 'library.db'}"


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError("names the home folder of a user who does not exist") from error


def _off(value: object) -> object:
    return None if isinstance(value, str) and value.strip().lower() == "off" else value


def _bare_id(value: object) -> object:
    """Google writes models/... as often as not; the table of models has the id alone."""
    return value.strip().removeprefix("models/") if isinstance(value, str) else value


def _word(value: object) -> object:
    """A word of a list as people write it: in any case, with blanks around, with a hyphen."""
    return value.strip().lower().replace("-", "_") if isinstance(value, str) else value


def _level(value: object) -> object:
    words = {"WARN": "WARNING", "FATAL": "ERROR", "CRITICAL": "ERROR"}
    return words.get(value.strip().upper(), value.strip().upper()) if isinstance(value, str) else value


ModelId = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]*(/[A-Za-z0-9][A-Za-z0-9._@-]*)*$"), BeforeValidator(_bare_id)
]
Limit = Annotated[float | None, Field(gt=0, allow_inf_nan=False), BeforeValidator(_off)]


class Settings(BaseSettings):
    """Every field is one variable; its description is the line about it in docs/settings.md and `.env.example`."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_prefix="NANOBANANA_", env_ignore_empty=True, hide_input_in_errors=True
    )

    _read_from: dict[str, str] = PrivateAttr(default_factory=dict)
    """The variable that each field which is set was read from."""

    gemini_api_key: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        description="The key for the Gemini API; GOOGLE_API_KEY is read when this is not set.",
    )
    gemini_base_url: str | None = Field(
        default=None,
        validation_alias="GEMINI_BASE_URL",
        description="Another address for the Gemini API, such as a gateway; https, or http on this machine.",
    )
    api_version: str = Field(
        default="v1beta", pattern=r"^v1[a-z0-9]*$", description="The version of the Gemini API that is called."
    )
    output_dir: Path = Field(
        default_factory=_default_output,
        validation_alias=AliasChoices("NANOBANANA_OUTPUT_DIR", "IMAGE_OUTPUT_DIR"),
        description="Where pictures are kept; IMAGE_OUTPUT_DIR is its older name.",
    )
    database_url: str = Field(
        default_factory=_default_database, description="The library: an SQLite URL such as sqlite:////path/library.db."
    )
    backend: Annotated[Literal["gemini", "emulator"], BeforeValidator(_word)] = Field(
        default="gemini", description="Who draws: gemini, or the built-in emulator (free, offline, not real pictures)."
    )
    upload: Annotated[Literal["always", "on_demand", "never"] | None, BeforeValidator(_word)] = Field(
        default=None,
        description="When pictures go to the Files API: always, on_demand (when a request needs it) or never; unset: "
        "always, with Vertex AI never.",
    )
    flash_model: ModelId = Field(default=DEFAULTS["flash"], description="The model of the flash tier.")
    pro_model: ModelId = Field(default=DEFAULTS["pro"], description="The model of the pro tier.")
    lite_model: ModelId = Field(default=DEFAULTS["lite"], description="The model of the lite tier.")
    max_concurrency: Annotated[int, Field(ge=1, le=64)] = Field(
        default=8, description="How many requests to Gemini may be under way at once."
    )
    timeout_s: Annotated[float, Field(ge=10, le=3600)] = Field(
        default=300, description="The longest wait for one picture, in seconds."
    )
    preview_px: Annotated[int, Field(ge=0, le=1024)] = Field(
        default=512, description="The long side of the previews in an answer, in pixels; 0 leaves them out."
    )
    structured: Annotated[Literal["auto", "always", "never"], BeforeValidator(_word)] = Field(
        default="auto",
        description="Whether answers carry structured content: auto leaves it out for clients that would show "
        "their model nothing else.",
    )
    index_prompts: bool = Field(
        default=True,
        description="Whether prompts, and what models wrote, can be searched; false leaves them out of the search index.",
    )
    tools: str = Field(
        default="all",
        description="Which tools are offered: all, core (generate_image, edit_region, output_stats) or their names, "
        "separated by commas.",
    )
    allowed_dirs: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(),
        description="Folders that pictures may be read from and written to, separated as in PATH; unset: any folder "
        "that is not hidden.",
    )
    policy: Path | None = Field(
        default=None, description="A YAML file with rules for the tools; docs/settings.md says how."
    )
    max_usd_per_call: Limit = Field(
        default=2.0, description="The most that one request may cost, in USD; off for no limit."
    )
    max_usd_per_hour: Limit = Field(
        default=5.0, description="The most that may be spent in any hour, over all processes, in USD; off for no limit."
    )
    max_usd_per_day: Limit = Field(
        default=20.0,
        description="The most that may be spent in a UTC day, over all processes, in USD; off for no limit.",
    )
    ask_above_usd: Limit = Field(
        default=1.0,
        description="The price in USD from which a person is asked before a request is sent; off for never. Where nobody "
        "can be asked, the call needs max_cost_usd.",
    )
    max_calls_per_minute: Annotated[int | None, Field(ge=1), BeforeValidator(_off)] = Field(
        default=40, description="The most calls to Gemini that may be asked for in any minute; off for no limit."
    )
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_level)] = Field(
        default="WARNING", description="What is logged to stderr: DEBUG, INFO, WARNING or ERROR."
    )
    auth: Annotated[Literal["api_key", "vertex_ai"], BeforeValidator(_word)] = Field(
        default="api_key",
        description="How Gemini is reached: api_key, or vertex_ai by application default credentials.",
    )
    vertex_project: str | None = Field(
        default=None,
        validation_alias=AliasChoices("NANOBANANA_VERTEX_PROJECT", "GOOGLE_CLOUD_PROJECT"),
        description="The Google Cloud project for vertex_ai; GOOGLE_CLOUD_PROJECT is read when this is not set.",
    )
    vertex_location: str = Field(
        default="global",
        validation_alias=AliasChoices("NANOBANANA_VERTEX_LOCATION", "GOOGLE_CLOUD_LOCATION"),
        description="The Google Cloud location for vertex_ai; GOOGLE_CLOUD_LOCATION is read when this is not set.",
    )

    @field_validator("gemini_api_key")
    @classmethod
    def _strip_key(cls, key: SecretStr | None) -> SecretStr | None:
        return None if key is None else SecretStr(key.get_secret_value().strip())

    @field_validator("gemini_base_url")
    @classmethod
    def _check_base_url(cls, url: str | None) -> str | None:
        return None if url is None else addresses.checked(url)

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, url: str) -> str:
        if not url.startswith("sqlite:///") or not Path(url.removeprefix("sqlite:///")).is_absolute():
            raise ValueError(
                "must be an SQLite file's URL with an absolute path, such as sqlite:////home/me/library.db"
            )
        if "?" in url or stat.S_ISDIR(_mode_of(Path(url.removeprefix("sqlite:///")))):
            raise ValueError("must name a file, with nothing after its name")
        return url

    @field_validator("tools")
    @classmethod
    def _check_tools(cls, text: str) -> str:
        tools_named(text)
        return text

    @field_validator("allowed_dirs", mode="before")
    @classmethod
    def _split_folders(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        folders = tuple(_expanded(Path(part)) for part in value.split(os.pathsep) if part)
        if not folders:
            raise ValueError("lists no folder; unset it to allow any")
        return folders

    @field_validator("allowed_dirs")
    @classmethod
    def _check_folders(cls, folders: tuple[Path, ...]) -> tuple[Path, ...]:
        if not all(folder.is_absolute() for folder in folders):
            raise ValueError("must be absolute paths")
        if any(stat.S_ISREG(_mode_of(folder)) for folder in folders):
            raise ValueError("must be folders, and one of them is a file")
        return folders

    @field_validator("policy")
    @classmethod
    def _check_policy(cls, path: Path | None) -> Path | None:
        if path is None:
            return None
        if not _expanded(path).is_absolute():
            raise ValueError("must be an absolute path")
        return _expanded(path)

    @field_validator("output_dir")
    @classmethod
    def _check_output_dir(cls, path: Path) -> Path:
        path = _expanded(path)
        if not path.is_absolute():
            raise ValueError("must be an absolute path, since a server is started in whatever folder its client is in")
        if stat.S_ISREG(_mode_of(path)):
            raise ValueError("must be a folder, and a file is there")
        return path

    @model_validator(mode="after")
    def _check_vertex(self) -> Self:
        if self.auth == "vertex_ai" and self.backend == "gemini":
            if not self.vertex_project:
                raise ValueError("NANOBANANA_AUTH=vertex_ai needs NANOBANANA_VERTEX_PROJECT (or GOOGLE_CLOUD_PROJECT)")
            if not re.fullmatch(r"[a-z0-9:.-]+", self.vertex_project):
                raise ValueError(
                    "NANOBANANA_VERTEX_PROJECT (or GOOGLE_CLOUD_PROJECT) is not the id of a Google Cloud project"
                )
            if not re.fullmatch(r"[a-z0-9-]+", self.vertex_location):  # it becomes part of a host name
                raise ValueError(
                    "NANOBANANA_VERTEX_LOCATION (or GOOGLE_CLOUD_LOCATION) is not a location such as global or "
                    "europe-west4"
                )
            if self.upload not in (None, "never"):
                raise ValueError("NANOBANANA_UPLOAD must be never with vertex_ai: it has no Files API")
        return self

    def variable(self, field: str) -> str:
        """The variable that a field was read from, or the first one it can be read from."""
        return self._read_from.get(field) or _names(field)[0]

    def with_key(self, key: str) -> Self:
        """The same settings with another key, and Gemini as the backend to try it with."""
        return self.model_copy(update={"gemini_api_key": SecretStr(key), "backend": "gemini", "auth": "api_key"})

    @property
    def key_problem(self) -> str | None:
        """Says what is wrong with the key, as far as that can be told without asking Gemini; None when it looks right
        or there is none.
        """
        if self.gemini_api_key is None:
            return None
        return keys.problem_with(self.gemini_api_key.get_secret_value(), self.variable("gemini_api_key"))

    @property
    def offered(self) -> frozenset[str]:
        """The names of the tools that are offered."""
        return tools_named(self.tools)

    @property
    def database_path(self) -> Path:
        return Path(self.database_url.removeprefix("sqlite:///"))

    @property
    def state_dir(self) -> Path:
        """A folder beside the database for files that must survive but are not for people to browse."""
        return self.database_path.with_name(f"{self.database_path.name}.state")

    @property
    def effective_backend(self) -> Backend:
        if self.backend == "emulator":
            return "emulator"
        return "vertex_ai" if self.auth == "vertex_ai" else "gemini"

    @property
    def limits(self) -> Limits:
        return Limits(
            per_call_usd=self.max_usd_per_call,
            per_hour_usd=self.max_usd_per_hour,
            per_day_usd=self.max_usd_per_day,
            calls_per_minute=self.max_calls_per_minute,
        )

    @property
    def uploading(self) -> Literal["always", "on_demand", "never"]:
        if self.effective_backend == "vertex_ai":
            return "never"
        return self.upload or "always"


def project_folder() -> Path:
    """The folder that the client has open: Claude Code names it, other clients start their servers in it."""
    named = os.environ.get("CLAUDE_PROJECT_DIR")
    if named:
        return Path(named)
    try:
        return Path.cwd()
    except FileNotFoundError:  # removed while the client has it open
        return Path.home()


@dataclass(frozen=True, kw_only=True)
class _Given:
    """A field's text, the variable it stands in, and whether that is in the settings file."""

    variable: str
    text: str
    in_file: bool


def config_folder() -> Path:
    """Our own folder for the user's settings, which other users cannot read."""
    return user_config_path(APP, appauthor=False)


def env_file() -> Path:
    """The settings file. Raises SetupError when NANOBANANA_ENV_FILE names no file. Never the `.env` of the working
    directory, which belongs to the project that the client has open.
    """
    named = os.environ.get("NANOBANANA_ENV_FILE")
    if not named:
        return config_folder() / ".env"
    path = Path(named)
    with suppress(RuntimeError):  # an unknown home is reported below, as any missing file
        path = path.expanduser()
    if named != os.devnull and (not path.is_absolute() or stat.S_ISDIR(_mode_of(path) or stat.S_IFDIR)):
        raise SetupError(
            "NANOBANANA_ENV_FILE must be the absolute path of an existing file, and is not; nothing is done "
            "without its settings. Correct it or remove it."
        )
    return path


def load_settings() -> Settings:
    """Read the environment and the settings file; the environment comes first. Raises SetupError naming the
    variables that are wrong, without their values, and where to correct them.
    """
    path = env_file()
    given = _given(_upper(os.environ), _in_file(path))
    read_from = {field: one.variable for field, one in given.items()}
    wrong = {
        field: "has a variable's name instead of a value, since the client passed it on without replacing it"
        for field, one in given.items()
        if field != "gemini_api_key" and keys.UNREPLACED.fullmatch(one.text.strip())
    }
    told = [f"{read_from[field]} {words}" for field, words in wrong.items()]
    try:
        settings = Settings(
            _env_file=None,
            **{_key_of(field): one.text for field, one in given.items() if field not in wrong},  # type: ignore[arg-type]
        )
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False):
            field = _field_of(problem["loc"])
            if field in wrong:  # it is told already, and pydantic-settings reads the environment again
                continue
            words = in_words(problem)
            told.append(f"{read_from.get(field) or _names(field)[0]} {words}" if field else words)
            wrong[field] = words
    else:
        if not told:
            settings._read_from.update(read_from)
            return settings
    where = "in the environment of this server (an MCP client keeps it in its configuration), and restart the server"
    if any(field in given and given[field].in_file for field in wrong):
        where = f"in {path}, which the next call reads again"
    raise SetupError(f"The settings are wrong: {'; '.join(told)}. Correct this {where}.") from None


def misspelt() -> list[str]:
    """A sentence about each variable that looks like a setting and is not one."""
    known = {name for field in Settings.model_fields for name in _names(field)} | {"NANOBANANA_ENV_FILE"}
    given = {*_upper(os.environ), *_in_file(env_file())}
    strange = sorted(name for name in given - known if name.startswith(("NANOBANANA_", "NANO_BANANA_")))
    if not strange:
        return []
    from difflib import get_close_matches  # for a start that has nothing to say

    said = []
    for name in strange:
        bare = name.removeprefix("NANO_BANANA_").removeprefix("NANOBANANA_")
        meant = next((one for one in (f"NANOBANANA_{bare}", bare, f"GEMINI_{bare}") if one in known), None)
        near = [meant] if meant else get_close_matches(name, known, 1, cutoff=0.6)
        hint = f"; did you mean {near[0]}?" if near else "."
        said.append(f"{name[:80]} is not a setting and has no effect{hint}")
    return said


def _mode_of(path: Path) -> int:
    """The mode of a path; 0 when nothing is there or this user may not look."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0


_read_once: dict[Path, bytes] = {}
"""The contents of each pipe that was read, such as a shell's or a password manager's: it can be read only once."""


def _in_file(path: Path) -> dict[str, str]:
    """The variables of the settings file, none where it is not there. Raises SetupError when it is no UTF-8 text."""
    try:
        if path.is_file() or not path.exists():
            data = path.read_bytes() if path.is_file() else b""
        else:
            data = _read_once[path] if path in _read_once else _read_once.setdefault(path, path.read_bytes())
    except OSError as error:
        raise SetupError(f"The settings file {path} cannot be read ({error.strerror}); correct that.") from None
    return variables_in(data, path)


def variables_in(data: bytes, path: Path) -> dict[str, str]:
    """The variables in the bytes of a settings file. Raises SetupError when they are no UTF-8 text."""
    try:
        if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data:
            raise SetupError(f"The settings file {path} is in UTF-16. Save it as UTF-8; the next call reads it again.")
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SetupError(
            f"The settings file {path} is not in UTF-8: line {line} has a letter in another encoding. Save it as "
            "UTF-8; the next call reads it again."
        ) from None
    return _upper(dotenv_values(stream=io.StringIO(text)))


def _upper(variables: Mapping[str, str | None]) -> dict[str, str]:
    """The variables under names in capitals, without those that are empty, which count as not set."""
    names = sorted(variables, key=str.isupper)  # where both are there, the one in capitals stands
    return {name.upper(): value for name in names if (value := variables.get(name))}


def _given(environment: Mapping[str, str], file: Mapping[str, str]) -> dict[str, _Given]:
    found: dict[str, _Given] = {}
    for field in Settings.model_fields:
        for source in (environment, file):
            name = next((name for name in _names(field) if name in source), None)
            if name is not None:
                found[field] = _Given(variable=name, text=source[name], in_file=source is file)
                break
    return found


def _names(field: str) -> list[str]:
    """The variables of a field, the first one first."""
    alias = Settings.model_fields[field].validation_alias
    if isinstance(alias, AliasChoices):
        return [str(choice) for choice in alias.choices]
    return [alias] if isinstance(alias, str) else [f"NANOBANANA_{field.upper()}"]


def _key_of(field: str) -> str:
    """The keyword argument by which Settings takes a field."""
    return _names(field)[0] if Settings.model_fields[field].validation_alias else field


def _field_of(location: tuple[int | str, ...]) -> str:
    return next((field for field in Settings.model_fields if location and location[0] in (field, *_names(field))), "")


def variables() -> dict[str, str]:
    """Every variable with its description, first name first: what docs/settings.md and `.env.example` must list."""
    return {_names(name)[0]: info.description or "" for name, info in Settings.model_fields.items()}
