"""Reads programs that `torch.export` makes: `reader` walks them, by the tables of the other modules."""
