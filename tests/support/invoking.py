"""A bundle made by the command line, a command to invoke, and records to make: for tests of its verbs."""

from tvmconv import hardware
from tvmconv.problem.spec import ConvSpec
from tvmconv.records import choice
from tvmconv.records.record import Record

PLAIN = ConvSpec.conv2d((1, 6, 5, 8), (3, 3, 8, 16))
RELU = ConvSpec.conv2d((1, 6, 5, 8), (3, 3, 8, 16), activation="relu")
DEPTHWISE = ConvSpec.depthwise_conv2d((1, 7, 7, 16), (3, 3, 16, 1), bias=True, residual=True)
EMPTY = ConvSpec.conv2d((0, 6, 5, 8), (3, 3, 8, 16))
SPECS = (PLAIN, RELU, DEPTHWISE, EMPTY)


def record_for(spec, **changes):
    machine, pack = hardware.find_machine("host")
    default = choice.default_choice(spec, machine, pack)
    fields = {
        "key": spec.key,
        "schedule": default.schedule.name,
        "decisions": default.decisions,
        "microseconds": 1.0,
        "default_microseconds": 1.0,
        "machine": machine.name,
        "cpu": "test",
        "threads": 1,
        "tvm": "0.27",
        "date": "2026-01-01",
        "trials": 1,
        "how": "measured",
        "driver": None,
        "place": "here",
        "board": None,
        "cache": "warm",
        "rounds": 11,
    }
    return Record(**{**fields, **changes})
