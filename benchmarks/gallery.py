"""Measures the gallery in a real browser: how soon the first row of a large library is seen, and what scrolling through
it takes.
"""

import io
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, StorageState, sync_playwright
from sqlalchemy import text

from benchmarks.bench import Bench
from benchmarks.contestants import ours
from benchmarks.results import Goal, Result
from benchmarks.server import environment, memory
from benchmarks.shelf import fill
from nanobanana_mcp.library.database import Database

SCROLLED = 10_000
SMALL = 200
"""Thumbnails that the library's pictures share."""

WINDOW = {"width": 1280, "height": 800}
FIRST_ROW = """() => {
  const row = [...document.querySelectorAll("#grid img")].slice(0, 6);
  return row.length === 6 && row.every((image) => image.complete && image.naturalWidth > 0);
}"""
SEEN = """() => [...document.querySelectorAll("#grid a")].every((tile) => {
  const { top, bottom } = tile.getBoundingClientRect();
  const image = tile.firstElementChild;
  return bottom < 0 || top > innerHeight || (image.complete && image.naturalWidth > 0);
}) && [...document.querySelectorAll("#grid a")].some((tile) => tile.getBoundingClientRect().top > innerHeight / 2)"""


def gallery(bench: Bench) -> Iterator[Result]:
    """A library of 100,000 whose pictures have thumbnails; the browser is Debian's chromium, without a window."""
    program = shutil.which("chromium")
    if program is None:
        sys.stderr.write("gallery: there is no chromium to measure with.\n")
        return
    many, scrolled = (10_000, 1_000) if bench.quick else (100_000, SCROLLED)
    folder = bench.folder / "gallery"
    _fill(folder, many)
    with _Gallery(bench, folder) as served, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        state, first = _first_time(browser, served.address)
        again = [_once_more(browser, served.base, state) for _ in bench.rounds(7, 2)]
        yield Result(
            job=f"first row of {many:,} pictures in the browser",
            unit="ms",
            ours=statistics.median(again) * 1000,
            goals=(Goal(most=1000),),
            detail={"the very first time": first * 1000, "all": [one * 1000 for one in again]},
        )
        before = memory(served.pid, "VmRSS")
        page = browser.new_context(storage_state=state, viewport=WINDOW).new_page()
        page.goto(served.base)
        page.wait_for_function(FIRST_ROW)
        page_before = _renderers(browser)
        begun = time.perf_counter()
        _scroll(page, scrolled)
        taken = time.perf_counter() - begun
        detail = {"seconds": taken, "tiles in the page": page.locator("#grid a").count()}
        words = f"after scrolling through {scrolled:,}"
        yield Result(
            job=f"the gallery's memory {words}",
            unit="MB",
            ours=memory(served.pid, "VmRSS") / 1e6,
            beside={"before": before / 1e6},
            detail=detail,
        )
        full = _renderers(browser)
        detail = _own(page)
        detail["MB once the browser drops what it only keeps to be quick"] = _renderers(browser) / 1e6
        yield Result(
            job=f"the page's memory {words}",
            unit="MB",
            ours=full / 1e6,
            beside={"before": page_before / 1e6},
            detail=detail,
        )
        browser.close()


class _Gallery:
    """`nanobanana gallery` in a process of its own."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "nanobanana_mcp", "gallery", "--no-browser", "--port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**environment(folder), **dict(ours(bench.gemini.url).environment)},
            cwd=folder,
        )
        assert self._process.stdout is not None
        self.pid = self._process.pid
        self.address = self._process.stdout.readline().decode().strip()
        self.base = f"{self.address.rpartition('/')[0]}/"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=30)


def _fill(folder: Path, many: int) -> None:
    output = folder / "pictures"
    small = output / ".nanobanana" / "thumbnails"
    small.mkdir(parents=True)
    noise = np.random.default_rng(1)
    for number in range(SMALL):
        coarse = noise.integers(0, 255, (24, 24, 3), np.uint8)
        out = io.BytesIO()
        Image.fromarray(coarse).resize((512, 512), Image.Resampling.BICUBIC).save(out, "JPEG", quality=88)
        (small / f"{number}.jpg").write_bytes(out.getvalue())
    database = Database.open(folder / "home" / ".local" / "share" / "nanobanana-mcp" / "library.db")
    fill(database, output, count=many, every=timedelta(minutes=10))
    with database.write() as connection:
        connection.execute(
            text("UPDATE images SET thumbnail_path = :folder || '/' || (rowid % :many) || '.jpg'"),
            {"folder": str(small), "many": SMALL},
        )
    database.close()


def _first_time(browser: Browser, address: str) -> tuple[StorageState, float]:
    context = browser.new_context(viewport=WINDOW)
    page = context.new_page()
    begun = time.perf_counter()
    page.goto(address)
    page.wait_for_url(re.compile(r"/[0-9a-f]{16}/$"))
    page.wait_for_function(FIRST_ROW)
    taken = time.perf_counter() - begun
    state = context.storage_state()
    context.close()
    return state, taken


def _once_more(browser: Browser, base: str, state: StorageState) -> float:
    """Seconds from the address to the first row, in a profile that has nothing but the cookie."""
    context = browser.new_context(storage_state=state, viewport=WINDOW)
    page = context.new_page()
    begun = time.perf_counter()
    page.goto(base, wait_until="commit")
    page.wait_for_function(FIRST_ROW)
    taken = time.perf_counter() - begun
    context.close()
    return taken


def _scroll(page: Page, pictures: int) -> None:
    """Scrolls a window at a time, and goes on when all that is seen has its picture."""
    columns = 6
    last = f"#grid li[aria-posinset='{pictures - columns}']"
    while not page.locator(last).count():
        page.evaluate("scrollBy(0, innerHeight - 80)")
        page.wait_for_function(SEEN)


def _own(page: Page) -> dict[str, float]:
    """Return the nodes and the MB of objects that the page itself holds, after the browser was told that memory is short."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    session.send("Memory.simulatePressureNotification", {"level": "critical"})
    page.wait_for_timeout(3000)
    session.send("Performance.enable")
    found = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    session.detach()
    return {"nodes": found["Nodes"], "heap MB": found["JSHeapUsedSize"] / 1e6}


def _renderers(browser: Browser) -> int:
    """Bytes of memory of the largest page process."""
    session = browser.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    session.detach()
    return max(memory(one["id"], "VmRSS") for one in processes if one["type"] == "renderer")
