"""The server over HTTP on this machine, for the conformance suite, which speaks nothing else: python -m tests.support.over_http PORT"""

import asyncio
import os
import sys

from nanobanana_mcp.server.app import build_server
from nanobanana_mcp.settings import load_settings


def main() -> None:
    assert os.environ["NANOBANANA_BACKEND"] == "emulator"
    server = build_server(load_settings())
    asyncio.run(
        server.run_async(
            "http", host="127.0.0.1", port=int(sys.argv[1]), host_origin_protection=True, show_banner=False
        )
    )


if __name__ == "__main__":
    main()
