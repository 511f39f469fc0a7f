"""Measurements of the server beside others; `python -m benchmarks` prints them."""
