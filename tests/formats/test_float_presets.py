"""The presets against ml_dtypes, NumPy and torch's own types, bit by bit."""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
import torch

from fewbits import formats
from fewbits.formats import (
    BFLOAT16,
    BINARY16,
    BINARY32,
    FLOAT8_E4M3FN,
    FLOAT8_E4M3FNUZ,
    FLOAT8_E5M2,
    FLOAT8_E5M2FNUZ,
    FLOAT8_E8M0FNU,
    FloatFormat,
    RoundingMode,
    Specials,
)

ML_DTYPES = [
    *["float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2"],
    *["float8_e5m2fnuz", "float8_e8m0fnu", "float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn", "bfloat16"],
]
PRESETS: list[tuple[FloatFormat, np.dtype]] = [
    *[(getattr(formats, name.upper()), np.dtype(getattr(ml_dtypes, name))) for name in ML_DTYPES],
    (BINARY16, np.dtype(np.float16)),
]
TORCH = [
    (BINARY16, torch.float16),
    (BFLOAT16, torch.bfloat16),
    (replace(FLOAT8_E4M3FN, saturate=True), torch.float8_e4m3fn),  # torch saturates this one only
    (FLOAT8_E5M2, torch.float8_e5m2),
    (FLOAT8_E4M3FNUZ, torch.float8_e4m3fnuz),
    (FLOAT8_E5M2FNUZ, torch.float8_e5m2fnuz),
]

all_presets = pytest.mark.parametrize(("fmt", "dtype"), PRESETS, ids=lambda part: getattr(part, "name", ""))


def unsigned(dtype: np.dtype) -> np.dtype:
    return np.dtype(f"u{dtype.itemsize}")


def encodings(fmt: FloatFormat) -> np.ndarray:
    return np.arange(2**fmt.bits, dtype=np.uint8 if fmt.bits <= 8 else np.uint16)


def as_torch(x: np.ndarray) -> torch.Tensor:
    if x.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(x)


def all_encoded_alike(fmt: FloatFormat, dtype: np.dtype, x: np.ndarray) -> None:
    """Every bit the same; of NaN, whose payload NumPy keeps, that it is NaN and its sign.

    ml_dtypes 0.6 takes numbers just above 2^−127, the smallest of E8M0, to 2^−126: these are left to the definition.
    """
    with np.errstate(all="ignore"):
        if fmt is FLOAT8_E8M0FNU:
            wide = x.astype(np.float64)
            x = x[~((wide > 2.0**-127) & (wide < 1.5 * 2.0**-127))]
        if fmt.specials is Specials.NONE:
            x = x[~np.isnan(x)]
        nan = np.isnan(x)
        expected = x.astype(dtype).view(unsigned(dtype))
    found = fmt.encode(as_torch(x)).numpy()
    assert np.array_equal(found[~nan], expected[~nan])
    assert np.isnan(found.view(dtype)[nan]).all()
    if fmt.signed:
        assert np.array_equal(found[nan] >> (fmt.bits - 1), expected[nan] >> (fmt.bits - 1))


@all_presets
def test_all_encodings_decode_as_theirs(fmt: FloatFormat, dtype: np.dtype) -> None:
    with np.errstate(invalid="ignore"):  # of signalling NaN
        expected = encodings(fmt).view(dtype).astype(np.float64)
    found = fmt.decode(torch.from_numpy(encodings(fmt)), torch.float64).numpy()
    number = ~np.isnan(expected)
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    assert np.array_equal(found[number].view(np.int64), expected[number].view(np.int64))
    single = fmt.decode(torch.from_numpy(encodings(fmt))).numpy()
    assert single.dtype == np.float32
    assert np.array_equal(single, found, equal_nan=True)


