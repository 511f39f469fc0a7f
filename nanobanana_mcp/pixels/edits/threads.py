"""Does two things at once: Pillow, numpy and zlib leave Python to other threads while they work on pixels."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

First = TypeVar("First")
Second = TypeVar("Second")


def both(first: Callable[[], First], second: Callable[[], Second]) -> tuple[First, Second]:
    """Call two functions at once, the second one in another thread, and return what both return. Raises what they raise."""
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(second)
        return first(), waiting.result()
