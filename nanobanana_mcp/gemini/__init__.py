"""Gemini: the only place that knows google-genai and its HTTP library."""
