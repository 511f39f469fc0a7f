"""Keeps and prints the figures that were measured, each with the one that it is compared to and its goal."""

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

Unit = Literal["ms", "MB", "kB", "x", ""]


@dataclass(frozen=True, kw_only=True)
class Goal:
    """At most `most`, or at most `most` times the figure of `of`; with `at_least`, the other way round."""

    most: float
    of: str | None = None
    at_least: bool = False

    def words(self, unit: Unit) -> str:
        sign = ">=" if self.at_least else "<="
        return f"{sign} {self.most:g} {unit}".rstrip() if self.of is None else f"{sign} {self.most:g} x {self.of}"


@dataclass(frozen=True, kw_only=True)
class Result:
    """One figure of ours, in `unit`, and the same figure of others; `detail` goes into the JSON only."""

    job: str
    unit: Unit
    ours: float
    beside: dict[str, float] = field(default_factory=dict)
    goals: tuple[Goal, ...] = ()
    detail: dict[str, Any] = field(default_factory=dict)

    def met(self, goal: Goal) -> bool | None:
        """Tells whether the goal is met; None when the figure that it is compared with was not measured."""
        if goal.of is not None and goal.of not in self.beside:
            return None
        bound = goal.most * (self.beside[goal.of] if goal.of is not None else 1)
        return self.ours >= bound if goal.at_least else self.ours <= bound


HEADS = ("job", "ours", "bare", "peer", "floor", "ratio", "goal", "met")


def table(results: list[Result]) -> str:
    """All results as one Markdown table; a figure with two goals has two lines."""
    lines: list[tuple[str, ...]] = [HEADS]
    for result in results:
        shown = [_number(result.beside.get(name), result.unit) for name in ("bare", "peer", "floor")]
        for index, goal in enumerate(result.goals or (None,)):
            first = (result.job, _number(result.ours, result.unit), *shown) if not index else ("",) * 5
            if goal is None:
                lines.append((*first, "", "", ""))
                continue
            other = result.beside.get(goal.of) if goal.of is not None else None
            ratio = f"{result.ours / other:.2f}" if other else ""
            met = {True: "yes", False: "NO", None: "?"}[result.met(goal)]
            lines.append((*first, ratio, goal.words(result.unit), met))
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADS))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines)


def conditions(*, quick: bool) -> str:
    """The date, the Python, the machine and its load, in one line."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, Python {platform.python_version()}, {_processor()}, "
        f"{os.cpu_count()} cores, load {load}{', quick' if quick else ''}"
    )


def write_json(path: Path, results: list[Result], *, quick: bool) -> None:
    rows = [
        asdict(result) | {"goals": [asdict(goal) | {"met": result.met(goal)} for goal in result.goals]}
        for result in results
    ]
    path.write_text(json.dumps({"conditions": conditions(quick=quick), "results": rows}, indent=1), "utf-8")


def _number(value: float | None, unit: Unit) -> str:
    if value is None:
        return ""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f} {unit}".rstrip()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
