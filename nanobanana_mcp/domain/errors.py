"""The errors, sorted by who can put them right.

StudioError
├─ RequestError            the caller: change the arguments
│  ├─ SourceNotFound       an input that cannot be read or is not there
│  ├─ NotAnImage           an input whose bytes are no picture that may be used
│  ├─ NotAllowed           a path, a file or a call that the rules forbid; PolicyViolation: by the policy
│  ├─ NotAgreed            a person who was asked did not say yes
│  ├─ UnsupportedOption    a model cannot do what was asked
│  └─ HistoryRejected      a conversation that cannot go on as it was
├─ ServiceError            Gemini: wait, or say it differently
│  ├─ Refused              it answered without a picture, and why; NoPicture: with the tokens that it counted
│  ├─ Unreadable           an answer that cannot be understood; its bytes are kept
│  ├─ RateLimited          a quota is used up
│  ├─ Unavailable          no answer, or a fault of theirs; nothing can have been charged
│  └─ UnknownOutcome       sent, and the answer was lost; it may have been charged
├─ SetupError              the operator: key, folder, database; PolicyError: the policy's file; NotEnoughMemory
└─ BudgetExceeded          a limit on spending; raised before anything is spent

Every message names the thing and the way out, because a model reads it and acts on it.
"""

from nanobanana_mcp.domain.wire import Usage


class StudioError(Exception):
    """Any error that is told to the caller in words. `request_id` is the request that failed, which counts as delivered
    once the caller has these words.
    """

    request_id: str | None = None


class RequestError(StudioError):
    """The arguments are wrong; the same call will fail again."""


class SourceNotFound(RequestError):
    """An input image does not exist, cannot be read, or has expired."""


class NotAnImage(RequestError):
    """The bytes are no picture that the studio may read, or one beyond its bounds."""


class NotAllowed(RequestError):
    """The rules forbid reading or writing this, or making this call."""


class NotAgreed(RequestError):
    """A person did not agree to spend so much or to move pictures away, or nobody could be asked; nothing was done."""


class UnsupportedOption(RequestError):
    """The chosen model cannot do what was asked; the message names one that can."""


class HistoryRejected(RequestError):
    """Gemini does not take a conversation's earlier turns, whose signatures are missing, wrong or too old."""


class ServiceError(StudioError):
    """Gemini did not give a picture."""

    retryable = False


class Refused(ServiceError):
    """Gemini answered without a picture; `reason` is its finish or block reason."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class NoPicture(Refused):
    """An answer without a picture, with the tokens that it is charged for."""

    def __init__(self, message: str, *, reason: str, usage: Usage, emulated: bool = False) -> None:
        super().__init__(message, reason=reason)
        self.usage = usage
        self.emulated = emulated


class Unreadable(ServiceError):
    """An answer that came and cannot be understood; it may have been charged, and its bytes are kept."""


class NotPutTogether(ServiceError):
    """No picture came of the model's answers; the message says what was paid for them and where they are kept."""


class RateLimited(ServiceError):
    """A quota is used up; `retry_after` is the delay in seconds that Google asks for, None when it gave none."""

    def __init__(self, message: str, *, retry_after: float | None = None, retryable: bool = True) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.retryable = retryable


class Unavailable(ServiceError):
    """Gemini could not be reached or failed, and nothing can have been charged."""

    retryable = True


class UnknownOutcome(ServiceError):
    """The request was sent and its answer was lost: it may have been charged. The program never retries it."""


class SetupError(StudioError):
    """The installation is at fault: a key, a folder, a setting or the database."""


class NotEnoughMemory(SetupError):
    """The machine has not enough memory free for a picture, which may well be whole."""


class BudgetExceeded(StudioError):
    """A limit on spending or on calls is reached; nothing was sent."""


class PolicyError(SetupError):
    """A policy file that cannot be read or is not valid; nothing of it is applied."""


class PolicyViolation(NotAllowed):
    """The policy refuses this call, by a rule or because a limit is used up."""
