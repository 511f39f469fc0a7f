"""Judges the paths that callers name, for reading and for writing, and names files. Opens no file."""

import os
import re
import sys
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from glob import escape
from pathlib import Path

from nanobanana_mcp.domain.errors import NotAllowed, RequestError
from nanobanana_mcp.domain.plan import Target
from nanobanana_mcp.domain.text import printable, shorten

MAX_PATH_BYTES = 4096
OWN_FOLDER = ".nanobanana"
"""The folder, inside the output folder, of thumbnails, records and trash, out of the way of people."""

CLOSED = frozenset(
    {".git", "git~1", ".hg", ".svn", ".ssh", ".gnupg", ".aws", ".azure", ".gcloud", ".kube", ".docker", ".password-store",
     ".pki", ".mozilla", ".thunderbird", ".oci", ".vault", ".terraform.d", ".electrum", ".bitcoin"}
)  # fmt: skip
"""Folders of keys and of version control: nothing in them is read or written, whatever the client has open."""

_PASTED_AT_HOME = (Path(".claude", "image-cache"), Path(".gemini-clipboard"), Path(".playwright-mcp"))
_PASTED_IN_PROJECT = (Path(".gemini-clipboard"), Path(".playwright-mcp"))
"""The folders where Claude Code, Gemini CLI and Playwright's server put pictures that were pasted or taken."""

_BASE64 = ("iVBORw0KGgo", "/9j/", "UklGR", "R0lGOD", "Qk0", "SUkqA", "TU0AK", "AAAA")
"""The beginnings of base64 of the pictures that people send: PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF and HEIC."""

_PACKED = re.compile(r"[A-Za-z0-9+/_-]+=*[\"'`>]*")
_VARIABLE = re.compile(r"\$\{\w+\}|(?:^|[/\\])(?:\$(?:env:)?[A-Za-z_]\w*|%[A-Za-z_(][\w()]*%)(?=$|[/\\])")
_CHATS = ("/mnt/user-data", "/mnt/data")
"""The folders where the sandboxes of Claude.ai and ChatGPT keep a conversation's files."""

_RESERVED = frozenset(
    {"con", "prn", "aux", "nul", *(f"com{d}" for d in "123456789¹²³"), *(f"lpt{d}" for d in "123456789¹²³")}
)

PICTURE_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".jpe", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".ico", ".svg")
)
"""File extensions that name a picture's type; any other is part of the name."""

_MISLEADING = re.compile("[\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]")


@dataclass(frozen=True, kw_only=True)
class Places:
    """The folders of one installation. `allowed` narrows what callers may read and write; empty means any folder that is not hidden
    or closed.
    """

    output: Path
    state: Path
    base: Path
    """The folder that relative paths start from: the project the client has open."""
    allowed: tuple[Path, ...] = ()

    @property
    def own(self) -> Path:
        return self.output / OWN_FOLDER

    @property
    def thumbnails(self) -> Path:
        return self.own / "thumbnails"

    @property
    def records(self) -> Path:
        return self.own / "records"

    @property
    def parts(self) -> Path:
        """Answers of the model that were put together into pictures."""
        return self.own / "parts"

    @property
    def masks(self) -> Path:
        """The folder of the masks that were painted in the gallery."""
        return self.own / "masks"

    @property
    def trash(self) -> Path:
        return self.own / "trash"

    @property
    def spool(self) -> Path:
        return self.state / "spool"


