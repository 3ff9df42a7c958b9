"""NVIDIA GPUs: device code without a GPU, what is here, and which variant of a bundle runs there."""
