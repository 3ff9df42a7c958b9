"""The door for packs: small specs that meet every edge (docs/adding-hardware.md)."""

from tvmconv.problem.edge_cases import EDGE_CASES

__all__ = ["EDGE_CASES"]
