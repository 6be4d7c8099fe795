"""Errors by depth against products by hand; the bias of gradients against quadratics, where it is known exactly."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fewbits.evaluation.quantization_error import (
    SmoothedGradient,
    error_by_depth,
    estimated_gradient,
    relative_distance,
    with_matrices,
)
from fewbits.quantizers import Binary, Fixed, MidRise, SoftStaircase, Uniform


def test_errors_of_linear_layers_are_those_of_matrix_products():
    torch.manual_seed(0)
    layers = [nn.Linear(5, 5, bias=False).double() for _ in range(3)]
    inputs = torch.randn(40, 5, dtype=torch.float64)
    found = error_by_depth(layers, inputs, Uniform(3))
    exact = [layer.weight.detach().numpy() for layer in layers]
    coarse = [Uniform(3)(layer.weight.detach()).numpy() for layer in layers]
    true = given = inputs.numpy()
    for depth, (weight, rounded) in enumerate(zip(exact, coarse, strict=True)):
        expected = true @ weight.T
        errors = [given @ rounded.T - expected, true @ rounded.T - expected, given @ weight.T - expected]
        size = np.linalg.norm(expected)
        parts = (found.total[depth], found.own[depth], found.passed_on[depth])
        assert parts == pytest.approx([np.linalg.norm(error) / size for error in errors], abs=1e-12)
        true, given = expected, given @ rounded.T
    assert found.total[0] == found.own[0] > 0
    assert found.passed_on[0] == 0
    assert found.total[2] > found.own[2]


def test_recurrent_layers_give_their_first_output_and_are_not_changed():
    torch.manual_seed(0)
    layers = [nn.LSTM(4, 4), nn.LSTM(4, 4)]
    before = [p.clone() for layer in layers for p in layer.parameters()]
    inputs = torch.randn(6, 2, 4)
    found = error_by_depth(layers, inputs, Fixed(0, 15))
    assert 0 < found.total[1] < 1e-3
    assert all(
        torch.equal(a, b) for a, b in zip(before, (p for layer in layers for p in layer.parameters()), strict=True)
    )
    coarse = with_matrices(layers[0], Binary())
    assert coarse.weight_hh_l0.unique().tolist() == [-1, 1]
    assert torch.equal(coarse.bias_hh_l0, layers[0].bias_hh_l0)


def test_relative_distance_of_nothing():
    assert relative_distance(torch.zeros(3), torch.zeros(3)) == 0
    assert relative_distance(torch.ones(3), torch.zeros(3)) == math.inf
    assert relative_distance(torch.tensor([3.0, 0.0]), torch.tensor([3.0, 4.0])) == pytest.approx(0.8)


class Curve(nn.Module):
    """One row of weights; the loss is a polynomial of them."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weights)


def quadratic(model: nn.Module) -> Tensor:
    return (0.5 * model.weight.square() * torch.tensor([1.0, 2.0, 4.0, 8.0])).sum()


WEIGHTS = torch.tensor([[0.9, -0.31, 0.2, 0.05]])
CURVATURE = torch.tensor([1.0, 2.0, 4.0, 8.0])


def test_the_bias_of_a_quadratic_is_known():
    """Smoothing leaves its gradient H w as it is, straight through gives H q(w): the bias is ‖H (q − w)‖ / ‖H w‖."""
    quantizer = Uniform(3)
    q = quantizer(WEIGHTS)
    smoothed = SmoothedGradient.sample(Curve(WEIGHTS.clone()), {"weight": quantizer}, quadratic, draws=4000)
    estimated = estimated_gradient(Curve(WEIGHTS.clone()), {"weight": quantizer}, quadratic)
    torch.testing.assert_close(estimated.float(), (CURVATURE * q).flatten())
    spread = math.sqrt(smoothed.variance)
    assert float((smoothed.mean - (CURVATURE * WEIGHTS).flatten()).norm()) < 4 * spread
    true = float((CURVATURE * (q - WEIGHTS)).norm() / (CURVATURE * WEIGHTS).norm())
    assert smoothed.bias(estimated).relative == pytest.approx(
        true, abs=4 * spread / float((CURVATURE * WEIGHTS).norm())
    )


def test_the_noise_has_the_width_of_the_step():
    """The variance of H u, u uniform over a step s, is Σ H² s² / 12."""
    quantizer = MidRise(2)
    step = 2 * 0.9 / 3
    draws = 5000
    smoothed = SmoothedGradient.sample(Curve(WEIGHTS.clone()), {"weight": quantizer}, quadratic, draws=draws)
    expected = float(CURVATURE.square().sum()) * step**2 / 12 / draws
    assert smoothed.variance == pytest.approx(expected, rel=5 / math.sqrt(draws))


def test_sampling_does_not_count_as_bias():
    """The exact gradient has no bias, whatever few draws of the noise say; its opposite has a relative bias of 2."""
    quantizer, exact = Uniform(8), (CURVATURE * WEIGHTS).flatten().double()
    found = [
        SmoothedGradient.sample(Curve(WEIGHTS.clone()), {"weight": quantizer}, quadratic, draws=2, seed=seed)
        for seed in range(20)
    ]
    squares = [float((each.mean - exact).square().sum()) - each.variance for each in found]
    assert min(squares) < 0 < max(squares)  # unbiased: of both signs
    assert found[0].bias(-exact).relative == pytest.approx(2, abs=0.02)
    assert found[0].bias(-exact).cosine == pytest.approx(-1, abs=1e-3)


def test_the_estimator_is_that_of_the_quantizer():
    soft = Uniform(3, estimator=SoftStaircase(8.0))
    leaf = WEIGHTS.clone().requires_grad_()
    (0.5 * soft(leaf).square() * CURVATURE).sum().backward()
    estimated = estimated_gradient(Curve(WEIGHTS.clone()), {"weight": soft}, quadratic)
    torch.testing.assert_close(estimated.float(), leaf.grad.flatten())


def test_the_variance_of_the_mean_is_taken_off_both_sizes():
    smoothed = SmoothedGradient(torch.tensor([3.0, 4.0], dtype=torch.float64), variance=9.0)
    found = smoothed.bias(torch.tensor([3.0, 9.0], dtype=torch.float64))
    assert found.relative == pytest.approx(math.sqrt((25 - 9) / (25 - 9)))
    assert found.cosine == pytest.approx((9 + 36) / (5 * math.sqrt(90)))
    assert smoothed.bias(torch.tensor([3.0, 6.0], dtype=torch.float64)).relative == 0  # nearer than chance explains
