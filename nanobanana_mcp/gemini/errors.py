"""Turns what google-genai and HTTP raise into the studio's own errors, in one place."""

import re
from typing import Any

import httpx2
from google.auth import exceptions as google
from google.genai import errors as genai

from nanobanana_mcp.domain.catalog import BY_ID, successor_of
from nanobanana_mcp.domain.errors import (
    HistoryRejected,
    RateLimited,
    RequestError,
    ServiceError,
    SetupError,
    SourceNotFound,
    StudioError,
    Unavailable,
    UnknownOutcome,
)
from nanobanana_mcp.gemini.response import quoted

UNREAD = (ValueError, RecursionError, TypeError, LookupError, AttributeError)
"""Errors that google-genai and httpx raise on answers that are no JSON or of another shape."""

_UNSENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,  # it refused the tunnel, and a request goes through nothing else
    httpx2.UnsupportedProtocol,
)
_SIGNATURE = re.compile(r"thought[ _]?signature", re.IGNORECASE)
_NO_QUOTA = re.compile(r"\blimit: 0(?![\d.])|\b0 images\b")
_PAGE = re.compile(r"\s*<(!doctype|html|head|body|\?xml)", re.IGNORECASE)
_KEYLIKE = re.compile(r"AIza[0-9A-Za-z_-]{10,}|(?<=key=)[^&\s\"']+|Bearer\s+\S+")


def translate(
    error: BaseException,
    *,
    key: str | None,
    key_variable: str = "GEMINI_API_KEY",
    model_id: str | None = None,
    setting: str = "",
) -> StudioError:
    """The studio's error for anything a call may raise; `key` is cut out of every text that came from outside.
    `key_variable` is the one that the key was read from, `setting` the one of the model.
    """
    if isinstance(error, StudioError):
        return error
    if isinstance(error, genai.APIError):
        return _from_status(error, key=key, key_variable=key_variable, model_id=model_id, setting=setting)
    if isinstance(error, google.TransportError):
        return Unavailable(
            "Google's sign-in could not be reached; nothing was sent and nothing charged. Check the network or a proxy, "
            "and try again."
        )
    if isinstance(error, google.GoogleAuthError):  # it comes before every request, never after one
        return SetupError(
            "Vertex AI needs Google's application default credentials, and no working ones were found; nothing "
            "was sent. Run 'gcloud auth application-default login', or set GOOGLE_APPLICATION_CREDENTIALS. "
            f"{cleaned(error, key)}"
        )
    if isinstance(error, _UNSENT):
        return Unavailable(
            f"Gemini could not be reached ({type(error).__name__}); nothing was sent and nothing charged. "
            "Check the network, a proxy, or GEMINI_BASE_URL, and try again."
        )
    if isinstance(error, TimeoutError | httpx2.TimeoutException):
        return UnknownOutcome(
            "Gemini did not answer in time (NANOBANANA_TIMEOUT_S). The request was sent, so it may have been charged."
        )
    if isinstance(error, httpx2.TransportError):
        return UnknownOutcome(
            f"The connection to Gemini broke after the request was sent ({type(error).__name__}), so it may have "
            "been charged."
        )
    if isinstance(error, httpx2.HTTPError | httpx2.InvalidURL):
        return Unavailable(f"The request to Gemini could not be made ({type(error).__name__}).")
    if isinstance(error, UNREAD):
        return UnknownOutcome(
            f"Gemini's answer could not be read ({type(error).__name__}), so the request may have been charged."
        )
    raise error


def cleaned(text: object, key: str | None) -> str:
    """Words from outside without the key, short and on one line; a gateway's page is named and not quoted."""
    words = str(text or "")
    if _PAGE.match(words):
        return "It sent a web page in place of an answer, as gateways and proxies do."
    if key:
        words = words.replace(key, "[key]")
    return quoted("Gemini says", _KEYLIKE.sub("[key]", words))


