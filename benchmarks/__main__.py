"""`python -m benchmarks`: runs every job, or those that are named, and prints one table, or JSON to compare with."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.drawing import at_once, many, one_picture, several
from benchmarks.gallery import gallery
from benchmarks.gemini import Gemini
from benchmarks.library import library, lineage
from benchmarks.results import Result, conditions, table, write_json
from benchmarks.searching import look, search
from benchmarks.starting import first_picture, spawn
from benchmarks.words import answers, definitions, quality

JOBS: dict[str, Callable[[Bench], Iterator[Result]]] = {
    "spawn": spawn,
    "first": first_picture,
    "one": one_picture,
    "several": several,
    "at-once": at_once,
    "many": many,
    "library": library,
    "lineage": lineage,
    "gallery": gallery,
    "search": search,
    "look": look,
    "definitions": definitions,
    "answers": answers,
    "quality": quality,
}


def main() -> int:
    """Measure and print. 1 when a figure misses its goal, 2 where it cannot be measured."""
    asked = _parser().parse_args()
    if sys.platform != "linux":
        sys.stderr.write("The benchmarks read memory and processor time from /proc, which only Linux has.\n")
        return 2
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=asked.folder) as name, Gemini() as gemini:
        bench = Bench(gemini=gemini, folder=Path(name).resolve(), quick=asked.quick, with_peer=not asked.no_peer)
        for job in asked.only or JOBS:
            for result in JOBS[job](bench):
                results.append(result)
                sys.stderr.write(f"{job}: {result.job.strip()}\n")
    sys.stdout.write(f"{table(results)}\n\n{conditions(quick=asked.quick)}\n")
    if asked.json is not None:
        write_json(asked.json, results, quick=asked.quick)
    return int(any(result.met(goal) is False for result in results for goal in result.goals))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the fewest rounds that still give a figure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there as well")
    parser.add_argument("--only", action="append", choices=JOBS, help="only this job; may be given several times")
    parser.add_argument("--no-peer", action="store_true", help="leave out the peer, which is installed from PyPI")
    parser.add_argument("--folder", type=Path, help="work on the disk of this folder (default: the temporary one)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
