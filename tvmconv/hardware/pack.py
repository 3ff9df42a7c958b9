"""What a hardware pack is: the machines and schedules of one hardware family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tvmconv.errors import HardwarePackError
from tvmconv.hardware.machine import Machine
from tvmconv.hardware.schedule import Schedule


@dataclass(frozen=True)
class HardwarePack:
    """Everything one hardware family contributes; schedules are listed best first.

    ``detect`` names the machine it runs on, the most specific it knows, or None. ``aliases`` are other
    names, of boards for example, for machines: what is made and recorded goes under the machine's own.
    ``unavailable`` are names that users may well ask for, with what to do in place of that.
    """

    name: str
    machines: tuple[Machine, ...]
    schedules: tuple[Schedule, ...]
    detect: Callable[[], Machine | None] = field(default=lambda: None)
    aliases: Mapping[str, str] = field(default_factory=dict)
    unavailable: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check("machine", Machine, self.machines)
        self._check("schedule", Schedule, self.schedules)
        own = {machine.name for machine in self.machines}
        for alias, name in self.aliases.items():
            if name not in own or alias in own:
                raise HardwarePackError(
                    f"pack {self.name!r} has an alias {alias!r} for {name!r}: an alias is a new name for "
                    f"one of {', '.join(sorted(own))}"
                )
        both = sorted(set(self.unavailable) & {*own, *self.aliases})
        if both:
            raise HardwarePackError(f"pack {self.name!r} has {both[0]!r} and says that it has not")

    def also(self, machine: str) -> tuple[str, ...]:
        """Other names of a machine: its aliases."""
        return tuple(alias for alias, name in self.aliases.items() if name == machine)

    def machine_names(self) -> list[str]:
        """Every name that finds a machine of this pack, aliases last."""
        return [*(machine.name for machine in self.machines), *self.aliases]

    def _check(self, what: str, kind: type[Machine | Schedule], things: tuple[Any, ...]) -> None:
        """Raise HardwarePackError unless all ``things`` are of that kind, under names of their own."""
        for thing in things:
            if not isinstance(thing, kind) or not isinstance(thing.name, str):
                raise HardwarePackError(f"pack {self.name!r} lists {thing!r}, which is no {what}")
        names = [thing.name for thing in things]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise HardwarePackError(f"pack {self.name!r} has two {what}s named {twice[0]!r}")
