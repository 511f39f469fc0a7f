"""nanobanana: a studio for making and editing pictures with Gemini's image models, run as an MCP server."""

__version__ = "0.1.0"
