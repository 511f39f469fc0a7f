"""Debian's chromium, driven by playwright, at a gallery in a process of its own."""

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.support.needed import missing
from tests.support.world import World

AXE = Path(__file__).parents[2] / ".venv" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
BRIDGE = AXE.parents[2] / "app-bridge.js"
"""The parts that a host of MCP Apps is made of (npm's @modelcontextprotocol/ext-apps), as one script."""

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium() -> Iterator[Browser]:
    """One browser; playwright downloads none of its own."""
    program = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    if program is None:
        missing("chromium", "browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        try:
            yield browser
        finally:
            browser.close()


class Served:
    """`nanobanana gallery` in a process of its own, with the address that lets a browser in once."""

    def __init__(self, world: World, *arguments: str, port: int = 0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "nanobanana_mcp", *(arguments or ("gallery",)), "--no-browser", "--port", str(port)],
            cwd=world.project,
            env=world.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().decode().strip()
        assert self.address, self.end()
        self.port = int(re.findall(r":(\d+)/", self.address)[0])

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End it where a test failed before it did so itself."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate(timeout=30)

    def end(self, number: int = signal.SIGTERM) -> str:
        """Ends the process and returns what it said on stderr."""
        if self._process.poll() is None:
            self._process.send_signal(number)
        _, said = self._process.communicate(timeout=30)
        return said.decode()


class Visit:
    """One browser profile; every word on its console that is an error is kept."""

    def __init__(self, browser: Browser, served: Served, **options: Any) -> None:
        self.context: BrowserContext = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        self.context.set_default_timeout(15_000)
        self.errors: list[str] = []
        self._served = served
        self.page = self.tab()
        self.page.goto(served.address)
        self.page.wait_for_url(lambda url: "enter" not in url)
        self.base = re.match(r"http://[^/]+/\w+/", self.page.url)[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def tab(self) -> Page:
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        return page

    def at(self, path: str) -> Page:
        self.page.goto(self.base + path)
        return self.page


def script(path: Path) -> str:
    """Read a script that comes from npm; skip, or fail where .ci/run installs it, when it is missing."""
    if not path.exists():
        missing(f"{path.name} of npm", "clients")
    return path.read_text("utf-8")


def violations(page: Page) -> list[str]:
    """The faults that axe finds on a page that is serious or critical."""
    page.evaluate(script(AXE))
    found = page.evaluate("axe.run()")
    return [
        f"{one['id']}: {node['html'][:200]}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]
