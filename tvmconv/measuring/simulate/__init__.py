"""Runs a kernel for another core instruction by instruction, and counts them: cost without a board."""
