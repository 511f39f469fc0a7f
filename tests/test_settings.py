"""The environment: every variable, what is refused and in which words, and that a key is never said."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nanobanana_mcp.domain.catalog import DEFAULTS
from nanobanana_mcp.domain.errors import NotAllowed, SetupError
from nanobanana_mcp.domain.requests import ImageRequest
from nanobanana_mcp.settings import Settings, load_settings, variables
from nanobanana_mcp.studio.open import open_studio
from tests.support.fakes import photo

CANARY = "AIzaSyCANARYcanaryCANARYcanaryCANARY1234"

GOOD: dict[str, tuple[str, str, object]] = {
    # variable: (what is set, the field it ends in, its value there)
    "GEMINI_BASE_URL": ("https://gateway.example/", "gemini_base_url", "https://gateway.example/"),
    "NANOBANANA_API_VERSION": ("v1", "api_version", "v1"),
    "NANOBANANA_OUTPUT_DIR": ("/pictures", "output_dir", Path("/pictures")),
    "NANOBANANA_DATABASE_URL": ("sqlite:////data/x.db", "database_path", Path("/data/x.db")),
    "NANOBANANA_BACKEND": ("emulator", "backend", "emulator"),
    "NANOBANANA_UPLOAD": ("on_demand", "uploading", "on_demand"),
    "NANOBANANA_FLASH_MODEL": ("some-flash", "flash_model", "some-flash"),
    "NANOBANANA_PRO_MODEL": ("some-pro", "pro_model", "some-pro"),
    "NANOBANANA_LITE_MODEL": ("some-lite", "lite_model", "some-lite"),
    "NANOBANANA_MAX_CONCURRENCY": ("3", "max_concurrency", 3),
    "NANOBANANA_TIMEOUT_S": ("60.5", "timeout_s", 60.5),
    "NANOBANANA_PREVIEW_PX": ("0", "preview_px", 0),
    "NANOBANANA_STRUCTURED": ("never", "structured", "never"),
    "NANOBANANA_TOOLS": ("Core, remove-background", "tools", "Core, remove-background"),
    "NANOBANANA_ALLOWED_DIRS": (f"/a{os.pathsep}/b c", "allowed_dirs", (Path("/a"), Path("/b c"))),
    "NANOBANANA_POLICY": ("/etc/policy.yaml", "policy", Path("/etc/policy.yaml")),
    "NANOBANANA_MAX_USD_PER_CALL": ("0.5", "max_usd_per_call", 0.5),
    "NANOBANANA_MAX_USD_PER_HOUR": ("off", "max_usd_per_hour", None),
    "NANOBANANA_MAX_USD_PER_DAY": ("3", "max_usd_per_day", 3.0),
    "NANOBANANA_ASK_ABOVE_USD": ("off", "ask_above_usd", None),
    "NANOBANANA_MAX_CALLS_PER_MINUTE": ("off", "max_calls_per_minute", None),
    "NANOBANANA_INDEX_PROMPTS": ("false", "index_prompts", False),
    "NANOBANANA_LOG_LEVEL": ("DEBUG", "log_level", "DEBUG"),
    "NANOBANANA_VERTEX_PROJECT": ("my-project", "vertex_project", "my-project"),
    "NANOBANANA_VERTEX_LOCATION": ("europe-west4", "vertex_location", "europe-west4"),
}
ELSEWHERE = {"GEMINI_API_KEY", "NANOBANANA_AUTH"}
"""Variables with tests of their own below."""

posix = pytest.mark.skipif(os.name != "posix", reason="paths of POSIX")


@pytest.fixture
def set_(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """The environment, with nothing of ours in it and an empty working directory."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return monkeypatch


def _refusal() -> str:
    with pytest.raises(SetupError) as caught:
        load_settings()
    seen: BaseException | None = caught.value
    while seen is not None:  # what a traceback would show counts as said
        assert CANARY not in f"{seen} {seen!r}"
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return str(caught.value)


