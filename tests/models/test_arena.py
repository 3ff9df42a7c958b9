"""No two values that are alive at once share memory."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from tvmconv.models.arena import ALIGNMENT, Lifetime, plan

LIFETIMES = st.builds(
    lambda first, length, size: Lifetime(first, first + length, size),
    st.integers(0, 20),
    st.integers(0, 8),
    st.integers(0, 5000),
)


@given(st.lists(LIFETIMES, max_size=20))
def test_values_that_are_alive_at_once_do_not_overlap(lives):
    named = {str(number): life for number, life in enumerate(lives)}
    arena = plan(named)

    for left, right in combinations(named, 2):
        if named[left].meets(named[right]):
            apart = (
                arena.offsets[left] + named[left].bytes <= arena.offsets[right]
                or arena.offsets[right] + named[right].bytes <= arena.offsets[left]
            )
            assert apart or 0 in (named[left].bytes, named[right].bytes)
    for name, life in named.items():
        assert arena.offsets[name] % ALIGNMENT == 0
        assert arena.offsets[name] + life.bytes <= arena.bytes


def test_values_that_are_not_alive_at_once_share_memory():
    lives = {"a": Lifetime(0, 1, 640), "b": Lifetime(1, 2, 640), "c": Lifetime(2, 3, 640)}

    assert plan(lives).bytes == 2 * 640
