"""Arithmetic on special values in all modes, against the rational reference and NumPy's own float16."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from fewbits.formats import RoundingMode, float16
from fewbits.formats.float16 import reference, scalar

IEEE = [mode for mode in RoundingMode if mode is not RoundingMode.STOCHASTIC]
BINARY = ["add", "sub", "mul", "div"]

#: Zeros, the ends of the subnormals and of the normal numbers, 1 ± ulp, ½, 2, 3, infinity, quiet and signalling NaN.
EDGES = [0, 1, 2, 0x200, 0x3FF, 0x400, 0x401, 0x7FF, 0x3800, 0x3BFF, 0x3C00, 0x3C01, 0x4000, 0x4200, 0x7800, 0x7BFE,
         0x7BFF, 0x7C00, 0x7C01, 0x7E00, 0x7FFF]  # fmt: skip
FEW = [pattern | sign for pattern in EDGES for sign in (0, 0x8000)]
FEWER = [p | s for p in (0, 1, 0x3FF, 0x400, 0x3BFF, 0x3C00, 0x3C01, 0x7BFF, 0x7C00) for s in (0, 0x8000)]
FEWER += [0x7C01, 0x7E00, 0x1000, 0x6C01, 0xE800]


def counted(results: list[int]) -> float16.Counters:
    return float16.Counters(*(sum(result >> bit & 1 for result in results) for bit in range(16, 21)))


def check(name: str, cases: list[tuple[int, ...]], mode: RoundingMode) -> float16.Counters:
    """The compiled operation against the reference: patterns, and each flag how often."""
    expected = [getattr(reference, name)(*case, mode) for case in cases]
    assert [getattr(scalar, name)(*case, mode) for case in cases] == expected
    counters = float16.Counters()
    operands = [np.array(column, dtype=np.uint16) for column in zip(*cases, strict=True)]
    patterns = [result & 0xFFFF for result in expected]
    assert getattr(float16, name)(*operands, mode=mode, counters=counters).tolist() == patterns
    assert getattr(float16, name)(*operands, mode=mode).tolist() == patterns
    assert counters == counted(expected)
    return counters


@pytest.mark.parametrize("mode", IEEE)
@pytest.mark.parametrize("name", BINARY)
def test_special_pairs(name: str, mode: RoundingMode) -> None:
    raised = check(name, list(itertools.product(FEW, FEW)), mode)
    assert raised.invalid
    assert raised.inexact
    assert (raised.divide_by_zero > 0) == (name == "div")
    assert (raised.underflow > 0) == (name in ("mul", "div"))


@pytest.mark.parametrize("mode", IEEE)
def test_special_triples(mode: RoundingMode) -> None:
    raised = check("fma", list(itertools.product(FEWER, FEWER, FEWER)), mode)
    assert min(raised.invalid, raised.inexact, raised.overflow, raised.underflow) > 0


@pytest.mark.parametrize("mode", IEEE)
def test_random_operands(mode: RoundingMode) -> None:
    source = np.random.default_rng(int(mode))
    for name, operands in [*((name, 2) for name in BINARY), ("fma", 3)]:
        check(name, source.integers(0, 1 << 16, (1500, operands)).tolist(), mode)


@pytest.mark.parametrize("mode", IEEE)
def test_products_and_what_almost_cancels_them(mode: RoundingMode) -> None:
    source = np.random.default_rng(10 + int(mode))
    a, b = source.integers(0, 1 << 16, (2, 1500), dtype=np.uint16)
    c = float16.mul(a, b) ^ 0x8000
    near = (c + source.integers(-2, 3, 1500)).astype(np.uint16)
    check("fma", np.stack([a, b, near], 1).tolist(), mode)


@pytest.mark.parametrize("mode", IEEE)
def test_a_small_product_beside_a_large_term(mode: RoundingMode) -> None:
    """The product is as far from the last place of the sum as it can be, above and below it, and of both signs."""
    large = [p | s for p in (0x6800, 0x6801, 0x6BFF, 0x7800, 0x7BFE, 0x7BFF) for s in (0, 0x8000)]
    small = [p | s for p in (1, 3, 0x3FF, 0x400, 0x401, 0x7FF, 0x800, 0x1001, 0x2400) for s in (0, 0x8000)]
    check("fma", list(itertools.product(small, small[::2], large)), mode)


# --- against NumPy, which rounds to nearest even -------------------------------------------------------------------


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    """Bit for bit, but that NumPy's NaN depends on the processor and ours is one."""
    number = ~np.isnan(expected)
    return bool((found[number] == expected.view(np.uint16)[number]).all() and (found[~number] == scalar.NAN).all())


