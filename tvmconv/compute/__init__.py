"""Tensor expressions: one definition per algorithm, the only statement of what a kernel computes.

No target appears here. Schedules decide how; they know the stages by name: ``padded``, ``conv``,
``out``, and ``packed`` in the function that rearranges a filter once.
"""