def test_with_nothing_set_everything_has_a_default(set_: pytest.MonkeyPatch) -> None:
    settings = load_settings()
    assert settings.gemini_api_key is None
    assert (settings.backend, settings.effective_backend, settings.uploading) == ("gemini", "gemini", "always")
    assert {"flash": settings.flash_model, "pro": settings.pro_model, "lite": settings.lite_model} == DEFAULTS
    assert settings.output_dir.is_absolute()
    assert settings.output_dir.name == "nanobanana"
    assert settings.database_path.is_absolute()
    assert not settings.database_path.is_relative_to(settings.output_dir)
    assert settings.state_dir.parent == settings.database_path.parent
    assert settings.limits.per_day_usd is not None


def test_every_variable_is_tried_here() -> None:
    assert set(variables()) == set(GOOD) | ELSEWHERE
    assert all(variables().values()), "A variable has no description."


@posix
@pytest.mark.parametrize(
    ("variable", "given", "meant"),
    [
        ("NANOBANANA_BACKEND", " Emulator ", "emulator"),
        ("NANOBANANA_UPLOAD", "on-demand", "on_demand"),
        ("NANOBANANA_STRUCTURED", "NEVER", "never"),
        ("NANOBANANA_LOG_LEVEL", "warn", "WARNING"),
        ("NANOBANANA_AUTH", "API_KEY", "api_key"),
    ],
)
def test_a_word_may_be_written_as_people_write_it(
    monkeypatch: pytest.MonkeyPatch, variable: str, given: str, meant: str
) -> None:
    monkeypatch.setenv(variable, given)
    assert getattr(load_settings(), variable.removeprefix("NANOBANANA_").lower()) == meant


@pytest.mark.parametrize("variable", GOOD)
def test_each_variable_is_read(variable: str, set_: pytest.MonkeyPatch) -> None:
    text, field, value = GOOD[variable]
    before = getattr(load_settings(), field)
    set_.setenv(variable, text)
    assert getattr(load_settings(), field) == value
    assert before != value


@posix
@pytest.mark.parametrize("variable", GOOD)
def test_a_variable_that_is_empty_is_one_that_is_not_set(variable: str, set_: pytest.MonkeyPatch) -> None:
    before = load_settings()
    set_.setenv(variable, "")
    assert load_settings() == before


@posix
@pytest.mark.parametrize(
    ("first", "second", "field"),
    [
        ("GEMINI_API_KEY", "GOOGLE_API_KEY", "gemini_api_key"),
        ("NANOBANANA_OUTPUT_DIR", "IMAGE_OUTPUT_DIR", "output_dir"),
        ("NANOBANANA_VERTEX_PROJECT", "GOOGLE_CLOUD_PROJECT", "vertex_project"),
        ("NANOBANANA_VERTEX_LOCATION", "GOOGLE_CLOUD_LOCATION", "vertex_location"),
    ],
)
def test_an_older_name_is_read_when_the_newer_is_not_set(
    first: str, second: str, field: str, set_: pytest.MonkeyPatch
) -> None:
    set_.setenv(second, "/second")
    assert "second" in _shown(field)
    set_.setenv(first, "/first")
    assert "first" in _shown(field)


def _shown(field: str) -> str:
    value = getattr(load_settings(), field)
    return str(value.get_secret_value() if hasattr(value, "get_secret_value") else value)


