"""A bundle made by the command line, a command to run, and no records of whoever runs the tests."""

import pytest
from invoking import SPECS

from tvmconv.commands import cli
from tvmconv.records import log


@pytest.fixture(scope="module")
def user_records(tmp_path_factory):
    """No records of the person who runs the tests, here and in the processes started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield log.user_directory()


@pytest.fixture(scope="module")
def built(user_records, tmp_path_factory):
    """A bundle made by ``tvmconv build`` from a file of keys."""
    folder = tmp_path_factory.mktemp("built")
    keys = folder / "keys.txt"
    keys.write_text("".join(f"{spec.key}  # comment\n" for spec in SPECS))
    assert cli.main(["build", str(keys), "--output", str(folder / "b.tvmconv")]) == 0
    return folder / "b.tvmconv"


@pytest.fixture
def copied(built, tmp_path):
    """Another bundle like `built`, to damage."""
    target = tmp_path / "copy.tvmconv"
    target.mkdir()
    for file in built.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


@pytest.fixture
def invoke(capsys):
    """Run a command; returns (exit code, stdout, stderr)."""

    def invoke(*arguments):
        capsys.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return invoke
