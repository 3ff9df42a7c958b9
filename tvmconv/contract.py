"""The door for packs: what every schedule of every pack must hold (docs/adding-hardware.md)."""

from tvmconv.checking.contract import (
    Case,
    assembly,
    cases,
    check,
    check_compiles,
    check_decisions,
    check_pack,
    check_values,
    compiled,
    edge_cases,
    kinds,
    lacking,
    random_decisions,
    rehearsal,
)

__all__ = [
    "Case",
    "assembly",
    "cases",
    "check",
    "check_compiles",
    "check_decisions",
    "check_pack",
    "check_values",
    "compiled",
    "edge_cases",
    "kinds",
    "lacking",
    "random_decisions",
    "rehearsal",
]
