"""What a session is checked for before it starts."""

from __future__ import annotations

import pytest
from tuners import POINTWISE, THREE, layers, only_x86, plan_for

from tvmconv import hardware
from tvmconv.building import toolchain
from tvmconv.errors import MissingToolError, TuningError, UnknownNameError
from tvmconv.hardware import host
from tvmconv.problem.spec import ConvSpec
from tvmconv.tuning.plan import plan

pytest_plugins = ("tuning_fixtures",)

EMPTY = ConvSpec.conv2d((0, 14, 14, 64), (1, 1, 64, 64))


def test_a_plan_has_each_layer_once_and_none_without_output(tmp_path):
    given = layers(POINTWISE, EMPTY, THREE, POINTWISE)

    work = plan(given, "host", 8, 2.0, tmp_path / "new" / "logs")

    assert [layer.spec for layer in work.layers] == [POINTWISE, THREE]
    assert work.machine == hardware.find_machine("host")[0]
    assert work.seconds == 120
    assert 0 < work.estimated_seconds <= 120
    assert list((tmp_path / "new" / "logs").iterdir()) == []


def test_a_plan_for_an_unknown_machine_is_refused(tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean x86-64-v3"):
        plan_for("x86_64_v3", tmp_path, POINTWISE, trials=8)


def test_a_plan_for_features_that_are_missing_names_them(tmp_path, monkeypatch):
    cpuinfo = tmp_path / "cpuinfo"
    flags = " ".join(set(hardware.find_machine("x86-64-v3")[0].features) - {"fma", "movbe"})
    cpuinfo.write_text(f"vendor_id : GenuineIntel\nflags : {flags}\n")
    monkeypatch.setattr(host, "CPUINFO", cpuinfo)

    with pytest.raises(TuningError, match=r"lacks fma, movbe\. .*--machine host"):
        plan_for("x86-64-v3", tmp_path, POINTWISE, trials=8)


@only_x86
def test_a_plan_for_another_architecture_is_refused(packs, tmp_path):
    with pytest.raises(TuningError, match="lacks aarch64"):
        plan_for("board", tmp_path, POINTWISE, trials=8)


def test_a_plan_for_a_directory_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(TuningError, match="--output"):
        plan_for("host", tmp_path / "file" / "logs", POINTWISE, trials=8)


def test_a_plan_without_xgboost_says_how_to_get_it(tmp_path, monkeypatch):
    missing = toolchain.Check("xgboost", False, "not installed", "tune", "pip install it")
    monkeypatch.setattr(toolchain, "check_xgboost", lambda: missing)

    with pytest.raises(MissingToolError, match=r"xgboost is needed for tune.*pip install it"):
        plan_for("host", tmp_path / "logs", POINTWISE, trials=8)
    assert list(tmp_path.iterdir()) == []


def test_the_estimate_grows_with_layers_and_trials_and_ends_at_the_budget(tmp_path):
    def seconds(*specs, **options) -> float:
        return plan_for("host", tmp_path, *specs, **options).estimated_seconds

    assert 0 < seconds(POINTWISE, trials=8) < seconds(POINTWISE, trials=80)
    assert seconds(POINTWISE, trials=8) < seconds(POINTWISE, THREE, trials=8)
    assert seconds(POINTWISE, trials=800, minutes=0.1) == pytest.approx(6)
    assert seconds(POINTWISE, minutes=2) == 120
