"""Ids of pictures and files, and the clock."""

import hashlib
import secrets
import time
from datetime import UTC, datetime

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u to misread


def new_id(prefix: str = "") -> str:
    """An id that sorts by time and needs no coordination: 9 characters of milliseconds, 7 (35 bits) of chance."""
    value = (time.time_ns() // 1_000_000) << 35 | secrets.randbits(35)
    digits = ""
    for _ in range(16):
        value, rest = divmod(value, 32)
        digits = ALPHABET[rest] + digits
    return prefix + digits


def new_image_id() -> str:
    return new_id("img_")


def is_image_id(text: str) -> bool:
    return len(text) == 20 and text.startswith("img_") and set(text[4:]) <= set(ALPHABET)


def is_file_id(text: str) -> bool:
    return text.startswith("files/")


def now() -> datetime:
    return datetime.now(UTC)


def child_id(image_id: str, what: str) -> str:
    """The id of a picture made from another one: always the same for the same input, and sorted next to it."""
    digest = hashlib.sha256(f"{image_id} {what}".encode()).digest()
    return image_id[:13] + "".join(ALPHABET[byte % 32] for byte in digest[:7])
