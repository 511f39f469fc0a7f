"""Text as people and models may see it."""

import math


def counted(number: int, noun: str) -> str:
    """A number with its noun, "1 file" or "3 files"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def size_of(count: int) -> str:
    """Bytes in words: "512 bytes", "34 kB", "1.2 MB"."""
    if count < 1000:
        return f"{count} bytes"
    return f"{count / 1e3:.0f} kB" if count < 999_500 else f"{count / 1e6:.{1 if count < 99_950_000 else 0}f} MB"


def waiting(seconds: float) -> str:
    """A time to wait, rounded up: "45 s", "12 min", "3.5 h"."""
    whole = max(1, math.ceil(seconds))
    return f"{whole} s" if whole < 120 else f"{math.ceil(whole / 60)} min" if whole < 7200 else f"{whole / 3600:.1f} h"


def shorten(text: str, limit: int = 120) -> str:
    """Text of a caller as it may stand in a message: one line, printable, not long."""
    clean = printable(text)
    return repr(clean if len(clean) <= limit else f"{clean[:limit]}...")


def printable(text: object) -> str:
    """A path or a name as it may stand in a message: what is invisible or turns the line around becomes "?"."""
    return "".join(c if c.isprintable() else "?" for c in str(text))
