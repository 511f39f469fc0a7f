"""The fault bench: a world to break things in, real processes to break, and what must hold afterwards."""
