"""FloatParts: what a float is made of, by exact rationals, and the way back, by bits."""

import math
from fractions import Fraction

import pytest
import torch

from fewbits.errors import FewbitsError
from fewbits.formats.float_parts import FloatParts, check_holds
from fewbits.formats.rounding import RoundingMode

TYPES = [
    (torch.float16, torch.int16),
    (torch.bfloat16, torch.int16),
    (torch.float32, torch.int32),
    (torch.float64, torch.int64),
]


def some_of(dtype: torch.dtype, integer: torch.dtype) -> torch.Tensor:
    """All patterns of 16 bits; of wider types random ones, subnormals among them."""
    if dtype.itemsize == 2:
        return torch.arange(-(2**15), 2**15).to(torch.int16)
    patterns = torch.randint(-(2**63), 2**63 - 1, (20_000,), generator=torch.Generator().manual_seed(0))
    return torch.cat([patterns, patterns >> 13, torch.arange(-9, 9)]).to(integer)


@pytest.mark.parametrize(("dtype", "integer"), TYPES)
def test_every_number_is_its_parts_and_comes_back(dtype: torch.dtype, integer: torch.dtype) -> None:
    patterns = some_of(dtype, integer)
    x = patterns.view(dtype)
    parts = FloatParts.of(x)
    assert torch.equal(parts.nan, x.isnan())
    assert torch.equal(parts.infinite, x.isinf())
    assert torch.equal(parts.negative, x.signbit())
    back = parts.to_float(dtype)
    assert torch.equal(back[~parts.nan].view(integer), patterns[~parts.nan])
    assert back[parts.nan].isnan().all()
    assert torch.equal(back.signbit(), x.signbit())
    finite = x.isfinite().nonzero().flatten()[:: max(1, len(x) // 3000)]
    columns = (part[finite].tolist() for part in (x, parts.negative, parts.significand, parts.exponent))
    for number, negative, significand, exponent in zip(*columns, strict=True):
        assert Fraction(number) == (-1) ** negative * significand * Fraction(2) ** (exponent - 52)
        assert significand == 0 if number == 0 else 2**52 <= significand < 2**53


def test_infinities_are_above_every_finite_exponent() -> None:
    for dtype, _ in TYPES:
        assert FloatParts.of(torch.tensor([math.inf], dtype=dtype)).exponent.item() > 1023


@pytest.mark.parametrize("shift", [0, 1, 40, 52, 53, 54, 61, 62, 63, 64, 100, 114, 115, 124, 200, 1000, 5000])
def test_any_shift_is_exact_in_the_five_modes(shift: int) -> None:
    x = torch.tensor([1.0, 1.5, -1.0, -1.9999, 1.0 + 2.0**-52, 0.0, -0.0], dtype=torch.float64)
    shifts = torch.full((len(x),), shift)
    parts = FloatParts.of(x)
    exact = [Fraction(abs(number)) * 2**52 / 2**shift for number in x.tolist()]
    down, up = [math.floor(e) for e in exact], [math.ceil(e) for e in exact]
    is_negative = x.signbit().tolist()
    away = [math.floor(e + Fraction(1, 2)) for e in exact]
    expected = {
        RoundingMode.NEAREST_EVEN: [round(e) for e in exact],
        RoundingMode.NEAREST_AWAY: away,
        RoundingMode.TOWARD_ZERO: down,
        RoundingMode.UP: [d if n else u for d, u, n in zip(down, up, is_negative, strict=True)],
        RoundingMode.DOWN: [u if n else d for d, u, n in zip(down, up, is_negative, strict=True)],
    }
    for mode, integers in expected.items():
        assert parts.round(shifts, mode, None).tolist() == integers


def test_a_type_holds_what_its_limits_say() -> None:
    check_holds(torch.float16, 11, -24, 15, "it")
    for digits, lowest, highest in [(12, -24, 15), (11, -25, 15), (11, -24, 16)]:
        with pytest.raises(FewbitsError, match=r"torch\.float16 does not hold every number of it"):
            check_holds(torch.float16, digits, lowest, highest, "it")
    with pytest.raises(FewbitsError, match=r"none of torch\.float16"):
        check_holds(torch.int32, 2, 0, 2, "it")
