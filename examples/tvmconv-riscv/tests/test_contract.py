"""The contract that tvmconv has with every pack: the whole file, and all that a pack needs."""

import pytest

from tvmconv import contract
from tvmconv_riscv import PACK


def test_pack():
    contract.check_pack(PACK)


@pytest.mark.parametrize("case", contract.cases(PACK), ids=str)
def test_schedule(case):
    contract.check(case)
