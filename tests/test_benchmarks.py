"""The benchmarks run; no test can tell on a busy machine how fast anything is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _bench(folder: Path, *jobs: str) -> tuple[str, list[dict[str, object]]]:
    written = folder / "figures.json"
    named = [word for job in jobs for word in ("--only", job)]
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "--quick",
        "--no-peer",
        "--folder",
        str(folder),
        "--json",
        str(written),
    ]
    done = subprocess.run([*command, *named], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 1), done.stderr  # 1 says that a goal was missed
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout, json.loads(written.read_text("utf-8"))["results"]


@pytest.mark.slow
def test_a_quick_run_prints_its_table_and_writes_its_figures_and_lineage_is_one_query(tmp_path: Path) -> None:
    said, results = _bench(tmp_path, "definitions", "answers", "lineage", "several")
    lines = said.splitlines()
    assert lines[0].startswith("| job ")
    for result in results:
        assert any(str(result["job"]) in line for line in lines), result["job"]
        assert float(str(result["ours"])) > 0
    assert len(results) == 6
    (queries,) = (result["ours"] for result in results if "lineage" in str(result["job"]))
    assert queries == 1  # however many edits lie between a picture and its first source
