"""Reads .onnx files: `file` their bytes, `reader` their operators, by the tables of the other modules."""
