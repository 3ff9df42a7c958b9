"""Whole models: read into one small graph, folded into convolutions, compiled into one function."""
