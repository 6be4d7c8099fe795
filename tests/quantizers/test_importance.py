"""What an importance is: one number a weight, used by quantizers that minimise an error, refused by the others."""

import pytest
import torch

from fewbits.errors import FewbitsError
from fewbits.quantizers import (
    TWN,
    Binary,
    BinaryCodes,
    Codebook,
    Fixed,
    LeastSquaresTernary,
    Logarithmic,
    PerRow,
    Start,
    Ternary,
    Uniform,
)

USING = [
    LeastSquaresTernary(),
    LeastSquaresTernary(PerRow()),
    Codebook(2),
    Codebook(3, Start.LINEAR, granularity=PerRow()),
    Codebook(5, Start.RANDOM),
]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


WEIGHT, IMPORTANCE = draw(4, 30), draw(4, 30, seed=1) ** 2


@pytest.mark.parametrize(
    "quantizer", [Binary(), Ternary(), TWN(), Uniform(4), BinaryCodes(2), Logarithmic(4), Fixed(0, 3)], ids=repr
)
def test_a_quantizer_that_minimises_nothing_with_it_refuses_it(quantizer):
    with pytest.raises(FewbitsError, match=f"{type(quantizer).__name__} minimises no error"):
        quantizer(WEIGHT, importance=IMPORTANCE)


@pytest.mark.parametrize("quantizer", USING, ids=repr)
@pytest.mark.parametrize(
    "importance",
    [
        IMPORTANCE[:3],
        IMPORTANCE.t(),
        IMPORTANCE.reshape(-1),
        IMPORTANCE.mean(),
        -IMPORTANCE,
        IMPORTANCE.where(IMPORTANCE.min() < IMPORTANCE, torch.nan),
        IMPORTANCE.where(IMPORTANCE.min() < IMPORTANCE, torch.inf),
        IMPORTANCE.where(IMPORTANCE.min() < IMPORTANCE, -torch.inf),
    ],
    ids=["short", "transposed", "flat", "one", "negative", "NaN", "infinite", "-infinite"],
)
def test_what_is_no_importance_is_refused(quantizer, importance):
    with pytest.raises(FewbitsError, match="at least 0 for each of the"):
        quantizer.encode(WEIGHT, importance=importance)


@pytest.mark.parametrize("quantizer", USING, ids=repr)
def test_equal_importance_is_none(quantizer):
    plain = quantizer.encode(WEIGHT)
    for value in (1.0, 0.25, 2.0**40):
        codes = quantizer.encode(WEIGHT, importance=torch.full_like(WEIGHT, value))
        assert torch.equal(codes.integers, plain.integers)
        assert torch.equal(codes.decode(), plain.decode())


@pytest.mark.parametrize("quantizer", USING, ids=repr)
def test_only_ratios_of_importance_matter(quantizer):
    expected = quantizer(WEIGHT, importance=IMPORTANCE)
    for factor in (2.0**-60, 2.0**60):
        assert torch.equal(quantizer(WEIGHT, importance=IMPORTANCE * factor), expected)


@pytest.mark.parametrize("quantizer", USING, ids=repr)
def test_the_weighted_error_is_lower_with_it_than_without(quantizer):
    """The quantizer is exact or starts at the same numbers; a Gaussian importance differs enough to matter."""
    weight, importance = draw(6, 800, seed=2), torch.exp(3 * draw(6, 800, seed=3))
    errors = [
        (importance.double() * (found.double() - weight.double()) ** 2).sum()
        for found in (quantizer(weight, importance=importance), quantizer(weight))
    ]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("quantizer", USING, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_it_has_its_own_type(quantizer, dtype):
    """Squares of gradients lie below float16, sums of squares above: neither 0 nor infinity comes of them."""
    weight = WEIGHT.to(dtype)
    expected = quantizer(weight, importance=IMPORTANCE)
    assert expected.dtype == dtype
    for factor in (2.0**-40, 2.0**40):
        assert torch.equal(quantizer(weight, importance=IMPORTANCE.double() * factor), expected)
    counts = (10 * IMPORTANCE).long()
    assert torch.equal(quantizer(weight, importance=counts), quantizer(weight, importance=counts.double()))


@pytest.mark.parametrize("quantizer", USING, ids=repr)
def test_strides_do_not_matter_and_no_gradient_reaches_it(quantizer):
    expected = quantizer(WEIGHT, importance=IMPORTANCE)
    turned = IMPORTANCE.t().contiguous().t()
    assert torch.equal(quantizer(WEIGHT, importance=turned), expected)
    weight, importance = WEIGHT.clone().requires_grad_(), IMPORTANCE.clone().requires_grad_()
    gradient = draw(4, 30, seed=4)
    quantizer(weight, importance=importance).backward(gradient)
    assert torch.equal(weight.grad, gradient)
    assert importance.grad is None


@pytest.mark.parametrize("quantizer", USING, ids=repr)
@pytest.mark.parametrize("shape", [(0,), (3, 0), ()])
def test_empty_tensors_and_scalars(quantizer, shape):
    assert quantizer(torch.ones(shape), importance=torch.ones(shape)).shape == shape
    assert torch.equal(quantizer(torch.full(shape, 0.5), importance=torch.ones(shape)), torch.full(shape, 0.5))
