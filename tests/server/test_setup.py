"""A fault of the setup is named by the calls that it stops: the server starts, and what needs none of it works."""

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastmcp import Client
from fastmcp.client.transports import StdioTransport
from fastmcp.exceptions import ToolError

from nanobanana_mcp.domain.errors import SetupError
from nanobanana_mcp.server.app import CurrentSettings, build_server
from nanobanana_mcp.settings import load_settings, misspelt
from tests.gemini.test_network import listening
from tests.support.fakes import photo

KEY = "AIzaSyCANARYcanaryCANARYcanaryCANARY1234"
CALLS: dict[str, dict[str, Any]] = {
    "generate_image": {"prompt": "a cat"},
    "edit_region": {"image": "img_0000000000000000", "instruction": "a hat", "box": [1, 1, 9, 9]},
    "extend_image": {"image": "img_0000000000000000", "left": 100},
    "remove_background": {"image": "img_0000000000000000"},
    "convert_image": {"image": "img_0000000000000000", "width": 10},
    "find_images": {"query": "a cat"},
    "view_image": {"image": "img_0000000000000000"},
    "upload_file": {"path": "img_0000000000000000"},
    "output_stats": {},
    "maintenance": {"operation": "database_hygiene"},
}


@pytest.fixture
def env_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The settings file of a test, whose folders are the test's own."""
    file = tmp_path / "settings.env"
    file.write_text("")
    monkeypatch.setenv("NANOBANANA_ENV_FILE", str(file))
    monkeypatch.setenv("NANOBANANA_OUTPUT_DIR", str(tmp_path / "pictures"))
    monkeypatch.setenv("NANOBANANA_DATABASE_URL", f"sqlite:///{tmp_path / 'state' / 'library.db'}")
    return file


@asynccontextmanager
async def served() -> AsyncIterator[Client[Any]]:
    """A client of a server that has read its settings as they are now, wrong or right."""
    try:
        standing = CurrentSettings(load_settings())
    except SetupError:
        standing = CurrentSettings(None)
    async with Client(build_server(standing)) as client:
        yield client


@asynccontextmanager
async def served_with(monkeypatch: pytest.MonkeyPatch, **environment: str) -> AsyncIterator[Client[Any]]:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    async with served() as client:
        yield client


async def said(client: Client[Any], tool: str, **arguments: Any) -> str:
    """The error of a call, which is one line."""
    with pytest.raises(ToolError) as caught:
        await client.call_tool(tool, arguments or CALLS[tool])
    assert "\n" not in str(caught.value) and KEY not in str(caught.value)
    return str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [{"NANOBANANA_TIMEOUT_S": "soon"}, {"NANOBANANA_ENV_FILE": "/nowhere/my.env"}])
async def test_a_real_server_with_a_wrong_setting_lists_its_tools_and_each_call_names_the_variable(
    wrong: dict[str, str], env_file: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "nanobanana_mcp"]
    with (tmp_path / "stderr").open("w") as log:
        transport = StdioTransport(command[0], command[1:], env=dict(os.environ) | wrong, log_file=log)
        async with Client(transport) as client:
            assert {tool.name for tool in await client.list_tools()} == set(CALLS)
            for tool in CALLS:
                assert next(iter(wrong)) in await said(client, tool)
    assert next(iter(wrong)) in (tmp_path / "stderr").read_text()


def _missing(file: Path) -> None:
    file.unlink()


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda file: file.write_text("NANOBANANA_BACKEND=emulater\n"), "NANOBANANA_BACKEND"),
        (lambda file: file.write_text("IMAGE_OUTPUT_DIR=a\nNANOBANANA_TIMEOUT_S=1\n"), "NANOBANANA_TIMEOUT_S"),
        (
            lambda file: file.write_text("GEMINI_BASE_URL=${GATEWAY}x/\nNANOBANANA_POLICY=$policy\n"),
            "NANOBANANA_POLICY",
        ),
        (lambda file: file.write_text("NANOBANANA_PREVIEW_PX=1\n", "utf-16"), "is in UTF-16"),
        (lambda file: file.write_text("NANOBANANA_PREVIEW_PX=1\n", "utf-16-le"), "is in UTF-16"),
        (lambda file: file.write_bytes(b"# a\nNANOBANANA_OUTPUT_DIR=/b\xfccher\n"), "line 2"),
        (_missing, "NANOBANANA_ENV_FILE"),
        (_folder, "NANOBANANA_ENV_FILE"),
    ],
)
async def test_wrong_settings_are_named_by_every_call_until_they_are_put_right(
    spoil: Callable[[Path], object], words: str, env_file: Path, tmp_path: Path
) -> None:
    spoil(env_file)
    async with served() as client:
        assert {tool.name for tool in await client.list_tools()} == set(CALLS)
        for tool in CALLS:
            assert words in await said(client, tool)
        assert not (tmp_path / "pictures").exists() and not (tmp_path / "state").exists()
        if env_file.is_dir():
            env_file.rmdir()
        env_file.write_text("NANOBANANA_BACKEND=emulator\nNANOBANANA_PREVIEW_PX=0\n")
        result = await client.call_tool("generate_image", {"prompt": "a cat"})
        assert result.structured_content["backend"] == "emulator"
        assert not [block for block in result.content if block.type == "image"]  # NANOBANANA_PREVIEW_PX holds, too


