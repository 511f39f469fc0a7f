"""The verb completion: prints a shell's completion script, and writes nothing anywhere."""

from typing import Annotated, Literal

from cyclopts import Parameter

from nanobanana_mcp.cli.main import app
from nanobanana_mcp.cli.output import write_lines
from nanobanana_mcp.cli.verb import answered


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(name="SHELL", help="The shell to print it for.")],
) -> int:
    """Print the completion script of a shell; where it goes is yours to say.

    For example:
      nanobanana completion bash > nanobanana-completion.bash
    """
    return answered("completion", lambda: write_lines(app().generate_completion(shell=shell).rstrip().split("\n")))
