"""The verbs gallery and paint: an address on stdout, words on stderr, and an exit code that says who can help."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.support.browser import Served
from tests.support.fakes import photo
from tests.support.world import World, world

pytestmark = pytest.mark.slow


@pytest.fixture
def at(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def _refused(at: World, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "nanobanana_mcp", *arguments, "--no-browser"]
    done = subprocess.run(command, cwd=at.project, env=at.environment(), capture_output=True, text=True, timeout=120)
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_paint_opens_the_page_of_a_photo_which_stays_as_it_is_and_ends_when_it_is_told(
    at: World, number: signal.Signals
) -> None:
    picture = photo(at.project / "cat.png")
    before = picture.read_bytes()
    served = Served(at, "paint", "cat.png")
    with httpx2.Client() as browser:
        entry = browser.get(served.address)
        (onward,) = set(re.findall(r'url=([^"]+)"', entry.text))
        page = browser.get(str(entry.url.join(onward)))
        assert re.search(r'data-id="img_\w+" data-width="\d+"', page.text) and "cat" in page.text
        (image_id,) = re.findall(r'data-id="(img_\w+)"', page.text)
        assert browser.get(str(page.url.join(f"../files/{image_id}"))).content == before
    said = served.end(number)
    assert "once and for one browser. Ctrl-C ends it." in said and "Traceback" not in said
    assert picture.read_bytes() == before


def test_what_cannot_be_opened_is_said_with_the_exit_code_of_who_can_help(at: World) -> None:
    code, said = _refused(at, "paint", "nowhere.png")
    assert code == 1 and "nowhere.png" in said
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, said = _refused(at, "gallery", "--port", str(taken.getsockname()[1]))
    assert code == 2 and "cannot be used (Address already in use)" in said and "--port" in said
    code, said = _refused(at, "gallery", "--port", "99999")
    assert (code == 1 and "no port" in said) or "not a port" in said


def test_a_browser_is_opened_at_the_address_unless_it_is_not_wanted(at: World, tmp_path: Path) -> None:
    seen, program = tmp_path / "seen", tmp_path / "browser"
    program.write_text(f'#!/bin/sh\nprintf %s "$1" > {seen}.part && mv {seen}.part {seen}\n')
    program.chmod(0o755)
    environment = at.environment(BROWSER=str(program))
    command = [sys.executable, "-m", "nanobanana_mcp", "gallery", "--port", "0"]
    with subprocess.Popen(
        command, cwd=at.project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        address = process.stdout.readline().decode().strip()
        process.stderr.readline()
        while not seen.exists():
            assert process.poll() is None
        process.terminate()
        process.communicate(timeout=30)
    assert seen.read_text() == address
