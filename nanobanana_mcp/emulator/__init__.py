"""The Gemini wire, offline: a stand-in that knows nothing of the studio."""
