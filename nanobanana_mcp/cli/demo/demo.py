"""The demo: starts the real server, drives it as a client would, and shows what came of it."""

import os
import sys
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

import anyio
from fastmcp import Client
from fastmcp.client.transports import StdioTransport
from mcp import MCPError
from rich.console import Console
from rich.progress import MofNCompleteColumn

from nanobanana_mcp import __version__
from nanobanana_mcp.cli.demo.sheet import draw_sheet, draw_tree
from nanobanana_mcp.cli.demo.snapshot import take_snapshot
from nanobanana_mcp.cli.demo.tour import COAT, FOX, FULL_STEPS, SHORT_STEPS, Script, Tour, full_tour, short_tour
from nanobanana_mcp.cli.output import progress_bar
from nanobanana_mcp.domain.errors import ServiceError, SetupError, StudioError
from nanobanana_mcp.domain.pricing import estimate
from nanobanana_mcp.domain.requests import Choice, ImageRequest
from nanobanana_mcp.domain.selector import choose
from nanobanana_mcp.settings import Settings, load_settings
from nanobanana_mcp.studio.open import models

OURS = ("NANOBANANA_", "GEMINI_", "GOOGLE_", "IMAGE_OUTPUT_DIR", "CLAUDE_PROJECT_DIR")
"""Variables that an emulated demo keeps from its server: it must not matter how this machine is set up."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The folder of one demo; nothing outside it is written."""

    folder: Path

    @property
    def pictures(self) -> Path:
        return self.folder / "pictures"

    @property
    def photo(self) -> Path:
        return self.folder / "your photo" / "breakfast.jpg"

    @property
    def sheet(self) -> Path:
        return self.folder / "contact-sheet.png"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def variables(self) -> dict[str, str]:
        return {
            "NANOBANANA_OUTPUT_DIR": str(self.pictures),
            "NANOBANANA_DATABASE_URL": f"sqlite:///{self.folder / 'library' / 'library.db'}",
            "NANOBANANA_STRUCTURED": "always",
        }


class Terminal:
    """Tells a step at a time: with a moving bar on a terminal, in plain lines elsewhere."""

    def __init__(self, console: Console, steps: int) -> None:
        self._console = console
        self._steps = steps
        self._done = 0
        self._since = time.monotonic()
        self._bar = progress_bar(console, MofNCompleteColumn())
        self._task = self._bar.add_task("", total=steps)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begins(self, step: str) -> None:
        self._step = step
        self._since = time.monotonic()
        self._bar.update(self._task, description=step)

    async def progress(self, progress: float, total: float | None, message: str | None) -> None:
        share = progress / total if total else 0
        self._bar.update(self._task, completed=self._done + share, description=message or self._step)

    def ends(self, outcome: str) -> None:
        self._done += 1
        self._bar.update(self._task, completed=self._done)
        seconds = time.monotonic() - self._since
        number = f"{self._done:>2}/{self._steps}"
        self._console.print(f"{number}  {self._step:<26} {seconds:4.1f} s  {outcome}", markup=False, soft_wrap=True)


def run_demo(folder: Path | None, *, live: bool, agreed: bool, console: Console | None = None) -> int:
    """Run the demo and say where everything is. Returns 0 when all of it came out right, 1 when a step did not, 2 when
    something has to be set up first. With `agreed` the cost of a live demo is not asked about.
    """
    console = console or Console(highlight=False)
    stage = Stage(folder=(folder or Path("nanobanana-demo") / f"{datetime.now():%Y-%m-%d_%H-%M-%S}").absolute())
    try:
        environment = _live_environment() if live else _emulated_environment(os.environ)
        if live and not agreed and not _agreed_to(console, load_settings()):
            return 2
        _prepare(stage, snapshot=not live)
        anyio.run(_show, stage, environment | stage.variables(), live, console)
    except SetupError as error:
        sys.stderr.write(f"nanobanana demo: {error}\n")
        return 2
    except StudioError as error:
        sys.stderr.write(f"nanobanana demo: {error}\nThe server's own words are in {stage.log}\n")
        return 1
    return 0


