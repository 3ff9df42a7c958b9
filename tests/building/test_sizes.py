"""Arrays that 32-bit indices do not reach are refused before anything is compiled."""

import pytest

import tvmconv
from tvmconv import hardware
from tvmconv.commands import cli


@pytest.mark.parametrize("dtype", ["uint8", "int8", "float32"])
@pytest.mark.parametrize(
    ("image", "window", "name"),
    [
        ((1, 16400, 16400, 8), (3, 3, 8, 1), "input"),
        ((1, 16400, 16400, 1), (1, 1, 1, 8), "output"),
        ((1, 3, 3, 1 << 20), (3, 3, 1 << 20, 512), "filter"),
    ],
)
def test_arrays_of_2_31_elements_are_refused(tmp_path, dtype, image, window, name):
    spec = tvmconv.ConvSpec.conv2d(image, window, padding="SAME", dtype=dtype)
    with pytest.raises(ValueError, match=rf"below 2\*\*31 elements, but the {name} of conv2d"):
        tvmconv.build(spec, output=tmp_path / "kernels")
    assert list(tmp_path.iterdir()) == []


LARGE = tvmconv.ConvSpec.conv2d((1, 16400, 16400, 8), (3, 3, 8, 1))


@pytest.mark.parametrize("machine_name", ["host", "cortex-a72", "sm_90"])
def test_no_schedule_takes_them(machine_name):
    machine, pack = hardware.find_machine(machine_name)
    with pytest.raises(ValueError, match="below 2"):
        hardware.schedules_for(LARGE, machine, pack)


@pytest.mark.parametrize(
    "words",
    [
        ["bench"],
        ["bench", "--peers", "all"],
        ["build"],
        ["tune", "--trials", "1"],
    ],
)
def test_commands_refuse_them(words, tmp_path, capsys):
    verb, *options = words
    if verb in ("build", "tune"):
        options += ["--output", str(tmp_path / "out")]
    assert cli.main([verb, LARGE.key, *options]) == 2
    assert (
        "kernels are for arrays below 2**31 elements, but the input of" in capsys.readouterr().err
    )


def test_padding_of_2_31_pixels_is_refused(tmp_path):
    for dilation in (20_000, 2**30):
        spec = tvmconv.ConvSpec.conv2d((1, 5, 5, 8), (3, 3, 8, 8), 1, "SAME", dilations=dilation)
        with pytest.raises(ValueError, match="Leave out the filter's taps that see nothing but"):
            tvmconv.build(spec, output=tmp_path / "kernels")
