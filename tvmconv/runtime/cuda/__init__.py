"""Kernels on NVIDIA GPUs: opening, memory, tensors, streams."""
