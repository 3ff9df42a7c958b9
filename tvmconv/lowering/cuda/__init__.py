"""The same for NVIDIA GPUs."""