@pytest.mark.parametrize(
    ("name", "theirs"), [("add", np.add), ("sub", np.subtract), ("mul", np.multiply), ("div", np.divide)]
)
def test_random_pairs_are_numpys(name: str, theirs: np.ufunc) -> None:
    a, b = np.random.default_rng(0).integers(0, 1 << 16, (2, 1 << 20), dtype=np.uint16)
    with np.errstate(all="ignore"):
        expected = theirs(a.view(np.float16), b.view(np.float16))
    assert same(getattr(float16, name)(a, b), expected)
    assert same(getattr(float16, name)(a, b, counters=float16.Counters()), expected)


def test_every_root_is_numpys() -> None:
    every = np.arange(1 << 16, dtype=np.uint16)
    with np.errstate(all="ignore"):
        expected = np.sqrt(every.view(np.float16))
    assert same(float16.sqrt(every), expected)


@pytest.mark.parametrize("mode", IEEE)
def test_every_root_lies_between_the_squares(mode: RoundingMode) -> None:
    """In float64: a square of a float16, and of a middle of two, is exact."""
    every = np.arange(1, 0x7C00, dtype=np.uint16)
    counters = float16.Counters()
    root = float16.sqrt(every, mode=mode, counters=counters)
    x, r, below, above = (
        p.astype(np.uint16).view(np.float16).astype(np.float64) for p in (every, root, root - 1, root + 1)
    )
    if mode in (RoundingMode.NEAREST_EVEN, RoundingMode.NEAREST_AWAY):
        assert (((r + below) / 2) ** 2 < x).all()
        assert (x < ((r + above) / 2) ** 2).all()
    elif mode is RoundingMode.UP:
        assert ((below**2 < x) & (x <= r**2)).all()
    else:
        assert ((r**2 <= x) & (x < above**2)).all()
    assert counters == float16.Counters(inexact=int((r**2 != x).sum()))


@pytest.mark.parametrize("mode", IEEE)
def test_roots_are_the_references(mode: RoundingMode) -> None:
    check("sqrt", [(pattern,) for pattern in [*FEW, *range(0, 1 << 16, 53)]], mode)


# --- laws ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", IEEE)
def test_laws(mode: RoundingMode) -> None:
    a, b, c = np.random.default_rng(4).integers(0, 1 << 16, (3, 1 << 16), dtype=np.uint16)
    one = np.uint16(0x3C00)
    add, mul = float16.add(a, b, mode=mode), float16.mul(a, b, mode=mode)
    assert np.array_equal(add, float16.add(b, a, mode=mode))
    assert np.array_equal(mul, float16.mul(b, a, mode=mode))
    assert np.array_equal(float16.sub(a, b, mode=mode), float16.add(a, b ^ 0x8000, mode=mode))
    assert np.array_equal(float16.fma(a, one, b, mode=mode), add)
    assert np.array_equal(float16.fma(a, b, (a ^ b) & 0x8000, mode=mode), mul)
    assert np.array_equal(float16.fma(a, b, c, mode=mode), float16.fma(b, a, c, mode=mode))
    number = a & 0x7FFF <= 0x7C00
    assert np.array_equal(float16.div(a, one, mode=mode)[number], a[number])


def test_down_is_up_of_the_negative() -> None:
    a, b, c = np.random.default_rng(5).integers(0, 0x7C00, (3, 1 << 16), dtype=np.uint16)
    a, b, c = a | (b & 1) << 15, b, c | (a & 1) << 15
    for name, operands in (("add", (a, c)), ("mul", (a, c)), ("div", (a, b)), ("fma", (a, b, c))):
        minus = (a ^ 0x8000, *(x ^ 0x8000 if name in ("add", "fma") and x is c else x for x in operands[1:]))
        up = getattr(float16, name)(*operands, mode=RoundingMode.UP)
        down = getattr(float16, name)(*minus, mode=RoundingMode.DOWN)
        number = up & 0x7FFF <= 0x7C00
        assert np.array_equal(up[number] ^ 0x8000, down[number])


