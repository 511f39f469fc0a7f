"""The exit code of a verb, by whose turn it is to put something right."""

from nanobanana_mcp.domain.errors import (
    BudgetExceeded,
    PolicyViolation,
    ServiceError,
    SetupError,
    StudioError,
    UnknownOutcome,
)

MADE = 0
REFUSED = 1
"""The request is wrong: change it. Also what a person answered no to."""
SETTINGS = 2
GEMINI = 3
LIMITED = 4
"""A limit on spending or the policy stands against it."""
UNKNOWN = 5
"""Sent, and the answer lost: it may have been charged."""
INTERRUPTED = 130

_CODES: tuple[tuple[type[StudioError], int], ...] = (
    (UnknownOutcome, UNKNOWN),
    (ServiceError, GEMINI),
    (BudgetExceeded, LIMITED),
    (PolicyViolation, LIMITED),
    (SetupError, SETTINGS),
)


def code_of(error: BaseException | None) -> int:
    """The exit code for an error in words; what no class says, such as a wrong argument, the request is to blame for."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), REFUSED)
