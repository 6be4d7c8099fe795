"""FloatFormat: what goes in, what is refused, and what it does not depend on."""

import math

import numpy as np
import pytest
import torch

from fewbits.errors import FewbitsError
from fewbits.formats import (
    BFLOAT16,
    BINARY16,
    BINARY32,
    FLOAT4_E2M1FN,
    FLOAT8_E4M3FN,
    FLOAT8_E5M2,
    FLOAT8_E8M0FNU,
    TF32,
    FloatFormat,
    Specials,
    Subnormals,
)


def test_shapes_strides_and_gradients() -> None:
    x = torch.linspace(-3, 3, 24).reshape(4, 6)
    rows = FLOAT8_E4M3FN.round(x)
    assert torch.equal(FLOAT8_E4M3FN.round(x.t()), rows.t())
    assert torch.equal(FLOAT8_E4M3FN.round(x[::2, 1::3]), rows[::2, 1::3])
    assert torch.equal(FLOAT8_E4M3FN.round(x[0].expand(3, 6)), rows[0].expand(3, 6))
    assert FLOAT8_E4M3FN.round(torch.tensor(1.06)).shape == ()
    for shape in [(0,), (3, 0)]:
        assert FLOAT8_E4M3FN.encode(torch.zeros(shape)).shape == FLOAT8_E4M3FN.round(torch.zeros(shape)).shape == shape
    trained = x.clone().requires_grad_()
    assert torch.equal(FLOAT8_E4M3FN.round(trained), rows)
    assert not FLOAT8_E4M3FN.round(trained).requires_grad


def test_a_processor_that_flushes_subnormals_changes_nothing() -> None:
    x = (torch.arange(-(2**10), 2**10) << 12).to(torch.int32)
    x = torch.where(x < 0, -x | -(2**31), x).view(torch.float32)  # subnormals of float32 of either sign
    expected = BFLOAT16.encode(x), BFLOAT16.round(x).view(torch.int32)
    assert expected[0].unique().numel() > 20
    assert torch.set_flush_denormal(True)
    try:
        found = BFLOAT16.encode(x), BFLOAT16.round(x).view(torch.int32)
    finally:
        torch.set_flush_denormal(False)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((0, 3), "1 exponent bit"),
        ((3, -1), "1 exponent bit"),
        ((8, 24), "2 to 32 bits"),
        ((4.0, 3), "whole numbers"),
        ((4, True), "whole numbers"),
        ((4, 3, 7.5), "whole numbers"),
        ((4, 3, 7, "FN"), "one of Specials"),
        ((4, 3, 7, Specials.FN, False), "one of Subnormals"),
        ((4, 0), "need a mantissa bit"),
        ((1, 3), "no normal number"),
        ((1, 0, None, Specials.FN), "no normal number"),
        ((4, 3, 8, Specials.FNUZ, Subnormals.GRADUAL, False), "no −0"),
        ((4, 3, 8, Specials.FNUZ, Subnormals.NORMAL), "no −0"),
        ((12, 3), "float64 does not hold"),
        ((4, 3, 1080), "float64 does not hold"),
        ((4, 3, -1020), "float64 does not hold"),
    ],
)
def test_formats_that_do_not_exist_are_refused(fields, message) -> None:
    with pytest.raises(FewbitsError, match=message):
        FloatFormat(*fields)


def test_the_outermost_formats_exist() -> None:
    assert FloatFormat(11, 20).largest == (2 - 2.0**-20) * 2.0**1023
    assert FloatFormat(11, 20, bias=1055).smallest_subnormal == 5e-324
    assert FloatFormat(1, 0, specials=Specials.NONE).values().tolist() == [-2.0, 0.0, 2.0]
    assert FloatFormat(2, 0, specials=Specials.NONE, signed=False).values().tolist() == [0, 1, 2, 4]


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64, torch.float8_e5m2])
def test_only_floats_are_encoded(dtype: torch.dtype) -> None:
    with pytest.raises(FewbitsError, match=r"none of torch\.float16.*convert"):
        BINARY16.encode(torch.zeros(2).to(dtype))


