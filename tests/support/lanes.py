"""Chooses the cases of a test that run in `make quick`, when all of them would take long."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest


def cases(
    names: str | tuple[str, ...],
    values: Iterable[Any],
    *,
    quick: int = 1,
    ids: Callable[[Any], str] | Sequence[str] | None = None,
) -> pytest.MarkDecorator:
    """`pytest.mark.parametrize` with all but the first `quick` cases marked slow."""
    found: Sequence[Any] = list(values)
    one = isinstance(names, str) and "," not in names
    late = [pytest.param(*([value] if one else value), marks=pytest.mark.slow) for value in found[quick:]]
    return pytest.mark.parametrize(names, [*found[:quick], *late], ids=ids)
