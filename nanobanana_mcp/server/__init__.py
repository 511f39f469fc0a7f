"""The MCP server, a door to the studio."""