@posix
@pytest.mark.parametrize(
    ("variable", "wrong"),
    [
        ("GEMINI_BASE_URL", "http://gateway.example/"),
        ("GEMINI_BASE_URL", "my-gateway.test"),
        ("GEMINI_BASE_URL", "ftp://gateway.example/"),
        ("GEMINI_BASE_URL", "file:///etc/passwd"),
        ("GEMINI_BASE_URL", "https:///no-host"),
        ("GEMINI_BASE_URL", "https://[gateway/"),
        ("GEMINI_BASE_URL", f"https://user:{CANARY}@gateway.example/"),
        ("GEMINI_BASE_URL", "http://127.0.0.1@gateway.example/"),
        ("GEMINI_BASE_URL", "http://127.0.0.1.gateway.example/"),
        ("GEMINI_BASE_URL", "http://localhost.gateway.example/"),
        ("GEMINI_BASE_URL", "http://2130706433/"),
        ("GEMINI_BASE_URL", "http://[::ffff:192.0.2.1]/"),
        ("GEMINI_BASE_URL", "http://127.0.0.1:99999/"),
        ("GEMINI_BASE_URL", "https://gateway.test:0/"),
        ("GEMINI_BASE_URL", "https://gateway.test:https/"),
        ("GEMINI_BASE_URL", "https://gateway.test\\.other.test/"),
        ("GEMINI_BASE_URL", "https://gateway.test/?key=1"),
        ("GEMINI_BASE_URL", "https://gateway.test/\nx"),
        ("GEMINI_BASE_URL", "https://gäteway.test/"),
        ("NANOBANANA_API_VERSION", "../v1"),
        ("NANOBANANA_OUTPUT_DIR", "relative/pictures"),
        ("NANOBANANA_OUTPUT_DIR", "~nobody-by-this-name/pictures"),
        ("IMAGE_OUTPUT_DIR", "relative/pictures"),
        ("NANOBANANA_DATABASE_URL", "postgresql://host/library"),
        ("NANOBANANA_DATABASE_URL", "/data/library.db"),
        ("NANOBANANA_DATABASE_URL", "sqlite:lib.db"),
        ("NANOBANANA_DATABASE_URL", "sqlite:///library.db"),
        ("NANOBANANA_DATABASE_URL", "sqlite:///:memory:"),
        ("NANOBANANA_BACKEND", "emulater"),
        ("NANOBANANA_UPLOAD", "yes-please"),
        ("NANOBANANA_MAX_CONCURRENCY", "0"),
        ("NANOBANANA_MAX_CONCURRENCY", "65"),
        ("NANOBANANA_MAX_CONCURRENCY", "many-at-once"),
        ("NANOBANANA_TIMEOUT_S", "9.75"),
        ("NANOBANANA_TIMEOUT_S", "nan"),
        ("NANOBANANA_TIMEOUT_S", "infinity"),
        ("NANOBANANA_PREVIEW_PX", "-1"),
        ("NANOBANANA_PREVIEW_PX", "1025"),
        ("NANOBANANA_STRUCTURED", "yes-please"),
        ("NANOBANANA_TOOLS", "core,paint"),
        ("NANOBANANA_LOG_LEVEL", "debugging"),
        ("NANOBANANA_AUTH", "oauth-thing"),
        ("NANOBANANA_ALLOWED_DIRS", f"/a{os.pathsep}relative/b"),
        ("NANOBANANA_ALLOWED_DIRS", "~nobody-by-this-name/b"),
        ("NANOBANANA_ALLOWED_DIRS", os.pathsep * 2),
        ("NANOBANANA_ALLOWED_DIRS", sys.executable),
        ("NANOBANANA_OUTPUT_DIR", sys.executable),
        ("NANOBANANA_OUTPUT_DIR", "${HOME}/pictures"),
        ("NANOBANANA_DATABASE_URL", "${DATABASE}"),
        ("NANOBANANA_DATABASE_URL", "sqlite:////tmp"),
        ("NANOBANANA_DATABASE_URL", "sqlite:////data/library.db?mode=ro"),
        ("NANOBANANA_FLASH_MODEL", "../files/x"),
        ("NANOBANANA_PRO_MODEL", "a model"),
        ("NANOBANANA_LITE_MODEL", "lite?key=1"),
        ("NANOBANANA_ENV_FILE", "relative.env"),
        ("NANOBANANA_POLICY", "policy.yaml"),
        ("NANOBANANA_POLICY", "~nobody-by-this-name/policy.yaml"),
        ("NANOBANANA_MAX_USD_PER_CALL", "-0.5"),
        ("NANOBANANA_MAX_USD_PER_HOUR", "nan"),
        ("NANOBANANA_MAX_USD_PER_DAY", "infinity"),
        ("NANOBANANA_MAX_USD_PER_DAY", "five dollars"),
        ("NANOBANANA_MAX_CALLS_PER_MINUTE", "2.75"),
    ],
)
def test_a_wrong_value_is_refused_by_the_variables_name_and_is_not_repeated(
    variable: str, wrong: str, set_: pytest.MonkeyPatch
) -> None:
    set_.setenv(variable, wrong)
    said = _refusal()
    assert re.search(rf"\b{variable}\b", said)
    assert wrong not in said
    assert "\n" not in said


