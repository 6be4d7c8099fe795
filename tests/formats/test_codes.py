"""Codes: exact sizes, decoding in exact rationals, bytes, counts and entropy."""

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewbits.errors import FewbitsError
from fewbits.formats import Codes, IntegerGrid, pack_bits
from fewbits.formats.codes import Scheme


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


# --- schemes ---------------------------------------------------------------------------------------------------------

TYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def drawn(grid: IntegerGrid, shape: tuple[int, ...]) -> torch.Tensor:
    numbers = torch.randint(grid.points, shape, generator=torch.Generator().manual_seed(0))
    return (grid.low + grid.step * numbers).to(grid.dtype)


def by_group(codes: Codes) -> list[tuple[int, int, float]]:
    """Group, integer and value of each element."""
    size = codes.integers.numel() // codes.groups
    values = zip(codes.integers.flatten().tolist(), codes.decode().flatten().tolist(), strict=True)
    return [(place // size, integer, value) for place, (integer, value) in enumerate(values)]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("grid", [IntegerGrid(0, 7), IntegerGrid(-2, 1), IntegerGrid(-3, 9, 4), IntegerGrid(0, 255)])
def test_a_codebook_is_looked_up(dtype, grid):
    table = torch.randn(4, grid.points, generator=torch.Generator().manual_seed(0)).to(dtype)
    codes = Codes(drawn(grid, (8, 3)), grid, {"codebook": table}, 4, Scheme.CODEBOOK, dtype)
    assert codes.decode().dtype == dtype
    for group, integer, value in by_group(codes):
        assert value == table[group, (integer - grid.low) // grid.step].item()
    assert codes.bits == 24 * grid.bits + 4 * grid.points * dtype.itemsize * 8


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_planes_are_a_sum_of_signs(dtype, bits):
    """Coefficients of few bits, so that sums are exact in any type and order."""
    grid = IntegerGrid(0, 2**bits - 1)
    table = torch.randint(-16, 17, (2, bits), generator=torch.Generator().manual_seed(bits)) / 8
    codes = Codes(drawn(grid, (2, 40)), grid, {"coefficients": table.to(dtype)}, 2, Scheme.PLANES, dtype)
    assert codes.decode().dtype == dtype
    for group, integer, value in by_group(codes):
        signs = [1 if bit == "1" else -1 for bit in f"{integer:0{bits}b}"[::-1]]  # bit 0 first
        assert Fraction(value) == sum(Fraction(a) * s for a, s in zip(table[group].tolist(), signs, strict=True))
    assert codes.bits == 80 * bits + 2 * bits * dtype.itemsize * 8


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("high", [1, 7, 127])
@pytest.mark.parametrize("exponent", [-14, 0, 15])
def test_powers_are_exact_until_the_type_ends(dtype, high, exponent):
    every = torch.arange(-high, high + 1).to(torch.int8)
    parts = every, IntegerGrid(-high, high), {"scale": torch.tensor([2.0**exponent]).to(dtype)}, 1
    smallest = Fraction(torch.finfo(dtype).smallest_normal) * Fraction(torch.finfo(dtype).eps)
    for _, q, value in by_group(Codes(*parts, Scheme.POWERS, dtype)):
        exact = Fraction(2) ** (exponent + abs(q) - high) * ((q > 0) - (q < 0))
        assert Fraction(value) == (exact if abs(exact) >= smallest else 0)
    root = math.sqrt(2) if dtype == torch.float64 else float(np.float32(math.sqrt(2)))
    for _, q, value in by_group(Codes(*parts, Scheme.ROOT_POWERS, dtype)):
        twos, odd = divmod(abs(q) - high, 2)
        exact = math.ldexp(root if odd else 1.0, twos + exponent) * ((q > 0) - (q < 0))
        assert value == torch.tensor(exact, dtype=torch.float64).to(dtype).item()


@pytest.mark.parametrize("scheme", Scheme)
@pytest.mark.parametrize("shape", [(0,), (3, 0), (), (1, 1, 1)])
def test_every_scheme_decodes_any_shape(scheme, shape):
    sizes = {"codebook": (1, 4), "coefficients": (1, 2)}
    for names in scheme.tables:
        tables = {name: torch.ones(sizes.get(name, (1,))) for name in names if name != "zero_point"}
        tables |= {name: torch.ones(1, dtype=torch.int8) for name in names if name == "zero_point"}
        integers = torch.ones(shape, dtype=torch.int8)
        decoded = Codes(integers, IntegerGrid(0, 3), tables, 1, scheme, torch.float16).decode()
        assert (decoded.shape, decoded.dtype) == (torch.Size(shape), torch.float16)
