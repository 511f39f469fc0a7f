"""The yardstick for starting: the smallest server that FastMCP makes, with one tool and nothing tuned."""

from fastmcp import FastMCP

server = FastMCP("bare")


@server.tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


if __name__ == "__main__":
    server.run("stdio", show_banner=False)
