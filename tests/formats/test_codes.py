"""Codes: exact sizes, decoding in exact rationals, bytes, counts and entropy."""

from collections import Counter
from fractions import Fraction

import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewbits.errors import FewbitsError
from fewbits.formats import Codes, IntegerGrid, pack_bits


@pytest.mark.parametrize(
    ("grid", "bits", "dtype"),
    [
        (IntegerGrid(-1, 1, 2), 1, torch.int8),
        (IntegerGrid(-1, 1), 2, torch.int8),
        (IntegerGrid(-128, 127), 8, torch.int8),
        (IntegerGrid(0, 255), 8, torch.int16),
        (IntegerGrid(-32768, 32767), 16, torch.int16),
        (IntegerGrid(0, 65535), 16, torch.int32),
    ],
)
def test_a_grid_knows_its_bits_and_its_type(grid, bits, dtype):
    assert (grid.bits, grid.dtype) == (bits, dtype)


@pytest.mark.parametrize("numbers", [(1, 1, 1), (2, 1, 1), (-1, 2, 2), (0, 3, 0)])
def test_no_grid_without_two_points(numbers):
    with pytest.raises(FewbitsError, match="no grid"):
        IntegerGrid(*numbers)


def test_sizes_count_payload_tables_and_padding():
    tables = {"scale": torch.zeros(3), "zero_point": torch.zeros(3, dtype=torch.int8)}
    codes = Codes(torch.zeros(3, 3, dtype=torch.int8), IntegerGrid(-4, 3), tables, groups=3)
    assert codes.bits == 9 * 3 + 3 * 32 + 3 * 8
    assert codes.nbytes == 4 + 12 + 3  # 27 bits take 4 bytes


def test_decode_is_scale_times_integer_minus_zero_point_rounded_once():
    generator = torch.Generator().manual_seed(0)
    integers = torch.randint(-128, 128, (4, 6), generator=generator).to(torch.int8)
    scale = torch.rand(8, generator=generator)
    zero = torch.randint(-128, 128, (8,), generator=generator).to(torch.int8)
    decoded = Codes(integers, IntegerGrid(-128, 127), {"scale": scale, "zero_point": zero}, groups=8).decode()
    for position, (integer, value) in enumerate(
        zip(integers.flatten().tolist(), decoded.flatten().tolist(), strict=True)
    ):
        group = position // 3
        exact = Fraction(scale[group].item()) * (integer - zero[group].item())
        assert value == torch.tensor(float(exact), dtype=torch.float64).to(torch.float32).item()


@pytest.mark.parametrize("shape", [(0,), (3, 0), (), (2, 3, 4)])
def test_any_shape_packs_and_comes_back(shape):
    grid = IntegerGrid(-1, 1)
    integers = torch.randint(-1, 2, shape, generator=torch.Generator().manual_seed(1)).to(torch.int8)
    codes = Codes(integers, grid, {}, groups=1)
    assert torch.equal(Codes.unpacked(codes.packed(), shape, grid), integers)
    assert codes.decode().shape == shape


def test_a_code_that_the_grid_does_not_have_is_refused():
    with pytest.raises(FewbitsError, match="outside"):
        Codes.unpacked(pack_bits(torch.tensor([3]), 2), (1,), IntegerGrid(-1, 1))


@pytest.mark.parametrize("numbers", [(0, 2**31), (-(2**31) - 1, 0), (-(2**30), 2**30, 2**16), (0, 2**64)])
def test_no_grid_beyond_32_bits(numbers):
    with pytest.raises(FewbitsError, match="32 bits"):
        IntegerGrid(*numbers)


@pytest.mark.parametrize("grid", [IntegerGrid(-3, 3), IntegerGrid(-3, 3, 3), IntegerGrid(5, 11, 2), IntegerGrid(0, 1)])
def test_numbers_count_the_points_upwards(grid):
    points = torch.arange(grid.low, grid.high + 1, grid.step)
    assert grid.points == len(points)
    assert grid.numbers(points).tolist() == list(range(len(points)))
    assert torch.equal(grid.integers(grid.numbers(points), (len(points), 1)), points[:, None].to(grid.dtype))


@pytest.mark.parametrize(
    ("integers", "grid", "words"),
    [
        (torch.tensor([0, 2]), IntegerGrid(-1, 1), "0 to 2 do not lie on"),
        (torch.tensor([-2, 0]), IntegerGrid(-1, 1), "-2 to 0 do not lie on"),
        (torch.tensor([2**32]), IntegerGrid(-1, 1), "do not lie on"),
        (torch.tensor([-1, 0]), IntegerGrid(-1, 1, 2), "between two points"),
        (torch.tensor([0.0]), IntegerGrid(-1, 1), "codes are torch.float32"),
        (torch.tensor([True]), IntegerGrid(-1, 1), "codes are torch.bool"),
    ],
)
def test_integers_that_are_not_on_the_grid_are_refused(integers, grid, words):
    for method in (grid.numbers, grid.counts, lambda tensor: Codes(tensor, grid, {}, groups=1).packed()):
        with pytest.raises(FewbitsError, match=words):
            method(integers)


@given(st.lists(st.integers(-4, 4), max_size=50))
def test_counts_and_entropy_are_those_of_python_and_scipy(values):
    grid = IntegerGrid(-8, 8, 2)
    integers = 2 * torch.tensor(values, dtype=torch.int64)
    counter = Counter(integers.tolist())
    assert grid.counts(integers).tolist() == [counter[point] for point in range(-8, 9, 2)]
    expected = scipy.stats.entropy(list(counter.values()), base=2) if values else 0.0
    # Nine terms below 1, each from a few correctly rounded operations.
    assert Codes(integers, grid, {}, groups=1).entropy == pytest.approx(expected, abs=1e-14)


def test_counts_of_more_than_a_million_codes():
    integers = torch.arange(-1, 2, dtype=torch.int8).repeat(10**6)
    assert IntegerGrid(-1, 1).counts(integers).tolist() == [10**6] * 3


def test_a_grid_is_of_whole_numbers():
    for low, high in ((0.5, 3.5), ("a", 3)):
        with pytest.raises(FewbitsError, match="whole numbers"):
            IntegerGrid(low, high)
