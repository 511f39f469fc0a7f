"""The verb rebuild: says what a new library would keep and lose, asks, and makes it."""

import sys
from typing import Annotated

from cyclopts import Parameter

from nanobanana_mcp.domain.errors import SetupError
from nanobanana_mcp.domain.text import counted
from nanobanana_mcp.settings import load_settings
from nanobanana_mcp.studio.open import open_places
from nanobanana_mcp.studio.rebuild import Rebuilt
from nanobanana_mcp.studio.rebuild import rebuild as studio_rebuild


def rebuild(
    *, yes: Annotated[bool, Parameter(help="Agree without being asked.", negative=(), show_default=False)] = False
) -> int:
    """Make a new library from the pictures' own records, when the old one is lost or damaged.

    It takes over the old one, where that can be read, and the records beside the
    thumbnails in the output folder, and says first what would be lost. The old
    file is put aside, never deleted. End every server first.

    For example:
      nanobanana rebuild --yes
    """

    def agree(found: Rebuilt) -> bool:
        if not found.replaces:
            return True
        sys.stderr.write(f"{_outlook(found)} The old file is put aside, not deleted.\n")
        if yes:
            return True
        if not sys.stdin.isatty():
            sys.stderr.write("Nothing was changed. Say 'nanobanana rebuild --yes' to do it.\n")
            return False
        sys.stderr.write("Rebuild it? [y/N] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    try:
        settings = load_settings()
        rebuilt = studio_rebuild(settings.database_path, open_places(settings), agree=agree)
    except SetupError as error:
        sys.stderr.write(f"nanobanana rebuild: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(
            f"nanobanana rebuild: {error.filename} cannot be used ({error.strerror}); nothing was replaced.\n"
        )
        return 2
    if rebuilt is None:
        return 2
    pictures = counted(rebuilt.pictures, "picture")
    sys.stdout.write(f"The new library {settings.database_path} has {pictures} with their lineage.\n")
    if rebuilt.aside is not None:
        spent = "what was spent is in the new one, too" if rebuilt.kept else "what was spent stands only there"
        sys.stdout.write(f"The old one was put aside as {rebuilt.aside}; {spent}.\n")
    for path in rebuilt.unreadable:
        sys.stdout.write(f"This record cannot be read and was left out: {path}\n")
    return 0


def _outlook(found: Rebuilt) -> str:
    """Say what a rebuild keeps, adds and loses."""
    if found.kept:
        return (
            f"The library can be read: its {counted(found.pictures - found.added, 'picture')}, its spending and its uploads "
            f"stay, and {counted(found.added, 'picture')} that only a record beside the pictures knows would be added."
        )
    return (
        f"The library cannot be read: {counted(found.pictures, 'picture')} would come back from the records beside them. "
        "What was spent and uploaded is lost with it, so the limits of the hour and the day begin anew."
    )
