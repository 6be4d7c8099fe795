"""Errors of layers against the layers' own outputs, and the best threshold against all ternary weights."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn

from fewbits.errors import FewbitsError
from fewbits.evaluation.output_error import input_moments, least_ternary_error, relative_error
from fewbits.quantizers import TWN, LeastSquaresTernary

#: How a convolution reads its inputs.
GEOMETRIES = [{"padding": 1}, {}, {"stride": 2, "padding": (2, 1)}, {"dilation": 2}]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def two_layers(**geometry) -> nn.Sequential:
    torch.manual_seed(0)
    first, second = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 4, (3, 2), bias=False, **geometry)
    return nn.Sequential(first, nn.BatchNorm2d(3), nn.ReLU(), second).double()


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_the_error_is_that_of_what_the_layer_puts_out(geometry) -> None:
    model, images = two_layers(**geometry), draw(7, 2, 6, 5)
    weight = model[3].weight.detach()
    quantized = TWN()(weight)
    moments = input_moments(model, ["3"], images, batch_size=3)["3"]
    read = model.eval()[:3](images).detach()
    right, wrong = (F.conv2d(read, filters, **geometry) for filters in (weight, weight - quantized))
    exact = (wrong.square().sum() / right.square().sum()).item()
    assert relative_error(weight, quantized, moments) == pytest.approx(exact, rel=1e-12)
    assert moments.shape == (18, 18)


def test_the_diagonal_is_the_mean_square_of_each_weights_input() -> None:
    """Which is what the output's mean square is if that weight alone is 1."""
    model, images = two_layers(padding=1), draw(4, 2, 5, 5)
    moments = input_moments(model, ["3"], images)["3"].diagonal()
    read = model.eval()[:3](images).detach()
    for place, one in enumerate(torch.eye(18, dtype=torch.float64)):
        put_out = F.conv2d(read, one.reshape(1, 3, 3, 2), padding=1)
        assert moments[place].item() == pytest.approx(put_out.square().mean().item(), rel=1e-12)


def test_several_layers_are_seen_in_one_pass_and_nothing_is_left_in_the_model() -> None:
    model, images = two_layers(), draw(7, 2, 6, 5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    both = input_moments(model, ["0", "3"], images, batch_size=2)
    assert list(both) == ["0", "3"]
    for name in both:
        torch.testing.assert_close(both[name], input_moments(model, [name], images)[name], rtol=1e-12, atol=1e-15)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_the_difference_of_float32_weights_is_not_rounded() -> None:
    """1 and the number after a third of it: their difference needs more bits than either."""
    weight = torch.tensor([[1.0]])
    third = torch.nextafter(weight / 3, weight)
    assert relative_error(weight, third) == (1 - third.double().item()) ** 2


def all_ternary(weight: np.ndarray, matrix: np.ndarray, *, thresholds: bool) -> float:
    """The least error of 3^n weights with their best H; of those that a threshold gives only, if asked."""
    flat, (filters, inputs) = weight.flatten(), weight.shape
    whole = np.kron(np.eye(filters), matrix)
    energy, least = flat @ whole @ flat, 1.0
    for code in map(np.array, itertools.product([0.0, 1.0], repeat=filters * inputs)):
        kept, dropped = abs(flat[code == 1]), abs(flat[code == 0])
        if thresholds and kept.size and dropped.size and kept.min() < dropped.max():
            continue
        for signs in [np.sign(flat)] if thresholds else itertools.product([-1.0, 1.0], repeat=filters * inputs):
            t = code * signs
            if t @ whole @ t > 0:
                least = min(least, 1 - (t @ whole @ flat) ** 2 / (t @ whole @ t) / energy)
    return least


@pytest.mark.parametrize("seed", range(10))
def test_the_least_error_is_that_of_the_best_threshold(seed: int) -> None:
    weight, factor = draw(2, 3, seed=seed), draw(5, 3, seed=seed + 100)
    moments = factor.T @ factor / 5
    for given_moments, matrix in (
        (None, torch.eye(3)),
        (moments.diagonal(), moments.diagonal().diag()),
        (moments,) * 2,
    ):
        expected = all_ternary(weight.numpy(), matrix.double().numpy(), thresholds=True)
        assert least_ternary_error(weight, given_moments) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_where_inputs_do_not_correlate_no_ternary_weights_are_better(seed: int) -> None:
    weight, importance = draw(1, 5, seed=seed), draw(5, seed=seed + 9).square()
    expected = all_ternary(weight.numpy(), importance.diag().numpy(), thresholds=False)
    assert least_ternary_error(weight, importance) == pytest.approx(expected, abs=1e-12)


@given(
    weight=arrays("float32", (3, 6), elements=st.floats(-4, 4, width=32, allow_subnormal=False)).filter(
        lambda weight: abs(weight).max() > 1e-6
    )
)
def test_least_squares_finds_it_and_nothing_that_a_threshold_gives_is_below(weight: np.ndarray) -> None:
    tensor = torch.from_numpy(weight)
    least = least_ternary_error(tensor)
    assert relative_error(tensor, LeastSquaresTernary()(tensor)) == pytest.approx(least, abs=1e-12)
    assert relative_error(tensor, TWN()(tensor)) >= least - 1e-12


def test_weights_that_are_ternary_already_have_no_error() -> None:
    weight = torch.tensor([[0.5, 0.0, -0.5], [0.0, 0.5, 0.0]])
    assert least_ternary_error(weight) == 0
    assert relative_error(weight, weight) == 0


@pytest.mark.parametrize("moments", [None, torch.zeros(2), torch.zeros(2, 2)])
def test_a_layer_that_puts_out_nothing_has_no_relative_error(moments: Tensor | None) -> None:
    weight = torch.zeros(3, 2) if moments is None else torch.ones(3, 2)
    with pytest.raises(FewbitsError, match="put out nothing but 0"):
        relative_error(weight, weight, moments)
    with pytest.raises(FewbitsError, match="put out nothing but 0"):
        least_ternary_error(weight, moments)
