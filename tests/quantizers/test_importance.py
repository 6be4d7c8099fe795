"""What an importance is: one number a weight, used by quantizers that minimise an error, refused by the others."""

import math

import pytest
import torch

from fewbits.errors import FewbitsError
from fewbits.quantizers import (
    TTQ,
    TWN,
    Balanced,
    Binary,
    BinaryCodes,
    Codebook,
    Fixed,
    LeastError,
    LeastSquaresTernary,
    Logarithmic,
    MidRise,
    Percentile,
    PerGroup,
    PerRow,
    PerTensor,
    Rounding,
    Scale,
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
    Binary(Scale.MEAN_ABSOLUTE),
    Binary(Scale.MEAN_ABSOLUTE, granularity=PerRow()),
    Uniform(3, range=LeastError()),
    Uniform(2, PerRow(), symmetric=False, range=LeastError(20)),
]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


WEIGHT, IMPORTANCE = draw(4, 30), draw(4, 30, seed=1) ** 2


@pytest.mark.parametrize(
    "quantizer",
    [
        *(Binary(), Binary(0.5), Ternary(), TWN(), TTQ(), Uniform(4), Uniform(4, range=Percentile()), MidRise(2)),
        *(Balanced(2), BinaryCodes(2), Logarithmic(4), Fixed(0, 3)),
    ],
    ids=repr,
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
        if isinstance(quantizer, Binary):  # a mean of up to 120 float32, and its sum in float64
            torch.testing.assert_close(codes.decode(), plain.decode(), rtol=8 * 2.0**-24, atol=0)
        else:
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


@pytest.mark.parametrize(("granularity", "groups"), [(PerTensor(), 1), (PerRow(), 4), (PerGroup(5), 24)])
def test_loss_aware_binarisation_is_the_formula_and_the_best_of_all_scales(granularity, groups):
    """H = Σ d |w| / Σ d and the sign of w: Σ d (w − H b)² is least at that H, for all b (Hou et al. 2017)."""
    codes = Binary(Scale.MEAN_ABSOLUTE, granularity=granularity).encode(WEIGHT, importance=IMPORTANCE)
    rows, weights = WEIGHT.double().reshape(groups, -1), IMPORTANCE.double().reshape(groups, -1)
    assert torch.equal(codes.integers, torch.where(WEIGHT >= 0, 1, -1).to(torch.int8))
    for row, d, scale in zip(rows, weights, codes.tables["scale"].tolist(), strict=True):
        formula = math.fsum((d * row.abs()).tolist()) / math.fsum(d.tolist())
        assert abs(scale - formula) <= 2.0**-24 * formula  # one rounding, to float32

        def error(height: float, row: torch.Tensor = row, d: torch.Tensor = d) -> float:
            return (d * (row - height * row.sign()) ** 2).sum().item()

        assert all(error(scale) < error(scale * factor) for factor in (0.9, 0.999, 1.001, 1.1))


def test_loss_aware_binarisation_of_few_weights_is_the_best_of_all_signs():
    weight, importance = draw(7, seed=5), draw(7, seed=6) ** 2
    value = Binary(Scale.MEAN_ABSOLUTE)(weight, importance=importance)
    tried = []
    for pattern in range(2**7):
        signs = torch.tensor([1.0 if pattern >> i & 1 else -1.0 for i in range(7)])
        height = ((importance * weight * signs).sum() / importance.sum()).clamp_min(0)
        tried.append((importance * (weight - height * signs) ** 2).sum().item())
    found = (importance * (weight - value) ** 2).sum().item()
    assert abs(found - min(tried)) <= 1e-6 * min(tried)  # sums of seven float32
    assert sorted(tried)[1] > 1.001 * found


def test_a_stochastic_sign_has_the_weighted_scale_too():
    quantizer = Binary(Scale.MEAN_ABSOLUTE, Rounding.STOCHASTIC)
    scale = Binary(Scale.MEAN_ABSOLUTE).encode(WEIGHT, importance=IMPORTANCE).tables["scale"].item()
    drawn = quantizer(WEIGHT, importance=IMPORTANCE, generator=torch.Generator().manual_seed(0))
    assert drawn.unique().tolist() == [-scale, scale]
    assert not torch.equal(drawn, quantizer(WEIGHT, importance=IMPORTANCE))


def test_a_group_without_importance_has_the_scale_zero():
    value = Binary(Scale.MEAN_ABSOLUTE, granularity=PerRow())(
        WEIGHT, importance=torch.tensor([[0.0], [1], [1], [1]]).expand(4, 30)
    )
    assert not value[0].any()
    assert value[1:].all()
