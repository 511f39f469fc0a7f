"""The verbs gallery and paint: the library in a browser, until the command is ended."""

import asyncio
import os
import signal
import webbrowser
from contextlib import suppress
from typing import Annotated, Any

from cyclopts import Parameter

from nanobanana_mcp.cli.calls import here, settings_of
from nanobanana_mcp.cli.output import tell, write_lines
from nanobanana_mcp.cli.verb import answered
from nanobanana_mcp.server.app import build_server
from nanobanana_mcp.server.inside import open_gallery
from nanobanana_mcp.settings import Settings


def _port(_type: Any, tokens: Any) -> int:
    text = tokens[0].value
    if not text.isdecimal() or int(text) > 65535:
        raise ValueError(f"{text!r} is not a port from 0 to 65535.")
    return int(text)


PORT = Annotated[
    int | None,
    Parameter(help="The port on 127.0.0.1; unset: 4265, or any free one. 0: any.", converter=_port, show_default=False),
]
NO_BROWSER = Annotated[bool, Parameter(help="Only print the address.", negative=(), show_default=False)]


def gallery(*, port: PORT = None, no_browser: NO_BROWSER = False) -> int:
    """Look at the library in a browser: search, compare, rate, trash and restore, and paint where a picture should change.

    It listens on 127.0.0.1 alone, opens by an address that works once, and ends with
    this command (Ctrl-C).

    For example:
      nanobanana gallery
      nanobanana gallery --port 8080 --no-browser
    """
    return answered("gallery", lambda: asyncio.run(_serve(settings_of(), None, port, opens=not no_browser)))


def paint(
    image: Annotated[str, Parameter(help="Path or img_... id of the picture.")],
    *,
    port: PORT = None,
    no_browser: NO_BROWSER = False,
) -> int:
    """Paint in a browser where a picture should change, and edit it there, or take the mask's id elsewhere.

    For example:
      nanobanana paint photo.jpg
    """
    return answered("paint", lambda: asyncio.run(_serve(settings_of(), here(image), port, opens=not no_browser)))


async def _serve(settings: Settings, image: str | None, port: int | None, *, opens: bool) -> None:
    """Serves until Ctrl-C or a signal; pictures that were paid for come home first."""
    server = build_server(settings)
    shown = open_gallery(lambda: server)
    try:
        studio = await server.shared.studio()
        page = f"paint/{(await studio.record_of(image)).id}" if image is not None else ""
        await shown.start(port)
        address = shown.address(page)
        write_lines([address])
        tell("The gallery is open at this address, once and for one browser. Ctrl-C ends it.")
        if opens and not await asyncio.to_thread(webbrowser.open, address):
            tell("No browser could be opened here; open the address in one on this machine.")
        ending = asyncio.Event()
        with suppress(NotImplementedError):  # on Windows asyncio itself cancels this on Ctrl-C
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, ending.set)
        if os.name == "posix":
            await ending.wait()
        else:
            await shown.served()
    finally:
        await shown.close()
        await server.shared.lazy.close()
