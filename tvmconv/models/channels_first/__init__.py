"""Reads models whose images are NCHW into a graph whose images are NHWC.

`steps` keeps track of which axis of the model lies where in the graph; the other modules add operators by
the model's own axes. Readers of ONNX files and of PyTorch's programs share them.
"""
