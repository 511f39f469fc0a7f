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
"""The request is wrong and has to be changed; also for a question that a person answered with no."""
SETTINGS = 2
GEMINI = 3
LIMITED = 4
"""A limit on spending, or the policy, forbids the request."""
UNKNOWN = 5
"""The request was sent and its answer was lost: it may have been charged."""
INTERRUPTED = 130

_CODES: tuple[tuple[type[StudioError], int], ...] = (
    (UnknownOutcome, UNKNOWN),
    (ServiceError, GEMINI),
    (BudgetExceeded, LIMITED),
    (PolicyViolation, LIMITED),
    (SetupError, SETTINGS),
)


def code_of(error: BaseException | None) -> int:
    """The exit code for an error. An error of no known class, such as a wrong argument, is the request's fault."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), REFUSED)
