"""Trained ternary quantization: the rule group by group, and the gradients of the scales and of the weights."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fewbits.errors import FewbitsError
from fewbits.quantize import quantize
from fewbits.quantizers import TTQ, TWN, Granularity, PerGate, PerGroup, PerRow, PerTensor, Uniform


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.4, 0.99])
@pytest.mark.parametrize(
    ("granularity", "groups"), [(PerTensor(), 1), (PerRow(), 8), (PerGate(), 4), (PerGroup(3), 32)]
)
def test_codes_and_first_scales_follow_the_rule(threshold: float, granularity: Granularity, groups: int) -> None:
    weight = draw(8, 12)
    codes = TTQ(threshold, granularity).encode(weight)
    for row, integers, table in zip(
        weight.reshape(groups, -1).tolist(), codes.integers.reshape(groups, -1).tolist(),
        codes.tables["codebook"].tolist(), strict=True,
    ):  # fmt: skip
        delta = threshold * max(map(abs, row))
        assert integers == [(w > delta) - (w < -delta) for w in row]
        below, above = [-w for w in row if w < -delta], [w for w in row if w > delta]
        means = [math.fsum(side) / len(side) if side else 0.0 for side in (below, above)]
        np.testing.assert_allclose(table, [-means[0], 0.0, means[1]], rtol=1e-15)
    np.testing.assert_array_equal(
        TTQ(threshold, granularity).learned(weight).numpy()[:, 1], codes.tables["codebook"][:, 2]
    )
    assert codes.bits == 2 * 96 + 3 * 64 * groups


def test_a_weight_at_the_threshold_is_zero():
    """max |w| · 2^−3 is exact, so both ends of the zone are met."""
    weight = torch.tensor([-8.0, -1.0, 1.0, math.nextafter(1.0, 2.0), -math.nextafter(1.0, 2.0)], dtype=torch.float64)
    assert TTQ(0.125).encode(weight).integers.tolist() == [-1, 0, 0, 1, -1]


@pytest.mark.parametrize(("granularity", "groups"), [(PerTensor(), 1), (PerRow(), 6)])
def test_the_gradients_are_those_of_the_formula(granularity, groups):
    """Of the scales: autograd's for p · [w > Δ] − n · [w < −Δ]. Of a weight: ∂L/∂q times the size of its code, or 1."""
    quantizer = TTQ(0.3, granularity)
    weight, scales = draw(6, 10).requires_grad_(), (1 + draw(groups, 2, seed=1)).requires_grad_()
    inputs, wanted = draw(20, 10, seed=2), draw(20, 6, seed=3)

    def loss(matrix: torch.Tensor) -> torch.Tensor:
        return (torch.tanh(inputs @ matrix.t()) - wanted).square().sum()

    value = quantizer(weight, learned=scales)
    loss(value).backward()
    rows = weight.detach().reshape(groups, -1)
    delta = 0.3 * rows.abs().amax(1, keepdim=True)
    below, above = (rows < -delta).double(), (rows > delta).double()
    by_hand = scales.detach().clone().requires_grad_()
    expected = (by_hand[:, 1:] * above - by_hand[:, :1] * below).reshape(6, 10)
    expected.retain_grad()
    loss(expected).backward()
    assert torch.equal(value, expected)
    torch.testing.assert_close(scales.grad, by_hand.grad, rtol=1e-13, atol=0)
    size = (by_hand[:, 1:] * above + by_hand[:, :1] * below).detach().abs() + (1 - above - below)
    torch.testing.assert_close(weight.grad, expected.grad * size.reshape(6, 10), rtol=1e-13, atol=0)


def test_the_gradient_of_a_scale_is_the_slope_of_the_loss():
    """By differences, as the sign printed in the paper is another one: the loss is quadratic, so they are exact."""
    weight, scales = draw(40), torch.tensor([[0.75, 1.5]], dtype=torch.float64, requires_grad=True)
    wanted = draw(40, seed=1)

    def loss(table: torch.Tensor) -> torch.Tensor:
        return (TTQ()(weight, learned=table) - wanted).square().sum()

    loss(scales).backward()
    for index in range(2):
        step = torch.zeros_like(scales)
        step[0, index] = 2.0**-6
        with torch.no_grad():
            slope = (loss(scales + step) - loss(scales - step)) / 2.0**-5
        torch.testing.assert_close(scales.grad[0, index], slope, rtol=1e-11, atol=0)


def test_training_finds_two_scales_and_the_signs():
    """A layer whose weights are −0.5, 0 and 2 is found from its products; wrong gradients would not find it."""
    torch.manual_seed(0)
    wanted = torch.tensor([-0.5, 0.0, 2.0])[torch.randint(3, (4, 12))]
    inputs = torch.randn(500, 12)
    layer = quantize(nn.Linear(12, 4, bias=False), {"weight": TTQ()})
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.05)
    for _ in range(400):
        loss = (layer(inputs) - inputs @ wanted.t()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), wanted, rtol=0, atol=0.02)


def test_what_is_learned_replaces_the_first_scales():
    weight, scales = draw(4, 9), torch.tensor([[0.5, 2.0]] * 4, dtype=torch.float64)
    first, codes = TTQ(granularity=PerRow()).encode(weight), TTQ(granularity=PerRow()).encode(weight, learned=scales)
    assert torch.equal(codes.integers, first.integers)
    assert set(codes.decode().tolist()[0]) <= {-0.5, 0.0, 2.0}
    again = TTQ(granularity=PerRow()).encode(weight, learned=TTQ(granularity=PerRow()).learned(weight))
    assert torch.equal(again.decode(), first.decode())
    flipped = TTQ(granularity=PerRow())(weight, learned=-scales)  # training may drive a scale through 0
    assert torch.equal(flipped, -codes.decode())


def test_a_side_without_weights_has_the_scale_zero():
    assert TTQ().learned(torch.tensor([0.5, 1.5])).tolist() == [[0.0, 1.0]]
    assert TTQ().learned(torch.zeros(3)).tolist() == [[0.0, 0.0]]
    assert TTQ().learned(torch.zeros(0)).tolist() == [[0.0, 0.0]]
    assert TTQ()(torch.tensor([0.5, 1.5])).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_sum_beyond_half_precision_is_none_of_the_scales(dtype):
    weight = torch.full((2, 90_000), 0.75, dtype=dtype)
    weight[1] = -0.5
    assert TTQ().learned(weight).tolist() == [[0.5, 0.75]]
    assert TTQ().learned(weight).dtype == dtype


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TTQ(-0.1), "at least 0"),
        (lambda: TTQ(1.0), "below 1"),
        (lambda: TTQ(math.nan), "threshold"),
        (lambda: TTQ().encode(torch.ones(2), learned=torch.tensor([[1.0, math.nan]])), "overflows"),
        (lambda: TTQ().encode(torch.ones(2), importance=torch.ones(2)), "minimises no error"),
        (lambda: TWN().encode(torch.ones(2), learned=torch.ones(1, 2)), "TWN learns no table"),
        (lambda: Uniform(4)(torch.ones(2), learned=torch.ones(1)), "Uniform learns no table"),
    ],
)
def test_what_makes_no_sense_is_refused(make, words):
    with pytest.raises(FewbitsError, match=words):
        make()


def test_only_some_quantizers_learn():
    assert TWN().learned(draw(3)) is None
    assert Uniform(4).learned(draw(3)) is None
