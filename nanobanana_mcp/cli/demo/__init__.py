"""The demo: the real server driven by a real client."""
