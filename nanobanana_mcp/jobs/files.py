"""Reads the files of pictures in the library, and only when their contents still match the record."""

import hashlib
from difflib import get_close_matches
from pathlib import Path

from nanobanana_mcp.domain.errors import NotAnImage, NotEnoughMemory, SourceNotFound
from nanobanana_mcp.domain.ids import is_image_id
from nanobanana_mcp.domain.records import ImageRecord, made_here
from nanobanana_mcp.domain.terms import MAX_FILE_BYTES, MAX_PIXELS
from nanobanana_mcp.domain.text import printable, shorten
from nanobanana_mcp.library.pictures import Library
from nanobanana_mcp.pixels.files.clean import clean
from nanobanana_mcp.pixels.files.containers import stripped
from nanobanana_mcp.pixels.files.formats import format_of
from nanobanana_mcp.pixels.files.header import read_header
from nanobanana_mcp.storage.disk import Disk

UPLOAD_BYTES = MAX_FILE_BYTES
SENT_TYPES = ("image/jpeg", "image/png", "image/webp")


def stored_bytes(record: ImageRecord, disk: Disk) -> bytes:
    """A picture's file as it is. A caller's own is read by the same rules as when it was first named.

    Raises SourceNotFound when it is gone or has other contents than the record, and what read_input raises.
    """
    path = record.trash_path or record.path
    if path is None:
        raise SourceNotFound(f"{record.id} is known only from the Files API; its file was never on this machine.")
    data = None
    if record.origin != "imported":
        data = disk.read_own(Path(path))
    elif Path(path).exists():
        data = disk.read_input(path)[1]
    if data is None:
        raise SourceNotFound(
            f"The file of {record.id} is no longer at {printable(path)}. Give its new path, or run maintenance "
            "with operation 'database_hygiene', which finds renamed files in the output folder."
        )
    if hashlib.sha256(data).hexdigest() != record.sha256:
        raise SourceNotFound(
            f"{printable(path)} has changed since it became {record.id}. Give its path to use it as it is now."
        )
    return data


def sendable(record: ImageRecord, disk: Disk) -> tuple[bytes, str]:
    """The bytes of a kept picture that may leave the machine, with their mime type; see `bare`."""
    return bare(record, stored_bytes(record, disk))


def bare(record: ImageRecord, data: bytes) -> tuple[bytes, str]:
    """The bytes of a picture that may leave the machine, in a type that Gemini takes, with that type. Raises NotAnImage.

    The model's answers go back as they came; what was made here of one goes without its label, which has the words of
    the caller; a caller's own goes without its metadata, decoded to prove that it is a picture.
    """
    check_is_picture(record)
    try:
        made = made_here(record.origin, record.parents)
        large = len(data) > UPLOAD_BYTES or record.width * record.height > MAX_PIXELS
        whole = record.mime_type != "image/jpeg" or read_header(data).end is not None
        if record.origin != "imported" and record.mime_type in SENT_TYPES and whole and not (made and large):
            return stripped(data, format_of(data)) if made else data, record.mime_type
        cleaned = clean(data, max_bytes=UPLOAD_BYTES, made=made)
    except (NotAnImage, NotEnoughMemory) as error:
        raise type(error)(f"{printable(record.path)}: {error}") from error
    return cleaned.data, cleaned.mime_type


def check_is_picture(record: ImageRecord) -> None:
    """Raises NotAnImage for a kept answer that does not decode, and for an icon."""
    if not record.width or record.mime_type == "image/vnd.microsoft.icon":
        raise NotAnImage(f"{record.id} ({printable(record.path)}) is not a picture that can be sent.")


def no_such_picture(given: str, library: Library) -> SourceNotFound:
    """The error for an id that the library does not have; it names those that are like it, else the newest."""
    newest = sorted(library.newest_ids(500), reverse=True)
    near = get_close_matches(given.lower(), newest, 3, cutoff=0.85)
    said = f"The library has no picture {given if is_image_id(given) else shorten(given)}"
    if not is_image_id(given):
        said += ", which is not an id: an id is img_ and 16 letters and digits"
    if near or newest:
        said += f". {'Similar ids' if near else 'The newest'}: {', '.join(near or newest[:3])}"
    return SourceNotFound(f"{said}. output_stats lists the recent ones.")
