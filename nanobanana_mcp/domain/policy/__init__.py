"""Reads policy files and judges calls by them."""