async def test_a_policy_holds_from_the_first_call_after_the_settings_were_put_right(
    env_file: Path, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\nhide: [maintenance]\ntools: {generate_image: {action: deny}}\n")
    env_file.write_text("NANOBANANA_BACKEND=emulator\nNANOBANANA_POLICY=policy.yaml\n")
    async with served() as client:
        assert "NANOBANANA_POLICY must be an absolute path" in await said(client, "generate_image")
        env_file.write_text(f"NANOBANANA_BACKEND=emulator\nNANOBANANA_POLICY={policy}\n")
        assert "olicy" in await said(client, "generate_image") and not (tmp_path / "state").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variable", "key", "words"),
    [
        ("GEMINI_API_KEY", "${GEMINI_API_KEY}", "a variable's name"),
        ("GOOGLE_API_KEY", "$GEMINI_API_KEY", "a variable's name"),
        ("GEMINI_API_KEY", "${input:gemini-key}", "a variable's name"),
        ("GEMINI_API_KEY", "%GEMINI_API_KEY%", "a variable's name"),
        ("GEMINI_API_KEY", "{{GEMINI_API_KEY}}", "a variable's name"),
        ("GOOGLE_API_KEY", "your-key", "the placeholder"),
        ("GEMINI_API_KEY", "<your key>", "the placeholder"),
        ("GEMINI_API_KEY", "YOUR_GEMINI_API_KEY_HERE", "the placeholder"),
        ("GEMINI_API_KEY", "AIza...1234", "a shortened key"),
        ("GEMINI_API_KEY", "AIza\u20261234", "a shortened key"),
        ("GEMINI_API_KEY", "paste-your-key-here", "the placeholder"),
        ("GEMINI_API_KEY", "my-api-key", "the placeholder"),
        ("GEMINI_API_KEY", "xxxxxxxx", "the placeholder"),
        ("GOOGLE_API_KEY", f'"{KEY}"', "quotation marks"),
        ("GEMINI_API_KEY", f"Bearer {KEY}", "other words before it"),
        ("GEMINI_API_KEY", f"GEMINI_API_KEY={KEY}", "other words before it"),
        ("GOOGLE_API_KEY", f"{KEY} two", "printable ASCII"),
        ("GEMINI_API_KEY", f"ключ{KEY}", "printable ASCII"),
        ("GEMINI_API_KEY", f"{KEY}\nX-Evil: 1", "printable ASCII"),
        ("GEMINI_API_KEY", "  ", "printable ASCII"),
    ],
)
async def test_what_is_no_key_is_called_what_it_is_by_its_variable_and_local_tools_work(
    variable: str, key: str, words: str, env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, key)
    async with served() as client:
        for tool in ("generate_image", "upload_file"):
            told = await said(client, tool)
            assert told.startswith(f"{variable} is not a key") and words in told and "Nothing was sent" in told
        assert (await client.call_tool("output_stats", {})).structured_content["pictures"] == 0
    monkeypatch.setenv("NANOBANANA_BACKEND", "emulator")
    async with served() as client:
        assert (await client.call_tool("generate_image", {"prompt": "a cat"})).structured_content["returned"] == 1


