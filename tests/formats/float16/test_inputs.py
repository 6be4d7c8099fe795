"""What the operations accept and give back, and what they refuse."""

import numpy as np
import pytest
import torch

from fewbits.errors import FewbitsError
from fewbits.formats import RoundingMode, float16

SOURCE = np.random.default_rng(0)


def patterns(*shape: int) -> np.ndarray:
    return SOURCE.integers(0, 0x7C00, shape, dtype=np.uint16)


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return (a.view(np.float16) * b.view(np.float16)).view(np.uint16)


@pytest.mark.parametrize("counters", [None, float16.Counters()])
@pytest.mark.parametrize(
    ("a", "b"),
    [
        (patterns(4, 1), patterns(3)),
        (patterns(2, 3, 4), patterns()),
        (patterns(6, 8)[::2, ::-3], patterns(8, 3).T[:, ::3]),
        (patterns(0), patterns(1)),
        (patterns(0, 3), patterns(3)),
        (patterns(), patterns()),
        (patterns(3)[0], patterns(3)),
    ],
)
def test_shapes_and_strides_are_numpys(a: np.ndarray, b: np.ndarray, counters: float16.Counters | None) -> None:
    found = float16.mul(a, b, counters=counters)
    expected = product(np.ascontiguousarray(a).reshape(np.shape(a)), np.ascontiguousarray(b).reshape(np.shape(b)))
    assert isinstance(found, np.ndarray)
    assert (found.dtype, found.shape) == (np.uint16, expected.shape)
    assert np.array_equal(found, expected)


def test_broadcasting_three_operands() -> None:
    a, b, c = patterns(5, 1, 1), patterns(4, 1), patterns(3)
    full = [np.broadcast_to(x, (5, 4, 3)).copy() for x in (a, b, c)]
    assert np.array_equal(float16.fma(a, b, c), float16.fma(*full))


def test_operands_are_left_alone_and_results_are_the_callers() -> None:
    a = patterns(5)
    before = a.copy()
    float16.mul(a, a)[:] = 0
    float16.to_float32(a)[:] = 0
    assert np.array_equal(a, before)


def test_torch_tensors_come_back_as_torch_tensors() -> None:
    a, b = torch.from_numpy(patterns(3, 4)), torch.from_numpy(patterns(4))
    total = float16.add(a.T[:, :2], b[:2])
    assert isinstance(total, torch.Tensor)
    assert (total.dtype, tuple(total.shape)) == (torch.uint16, (4, 2))
    half = a.view(torch.float16).T[:, :2].float() + b.view(torch.float16)[:2].float()
    assert torch.equal(total.view(torch.float16), half.half())
    number = torch.tensor([0.1, 1e6], requires_grad=True)
    assert float16.to_float32(float16.from_float32(number)).tolist() == number.half().tolist()
    assert float16.less(a, b).dtype == torch.bool
    assert float16.add(a[0, 0], b[0]).shape == ()
    assert float16.sqrt(a[:0], counters=float16.Counters()).shape == (0, 4)


def test_counters_add_up_over_calls() -> None:
    counters = float16.Counters()
    one, zero, largest = np.uint16(0x3C00), np.uint16(0), np.uint16(0x7BFF)
    float16.div(np.full((2, 3), one), zero, counters=counters)
    float16.div(zero, zero, counters=counters)
    float16.add(largest, largest, counters=counters)
    float16.mul(np.uint16([1, 1]), np.uint16(0x3800), counters=counters)
    float16.fma(one, one, one, counters=counters)
    float16.sqrt(np.uint16(0x8001), counters=counters)
    assert counters == float16.Counters(invalid=2, divide_by_zero=6, overflow=1, underflow=2, inexact=3)


# --- what is refused -----------------------------------------------------------------------------------------------

UNARY = [float16.to_float32, float16.sqrt]
BINARY = [float16.add, float16.sub, float16.mul, float16.div, float16.equal, float16.less, float16.greater_equal]


@pytest.mark.parametrize(
    ("operand", "remedy"),
    [
        (np.ones(2, np.float16), r"type float16, uint16 was expected; view its bits: x.view\(np.uint16\)"),
        (np.ones(2, np.float32), r"type float32, uint16 .*from_float32"),
        (np.ones(2, np.int64), r"type int64, uint16 .*astype\(np.uint16\)"),
        (np.ones(2, ">u2"), r"type >u2, uint16 .*astype\(np.uint16\)"),
        (torch.ones(2, dtype=torch.float16), r"type float16, uint16 .*x.view\(torch.uint16\)"),
        (torch.ones(2, dtype=torch.int32), r"type int32, uint16 .*x.to\(torch.uint16\)"),
        ([1, 2], "a list.*np.array"),
        (1.5, "a float.*np.array"),
        (torch.ones(2, dtype=torch.uint16, device="meta"), r"on meta; float16 runs on the CPU, so give x.cpu\(\)"),
    ],
)
def test_patterns_of_the_wrong_kind_are_refused(operand: object, remedy: str) -> None:
    for operation in UNARY:
        with pytest.raises(FewbitsError, match=remedy):
            operation(operand)
    for operation in BINARY:
        with pytest.raises(FewbitsError, match=remedy):
            operation(operand, operand)
        with pytest.raises(FewbitsError):
            operation(np.uint16([1, 2]), operand)


@pytest.mark.parametrize(
    ("numbers", "remedy"),
    [
        (np.ones(2), r"type float64, float32 was expected; cast it: x.astype\(np.float32\)"),
        (np.ones(2, np.float16), r"type float16, float32 .*x.view\(np.uint16\)"),
        (np.ones(2, np.uint16), r"type uint16, float32 .*to_float32\(a\)"),
        (torch.ones(2, dtype=torch.bfloat16), r"type bfloat16, float32 .*x.to\(torch.float32\)"),
        (torch.ones(2, device="meta"), "on meta"),
        (0.5, "a float"),
    ],
)
def test_numbers_of_the_wrong_kind_are_refused(numbers: object, remedy: str) -> None:
    with pytest.raises(FewbitsError, match=remedy):
        float16.from_float32(numbers)


def test_arrays_and_tensors_do_not_mix() -> None:
    with pytest.raises(FewbitsError, match="mixed; convert one"):
        float16.fma(patterns(2), patterns(2), torch.from_numpy(patterns(2)))


def test_shapes_that_do_not_fit_are_refused() -> None:
    for operation in (float16.add, float16.less):
        with pytest.raises(FewbitsError, match=r"\(2, 3\) and \(4,\) do not broadcast"):
            operation(patterns(2, 3), patterns(4))


@pytest.mark.parametrize("mode", [RoundingMode.STOCHASTIC, "nearest", 0, None])
def test_modes_beyond_the_five_are_refused(mode: object) -> None:
    one = np.uint16([0x3C00])
    for call in (
        lambda: float16.from_float32(np.float32([1]), mode=mode),
        lambda: float16.sqrt(one, mode=mode),
        lambda: float16.mul(one, one, mode=mode),
        lambda: float16.fma(one, one, one, mode=mode),
    ):
        with pytest.raises(FewbitsError, match="the five modes of IEEE 754"):
            call()