# --- by hand -------------------------------------------------------------------------------------------------------

NE, NA, TZ, UP, DN = IEEE


@pytest.mark.parametrize(
    ("name", "operands", "mode", "result", "raised"),
    [
        ("add", (0x3C00, 0xBC00), NE, 0x0000, {}),  # 1 − 1
        ("add", (0x3C00, 0xBC00), DN, 0x8000, {}),
        ("add", (0x8000, 0x8000), UP, 0x8000, {}),
        ("add", (0x0000, 0x0000), DN, 0x0000, {}),
        ("add", (0x3C01, 0x1000), NE, 0x3C02, {"inexact": 1}),  # 1 + 1.5 ulp: to even
        ("add", (0x3C00, 0x1000), NA, 0x3C01, {"inexact": 1}),  # 1 + 0.5 ulp: away
        ("add", (0x7BFF, 0x4C00), NE, 0x7C00, {"overflow": 1, "inexact": 1}),  # 65504 + 16 is the tie
        ("add", (0x7BFF, 0x4BFF), NE, 0x7BFF, {"inexact": 1}),
        ("add", (0x7BFF, 0x4BFF), UP, 0x7C00, {"overflow": 1, "inexact": 1}),
        ("add", (0xFBFF, 0xFBFF), UP, 0xFBFF, {"overflow": 1, "inexact": 1}),
        ("add", (0x7BFF, 0x7BFF), TZ, 0x7BFF, {"overflow": 1, "inexact": 1}),
        ("mul", (0x0400, 0x3BFF), NE, 0x0400, {"underflow": 1, "inexact": 1}),  # below 2^−14 before rounding
        ("mul", (0x0400, 0x3800), NE, 0x0200, {}),  # subnormal and exact
        ("mul", (0x0001, 0x3800), NE, 0x0000, {"underflow": 1, "inexact": 1}),
        ("mul", (0x8001, 0x0001), DN, 0x8001, {"underflow": 1, "inexact": 1}),
        ("mul", (0x0000, 0xFC00), NE, 0x7FFF, {"invalid": 1}),
        ("mul", (0x7E01, 0x3C00), NE, 0x7FFF, {}),
        ("mul", (0x7C01, 0x3C00), NE, 0x7FFF, {"invalid": 1}),
        ("div", (0xBC00, 0x0000), NE, 0xFC00, {"divide_by_zero": 1}),
        ("div", (0x7C00, 0x8000), NE, 0xFC00, {}),
        ("sqrt", (0x8000,), DN, 0x8000, {}),
        ("sqrt", (0xFC00,), NE, 0x7FFF, {"invalid": 1}),
        ("fma", (0x0000, 0x7C00, 0x7E00), NE, 0x7FFF, {}),
        ("fma", (0x0000, 0x7C00, 0x7D00), NE, 0x7FFF, {"invalid": 1}),
        ("fma", (0x7C00, 0x3C00, 0xFC00), NE, 0x7FFF, {"invalid": 1}),
        ("fma", (0x7800, 0x4000, 0xFBFF), NE, 0x5000, {}),  # 65536 is no overflow on the way
    ],
)
def test_by_hand(name: str, operands: tuple, mode: RoundingMode, result: int, raised: dict[str, int]) -> None:
    counters = float16.Counters()
    found = getattr(float16, name)(*map(np.uint16, operands), mode=mode, counters=counters)
    assert (hex(int(found)), counters) == (hex(result), float16.Counters(**raised))


def test_the_reference_knows_the_numbers_of_the_standard() -> None:
    assert reference.decode(0x0001) == Fraction(1, 2**24)
    assert reference.decode(0x0400) == Fraction(1, 2**14)
    assert reference.decode(0xFBFF) == -65504
    assert reference.decode(0x3555) == Fraction(1365, 4096)
