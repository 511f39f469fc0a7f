"""Gemini: the only room that imports google-genai."""
