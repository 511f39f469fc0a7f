"""Paths of inputs as people and models write them: which one file is meant. Looks at names, opens no file."""

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

from nanobanana_mcp.domain.errors import RequestError
from nanobanana_mcp.domain.ids import is_file_id, is_image_id
from nanobanana_mcp.domain.text import printable, shorten
from nanobanana_mcp.storage.paths import absolute

MOST_NAMES = 20_000
"""Entries of a folder that are looked at for a name like the one given."""

_QUOTES = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u2018": "\u2019", "<": ">"}
_FILE = re.compile(r"file:(?://(?:localhost)?(?=/))?(?=/(?!/))", re.IGNORECASE)
_IMAGE = re.compile(r"image://(img_[^/]+)/?", re.IGNORECASE)


def meant(given: str, base: Path) -> tuple[str, str | None]:
    """The input that `given` means, in its plain form, and what to tell the caller when a file of another name was taken.

    A name that is there is that file. Otherwise quotes, spaces at the ends, file: addresses, image: addresses of ours,
    backslashes before spaces and percent signs are read as what they stand for, and then names that look the same (a
    narrow or no-break space, another Unicode form), as far as exactly one file is meant by it. Raises RequestError for
    what cannot be a path of this machine, and where several files could be meant. The rules for paths come after this.
    """
    if not given.strip() or is_file_id(given) or is_image_id(given):
        return given, None
    bare = _bare(given)
    image = _IMAGE.fullmatch(bare)
    if image or is_file_id(bare) or is_image_id(bare):
        return image[1] if image else bare, None
    first, *others = dict.fromkeys(_spellings(bare))
    absolute(first, base)  # what is no path of this machine is told before anything is looked up
    if bare != given and os.path.lexists(base / given):
        return given, None
    if first == bare and os.path.lexists(absolute(bare, base)):
        return _tilde(bare), None
    spellings = [first, *(one for one in others if _is_path(one, base))]
    there = _different({one: absolute(one, base) for one in spellings if os.path.lexists(absolute(one, base))})
    if len(there) == 1:
        return _tilde(next(iter(there))), None
    if there:
        raise RequestError(f"{shorten(given)} could mean {_listed(there.values())}; name the one that is meant.")
    alike = {str(path): path for one in spellings for path in _alike(absolute(one, base))}
    if len(alike) == 1:
        (taken,) = alike.values()
        return str(taken), (
            f"{shorten(given)} does not exist; {printable(taken)} was used, whose name differs only in characters "
            "that look the same."
        )
    if alike:
        raise RequestError(
            f"{shorten(given)} does not exist, and {_listed(alike.values())} look the same; rename the one that is "
            "meant."
        )
    return _tilde(spellings[0]), None


def as_id(given: str) -> str:
    """An id without spaces and quotes around, and out of an image: address of ours."""
    image = _IMAGE.fullmatch(_bare(given))
    return image[1] if image else _bare(given)


def _is_path(text: str, base: Path) -> bool:
    try:
        absolute(text, base)
    except RequestError:
        return False
    return True


def _bare(text: str) -> str:
    """The text without spaces at the ends and pairs of quotes around."""
    text = text.strip()
    while len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
    return text


def _spellings(bare: str) -> Iterator[str]:
    """Yield the paths that a text may stand for, the likeliest first."""
    address = _FILE.match(bare)
    if address:
        path = _decoded(bare[address.end() :])
        yield path[1:] if re.match(r"/[A-Za-z]:[/\\]", path) else path
        return
    yield bare
    if bare.startswith("@"):  # how clients write the mention of a file
        yield bare[1:]
    unescaped = re.sub(r"\\([^A-Za-z0-9\\/])", r"\1", bare) if os.name != "nt" else bare
    yield unescaped
    if re.search("%[0-9A-Fa-f]{2}", bare):
        yield _decoded(bare)


def _decoded(text: str) -> str:
    """The text with percent signs read as UTF-8; as it is where they are none."""
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        return text


def _different(found: dict[str, Path]) -> dict[str, Path]:
    """One spelling for each file."""
    files: dict[str, str] = {}
    for text, path in found.items():
        files.setdefault(os.path.realpath(path), text)
    return {text: found[text] for text in files.values()}


def _alike(path: Path) -> list[Path]:
    """The files whose names look the same, folder by folder; a name that is there stands for itself."""
    found = [Path(path.anchor)]
    for part in path.parts[1:]:
        exact = [folder / part for folder in found if os.path.lexists(folder / part)]
        found = exact or [folder / name for folder in found for name in _names(folder) if _looks(name) == _looks(part)]
    return found


def _names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry, _ in zip(entries, range(MOST_NAMES), strict=False)]
    except OSError:
        return []


def _looks(name: str) -> str:
    """A name as a reader sees it: macOS writes screenshots' names with U+202F, and letters in parts."""
    return unicodedata.normalize("NFC", re.sub("[\u00a0\u202f]", " ", name))


def _tilde(text: str) -> str:
    """The text with the home folder written out, so that rules see where the path leads."""
    return str(Path.home() / text[2:]) if re.match(r"~[/\\]", text) else text


def _listed(paths: Iterable[Path]) -> str:
    """Names with what is invisible in them written out, since that is what tells them apart."""
    return " or ".join(ascii(str(path)) for path in paths)
