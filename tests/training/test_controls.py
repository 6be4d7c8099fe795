"""Controls beside the quantizers whose place they take."""

import pytest
import torch
from torch import nn

from fewbits.errors import FewbitsError
from fewbits.quantizers import TWN, Ternary
from fewbits.training.controls import Control, control

WEIGHT = torch.randn(200, 100, generator=torch.Generator().manual_seed(0))


def linear(kind: Control, quantizer=None) -> nn.Linear:
    layer = nn.Linear(100, 200)
    with torch.no_grad():
        layer.weight.copy_(WEIGHT)
    return control(layer, {"weight": quantizer or TWN()}, kind)


def test_noise_has_the_size_of_the_error_and_is_drawn_anew():
    layer = linear(Control.NOISE)
    errors = [layer.weight - WEIGHT for _ in range(2)]
    size = (TWN()(WEIGHT) - WEIGHT).square().mean().sqrt().item()
    for error in errors:
        assert error.std().item() == pytest.approx(size, rel=0.03)  # 20,000 numbers: 0.5 % is one deviation
        assert abs(error.mean().item()) < 5 * size / 20_000**0.5
    assert abs(torch.corrcoef(torch.stack([e.flatten() for e in errors]))[0, 1].item()) < 0.04
    layer.weight.sum().backward()
    assert torch.equal(layer.parametrizations.weight.original.grad, torch.ones_like(WEIGHT))


def test_there_is_no_noise_in_evaluation():
    assert torch.equal(linear(Control.NOISE).eval().weight, WEIGHT)


@pytest.mark.parametrize("quantizer", [TWN(), Ternary(0.5)], ids=["twn", "ternary"])
def test_a_mask_keeps_what_is_not_zero_and_trains_everything(quantizer):
    layer = linear(Control.MASK, quantizer)
    zero = quantizer(WEIGHT) == 0
    assert 0 < zero.double().mean() < 1
    assert torch.equal(layer.weight, WEIGHT.masked_fill(zero, 0.0))
    layer.weight.sum().backward()
    assert torch.equal(layer.parametrizations.weight.original.grad, torch.ones_like(WEIGHT))


def test_a_pattern_without_a_match_is_an_error():
    with pytest.raises(FewbitsError, match="matches no parameter"):
        control(nn.Linear(2, 2), {"wieght": TWN()}, Control.NOISE)