def test_all_that_is_wrong_is_said_at_once(set_: pytest.MonkeyPatch) -> None:
    set_.setenv("NANOBANANA_MAX_CONCURRENCY", "0")
    set_.setenv("NANOBANANA_BACKEND", "emulater")
    said = _refusal()
    assert "NANOBANANA_MAX_CONCURRENCY" in said
    assert "NANOBANANA_BACKEND" in said


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8080/",
        "http://LOCALHOST./",
        "http://127.0.0.1:9",
        "http://127.8.9.10/",
        "http://[::1]:8080/",
        "http://[::ffff:127.0.0.1]:8080/",
        "https://gateway.example:8443/gemini/",
    ],
)
def test_a_gateway_on_this_machine_or_behind_tls_is_taken(url: str, set_: pytest.MonkeyPatch) -> None:
    set_.setenv("GEMINI_BASE_URL", url)
    assert load_settings().gemini_base_url == url


def test_the_working_directorys_env_file_is_ignored(set_: pytest.MonkeyPatch) -> None:
    Path(".env").write_text(
        f"GEMINI_API_KEY={CANARY}\nGEMINI_BASE_URL=https://evil.example/\nNANOBANANA_OUTPUT_DIR=/evil\n"
        "NANOBANANA_ENV_FILE=/evil/.env\nNANOBANANA_BACKEND=emulator\n"
    )
    settings = load_settings()
    assert settings.gemini_api_key is None
    assert settings.gemini_base_url is None
    assert settings.backend == "gemini"
    assert settings.output_dir != Path("/evil")


@posix
def test_the_env_file_of_the_users_configuration_is_read(set_: pytest.MonkeyPatch, tmp_path: Path) -> None:
    set_.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = tmp_path / "config" / "nanobanana-mcp"
    folder.mkdir(parents=True)
    (folder / ".env").write_text("NANOBANANA_MAX_CONCURRENCY=5\n# a remark\nSOMETHING_ELSE=1\n")
    assert load_settings().max_concurrency == 5


