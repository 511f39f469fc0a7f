"""A limit on calls in a window of time, and what an agent is told when it is used up."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime

from nanobanana_mcp.domain.text import waiting

CALENDAR_S = {"second": 1.0, "minute": 60.0, "hour": 3_600.0, "day": 86_400.0}
CALENDAR_WORDS = {1.0: "a second", 60.0: "a minute", 3_600.0: "an hour", 86_400.0: "a day"}


@dataclass(frozen=True, kw_only=True)
class Limit:
    """At most `maximum` calls in a window of `window_s` seconds, rolling or aligned to the calendar in UTC.

    `key` names the counter and stays the same while the rule keeps its place in the file: `generate_image#2`, `*#1` for
    all tools together, with `@` and the file's path behind it for a limit from a project's file. `rule` and `on_deny`
    are words for `message`.
    """

    key: str
    maximum: int
    window_s: float
    rolling: bool
    rule: str = ""
    on_deny: str = ""

    def window_start(self, now: float) -> float:
        """The earliest moment that still counts, in seconds since 1970: calls made at it or later are in the window."""
        # A rolling window leaves its own first moment out, so that a call stops counting exactly window_s after it.
        return math.nextafter(now - self.window_s, math.inf) if self.rolling else now // self.window_s * self.window_s

    def resets_at(self, now: float, oldest: float) -> float:
        """The time, in seconds since 1970, when a used-up limit allows a call again.

        `oldest` is the time of the earliest of the last `maximum` calls that count.
        """
        return oldest + self.window_s if self.rolling else now // self.window_s * self.window_s + self.window_s

    def message(self, tool: str, made: int, now: float, resets_at: float) -> str:
        """Tell an agent that `made` calls have used the limit up; times in seconds since 1970, rounded up."""
        limited = f"{tool} and all other tools together are" if self.key.startswith("*#") else f"{tool} is"
        window = f"in any {self.window_s:g} seconds" if self.rolling else CALENDAR_WORDS[self.window_s]
        calls = "1 call" if self.maximum == 1 else f"{self.maximum} calls"
        moment = datetime.fromtimestamp(math.ceil(resets_at), UTC)
        day = "" if moment.date() == datetime.fromtimestamp(now, UTC).date() else f" on {moment:%Y-%m-%d}"
        return (
            f"{limited} limited to {calls} {window} by {self.rule or self.key}; "
            f"{made} {'was' if made == 1 else 'were'} made; "
            f"it resets in {waiting(resets_at - now)} at {moment:%H:%M:%S} UTC{day}. {self.on_deny}"
        ).rstrip()