def absolute(text: str, base: Path) -> Path:
    """A text as a path, relative to `base`. Raises RequestError for what cannot be a path on this machine. Nothing is
    looked up before that: on Windows, asking for a network path would already send the user's credentials.
    """
    if not text or not text.strip():
        raise RequestError("An empty path was given; name a file, or leave the argument out.")
    _check_no_picture(text)
    shown = shorten(text)
    if len(text.encode("utf-8", "surrogatepass")) > MAX_PATH_BYTES:
        raise RequestError(f"The path {shown} is longer than {MAX_PATH_BYTES} bytes.")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise RequestError(
            f"The path {shown} has control characters in it, which a call cannot pass on; rename the file."
        )
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:", text):
        way = "give the path itself" if text.lower().startswith("file:") else "give the path of a file on this machine"
        fetch = " (download it first)" if re.match("https?:", text, re.IGNORECASE) else ""
        raise RequestError(f"{shown} is an address; {way}{fetch}.")
    if text.startswith(("\\\\", "//")):
        raise RequestError(f"{shown} is a network path; copy the file to this machine first.")
    if os.name == "nt" and ":" in text[2:]:
        raise RequestError(f"{shown} names a data stream; give a plain file.")
    _check_of_this_machine(text)
    path = Path(text)
    if path.parts[:1] == ("~",):
        home = _home()
        if home is None:
            raise RequestError(f"{shown} begins with ~, and this process has no home folder; write the whole path out.")
        path = home.joinpath(*path.parts[1:])
    path = path if path.is_absolute() else base / path
    check_encodable(path)
    if _VARIABLE.search(text.strip().strip("\"'`")) and not os.path.lexists(path):
        raise RequestError(f"{shown} has a variable in it that was not replaced; write the whole path out.")
    return path


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:  # a user whom the system does not know, as in some containers
        return None


def _check_no_picture(text: str) -> None:
    """Raise RequestError for a picture itself where its path belongs, without repeating it."""
    bare = text.lstrip().lstrip("\"'`<")
    size = f"{len(text):,} characters"
    if bare[:5].lower() == "data:":
        raise RequestError(
            f"A data: address was given ({size}) instead of the path of a file. Save the picture as a file and "
            "give its path."
        )
    packed = "".join(bare.split())
    is_mixed = packed != packed.lower() and any(c.isdigit() for c in packed)
    if (
        len(packed) >= 64
        and (packed.startswith(_BASE64) or (len(packed) > 1000 and is_mixed))
        and _PACKED.fullmatch(packed)
    ):
        raise RequestError(
            f"Base64 was given ({size}) instead of the path of a file. Save the picture as a file and give its path."
        )


def _check_of_this_machine(text: str) -> None:
    """Raise RequestError for paths of another system, of a chat's own machine, and for what nobody has filled in."""
    shown = shorten(text)
    bare = text.strip().strip("\"'`")
    if bare.lower() in ("null", "none", "undefined", "nil"):
        raise RequestError(f"{shown} is not a path but a word for none; leave the argument out, or name a file.")
    drive = re.match(r"([A-Za-z]):[\\/]", bare)
    if os.name != "nt" and drive:
        wsl = f"/mnt/{drive[1].lower()}/" + bare[3:].replace("\\", "/").lstrip("/")
        raise RequestError(
            f"{shown} is a Windows path, and this server runs on another system. In WSL the same file is "
            f"{shorten(wsl)}."
        )
    for folder in _CHATS:
        if f"{bare}/".startswith(f"{folder}/") and not Path(folder).is_dir():
            raise RequestError(
                f"{shown} is a path on the chat's own machine, which this server cannot reach. Give a path on the "
                "machine where the server runs; the user may have to save the picture there."
            )


def check_readable(path: Path, places: Places) -> None:
    """Refuse a resolved path that may not be read: hidden folders, our own state, outside the allowed folders."""
    check_encodable(path)
    if _is_ours(path, places) or is_own_file(path, places):
        raise NotAllowed(
            f"{printable(path)} belongs to the studio's own records. Use the picture's id (img_...) or the path of the full picture."
        )
    _check_allowed(path, places, doing="read")
    hidden = _closed_part(path) or _hidden_part(path, places, *_pasted(places))
    if hidden:
        raise NotAllowed(
            f"{printable(path)} is in a hidden folder or is a hidden file ({printable(hidden)}); copy the picture elsewhere first."
        )


def check_writable(path: Path, places: Places) -> None:
    """Refuse a resolved folder that pictures may not be written to."""
    check_encodable(path)
    if _is_ours(path, places):
        raise NotAllowed(
            f"output_path {printable(path)} is the studio's own folder; name another, or leave output_path out."
        )
    if path != places.output:
        _check_allowed(path, places, doing="written to")
    hidden = _closed_part(path) or _hidden_part(path, places)
    if hidden:
        raise NotAllowed(
            f"output_path {printable(path)} is in a hidden folder ({printable(hidden)}); name another, or leave output_path out."
        )


