"""The disk: what may be read and written, and how, so that nothing is torn, overwritten or read by mistake."""
