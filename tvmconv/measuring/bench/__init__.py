"""Kernels against the roof of this machine."""
