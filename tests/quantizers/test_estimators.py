"""Gradient estimators: what goes forward, what comes back, and training through every quantizer."""

import pytest
import torch

from fewbits.quantizers import (
    TWN,
    Binary,
    BinaryCodes,
    ClippedStraightThrough,
    Codebook,
    Fixed,
    LeastSquaresTernary,
    Logarithmic,
    PerRow,
    Quantizer,
    Solver,
    Start,
    StraightThrough,
    Ternary,
    Uniform,
)

QUANTIZERS = [
    *(Binary(), Ternary(0.5), TWN(), Uniform(3), LeastSquaresTernary(PerRow()), Logarithmic(4), Logarithmic(5, True)),
    *(Fixed(1, 3), BinaryCodes(2), BinaryCodes(3, Solver.GREEDY), Codebook(2), Codebook(3, Start.LINEAR)),
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


def test_a_gradient_that_passes_straight_through_finds_the_weights():
    """BinaryConnect on a target that binary weights can reach: wrong-signed or missing gradients would not find it."""
    generator = torch.Generator().manual_seed(0)
    target = torch.sign(torch.randn(16, generator=generator))
    inputs = torch.randn(256, 16, generator=generator)
    weight = (0.1 * torch.randn(16, generator=generator)).requires_grad_()
    optimizer = torch.optim.SGD([weight], lr=0.05)
    for _ in range(200):
        loss = ((inputs @ (Binary(estimator=StraightThrough())(weight) - target)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.equal(Binary()(weight), target)
