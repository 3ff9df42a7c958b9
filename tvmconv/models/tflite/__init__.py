"""Reads .tflite files: float32 models, whose weights may also be float16 or sparse."""
