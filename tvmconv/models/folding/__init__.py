"""Passes from a graph to an equal graph of fewer nodes; `fold` runs them all, in order."""
