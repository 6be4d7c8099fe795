"""Codes: exact sizes, decoding in exact rationals, and bytes."""

from fractions import Fraction

import pytest
import torch

from fewbits.errors import FewbitsError
from fewbits.formats import Codes, IntegerGrid


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
    from fewbits.formats import pack_bits

    with pytest.raises(FewbitsError, match="outside"):
        Codes.unpacked(pack_bits(torch.tensor([3]), 2), (1,), IntegerGrid(-1, 1))
