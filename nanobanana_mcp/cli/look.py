"""The verbs find and view: which pictures there are, and what is in them."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from nanobanana_mcp.cli.calls import Session, here, run_to_end, settings_of
from nanobanana_mcp.cli.output import shown, tell, write_json, write_lines
from nanobanana_mcp.cli.show import draw
from nanobanana_mcp.cli.verb import JSON, Verb, answered, command, four_numbers
from nanobanana_mcp.domain.errors import RequestError
from nanobanana_mcp.domain.finding import VIEW_PX
from nanobanana_mcp.server.tools import look

find = command(
    Verb(name="find", tool=look.find_images, first=("query",)),
    """Find pictures by words of their prompts, names, notes and tags, or by facts.

    The newest come first. Words may be an expression: "a phrase", begin*, AND,
    OR, NOT, or tags: hero.

    For example:
      nanobanana find "red panda" --since 2026-11-01
      nanobanana find --copy-of downloads/unknown.png
      nanobanana find --tag hero --min-rating 4 --json
    """,
)


def view(
    image: Annotated[str, Parameter(help="Path or img_... id.")],
    *,
    box: Annotated[
        str | None, Parameter(help="In pixels, or fractions when all four are <= 1.", metavar="L,T,R,B")
    ] = None,
    compare_with: Annotated[str | None, Parameter(help="Another picture, at the same place.")] = None,
    max_px: Annotated[int, Parameter(help="Longest side of what is shown.")] = VIEW_PX,
    output_path: Annotated[
        str | None, Parameter(help="Save what is shown; of a pair also the map. Never overwrites.", alias="-o")
    ] = None,
    json: JSON = False,
) -> int:
    """Look at a picture or a box of it at full size, or compare two; free.

    In a terminal that can draw, the picture comes first.

    For example:
      nanobanana view img_1m8k1yaffyxjg193 --box 0.4,0.4,0.6,0.6
      nanobanana view after.png --compare-with before.png -o compared.jpg
    """
    given = {"image": here(image), "box": box, "compare_with": compare_with, "max_px": max_px}
    return answered("view", lambda: _view(given, output_path, as_json=json))


def _view(asked: dict[str, Any], output_path: str | None, *, as_json: bool) -> None:
    given = {name: value for name, value in asked.items() if value is not None}
    if "box" in given:
        given["box"] = four_numbers("box", given["box"])
    if "compare_with" in given:
        given["compare_with"] = here(given["compare_with"])

    async def look_at(session: Session) -> tuple[dict[str, Any], list[bytes]]:
        if output_path is not None:
            (await session.studio()).disk.target(here(output_path))  # raises where pictures may not be written to
        return await session.look("view_image", given)

    found, pictures = run_to_end(look_at, settings_of())
    words = found.pop("summary")
    if output_path is not None:
        found["saved"] = _saved(Path(here(output_path)), pictures)
    if as_json:
        tell(words)
        write_json(found)
        return
    for picture in pictures:
        draw(picture)
    write_lines(shown(line) for line in [*words.split("\n"), *(f"Saved as {path}" for path in found.get("saved", ()))])


def _saved(path: Path, pictures: list[bytes]) -> list[str]:
    """Writes the pictures to new files and returns their paths. Raises RequestError where a file is there already, or
    the place takes none.
    """
    if path.suffix.lower() not in (".jpg", ".jpeg"):
        raise RequestError(f"-o {path} does not end in .jpg, which is what a look is saved as.")
    saved = []
    for number, picture in enumerate(pictures, 1):
        place = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        try:
            with place.open("xb") as file:
                file.write(picture)
        except OSError as error:
            raise RequestError(f"{place} cannot be written: {error.strerror}.") from error
        saved.append(str(place))
    return saved
