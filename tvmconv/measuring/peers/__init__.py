"""Other libraries' convolutions, each prepared as its users would, to be timed against ours.

One module a library, each with `NAME`, `PACKAGES` (as pip calls them) and ``prepare``; `stand` runs one of
them in a process of its own, `race` runs all in turn.
"""
