"""Device code for NVIDIA GPUs, made without one."""
