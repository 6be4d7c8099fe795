"""Five trits a byte against Python's integers in base 3."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewbits.errors import FewbitsError
from fewbits.formats import IntegerGrid, Trits

GRID = IntegerGrid(-1, 1)


def base_three(trits: list[int]) -> int:
    """The number that Python reads from the digits, least significant first in ``trits``."""
    return int("".join(map(str, reversed(trits))) or "0", 3)


@given(st.lists(st.integers(0, 2), max_size=60))
def test_bytes_are_numbers_in_base_three(trits):
    payload = Trits().pack(torch.tensor(trits, dtype=torch.int64) - 1, GRID)
    fives = [trits[start : start + 5] for start in range(0, len(trits), 5)]
    assert payload.parts["codes"].tolist() == [base_three(five) for five in fives]
    assert payload.parts["codes"].dtype == torch.uint8


def test_every_byte_below_243_is_five_trits_and_no_other_is_any():
    for number in range(256):
        parts = {"codes": torch.tensor([number], dtype=torch.uint8)}
        if number < 243:
            assert base_three((Trits().unpack(parts, (5,), GRID) + 1).tolist()) == number
        else:
            with pytest.raises(FewbitsError, match="above 242"):
                Trits().unpack(parts, (5,), GRID)


@pytest.mark.parametrize("count", range(12))
def test_sizes_are_the_least_that_tell_all_words_apart(count):
    payload = Trits().pack(torch.ones(count, dtype=torch.int8), GRID)
    words = len(list(itertools.product(range(3), repeat=count % 5)))
    assert payload.bits == 8 * (count // 5) + next(bits for bits in range(9) if 2**bits >= words)
    assert payload.nbytes == (count + 4) // 5


def test_padding_that_is_not_zero_is_refused():
    with pytest.raises(FewbitsError, match="padding"):
        Trits().unpack({"codes": torch.tensor([9], dtype=torch.uint8)}, (2,), GRID)


@pytest.mark.parametrize("grid", [IntegerGrid(-1, 1, 2), IntegerGrid(0, 3), IntegerGrid(-127, 127)])
def test_only_three_points_make_trits(grid):
    with pytest.raises(FewbitsError, match=r"trits have three values, so use FixedWidth\(\)"):
        Trits().pack(torch.tensor([1]), grid)
    with pytest.raises(FewbitsError, match="trits have three values"):
        Trits().unpack({"codes": torch.zeros(1, dtype=torch.uint8)}, (5,), grid)
