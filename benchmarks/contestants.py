"""Sets up the servers that are measured: ours, a bare FastMCP one, and the closest peer in its own environment."""

import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.samples import Sample
from benchmarks.server import Contestant

ROOT = Path(__file__).parents[1]
PEER = "nanobanana-mcp-server==0.4.6"
PEER_HOME = ROOT / ".venv" / "peer-0.4.6"
PEER_NEEDS = ("fastmcp==2.14.*", "google-genai<2")
"""The versions that the peer was written for; its own metadata lets in versions that it cannot start with."""

NO_LIMITS = {
    "NANOBANANA_MAX_USD_PER_CALL": "off",
    "NANOBANANA_MAX_USD_PER_HOUR": "off",
    "NANOBANANA_MAX_USD_PER_DAY": "off",
    "NANOBANANA_MAX_CALLS_PER_MINUTE": "off",
}


def ours(url: str, **more: str) -> Contestant:
    """Our server. It uploads nothing, as the peer's lane for these pictures does not either."""
    environment = {"GEMINI_BASE_URL": url, "NANOBANANA_UPLOAD": "never", **NO_LIMITS, **more}
    return Contestant(
        name="ours", command=(sys.executable, "-m", "nanobanana_mcp"), environment=tuple(environment.items())
    )


def bare() -> Contestant:
    return Contestant(name="bare", command=(sys.executable, str(ROOT / "benchmarks" / "bare.py")))


def peer(url: str) -> Contestant:
    """The peer, installed from PyPI when it is first asked for. Raises CalledProcessError when that fails."""
    program = PEER_HOME / "bin" / "nanobanana-mcp-server"
    if not program.exists():
        sys.stderr.write(f"Installing {PEER} into {PEER_HOME} (once; about a minute) ...\n")
        venv.create(PEER_HOME, with_pip=True)
        install = [str(PEER_HOME / "bin" / "python"), "-m", "pip", "install", "--quiet", PEER, *PEER_NEEDS]
        subprocess.run(install, check=True)
    return Contestant(name="peer", command=(str(program),), environment=(("GEMINI_BASE_URL", url),))


def wish(name: str, kind: Sample, number: int, *, n: int = 1) -> Mapping[str, Any]:
    """The arguments of generate_image for one kind of picture; `number` makes every wish another one."""
    tier = "nb2" if name == "peer" else "flash"
    resolution = kind[:2].lower()
    asked = {"prompt": f"A heron at dawn, number {number}.", "model_tier": tier, "resolution": resolution, "n": n}
    return asked | {"enable_grounding": False}