def _from_status(
    error: genai.APIError, *, key: str | None, key_variable: str, model_id: str | None, setting: str
) -> StudioError:
    said = cleaned(error.message, key)
    code = error.code
    if code == 400 and ("API_KEY_INVALID" in str(error.details) or "API key" in str(error.message)):
        return SetupError(f"Gemini does not accept the key. Check {key_variable}. {said}")
    if code == 400 and error.status == "FAILED_PRECONDITION":
        return SetupError(f"Gemini is not available to this account because of its region or its billing. {said}")
    if code == 400 and _SIGNATURE.search(str(error.message)):
        return HistoryRejected(f"Gemini rejected the conversation's history. {said}")
    if code == 400:
        return RequestError(f"Gemini rejected the request. {said}")
    if code == 401:
        return SetupError(
            f"Gemini does not accept the key: it is missing, wrong or expired. Check {key_variable}. {said}"
        )
    if code == 402:
        return SetupError(f"The account's prepaid credit is used up. Add credit in Google AI Studio. {said}")
    if code == 403 and "File" in str(error.message):
        return SourceNotFound(
            "The Files API does not have this file: it has expired (files live 48 hours), or it belongs to "
            f"another project. Give the picture's path or its img_... id instead. {said}"
        )
    if code == 403:
        return SetupError(
            f"The key is not allowed to make this request. Check its restrictions in Google AI Studio. {said}"
        )
    if code == 404:
        return _model_gone(model_id, setting, said)
    if code == 408 or code == 499:
        return UnknownOutcome(f"Gemini cut the request short ({code}); it may have been charged. {said}")
    if code == 429:
        return _rate_limited(error, said)
    if code in (500, 503) and _is_googles(error):
        what = "is overloaded" if code == 503 else "had an internal error"
        return Unavailable(f"Gemini {what} ({code}); nothing was charged. Try again in a minute. {said}")
    if code is not None and 300 <= code < 400:
        return SetupError(
            f"The Gemini address answered with a redirect ({code}), which is not followed because the key would be "
            "sent along. Set GEMINI_BASE_URL to the final address."
        )
    if code is not None and code >= 500:
        return UnknownOutcome(f"A gateway lost Gemini's answer ({code}), so it may have been charged. {said}")
    if _is_googles(error):
        return ServiceError(f"Gemini answered with status {code}. {said}")
    return UnknownOutcome(f"A gateway answered instead of Gemini ({code}), so it may have been charged. {said}")


def _is_googles(error: genai.APIError) -> bool:
    """Tells whether it has the form of Google's own errors (google.rpc.Status), after which nothing was drawn. A
    gateway's own error, of whatever code, may come after the model has drawn and is never a reason to ask again.
    """
    body = error.details[0] if isinstance(error.details, list) and error.details else error.details
    told = body.get("error") if isinstance(body, dict) else None
    if not isinstance(told, dict) or told.get("code") != error.code:
        return False
    return isinstance(told.get("status"), str) and re.fullmatch("[A-Z_]{2,40}", told["status"]) is not None


def _model_gone(model_id: str | None, setting: str, said: str) -> StudioError:
    if model_id is None:
        return ServiceError(f"Gemini does not know this address (404). Check GEMINI_BASE_URL. {said}")
    successor = successor_of(model_id)
    known = BY_ID.get(model_id)
    ended = f" It was shut down on {known.shutdown.isoformat()}." if known and known.shutdown else ""
    if successor:
        return SetupError(
            f"The model {model_id} no longer answers.{ended} Its successor is {successor}: set {setting}."
        )
    return SetupError(
        f"Gemini does not know the model {model_id} in this API version. Set {setting} to another, or remove it. {said}"
    )


def _rate_limited(error: genai.APIError, said: str) -> RateLimited:
    details = _details(error.details)
    listed = [d["violations"] for d in details if isinstance(d.get("violations"), list)]
    violations = [v for found in listed for v in found if isinstance(v, dict)]
    if any(v.get("quotaValue") == "0" for v in violations) or _NO_QUOTA.search(str(error.message)):
        return RateLimited(
            "The account has no quota for this model (limit 0): image models have no free tier. Turn on billing for "
            f"the project; waiting will not help. {said}",
            retryable=False,
        )
    if any("PerDay" in str(v.get("quotaId")) for v in violations):
        return RateLimited(
            f"Today's quota for this model is used up; it resets at midnight Pacific time. {said}",
            retryable=False,
        )
    delay = next((_seconds(d["retryDelay"]) for d in details if "retryDelay" in d), None)
    when = f"Try again in {delay:.0f} s." if delay is not None else "Try again in a minute."
    return RateLimited(
        f"Gemini's rate limit is reached; nothing was charged. {when} {said}",
        retry_after=delay,
        retryable=_is_googles(error),
    )


def _details(body: object) -> list[dict[str, Any]]:
    error = body.get("error", body) if isinstance(body, dict) else {}
    details = error.get("details", []) if isinstance(error, dict) else []
    return [detail for detail in details if isinstance(detail, dict)] if isinstance(details, list) else []


def _seconds(text: object) -> float | None:
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s", str(text))
    return float(found[1]) if found else None
