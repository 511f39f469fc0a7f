"""Enters the server into the configuration of MCP clients, and takes it out again."""
