"""Every verb once, for every door."""
