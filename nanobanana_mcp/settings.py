"""The environment and the platform's folders, read once at the start."""

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from platformdirs import user_config_path, user_data_path, user_pictures_path
from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from nanobanana_mcp import address
from nanobanana_mcp.budget import Limits
from nanobanana_mcp.domain import Backend
from nanobanana_mcp.errors import SetupError
from nanobanana_mcp.tiers import DEFAULTS

APP = "nanobanana-mcp"


def _default_output() -> Path:
    return user_pictures_path() / "nanobanana"


def _default_database() -> str:
    return f"sqlite:///{user_data_path(APP, appauthor=False) / 'library.db'}"


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError("names the home of a user that is not there") from error


def _off(value: object) -> object:
    return None if isinstance(value, str) and value.strip().lower() == "off" else value


def _bare_id(value: object) -> object:
    """Google writes models/... as often as not; the price table knows the id alone."""
    return value.strip().removeprefix("models/") if isinstance(value, str) else value


ModelId = Annotated[str, Field(min_length=1), BeforeValidator(_bare_id)]
Limit = Annotated[float | None, Field(gt=0, allow_inf_nan=False), BeforeValidator(_off)]


class Settings(BaseSettings):
    """Every field is one variable; its description is the line about it in the README and in `.env.example`."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_prefix="NANOBANANA_", env_ignore_empty=True, hide_input_in_errors=True
    )

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
    backend: Literal["gemini", "emulator"] = Field(
        default="gemini", description="Who draws: gemini, or the built-in emulator (free, offline, not real pictures)."
    )
    upload: Literal["always", "on_demand", "never"] | None = Field(
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
    structured: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="Whether answers carry structured content: auto leaves it out for clients that would drop the "
        "pictures because of it.",
    )
    allowed_dirs: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(),
        description="Folders that pictures may be read from and written to, separated as in PATH; unset: any folder "
        "that is not hidden.",
    )
    policy: Path | None = Field(
        default=None, description="A YAML file with rules for the tools; see the README's section on limits."
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
    max_calls_per_minute: Annotated[int | None, Field(ge=1), BeforeValidator(_off)] = Field(
        default=40, description="The most calls to Gemini that may be asked for in any minute; off for no limit."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="WARNING", description="What is logged to stderr: DEBUG, INFO, WARNING or ERROR."
    )
    auth: Literal["api_key", "vertex_ai"] = Field(
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
    def _key_is_sendable(cls, key: SecretStr | None) -> SecretStr | None:
        """A header takes printable ASCII only; anything else would surface as a crash that quotes the key."""
        if key is None:
            return None
        text = key.get_secret_value().strip()
        if not text or not text.isascii() or not text.isprintable() or " " in text:
            raise ValueError("is not a key: it must be printable ASCII without spaces")
        return SecretStr(text)

    @field_validator("gemini_base_url")
    @classmethod
    def _key_travels_safely(cls, url: str | None) -> str | None:
        return None if url is None else address.checked(url)

    @field_validator("database_url")
    @classmethod
    def _database_is_sqlite(cls, url: str) -> str:
        if not url.startswith("sqlite:///") or not Path(url.removeprefix("sqlite:///")).is_absolute():
            raise ValueError(
                "must be an SQLite file's URL with an absolute path, such as sqlite:////home/me/library.db"
            )
        return url

    @field_validator("allowed_dirs", mode="before")
    @classmethod
    def _folders_are_listed(cls, value: object) -> object:
        return (
            tuple(_expanded(Path(part)) for part in value.split(os.pathsep) if part)
            if isinstance(value, str)
            else value
        )

    @field_validator("allowed_dirs")
    @classmethod
    def _folders_are_absolute(cls, folders: tuple[Path, ...]) -> tuple[Path, ...]:
        if not all(folder.is_absolute() for folder in folders):
            raise ValueError("must be absolute paths")
        return folders

    @field_validator("policy")
    @classmethod
    def _policy_is_absolute(cls, path: Path | None) -> Path | None:
        if path is None:
            return None
        if not _expanded(path).is_absolute():
            raise ValueError("must be an absolute path")
        return _expanded(path)

    @field_validator("output_dir")
    @classmethod
    def _output_is_absolute(cls, path: Path) -> Path:
        path = _expanded(path)
        if not path.is_absolute():
            raise ValueError("must be an absolute path, since a server is started in whatever folder its client is in")
        return path

    @model_validator(mode="after")
    def _vertex_is_whole(self) -> Self:
        if self.auth == "vertex_ai" and self.backend == "gemini":
            if not self.vertex_project:
                raise ValueError("NANOBANANA_AUTH=vertex_ai needs NANOBANANA_VERTEX_PROJECT (or GOOGLE_CLOUD_PROJECT)")
            if self.upload not in (None, "never"):
                raise ValueError("NANOBANANA_UPLOAD must be never with vertex_ai: it has no Files API")
        return self

    @property
    def database_path(self) -> Path:
        return Path(self.database_url.removeprefix("sqlite:///"))

    @property
    def state_dir(self) -> Path:
        """Beside the database, in a folder of its own: what must survive but is not for people to browse."""
        return self.database_path.with_name(f"{self.database_path.name}.state")

    @property
    def origin(self) -> Backend:
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
        if self.origin == "vertex_ai":
            return "never"
        return self.upload or "always"


def project_folder() -> Path:
    """The folder that the client has open: Claude Code names it, others start their servers in it."""
    named = os.environ.get("CLAUDE_PROJECT_DIR")
    if named:
        return Path(named)
    try:
        return Path.cwd()
    except FileNotFoundError:  # removed while the client has it open
        return Path.home()


def load_settings() -> Settings:
    """Read the environment, and a `.env` in our own configuration folder or where NANOBANANA_ENV_FILE points.

    Never a `.env` of the working directory, which belongs to whatever project the client has open.
    Raises SetupError naming the variable that is wrong, without its value.
    """
    env_file = os.environ.get("NANOBANANA_ENV_FILE") or str(user_config_path(APP, appauthor=False) / ".env")
    try:
        return Settings(_env_file=env_file)  # type: ignore[call-arg]  # pydantic-settings takes it at run time
    except ValidationError as error:
        problems = "; ".join(
            f"{_variable(problem['loc'])} {problem['msg'].removeprefix('Value error, ')}".lstrip()
            for problem in error.errors(include_url=False, include_input=False, include_context=False)
        )
        raise SetupError(f"The settings are wrong: {problems}") from None


def _variable(location: tuple[int | str, ...]) -> str:
    if not location:
        return ""
    name = str(location[0])
    info = Settings.model_fields.get(name) or next(
        (found for found in Settings.model_fields.values() if name in _names(found)), None
    )
    names = _names(info) if info is not None else []
    given = [one for one in names if os.environ.get(one)]
    return given[0] if given else names[0] if names else f"NANOBANANA_{name.upper()}"


def _names(info: FieldInfo) -> list[str]:
    """The variables of a field that has names of its own, the first one first."""
    alias = info.validation_alias
    if isinstance(alias, AliasChoices):
        return [str(choice) for choice in alias.choices]
    return [alias] if isinstance(alias, str) else []


def variables() -> dict[str, str]:
    """Every variable with its description, first name first: what the README and `.env.example` must list."""
    found: dict[str, str] = {}
    for name, info in Settings.model_fields.items():
        names = _names(info) or [f"NANOBANANA_{name.upper()}"]
        found[names[0]] = info.description or ""
    return found