@pytest.mark.parametrize("mode", ["nearest", 0, None])
def test_only_rounding_modes_are_modes(mode) -> None:
    with pytest.raises(FewbitsError, match="give a RoundingMode"):
        BINARY16.encode(torch.zeros(2), mode)


@pytest.mark.parametrize("x", [math.nan, -math.nan])
def test_nan_needs_an_encoding(x: float) -> None:
    with pytest.raises(FewbitsError, match="no encoding"):
        FLOAT4_E2M1FN.encode(torch.tensor([1.0, x]))
    with pytest.raises(FewbitsError, match="no encoding"):
        FloatFormat(2, 1, specials=Specials.NONE, signed=False).encode(torch.tensor([-1.0]))
    with pytest.raises(FewbitsError, match="no encoding"):
        FloatFormat(2, 1, specials=Specials.NONE, subnormals=Subnormals.NORMAL).encode(torch.tensor([0.0]))


@pytest.mark.parametrize("patterns", [[-1], [256], [3, 2**40]])
def test_patterns_out_of_range_are_refused(patterns: list[int]) -> None:
    with pytest.raises(FewbitsError, match=r"not all of 0 … 255"):
        FLOAT8_E5M2.decode(torch.tensor(patterns))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64])
def test_only_integers_are_decoded(dtype: torch.dtype) -> None:
    with pytest.raises(FewbitsError, match="decodes integers"):
        FLOAT8_E5M2.decode(torch.zeros(2, dtype=dtype))


@pytest.mark.parametrize(
    ("fmt", "dtype"),
    [
        (BFLOAT16, torch.float16),
        (BINARY16, torch.bfloat16),
        (TF32, torch.bfloat16),
        (BINARY32, torch.float16),
        (FLOAT8_E8M0FNU, torch.float16),
        (FloatFormat(8, 7, bias=128), torch.bfloat16),  # one exponent too low
        (FloatFormat(8, 7, bias=126), torch.bfloat16),  # one too high
        (FloatFormat(9, 3), torch.float32),
    ],
)
def test_a_type_that_does_not_hold_the_format_is_refused(fmt: FloatFormat, dtype: torch.dtype) -> None:
    with pytest.raises(FewbitsError, match="does not hold every number"):
        fmt.round(torch.ones(2, dtype=dtype))
    with pytest.raises(FewbitsError, match="does not hold every number"):
        fmt.decode(torch.zeros(2, dtype=torch.int64), dtype)


@pytest.mark.parametrize(
    ("fmt", "dtype"),
    [(BINARY16, torch.float16), (BFLOAT16, torch.bfloat16), (BINARY32, torch.float32)],
)
def test_a_format_on_its_own_type_is_the_identity(fmt: FloatFormat, dtype: torch.dtype) -> None:
    integer = torch.int32 if dtype == torch.float32 else torch.int16
    patterns = torch.randint(-(2**31), 2**31, (50_000,), generator=torch.Generator().manual_seed(6)).to(integer)
    x = patterns.view(dtype)
    assert torch.equal(fmt.round(x)[~x.isnan()].view(integer), patterns[~x.isnan()])


@pytest.mark.parametrize(
    ("fmt", "dtype"),
    [(FLOAT8_E4M3FN, torch.uint8), (BINARY16, torch.uint16), (FloatFormat(5, 3), torch.uint16), (TF32, torch.uint32)],
)
def test_patterns_come_in_the_smallest_type(fmt: FloatFormat, dtype: torch.dtype) -> None:
    assert fmt.encode(torch.ones(3)).dtype == dtype


def test_only_short_formats_list_their_values() -> None:
    assert TF32.values().numel() == 2 * 255 * 2**10 - 1
    with pytest.raises(FewbitsError, match=r"2\^32 encodings"):
        BINARY32.values()


def test_what_is_no_tensor_is_refused() -> None:
    for wrong in (np.float32([1]), [1.0]):
        with pytest.raises(FewbitsError, match=f"what is rounded is a {type(wrong).__name__}; give a torch tensor"):
            BINARY16.encode(wrong)  # type: ignore[arg-type]
    with pytest.raises(FewbitsError, match="what is decoded is a ndarray"):
        BINARY16.decode(np.uint16([1]))  # type: ignore[arg-type]
