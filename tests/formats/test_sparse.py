"""Relative indices against a loop over the elements, and against scipy's sparse matrices."""

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewbits.errors import FewbitsError
from fewbits.formats import IntegerGrid, RelativeIndex, pack_bits, unpack_bits

GRID = IntegerGrid(-3, 4)
sparse_values = st.lists(st.one_of(st.just(0), st.just(0), st.just(0), st.integers(-3, 4)), max_size=120)


def entries(payload, gap_bits, grid=GRID):
    count = int(payload.parts["entries"])
    gaps = unpack_bits(payload.parts["gaps"], gap_bits, count).tolist()
    codes = unpack_bits(payload.parts["codes"], grid.bits, count).tolist()
    return [(gap, grid.low + grid.step * code) for gap, code in zip(gaps, codes, strict=True)]


def by_loop(values: list[int], gap_bits: int) -> list[tuple[int, int]]:
    found, zeros = [], 0
    for value in values:
        if value or zeros == 2**gap_bits - 1:
            found.append((zeros, value))
            zeros = 0
        else:
            zeros += 1
    return found


@given(sparse_values, st.integers(1, 6))
def test_entries_are_those_of_a_loop(values, gap_bits):
    payload = RelativeIndex(gap_bits).pack(torch.tensor(values, dtype=torch.int64), GRID)
    expected = by_loop(values, gap_bits)
    assert entries(payload, gap_bits) == expected
    assert payload.bits == len(expected) * (gap_bits + 3) + 64
    assert payload.nbytes == -(-len(expected) * gap_bits // 8) + -(-len(expected) * 3 // 8) + 8


@given(sparse_values.filter(any))
def test_without_fillers_it_is_a_row_of_scipys_csr(values):
    row = scipy.sparse.csr_array(np.array([values]))
    payload = RelativeIndex(7).pack(torch.tensor(values), GRID)
    gaps, codes = zip(*entries(payload, 7), strict=True)
    assert list(codes) == row.data.tolist()
    assert (np.cumsum(np.array(gaps) + 1) - 1).tolist() == row.indices.tolist()


@pytest.mark.parametrize("gap_bits", [1, 2, 4, 8])
def test_runs_of_zeros_around_a_power_of_two(gap_bits):
    """A run of 2^b zeros takes a filler, one of 2^b − 1 does not; before, between and after nonzero codes alike."""
    for zeros in (2**gap_bits - 1, 2**gap_bits, 2**gap_bits + 1, 2 ** (gap_bits + 1) - 1, 2 ** (gap_bits + 1)):
        for values in ([0] * zeros + [1], [1] + [0] * zeros + [2], [1] + [0] * zeros, [0] * zeros):
            integers = torch.tensor(values)
            payload = RelativeIndex(gap_bits).pack(integers, GRID)
            assert int(payload.parts["entries"]) == sum(map(bool, values)) + zeros // 2**gap_bits
            assert torch.equal(RelativeIndex(gap_bits).unpack(payload.parts, (len(values),), GRID).long(), integers)


@pytest.mark.parametrize("gap_bits", [0, 17, -1, 4.0, True, None])
def test_gaps_outside_1_to_16_bits_are_refused(gap_bits):
    with pytest.raises(FewbitsError, match="1 to 16"):
        RelativeIndex(gap_bits)


@pytest.mark.parametrize("grid", [IntegerGrid(-1, 1, 2), IntegerGrid(1, 4), IntegerGrid(-4, -1), IntegerGrid(-4, 5, 9)])
def test_a_grid_without_zero_has_nothing_to_leave_out(grid):
    with pytest.raises(FewbitsError, match="0 is not on"):
        RelativeIndex(4).pack(torch.tensor([grid.low]), grid)


def crafted(pairs: list[tuple[int, int]], count: int | None = None, gap_bits: int = 2) -> dict[str, torch.Tensor]:
    gaps, codes = ([pair[i] for pair in pairs] for i in (0, 1))
    return {
        "gaps": pack_bits(torch.tensor(gaps, dtype=torch.int64), gap_bits),
        "codes": pack_bits(torch.tensor(codes, dtype=torch.int64) - GRID.low, GRID.bits),
        "entries": torch.tensor([len(pairs) if count is None else count]),
    }


@pytest.mark.parametrize(
    ("pairs", "size", "words"),
    [
        ([(1, 2), (3, 4)], 5, "cover 6 places"),  # beyond the end
        ([(1, 2)], 6, "cover 2 places"),  # four zeros are left: they have a filler
        ([], 4, "cover 0 places"),
        ([(1, 0), (1, 1)], 4, "fills no gap"),
    ],
)
def test_entries_that_make_no_tensor_are_refused(pairs, size, words):
    with pytest.raises(FewbitsError, match=words):
        RelativeIndex(2).unpack(crafted(pairs), (size,), GRID)


@pytest.mark.parametrize("count", [-1, 0, 1, 3, 10**15, 2**62, -(2**63)])
def test_a_number_of_entries_that_lies_is_refused(count):
    with pytest.raises(FewbitsError):
        RelativeIndex(2).unpack(crafted([(1, 2), (3, 4)], count), (6,), GRID)


def test_crafted_entries_that_are_right_are_read():
    found = RelativeIndex(2).unpack(crafted([(1, 2), (3, 0), (3, 4)]), (5, 2), GRID)
    assert found.flatten().tolist() == [0, 2, 0, 0, 0, 0, 0, 0, 0, 4]
    assert RelativeIndex(2).unpack(crafted([(3, 0), (3, 0)]), (8,), GRID).tolist() == [0] * 8
