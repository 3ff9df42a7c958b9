"""``tvmconv doctor`` says which flag keeps a CPU from wider vectors."""

from tvmconv import hardware
from tvmconv.commands import doctor
from tvmconv.hardware import host


def test_a_hidden_flag_is_named(monkeypatch):
    machine, _ = hardware.find_machine("x86-64-v3")
    features = frozenset(machine.features) - {"fma"}
    monkeypatch.setattr(host, "architecture", lambda: "x86_64")
    monkeypatch.setattr(host, "cpu_features", lambda: features)
    assert hardware.find_machine("host")[0].name == "x86-64-v2"
    assert doctor.missing_for_wider().endswith("with wider vectors, it lacks fma")