def plan_target(output_path: str | None, places: Places) -> Target:
    """The target that an output_path names, decided and checked before anything is spent; nothing is made yet.

    An existing folder, a trailing slash or a name without extension means a folder; anything else a file.
    Raises RequestError or NotAllowed.
    """
    if output_path is None:
        return Target(folder=places.output)
    path = absolute(output_path, places.base)
    if output_path != output_path.strip() or output_path[:1] in ("'", '"', "`"):
        raise RequestError(f"output_path {shorten(output_path)} has quotes or spaces around it; give the path alone.")
    if os.name != "nt" and "\\" in output_path:  # else a folder or file of that very name would be made
        raise RequestError(f"output_path {shorten(output_path)} has backslashes; write / between folders.")
    if _MISLEADING.search(output_path):
        raise RequestError(
            f"output_path {shorten(output_path)} has characters that are invisible or reverse the text; leave them out."
        )
    try:
        is_folder = path.is_dir() or output_path.endswith(("/", os.sep)) or not path.suffix
        folder = Path(os.path.realpath(path if is_folder else path.parent))
    except OSError as error:
        raise RequestError(f"output_path {shorten(output_path)} cannot be used: {error.strerror}.") from error
    if any(part.is_symlink() for part in (folder, *folder.parents)):
        raise RequestError(f"output_path {shorten(output_path)} leads through symbolic links that go in a circle.")
    check_writable(folder, places)
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not existing.is_dir():
        raise RequestError(f"output_path {shorten(output_path)} cannot be used: {existing} is a file.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise RequestError(f"output_path {shorten(output_path)} cannot be used: {existing} is not writable.")
    if is_folder:
        return Target(folder=folder)
    if path.name.startswith("."):
        raise RequestError(f"output_path {shorten(output_path)} is a hidden file; give it a name without the dot.")
    if len(path.name.encode()) > 200:
        raise RequestError(f"output_path {shorten(output_path)} has a file name of more than 200 bytes; shorten it.")
    if path.suffix.lower() not in PICTURE_SUFFIXES:  # logo.v2 and logo.v3 are two names
        return Target(folder=folder, stem=path.name)
    return Target(folder=folder, stem=path.stem, suffix=path.suffix)


def check_encodable(path: Path) -> None:
    """Raise RequestError for a path that this process cannot spell on its disk or that the library, which is in UTF-8,
    cannot keep, as with letters beyond ASCII in a locale that is not UTF-8.
    """
    try:
        os.fsencode(path)
        str(path).encode()
    except UnicodeEncodeError as error:
        raise RequestError(
            f"{printable(path)} has letters that this process's locale cannot write (its file names are in "
            f"{sys.getfilesystemencoding()}); start the server with PYTHONUTF8=1, or use a path in plain ASCII."
        ) from error


def is_utf8(path: Path) -> bool:
    """Tells whether the library can keep a path that was found on the disk, where names need not be UTF-8."""
    return str(path).encode(errors="ignore").decode() == str(path)


def _is_ours(path: Path, places: Places) -> bool:
    """Our own state; opening and closing the database here would also drop this process's locks on it."""
    database = places.state.name.removesuffix(".state")  # the library, its journal and its copies begin so
    beside = path.parent == places.state.parent and path.name.startswith(database)
    return beside or path.is_relative_to(places.state) or path.is_relative_to(places.own)


def is_own_file(path: Path, places: Places) -> bool:
    """Tells whether a path leads to one of the library's files under any name: a hard link, another case, another
    mount. No file is opened for this, since closing the database drops all locks that this process has on it (POSIX
    locks belong to a process and a file, not to a descriptor).
    """
    found = _identity(path)
    if found is None:
        return False
    folders = {_identity(folder) for folder in (places.state, places.own)}
    if any(_identity(parent) in folders for parent in path.parents):
        return True
    database = places.state.name.removesuffix(".state")
    beside = _listed(places.state.parent, f"{escape(database)}*")
    inside = (*_listed(places.state, "*"), *_listed(places.state, "*/*"), *_listed(places.own, "spool/*"))
    return any(_identity(own) == found for own in (*beside, *inside))


def is_database(path: Path, places: Places) -> bool:
    """Tells whether a path leads to the database or a file that SQLite keeps beside it; see `is_own_file`."""
    database = places.state.with_name(places.state.name.removesuffix(".state"))
    beside = (database.with_name(f"{database.name}{end}") for end in ("", "-journal", "-wal", "-shm"))
    found = _identity(path)
    return found is not None and any(_identity(own) == found for own in beside)


def _listed(folder: Path, pattern: str) -> list[Path]:
    try:
        return list(folder.glob(pattern))
    except OSError:  # a folder that may not be listed
        return []


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _check_allowed(path: Path, places: Places, *, doing: str) -> None:
    roots = (*places.allowed, places.output) if places.allowed else ()
    if roots and not any(path.is_relative_to(root) for root in roots):
        names = ", ".join(str(root) for root in roots)
        raise NotAllowed(f"{printable(path)} may not be {doing}: NANOBANANA_ALLOWED_DIRS allows only {names}.")


def _closed_part(path: Path) -> str | None:
    """The first component that is a closed folder, in any spelling that a disk may accept for it: case, invisible
    characters, dots and spaces at the end are ignored.
    """
    for part in path.parts:
        seen = "".join(c for c in unicodedata.normalize("NFKC", part) if unicodedata.category(c) != "Cf")
        if seen.casefold().rstrip(". ") in CLOSED:
            return part
    return None


def _pasted(places: Places) -> list[Path]:
    """The folders of pasted pictures, as the disk has them. One that is itself a link is none of them."""
    home, base = _home(), Path(os.path.realpath(places.base))
    found = [base / one for one in _PASTED_IN_PROJECT]
    return found if home is None else [*found, *(Path(os.path.realpath(home)) / one for one in _PASTED_AT_HOME)]


def _hidden_part(path: Path, places: Places, *more: Path) -> str | None:
    """The first hidden component, not counting those of the innermost folder that the user configured or the client has
    open, or that is one of `more`: a project may lie in .claude/worktrees.
    """
    roots = (places.output, *places.allowed, Path(os.path.realpath(places.base)), *more)
    inner = max((root for root in roots if path.is_relative_to(root)), key=lambda root: len(root.parts), default=None)
    if inner is not None:
        path = path.relative_to(inner)
    return next((part for part in path.parts if part.startswith(".") and part not in (".", "..")), None)


def picture_stem(prompt: str, image_id: str, at: datetime) -> str:
    """A name for people that sorts by age: the local date and time, a few words of the prompt, the end of the id."""
    words = slug(prompt)
    day = _local(at).strftime("%Y-%m-%d_%H%M%S")
    return "_".join(part for part in (day, words, image_id[-6:]) if part)


def _local(at: datetime) -> datetime:
    """The moment in the machine's local time; unchanged when the time zone is not valid, such as TZ=XXX-25."""
    try:
        return at.astimezone()
    except (ValueError, OverflowError, OSError):
        return at


def slug(text: str, *, max_bytes: int = 60) -> str:
    """A few words as a file name any system takes: letters and digits of every script that this process can write in
    names, else of ASCII; hyphens between.
    """
    normal = unicodedata.normalize("NFC", text[:400])
    kept = "".join(c.lower() if unicodedata.category(c)[0] in "LN" else "-" for c in normal)
    try:
        os.fsencode(kept)
    except UnicodeEncodeError:  # a locale that is not UTF-8, which must not be found out after paying
        kept = unicodedata.normalize("NFKD", kept).encode("ascii", "ignore").decode()
    words = [word for word in kept.split("-") if word]
    chosen = ""
    for word in words[:8]:
        longer = f"{chosen}-{word}" if chosen else word
        if len(longer.encode()) > max_bytes:
            break
        chosen = longer
    if not chosen and words:
        chosen = words[0].encode()[:max_bytes].decode(errors="ignore")
    return f"{chosen}-picture" if chosen in _RESERVED else chosen