@pytest.mark.parametrize("key", [KEY, "made-up", "sk-1234", "my-litellm-key-for-tests", "AQ.Ab8RN6-x_yz"])
async def test_a_key_that_may_be_one_is_sent(key: str, env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env_file.write_text(f"GEMINI_API_KEY={key}\n")
    async with listening() as gateway, served_with(monkeypatch, GEMINI_BASE_URL=gateway.address) as client:
        with pytest.raises(ToolError):
            await client.call_tool("generate_image", {"prompt": "a cat"})
        assert key.encode() in gateway.heard[0]


async def test_a_key_that_is_written_into_the_file_is_taken_up_by_the_next_call(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening() as gateway, served_with(monkeypatch, GEMINI_BASE_URL=gateway.address) as client:
        await client.call_tool("output_stats", {})  # the studio is open
        told = await said(client, "generate_image")
        assert str(env_file) in told and "Set GEMINI_API_KEY" in told and gateway.heard == []
        env_file.write_text(f"GOOGLE_API_KEY={KEY}\n")
        await said(client, "generate_image")
        assert KEY.encode() in gateway.heard[0]


async def test_a_key_that_gemini_does_not_take_is_told_by_the_variable_it_was_read_from(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env_file.write_text(f"GOOGLE_API_KEY={KEY}\n")
    async with listening() as gateway, served_with(monkeypatch, GEMINI_BASE_URL=gateway.address) as client:
        gateway.answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
        assert "Check GOOGLE_API_KEY" in await said(client, "generate_image")


async def test_a_key_that_gemini_refused_is_corrected_in_the_file_without_a_restart(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env_file.write_text("GEMINI_API_KEY=an-old-key-that-ended\n")
    async with listening() as gateway, served_with(monkeypatch, GEMINI_BASE_URL=gateway.address) as client:
        gateway.answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
        await said(client, "generate_image")
        await said(client, "generate_image")
        assert b"an-old-key-that-ended" in gateway.heard[-1]
        env_file.write_text(f"GEMINI_API_KEY={KEY}\nNANOBANANA_MAX_USD_PER_DAY=0.01\n")
        heard = len(gateway.heard)
        await said(client, "generate_image")  # a limit beside it wants a restart
        assert len(gateway.heard) == heard + 1 and b"an-old-key-that-ended" in gateway.heard[-1]
        env_file.write_text(f"GEMINI_API_KEY={KEY}\n")
        await said(client, "generate_image")
        assert KEY.encode() in gateway.heard[-1]


@pytest.mark.parametrize("more", ["NANOBANANA_MAX_USD_PER_DAY=0.01", "NANOBANANA_BACKEND=emulator"])
async def test_a_key_is_not_taken_up_without_the_limit_that_was_written_beside_it(more: str, env_file: Path) -> None:
    async with served() as client:
        await client.call_tool("output_stats", {})
        env_file.write_text(f"GEMINI_API_KEY={KEY}\n{more}\n")
        assert "restart" in await said(client, "generate_image")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1080", "--extra socks"),
        ("all_proxy", "socks5h://127.0.0.1:1080", "--extra socks"),
        ("HTTPS_PROXY", "ftp://proxy.example:21", "http://, https:// or socks5://"),
        ("HTTPS_PROXY", "socks4://proxy.example:21", "http://, https:// or socks5://"),
        ("https_proxy", f"http://me:{KEY}@proxy.example:99999", "http://, https:// or socks5://"),
        ("HTTPS_PROXY", "http://", "http://, https:// or socks5://"),
        ("SSL_CERT_FILE", "/nowhere/certificates.pem", "PEM"),
        ("SSL_CERT_FILE", __file__, "no certificate was found"),
        ("SSL_CERT_DIR", "/nowhere", "PEM"),
    ],
)
async def test_a_proxy_or_certificates_that_cannot_be_used_are_named_by_paid_tools_and_local_ones_work(
    variable: str, value: str, words: str, env_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr("nanobanana_mcp.gemini.transport.find_spec", lambda _name: None)
    picture = photo(tmp_path / "heron.png")
    async with served() as client:
        for tool, arguments in (("generate_image", {"prompt": "a cat"}), ("upload_file", {"path": str(picture)})):
            told = await said(client, tool, **arguments)
            assert variable in told and words in told and "Nothing was sent" in told and "proxy.example" not in told
        await client.call_tool("output_stats", {})
        await client.call_tool("convert_image", {"image": str(picture), "width": 10})


async def test_a_proxy_without_a_scheme_is_one_of_http(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:8080")
    async with served() as client:
        assert "HTTPS_PROXY" not in await said(client, "generate_image")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("NANOBANANA_OUTPUT_DIRS", "NANOBANANA_OUTPUT_DIR"),
        ("NANOBANANA_MAX_USD_DAY", "NANOBANANA_MAX_USD_PER_DAY"),
        ("NANOBANANA_API_KEY", "GEMINI_API_KEY"),
        ("NANOBANANA_GEMINI_API_KEY", "GEMINI_API_KEY"),
        ("NANO_BANANA_BACKEND", "NANOBANANA_BACKEND"),
    ],
)
async def test_a_name_that_is_almost_a_settings_is_told_with_the_one_that_was_meant(
    name: str, meant: str, env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env_file.write_text(f"{name}=x\nSOMETHING_ELSE=1\n")
    assert misspelt() == [f"{name} is not a setting and has no effect; did you mean {meant}?"]
    env_file.write_text("")
    monkeypatch.setenv(name, "x")
    async with served() as client:
        assert f"did you mean {meant}?" in await said(client, "generate_image")  # which has no key


def test_all_that_is_ours_is_known(env_file: Path) -> None:
    assert misspelt() == []
