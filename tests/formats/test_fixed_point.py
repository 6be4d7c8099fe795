"""FixedPoint against exact rationals, the formula of WAGE in float64, and torch's fake quantization."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewbits.errors import FewbitsError
from fewbits.formats import FixedPoint, RoundingMode

IEEE = [mode for mode in RoundingMode if mode is not RoundingMode.STOCHASTIC]
FORMATS = [
    FixedPoint(0, 1),
    FixedPoint(0, 7, symmetric=True),
    FixedPoint(1, 0, symmetric=True),
    FixedPoint(3, 4),
    FixedPoint(7, 0),
    FixedPoint(0, 31),
    FixedPoint(31, 0),
    FixedPoint(15, 16, symmetric=True),
]


def by_definition(fmt: FixedPoint, x: float, mode: RoundingMode) -> int:
    end = 2 ** (fmt.integer_bits + fmt.fraction_bits)
    low, high = (1 - end if fmt.symmetric else -end), end - 1
    if math.isinf(x):
        return high if x > 0 else low
    scaled = Fraction(x) * 2**fmt.fraction_bits
    down, up = math.floor(scaled), math.ceil(scaled)
    toward_zero, away = (down, up) if x > 0 else (up, down)
    if mode is RoundingMode.NEAREST_EVEN:
        integer = round(scaled)
    elif mode is RoundingMode.NEAREST_AWAY:
        integer = away if abs(away - scaled) <= Fraction(1, 2) else toward_zero
    else:
        integer = {RoundingMode.TOWARD_ZERO: toward_zero, RoundingMode.UP: up, RoundingMode.DOWN: down}[mode]
    return min(max(integer, low), high)


def check(fmt: FixedPoint, numbers: list[float], mode: RoundingMode) -> None:
    x = torch.tensor(numbers, dtype=torch.float64)
    expected = [by_definition(fmt, number, mode) for number in numbers]
    assert fmt.encode(x, mode).tolist() == expected
    rounded = fmt.round(x, mode)
    assert [Fraction(r) for r in rounded.tolist()] == [Fraction(k, 2**fmt.fraction_bits) for k in expected]
    assert rounded.dtype == x.dtype
    assert torch.equal(fmt.round(rounded, mode), rounded)


@pytest.mark.parametrize("mode", IEEE)
@pytest.mark.parametrize("fmt", FORMATS)
def test_numbers_of_every_size_in_all_modes(fmt: FixedPoint, mode: RoundingMode) -> None:
    end = 2 ** (fmt.integer_bits + fmt.fraction_bits)
    integers = {*range(-20, 20), -end, 1 - end, 2 - end, end - 2, end - 1}
    points = [(k + part) * 2.0**-fmt.fraction_bits for k in integers for part in (-0.5, 0.0, 0.25, 0.5)]
    near = [q for p in points for q in (math.nextafter(p, -math.inf), p, math.nextafter(p, math.inf))]
    powers = [s * 1.25 * 2.0**e for e in range(-1074, 1024, 3) for s in (1, -1)]
    extremes = [0.0, -0.0, 5e-324, -5e-324, 1e-310, -1e-310, 1.7e308, -1.7e308, math.inf, -math.inf]
    check(fmt, near + powers + extremes, mode)


@given(
    sizes=st.tuples(st.integers(0, 31), st.integers(0, 31), st.booleans()).filter(lambda s: 1 <= s[0] + s[1] <= 31),
    numbers=st.lists(st.floats(allow_nan=False) | st.floats(-4, 4), max_size=20),
    mode=st.sampled_from(IEEE),
)
def test_any_format_of_a_user(sizes: tuple[int, int, bool], numbers: list[float], mode: RoundingMode) -> None:
    check(FixedPoint(*sizes), numbers, mode)


@pytest.mark.parametrize("k", [2, 4, 8, 12, 16])
def test_it_is_q_of_wage(k: int) -> None:
    sigma = 2.0 ** (1 - k)
    x = torch.randn(5000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = torch.cat([x, torch.arange(-3, 3, 0.5, dtype=torch.float64) * sigma])
    expected = torch.clip(sigma * torch.round(x / sigma), -1 + sigma, 1 - sigma)
    assert torch.equal(FixedPoint(0, k - 1, symmetric=True).round(x), expected)


def test_torch_fake_quantization_agrees() -> None:
    fmt = FixedPoint(3, 4)
    x = 20 * torch.randn(50_000, generator=torch.Generator().manual_seed(1))
    expected = torch.fake_quantize_per_tensor_affine(x, 2.0**-4, 0, -128, 127)
    assert torch.equal(fmt.round(x), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_every_input_type_is_rounded_alike(dtype: torch.dtype) -> None:
    x = torch.randn(2000, generator=torch.Generator().manual_seed(2)).to(dtype)
    x = torch.cat(
        [x, torch.tensor([math.inf, -math.inf, torch.finfo(dtype).max, torch.finfo(dtype).tiny], dtype=dtype)]
    )
    fmt = FixedPoint(1, 5)
    assert torch.equal(fmt.encode(x), fmt.encode(x.double()))
    assert fmt.round(x).dtype == dtype
    assert torch.equal(fmt.round(x).double(), fmt.round(x.double()))
    long = FixedPoint(20, 8)  # wider than the range of float16
    assert torch.equal(long.encode(x), long.encode(x.double()))


@pytest.mark.parametrize(("x", "low"), [(0.3, 0.25), (-0.3, -0.25), (2.0**-9, 0.0), (0.25 / 2048, 0.0)])
def test_the_stochastic_mean_is_x(x: float, low: float) -> None:
    fmt, draws = FixedPoint(1, 2), 100_000
    generator = torch.Generator().manual_seed(3)
    numbers = fmt.round(torch.full((draws,), x, dtype=torch.float64), RoundingMode.STOCHASTIC, generator)
    high = low + math.copysign(0.25, x)
    assert set(numbers.tolist()) == {low, high}
    chance = (x - low) / (high - low)
    went = int((numbers == high).sum())
    assert abs(went - draws * chance) < 5 * math.sqrt(draws * chance * (1 - chance))  # z = 5: one in 1.7 million
    with pytest.raises(FewbitsError, match="needs a bit source"):
        fmt.round(numbers, RoundingMode.STOCHASTIC)


@pytest.mark.parametrize("fmt", [f for f in FORMATS if f.bits <= 16])
def test_values_and_limits(fmt: FixedPoint) -> None:
    values = fmt.values()
    assert values.numel() == 2**fmt.bits - fmt.symmetric
    assert (values[1:] - values[:-1] == 2.0**-fmt.fraction_bits).all()
    assert (values[0], values[-1]) == (fmt.smallest, fmt.largest)
    assert fmt.largest == 2.0**fmt.integer_bits - 2.0**-fmt.fraction_bits
    assert fmt.smallest == (-fmt.largest if fmt.symmetric else -(2.0**fmt.integer_bits))
    assert torch.equal(fmt.round(values), values)
    assert fmt.unit == 2.0**-fmt.fraction_bits


@pytest.mark.parametrize(
    ("fmt", "dtype"),
    [
        (FixedPoint(0, 7), torch.int8),
        (FixedPoint(1, 7), torch.int16),
        (FixedPoint(16, 0), torch.int32),
        (FixedPoint(0, 31), torch.int32),
    ],
)
def test_integers_come_in_the_smallest_type(fmt: FixedPoint, dtype: torch.dtype) -> None:
    assert fmt.encode(torch.ones(3)).dtype == dtype


def test_shapes_strides_and_gradients() -> None:
    fmt, x = FixedPoint(2, 3), torch.linspace(-5, 5, 24).reshape(4, 6)
    rows = fmt.round(x)
    assert torch.equal(fmt.round(x.t()), rows.t())
    assert torch.equal(fmt.round(x[::2, 1::3]), rows[::2, 1::3])
    assert fmt.round(torch.tensor(0.3)).shape == ()
    for shape in [(0,), (3, 0)]:
        assert fmt.encode(torch.zeros(shape)).shape == fmt.round(torch.zeros(shape)).shape == shape
    assert not fmt.round(x.clone().requires_grad_()).requires_grad


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((0, 0), "1 bits with its sign"),
        ((16, 16), "33 bits"),
        ((-1, 4), "whole numbers"),
        ((4, -1), "whole numbers"),
        ((1.0, 4), "whole numbers"),
        ((True, 4), "whole numbers"),
    ],
)
def test_formats_that_do_not_exist_are_refused(fields, message) -> None:
    with pytest.raises(FewbitsError, match=message):
        FixedPoint(*fields)


def test_bad_input_is_refused() -> None:
    fmt = FixedPoint(3, 4)
    with pytest.raises(FewbitsError, match="NaN has no encoding"):
        fmt.encode(torch.tensor([0.0, math.nan]))
    with pytest.raises(FewbitsError, match=r"none of torch\.float16"):
        fmt.encode(torch.zeros(2, dtype=torch.int64))
    with pytest.raises(FewbitsError, match="give a RoundingMode"):
        fmt.encode(torch.zeros(2), "nearest")
    with pytest.raises(FewbitsError, match="decodes integers"):
        fmt.decode(torch.zeros(2))
    for integer in (128, -129):
        with pytest.raises(FewbitsError, match="not all of -128 … 127"):
            fmt.decode(torch.tensor([0, integer]))
    with pytest.raises(FewbitsError, match="not all of -127 … 127"):
        FixedPoint(3, 4, symmetric=True).decode(torch.tensor([-128]))
    with pytest.raises(FewbitsError, match=r"2\^21 numbers"):
        FixedPoint(10, 10).values()


@pytest.mark.parametrize(
    ("fmt", "dtype", "holds"),
    [
        (FixedPoint(0, 24), torch.float32, True),
        (FixedPoint(0, 25), torch.float32, False),
        (FixedPoint(0, 11), torch.float16, True),
        (FixedPoint(0, 12), torch.float16, False),
        (FixedPoint(0, 8), torch.bfloat16, True),
        (FixedPoint(9, 0), torch.bfloat16, False),
    ],
)
def test_a_type_must_hold_every_number(fmt: FixedPoint, dtype: torch.dtype, holds: bool) -> None:
    ends = torch.tensor([fmt.smallest, fmt.largest], dtype=torch.float64)
    assert torch.equal(ends.to(dtype).double(), ends) == holds
    if holds:
        assert torch.equal(fmt.round(ends.to(dtype)).double(), ends)
    else:
        with pytest.raises(FewbitsError, match="does not hold every number"):
            fmt.round(ends.to(dtype))
