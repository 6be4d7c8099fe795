"""Steps of a quantized LSTM, GRU and linear layer against the same written out with plain operations."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.quantize import quantize
from fewbits.quantizers import TTQ, PerRow, Ternary

NAMES = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def inputs() -> Tensor:
    return torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(1)).double()


def plain_name(name: str) -> str:
    return name.replace("parametrizations.", "").replace(".original", "")


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {plain_name(name): p.grad for name, p in model.named_parameters()}


def lstm_by_hand(x: Tensor, w: Tensor, u: Tensor, b: Tensor, c: Tensor) -> Tensor:
    hidden = cell = x.new_zeros(x.shape[1], u.shape[1])
    outputs = []
    for step in x:
        i, f, g, o = (step @ w.T + b + hidden @ u.T + c).split(u.shape[1], dim=1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        hidden = torch.sigmoid(o) * torch.tanh(cell)
        outputs.append(hidden)
    return torch.stack(outputs)


def gru_by_hand(x: Tensor, w: Tensor, u: Tensor, b: Tensor, c: Tensor) -> Tensor:
    hidden = x.new_zeros(x.shape[1], u.shape[1])
    outputs = []
    for step in x:
        (ri, zi, ni), (rh, zh, nh) = ((v @ m.T + k).chunk(3, dim=1) for v, m, k in ((step, w, b), (hidden, u, c)))
        update = torch.sigmoid(zi + zh)
        hidden = (1 - update) * torch.tanh(ni + torch.sigmoid(ri + rh) * nh) + update * hidden
        outputs.append(hidden)
    return torch.stack(outputs)


BY_HAND = pytest.mark.parametrize(
    ("make", "by_hand"),
    [(lambda: nn.LSTM(4, 6), lstm_by_hand), (lambda: nn.GRU(4, 6), gru_by_hand)],
    ids=["LSTM", "GRU"],
)


def hand_weights(model: nn.Module) -> list[Tensor]:
    """Ternary values at T = 0.2, and the biases, as leaves: what the gradients belong to."""
    values = {plain_name(n): p.detach().clone() for n, p in model.named_parameters()}
    for name in NAMES[:2]:
        values[name] = torch.where(values[name] >= 0.2, 1.0, torch.where(values[name] < -0.2, -1.0, 0.0)).double()
    return [values[name].requires_grad_() for name in NAMES]


@BY_HAND
def test_recurrent_steps_written_out_give_the_same_outputs_and_gradients(make, by_hand):
    model = quantize(make().double(), {"weight_*": Ternary(0.2)})
    leaves, x = hand_weights(model), inputs()
    expected, found = by_hand(x, *leaves), model(x)[0]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    goal = torch.randn_like(expected)
    for output in (found, expected):
        (output * goal).sum().backward()
    found_gradients = gradients(model)
    for name, leaf in zip(NAMES, leaves, strict=True):
        torch.testing.assert_close(found_gradients[name], leaf.grad, rtol=1e-10, atol=1e-10)


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this processor has no bfloat16 LSTM kernel"
)
@BY_HAND
def test_bfloat16_autocast_is_close(make, by_hand):
    model = quantize(make(), {"weight_*": Ternary(0.2)})
    with torch.autocast("cpu", torch.bfloat16):
        output = model(inputs().float())[0]
    expected = by_hand(inputs(), *(leaf.double() for leaf in hand_weights(model)))
    torch.testing.assert_close(output.double(), expected, rtol=0, atol=0.03)
    output.float().sum().backward()
    assert all(torch.isfinite(g).all() and g.abs().sum() > 0 for g in gradients(model).values())


@pytest.mark.parametrize("threshold", [0.05, 0.5])
def test_training_by_hand_in_numpy_gives_the_same_weights_and_scales(threshold):
    """Twenty steps of steepest descent of the mean squared error of a linear layer, with the formulas of the paper."""
    model = quantize(nn.Linear(6, 4).double(), {"weight": TTQ(threshold, PerRow())})
    weight, bias = (p.detach().numpy().copy() for p in (model.parametrizations.weight.original, model.bias))
    scales = model.parametrizations.weight[0].learned.detach().numpy().copy()
    inputs, wanted = torch.randn(50, 6).double(), torch.randn(50, 4).double()
    optimizer = torch.optim.SGD(model.parameters(), 0.2)
    for _ in range(20):
        optimizer.zero_grad()
        F.mse_loss(model(inputs), wanted).backward()
        optimizer.step()

        delta = threshold * np.abs(weight).max(axis=1, keepdims=True)
        above, below = weight > delta, weight < -delta
        n, p = scales[:, :1], scales[:, 1:]
        rest = inputs.numpy() @ np.where(above, p, np.where(below, -n, 0.0)).T + bias - wanted.numpy()
        slope = 2 / rest.size * rest.T @ inputs.numpy()
        of_scales = np.stack([-(slope * below).sum(1), (slope * above).sum(1)], axis=1)
        weight -= 0.2 * slope * np.where(above, np.abs(p), np.where(below, np.abs(n), 1.0))
        scales -= 0.2 * of_scales
        bias -= 0.2 * 2 / rest.size * rest.sum(0)
    for found, expected in (
        (model.parametrizations.weight.original, weight),
        (model.parametrizations.weight[0].learned, scales),
        (model.bias, bias),
    ):
        np.testing.assert_allclose(found.detach(), expected, rtol=0, atol=1e-12)  # 20 steps of float64, numbers near 1
