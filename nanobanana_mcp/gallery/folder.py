"""Opens the folder of a picture in the system's file manager."""

import os
import subprocess
import sys
import threading
from pathlib import Path

from nanobanana_mcp.domain.errors import RequestError


def show_in_folder(path: Path) -> None:
    """Shows a file in its folder; where the system cannot point at a file, opens the folder alone.

    Raises RequestError where there is no file manager, or no such file.
    """
    if not path.exists():
        raise RequestError(f"{path} no longer exists.")
    if sys.platform == "win32":
        command = ["explorer", str(path.parent)]
    elif sys.platform == "darwin":
        command = ["open", "-R", str(path)]
    else:
        command = ["xdg-open", str(path.parent)]
    try:
        process = subprocess.Popen(  # noqa: S603  # no shell; the path is one of the library's, and absolute
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=os.path.sep
        )
    except OSError:
        raise RequestError(
            f"This system has no {command[0]} to open a folder with; the folder is {path.parent}."
        ) from None
    threading.Thread(target=process.wait, daemon=True).start()  # it may stay as long as its window does