@all_presets
def test_all_numbers_come_back_to_their_encoding(fmt: FloatFormat, dtype: np.dtype) -> None:
    patterns = encodings(fmt)[~fmt.decode(torch.from_numpy(encodings(fmt))).isnan().numpy()]
    numbers = fmt.decode(torch.from_numpy(patterns))
    for mode in set(RoundingMode) - {RoundingMode.STOCHASTIC}:
        assert np.array_equal(fmt.encode(numbers, mode).numpy(), patterns)


@all_presets
@pytest.mark.parametrize("source", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_all_numbers_of_16_bits_are_encoded_as_theirs(fmt: FloatFormat, dtype: np.dtype, source: type) -> None:
    all_encoded_alike(fmt, dtype, np.arange(2**16, dtype=np.uint16).view(source))


@all_presets
def test_float32_is_encoded_as_theirs(fmt: FloatFormat, dtype: np.dtype) -> None:
    source = np.random.default_rng(7)
    bits = source.integers(0, 2**32, 100_000, dtype=np.uint32).view(np.float32)
    exponent = source.uniform(np.log2(fmt.smallest_subnormal) - 3, np.log2(fmt.largest) + 2, 100_000)
    with np.errstate(over="ignore"):
        inside = (source.choice([-1, 1], 100_000) * np.exp2(exponent)).astype(np.float32)
    values = np.sort(fmt.values().numpy())
    middles = ((values[1:] + values[:-1]) / 2).astype(np.float32)
    near = [np.nextafter(middles, np.float32(end), dtype=np.float32) for end in (-np.inf, np.inf)]
    all_encoded_alike(fmt, dtype, np.concatenate([bits, inside, middles, *near]))


@all_presets
def test_float64_is_rounded_once(fmt: FloatFormat, dtype: np.dtype) -> None:
    """A little beyond the middle of two numbers: through float32 (as in ml_dtypes) it would look like the middle."""
    values = fmt.values()
    low, high = values[:-1], values[1:]
    middle = (low + high) / 2
    if fmt.mantissa_bits == 0:
        assert torch.equal(fmt.round(middle), high)  # one digit: of two equally near the larger one
    up, down = torch.nextafter(middle, high), torch.nextafter(middle, low)
    assert torch.equal(up.float(), middle.float())
    assert torch.equal(fmt.round(up), high)
    assert torch.equal(fmt.round(down), low)
    assert torch.equal(fmt.round(up, RoundingMode.DOWN), low)


def test_binary16_of_float64_is_numpys() -> None:
    bits = np.random.default_rng(8).integers(-(2**63), 2**63, 100_000).view(np.float64)
    inside = np.ldexp(np.random.default_rng(9).uniform(-2, 2, 100_000), np.arange(100_000) % 44 - 28)
    all_encoded_alike(BINARY16, np.dtype(np.float16), np.concatenate([bits, inside]))


def test_binary32_of_float64_is_numpys() -> None:
    source = np.random.default_rng(10)
    bits = source.integers(-(2**63), 2**63, 100_000).view(np.float64)
    inside = np.ldexp(source.uniform(-2, 2, 300_000), np.arange(300_000) % 282 - 152)
    all_encoded_alike(BINARY32, np.dtype(np.float32), np.concatenate([bits, inside]))


@pytest.mark.parametrize(("fmt", "dtype"), TORCH, ids=lambda part: str(part) if isinstance(part, torch.dtype) else "")
def test_torch_agrees_where_it_has_the_type(fmt: FloatFormat, dtype: torch.dtype) -> None:
    integer = torch.uint8 if dtype.itemsize == 1 else torch.uint16
    patterns = torch.arange(2**fmt.bits).to(integer)
    assert torch.allclose(fmt.decode(patterns), patterns.view(dtype).float(), rtol=0, atol=0, equal_nan=True)
    scale = torch.logspace(-12, 6, 100_000, base=10)
    x = scale * torch.randn(100_000, generator=torch.Generator().manual_seed(11))
    assert torch.equal(fmt.encode(x).to(torch.int64), x.to(dtype).view(integer).to(torch.int64))
