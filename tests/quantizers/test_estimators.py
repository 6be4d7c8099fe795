"""Gradient estimators: what goes forward, what comes back, and training through every quantizer."""

import math
from itertools import pairwise

import pytest
import torch
from scipy.integrate import quad

from fewbits.errors import FewbitsError
from fewbits.quantizers import (
    TWN,
    Balanced,
    Binary,
    BinaryCodes,
    ClippedStraightThrough,
    Codebook,
    Fixed,
    Given,
    LeastError,
    LeastSquaresTernary,
    Logarithmic,
    MidRise,
    Percentile,
    PerRow,
    Quantizer,
    Rounding,
    Scale,
    SoftStaircase,
    Solver,
    Start,
    StraightThrough,
    Ternary,
    Uniform,
)

QUANTIZERS = [
    *(Binary(), Ternary(0.5), TWN(), Uniform(3), LeastSquaresTernary(PerRow()), Logarithmic(4), Logarithmic(5, True)),
    *(Fixed(1, 3), BinaryCodes(2), BinaryCodes(3, Solver.GREEDY), Codebook(2), Codebook(3, Start.LINEAR)),
    *(MidRise(3), MidRise(2, PerRow()), Balanced(3), Uniform(4, range=Percentile(97)), Uniform(3, range=LeastError(8))),
    Uniform(4, symmetric=False, range=Given(-2.0, 2.5)),
]


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=repr)
def test_straight_through_passes_the_value_forward_and_the_gradient_back(quantizer):
    """The gradient of a loss for the weight is, bit for bit, autograd's for the quantized value as a leaf."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 5, generator=generator).requires_grad_()
    inputs = torch.randn(8, 5, generator=generator)
    value = quantizer(weight)
    assert torch.equal(value, quantizer.encode(weight).decode())
    leaf = value.detach().clone().requires_grad_()
    for quantized in (value, leaf):
        torch.tanh(inputs @ quantized.t()).square().sum().backward()
    assert torch.equal(weight.grad, leaf.grad)
    assert weight.grad.abs().min() > 0


def regression() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs of a linear regression, its float targets, and weights to start from."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(200, 24, generator=generator, dtype=torch.float64)
    wanted = torch.randn(3, 24, generator=generator, dtype=torch.float64)
    start = 0.3 * torch.randn(3, 24, generator=generator, dtype=torch.float64)
    return inputs, inputs @ wanted.t(), start


def trained(quantizer: Quantizer, steps: int = 40, rate: float = 0.05) -> tuple[list[float], torch.Tensor]:
    """Losses of steepest descent through the quantizer, with autograd, and the float weights at the end."""
    inputs, wanted, start = regression()
    weight, losses = start.clone().requires_grad_(), []
    for _ in range(steps):
        loss = (inputs @ quantizer(weight).t() - wanted).square().mean()
        losses.append(loss.item())
        loss.backward()
        with torch.no_grad():
            weight -= rate * weight.grad
            weight.grad = None
    return losses, weight.detach()


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=repr)
def test_training_is_descent_along_the_gradient_of_the_quantized_weights(quantizer):
    """Against the same descent by hand: w ← w − η · 2 / (m n) · (X q(w)ᵀ − Y)ᵀ X, and the loss falls."""
    losses, weight = trained(quantizer)
    inputs, wanted, by_hand = regression()
    for _ in range(len(losses)):
        rest = inputs @ quantizer.encode(by_hand).decode().t() - wanted
        by_hand = by_hand - 0.05 * 2 / rest.numel() * rest.t() @ inputs
    torch.testing.assert_close(weight, by_hand, rtol=0, atol=1e-10)  # 40 steps of float64, weights below 10
    assert min(losses) < losses[0] / 2


def test_clipped_straight_through_stops_the_gradient_outside():
    weight = torch.tensor([-1.5, -1.0, 0.2, 1.0, 1.0001], requires_grad=True)
    Binary(estimator=ClippedStraightThrough(1.0))(weight).backward(torch.full((5,), 3.0))
    assert weight.grad.tolist() == [0, 3, 3, 3, 0]


@pytest.mark.parametrize(
    "quantizer",
    [
        *(Binary(estimator=StraightThrough()), Binary(estimator=ClippedStraightThrough(1.0))),
        *(Binary(rounding=Rounding.STOCHASTIC), Binary(Scale.MEAN_ABSOLUTE, Rounding.STOCHASTIC)),
        Binary(Scale.MEAN_ABSOLUTE),
    ],
    ids=repr,
)
def test_a_gradient_that_passes_straight_through_finds_the_weights(quantizer):
    """BinaryConnect on a target that binary weights can reach: wrong-signed or missing gradients would not find it."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    target = torch.sign(torch.randn(16, generator=generator))
    inputs = torch.randn(256, 16, generator=generator)
    weight = (0.1 * torch.randn(16, generator=generator)).requires_grad_()
    optimizer = torch.optim.SGD([weight], lr=0.05)
    for _ in range(200):
        loss = ((inputs @ (quantizer(weight) - target)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.equal(Binary()(weight), target)


# --- the soft staircase ----------------------------------------------------------------------------------------------

#: Quantizers of fixed levels for weights beyond −1 and 1, one a kind of table, and these levels, ascending.
STAIRS = {
    Uniform(3, range=Given(-1.0, 1.0)): [k / 3 for k in range(-3, 4)],
    Uniform(2, symmetric=False, range=Given(-0.5, 1.0)): [-0.5, 0.0, 0.5, 1.0],
    Fixed(0, 2): [k / 4 for k in range(-3, 4)],
    Binary(0.5): [-0.5, 0.5],
    Ternary(0.4): [-1.0, 0.0, 1.0],
}
every_stair = pytest.mark.parametrize("quantizer", STAIRS, ids=repr)


def slopes(quantizer: Quantizer, sharpness: float, weight: torch.Tensor) -> torch.Tensor:
    """What the backward pass takes for ∂q/∂w."""
    leaf = weight.clone().requires_grad_()
    softened = type(quantizer)(**{**vars(quantizer), "estimator": SoftStaircase(sharpness)})
    value = softened(leaf)
    assert torch.equal(value, quantizer(weight))
    value.sum().backward()
    return leaf.grad


def staircase(w: float, levels: list[float], sharpness: float) -> float:
    """The paper's: in the step from a to b, m + (b − a) / 2 · tanh(k (w − m) / (b − a)) / tanh(k / 2)."""
    cell = max([i for i, a in enumerate(levels[:-1]) if w > a], default=0)
    a, b = levels[cell : cell + 2]
    middle = (a + b) / 2
    return middle + (b - a) / 2 * math.tanh(sharpness * (w - middle) / (b - a)) / math.tanh(sharpness / 2)


@every_stair
@pytest.mark.parametrize("sharpness", [0.1, 1.0, 4.0, 20.0])
def test_the_slope_is_the_derivative_of_the_tanh_staircase(quantizer, sharpness):
    """By central differences of h = 2^−18: off by h² / 6 times the third derivative, and by rounding over h."""
    levels, step = STAIRS[quantizer], 2.0**-18
    places = [w for w in torch.linspace(-1.9, 1.9, 191).tolist() if min(abs(w - level) for level in levels) > step]
    found = slopes(quantizer, sharpness, torch.tensor(places, dtype=torch.float64))
    smallest = min(b - a for a, b in pairwise(levels))
    bound = step**2 / 6 * 2 * (sharpness / smallest) ** 2 * (sharpness + 2) + 2.0**-51 / step
    for w, slope in zip(places, found.tolist(), strict=True):
        numerical = (staircase(w + step, levels, sharpness) - staircase(w - step, levels, sharpness)) / (2 * step)
        assert abs(slope - numerical) <= bound


@every_stair
@pytest.mark.parametrize("sharpness", [0.01, 3.0, 12.0])
def test_the_mean_slope_over_a_step_is_one(quantizer, sharpness):
    def slope(w: float) -> float:
        return slopes(quantizer, sharpness, torch.tensor([w], dtype=torch.float64)).item()

    levels = STAIRS[quantizer]
    for a, b in list(pairwise(levels))[:2]:
        rise, unsure = quad(slope, a, b, points=[(a + b) / 2], epsabs=1e-7)
        assert abs(rise - (b - a)) <= unsure + 1e-12


@every_stair
def test_a_blunt_staircase_is_straight_through_and_a_sharp_one_the_staircase_itself(quantizer):
    levels = STAIRS[quantizer]
    inside = torch.linspace(levels[0], levels[-1], 101, dtype=torch.float64)
    # k sech²(k u) / (2 tanh(k / 2)) = 1 + k² (1/12 − u²) + …, and |u| ≤ 1/2
    torch.testing.assert_close(slopes(quantizer, 1e-4, inside), torch.ones_like(inside), rtol=0, atol=2e-9)
    middles = torch.tensor([(a + b) / 2 for a, b in pairwise(levels)], dtype=torch.float64)
    torch.testing.assert_close(slopes(quantizer, 500.0, middles), torch.full_like(middles, 250.0), rtol=1e-12, atol=0)
    assert slopes(quantizer, 500.0, torch.tensor(levels, dtype=torch.float64)).max() < 1e-30


@every_stair
def test_beyond_the_outermost_levels_the_slope_falls_to_zero(quantizer):
    levels = STAIRS[quantizer]
    for outward in (torch.linspace(levels[-1], 30, 80), torch.linspace(levels[0], -30, 80)):
        falling = slopes(quantizer, 5.0, outward.double())
        assert (falling.diff() <= 0).all()
        assert 0 <= falling[-1] < 1e-12 < falling[0]


def test_each_group_has_its_own_steps_also_uneven_ones():
    """A codebook's levels are uneven and a row's own: in the middle of a step the slope is k / (2 tanh(k / 2))."""
    quantizer = Codebook(2, iterations=0, granularity=PerRow(), estimator=SoftStaircase(6.0))
    weight = torch.tensor([[0.0, 1.0, 3.0, 9.0], [10.0, 40.0, 70.0, 100.0]], dtype=torch.float64)
    levels = quantizer.encode(weight).tables["codebook"]
    leaf = levels.clone()
    leaf[:, 1] = (levels[:, 1] + levels[:, 2]) / 2
    leaf.requires_grad_()
    codes = quantizer.encode(weight)
    quantizer.estimator(leaf, codes).sum().backward()
    steepest, at_levels = 3 / math.tanh(3), 3 / math.tanh(3) / math.cosh(3) ** 2
    expected = torch.tensor([[at_levels, steepest, at_levels, at_levels]] * 2, dtype=torch.float64)
    torch.testing.assert_close(leaf.grad, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("quantizer", [q for q in QUANTIZERS if "estimator" in vars(q)], ids=repr)
def test_the_soft_staircase_serves_every_quantizer_and_trains(quantizer):
    softened = type(quantizer)(**{**vars(quantizer), "estimator": SoftStaircase(2.0)})
    losses, weight = trained(softened)
    assert weight.isfinite().all()
    assert min(losses) < losses[0] / 2


def test_a_group_without_a_step_is_passed_straight_through():
    weight = torch.tensor([[0.0, 0.0], [1.0, -2.0]], requires_grad=True)
    MidRise(1, PerRow(), estimator=SoftStaircase(4.0))(weight).sum().backward()
    assert weight.grad[0].tolist() == [1, 1]
    assert (weight.grad[1] != 1).all()
    empty = torch.zeros(0, 3, requires_grad=True)
    Uniform(4, estimator=SoftStaircase(4.0))(empty).sum().backward()
    assert empty.grad.shape == (0, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_has_the_slopes_of_the_numbers_it_holds(dtype):
    """Also where the sum of two levels is beyond float16; one rounding to the type."""
    weight = torch.linspace(-60_000, 60_000, 40).to(dtype).requires_grad_()
    wide = weight.detach().float().requires_grad_()
    quantizer = Uniform(3, range=Given(-49152, 49152), estimator=SoftStaircase(3.0))  # steps of 2^14
    for leaf in (weight, wide):
        quantizer(leaf).sum().backward()
    torch.testing.assert_close(weight.grad.float(), wide.grad, rtol=torch.finfo(dtype).eps / 2, atol=0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SoftStaircase(0.0), "positive"),
        (lambda: SoftStaircase(-1.0), "positive"),
        (lambda: SoftStaircase(math.inf), "finite"),
        (lambda: SoftStaircase(math.nan), "positive"),
        (lambda: Uniform(9, estimator=SoftStaircase(1.0))(torch.ones(3)), "at most 256 levels, not 511"),
    ],
)
def test_what_is_no_soft_staircase_is_refused(make, words):
    with pytest.raises(FewbitsError, match=words):
        make()
    assert Uniform(8, symmetric=False, estimator=SoftStaircase(1.0))(torch.ones(3)).tolist() == [1, 1, 1]
