"""The command nanobanana: the server by default, and a few verbs for people."""

import gc
import os
import sys


def main() -> None:
    """Start what the command line names. Each verb imports the heavy modules that it needs, and no other does."""
    # FastMCP would otherwise read settings from the .env of whatever project the client has open.
    os.environ["FASTMCP_ENV_FILE"] = os.devnull
    os.environ["FASTMCP_LOG_ENABLED"] = "false"  # its highlighter takes minutes over a long line; serving has its own
    os.environ.setdefault("PY_KEY_VALUE_DISABLE_BEARTYPE", "true")  # 40 ms at the first list of tools
    if len(sys.argv) > 1:
        from nanobanana_mcp.cli.main import run

        sys.exit(run(sys.argv[1:]))

    wire = os.dup(1)  # stdout belongs to the protocol: what an import prints goes to stderr
    os.dup2(2, 1)
    gc.disable()  # the collector finds nothing while a thousand modules are being imported
    import pydantic

    pydantic.BaseModel.model_config["defer_build"] = True  # MCP and Gemini define 1,100 models, of which few are used
    from nanobanana_mcp.server.stdio import serve

    gc.freeze()
    gc.enable()
    sys.exit(serve(wire))


if __name__ == "__main__":
    main()