def test_the_env_file_that_is_named_is_read_and_the_environment_comes_before_it(
    set_: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "my.env"
    file.write_text(f"GEMINI_API_KEY={CANARY}\nNANOBANANA_MAX_CONCURRENCY=5\nNANOBANANA_PREVIEW_PX=100\n")
    set_.setenv("NANOBANANA_ENV_FILE", str(file))
    set_.setenv("NANOBANANA_PREVIEW_PX", "200")
    settings = load_settings()
    assert settings.gemini_api_key is not None
    assert settings.gemini_api_key.get_secret_value() == CANARY
    assert (settings.max_concurrency, settings.preview_px) == (5, 200)


def test_a_wrong_value_in_the_env_file_is_named_too(set_: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "my.env").write_text(f"GEMINI_API_KEY={CANARY}\nNANOBANANA_TIMEOUT_S=soon\n")
    set_.setenv("NANOBANANA_ENV_FILE", str(tmp_path / "my.env"))
    assert "NANOBANANA_TIMEOUT_S" in _refusal()


def test_a_key_is_in_no_text_of_the_settings(set_: pytest.MonkeyPatch) -> None:
    set_.setenv("GEMINI_API_KEY", CANARY)
    settings = load_settings()
    for text in (
        repr(settings),
        str(settings),
        str(settings.model_dump()),
        settings.model_dump_json(),
        f"{vars(settings)}",
    ):
        assert CANARY not in text
    assert settings.gemini_api_key is not None
    assert settings.gemini_api_key.get_secret_value() == CANARY


def test_a_key_is_not_said_when_something_else_is_wrong(set_: pytest.MonkeyPatch) -> None:
    set_.setenv("GEMINI_API_KEY", CANARY)
    set_.setenv("NANOBANANA_AUTH", "vertex_ai")
    set_.setenv("NANOBANANA_MAX_CONCURRENCY", CANARY)
    _refusal()
    set_.delenv("NANOBANANA_MAX_CONCURRENCY")
    _refusal()


def test_blanks_around_a_key_are_no_part_of_it(set_: pytest.MonkeyPatch) -> None:
    set_.setenv("GEMINI_API_KEY", f"  {CANARY}\n")
    key = load_settings().gemini_api_key
    assert key is not None
    assert key.get_secret_value() == CANARY


def test_vertex_needs_its_project_and_takes_no_uploads(set_: pytest.MonkeyPatch) -> None:
    set_.setenv("NANOBANANA_AUTH", "vertex_ai")
    assert "NANOBANANA_VERTEX_PROJECT" in _refusal()
    set_.setenv("GOOGLE_CLOUD_PROJECT", "my-project")
    settings = load_settings()
    assert (settings.effective_backend, settings.uploading, settings.vertex_location) == (
        "vertex_ai",
        "never",
        "global",
    )
    set_.setenv("NANOBANANA_UPLOAD", "never")
    assert load_settings().uploading == "never"
    set_.setenv("NANOBANANA_UPLOAD", "always")
    assert "NANOBANANA_UPLOAD must be never" in _refusal()
    set_.delenv("NANOBANANA_UPLOAD")
    for wrong in ("evil.example/#", "eu.evil.example"):  # it becomes a part of the host that gets the sign-in
        set_.setenv("GOOGLE_CLOUD_LOCATION", wrong)
        assert "is not a location" in _refusal()


def test_the_emulator_needs_neither_key_nor_project(set_: pytest.MonkeyPatch) -> None:
    set_.setenv("NANOBANANA_BACKEND", "emulator")
    set_.setenv("NANOBANANA_AUTH", "vertex_ai")
    assert load_settings().effective_backend == "emulator"


@posix
def test_a_tilde_in_a_path_is_the_users_home(set_: pytest.MonkeyPatch) -> None:
    set_.setenv("NANOBANANA_OUTPUT_DIR", "~/bananas")
    assert load_settings().output_dir == Path.home() / "bananas"


def test_settings_cannot_be_changed_once_they_are_read(set_: pytest.MonkeyPatch) -> None:
    settings = load_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.max_concurrency = 3  # type: ignore[misc]
    assert isinstance(settings, Settings)


@posix
async def test_a_library_in_the_home_folder_leaves_the_home_folder_to_its_owner(set_: pytest.MonkeyPatch) -> None:
    home = Path.home()
    set_.setenv("NANOBANANA_DATABASE_URL", f"sqlite:///{home / 'library.db'}")
    set_.setenv("NANOBANANA_OUTPUT_DIR", str(home / "Pictures" / "nanobanana"))
    set_.setenv("NANOBANANA_BACKEND", "emulator")
    picture = photo(home / "photos" / "heron.png")
    studio = open_studio(load_settings())
    created = await studio.create(
        ImageRequest(prompt="a hat", inputs=(str(picture),), output_path=str(home / "hats" / "hat.jpg"))
    )
    assert Path(str(created.images[0].record.path)).parent == home / "hats"
    with pytest.raises(NotAllowed, match="studio's own"):
        await studio.create(ImageRequest(prompt="a hat", inputs=(str(home / "library.db"),)))
    with pytest.raises(NotAllowed, match="studio's own"):
        await studio.create(ImageRequest(prompt="a hat", output_path=str(load_settings().state_dir / "hat.jpg")))
    await studio.close()
    strange = {path.name for path in home.iterdir() if not path.name.startswith("library.db")}
    assert strange == {"Pictures", "photos", "hats"}


@pytest.mark.slow
@posix
def test_a_working_directory_that_was_removed_stops_no_start(tmp_path: Path) -> None:
    folder = tmp_path / "worktree"
    folder.mkdir()
    code = (
        "import os, sys; os.chdir(sys.argv[1]); os.rmdir(sys.argv[1])\n"
        "from nanobanana_mcp.server.app import build_server\n"
        "from nanobanana_mcp.studio.open import open_places\n"
        "from nanobanana_mcp.settings import load_settings\n"
        "build_server(load_settings())\n"
        "print(open_places(load_settings()).base)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code, str(folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(Path.home())


def test_a_model_may_be_named_as_google_does(set_: pytest.MonkeyPatch) -> None:
    set_.setenv("NANOBANANA_PRO_MODEL", "models/gemini-3-pro-image")
    assert load_settings().pro_model == "gemini-3-pro-image"