async def _show(stage: Stage, environment: dict[str, str], live: bool, console: Console) -> None:
    script: Script = short_tour if live else full_tour
    words = f"nanobanana {__version__}: a demo "
    words += "with Gemini" if live else "with the built-in Gemini emulator: offline, free, no real pictures"
    console.print(words, markup=False, soft_wrap=True)
    began = time.monotonic()
    with Terminal(console, SHORT_STEPS if live else FULL_STEPS) as terminal:
        terminal.begins("Start the server")
        transport = StdioTransport(
            sys.executable,
            ["-m", "nanobanana_mcp"],
            env=environment,
            cwd=str(stage.folder),  # away from the rules of whatever project the demo is run in
            keep_alive=False,
            log_file=stage.log,
        )
        async with AsyncExitStack() as stack:
            try:
                client = await stack.enter_async_context(Client(transport, init_timeout=30))
                tools = await client.list_tools()
            except (MCPError, RuntimeError, ConnectionError, TimeoutError) as error:
                raise ServiceError(f"The server did not start ({error}).") from error
            terminal.ends(f"{len(tools)} tools: {', '.join(tool.name for tool in tools)}")
            tour = Tour(client=client, audience=terminal)
            await script(tour, stage.photo)
    seconds = time.monotonic() - began
    kind = "emulated pictures, drawn without Gemini" if tour.emulated else "pictures drawn by Gemini"
    title = f"nanobanana demo: {kind} ({datetime.now():%Y-%m-%d})"
    stage.sheet.write_bytes(draw_sheet(tour.shown, title))
    console.print()
    console.print(draw_tree(tour.shown), soft_wrap=True)
    console.print()
    _say_where(stage, tour, seconds, console)


def _say_where(stage: Stage, tour: Tour, seconds: float, console: Console) -> None:
    made = sum(each.tier is not None for each in tour.shown)
    cost = "of unknown cost" if tour.cost_usd is None else f"${tour.cost_usd:.2f}"
    if tour.emulated:
        bill = f"All of them are emulated: nothing was charged (Gemini would have taken about {cost})."
    else:
        bill = f"Gemini took {cost} for them."
    console.print(
        f"{made} pictures in {seconds:.0f} s. {bill}\nPictures       {stage.pictures}\nContact sheet  {stage.sheet}",
        markup=False,
        soft_wrap=True,
    )


def _prepare(stage: Stage, *, snapshot: bool) -> None:
    try:
        stage.folder.mkdir(parents=True)
        if snapshot:
            stage.photo.parent.mkdir()
            stage.photo.write_bytes(take_snapshot())
    except FileExistsError as error:
        raise SetupError(f"{stage.folder} exists already; name a new folder with --output.") from error
    except OSError as error:
        raise SetupError(
            f"{stage.folder} cannot be written ({error.strerror}); name another folder with --output."
        ) from error


def _emulated_environment(environment: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in environment.items() if not name.upper().startswith(OURS)}
    return kept | {"NANOBANANA_BACKEND": "emulator", "NANOBANANA_ENV_FILE": os.devnull}


def _live_environment() -> dict[str, str]:
    """The environment as it is. Raises SetupError when Gemini could not be reached with it."""
    settings = load_settings()
    if settings.backend == "emulator":
        raise SetupError("NANOBANANA_BACKEND is emulator; unset it for --live, or leave --live out.")
    if settings.auth == "api_key" and settings.gemini_api_key is None:
        raise SetupError(
            "There is no Gemini key for --live. Set GEMINI_API_KEY in the environment (get one at "
            "https://aistudio.google.com/apikey), or leave --live out for the emulated demo."
        )
    if settings.auth == "api_key" and settings.key_problem is not None:
        raise SetupError(f"{settings.key_problem}.")
    return dict(os.environ)


def _agreed_to(console: Console, settings: Settings) -> bool:
    """Say what a live demo will cost and ask. False when nobody is there to be asked, or says no."""
    flash = models(settings)["flash"]
    drawing = ImageRequest(prompt=FOX, model_tier="flash")
    editing = ImageRequest(prompt=COAT, model_tier="flash", inputs=("img",))
    costs = [_estimate(choose(request, {"flash": flash}), request) for request in (drawing, editing)]
    known = [cost for cost in costs if cost is not None]
    words = f"about ${sum(known):.2f}" if len(known) == len(costs) else f"an amount that is not known for {flash.id}"
    console.print(
        f"This makes one picture and one edit with {flash.id} and costs {words}.", markup=False, soft_wrap=True
    )
    if not console.is_terminal or not sys.stdin.isatty():
        console.print("Say that you agree with --yes.")
        return False
    return console.input("Go on? [y/N] ", markup=False).strip().lower() in ("y", "yes")


def _estimate(choice: Choice, request: ImageRequest) -> float | None:
    return estimate(choice, inputs=len(request.inputs), prompt_characters=len(request.prompt))
