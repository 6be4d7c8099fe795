"""Recurrent bodies whose hidden states are quantized, against PyTorch's fused modules and a loop in numpy."""

import numpy as np
import pytest
import torch

from fewbits.models import Cell, RecurrentBody
from fewbits.quantize import quantize
from fewbits.quantizers import BinaryCodes, MidRise, PerRow


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def body(cell: Cell, activations, layers: int = 2, seed: int = 0) -> RecurrentBody:
    torch.manual_seed(seed)
    return RecurrentBody(11, 4, 6, layers, cell, activations=activations).double()


@pytest.mark.parametrize("cell", list(Cell))
def test_without_rounding_the_steps_are_those_of_the_fused_module(cell):
    """Values, states and gradients, over two windows with the state carried along."""
    words = torch.randint(11, (7, 3), generator=torch.Generator().manual_seed(1))
    results = []
    for activations in (None, lambda hidden: hidden):
        model = body(cell, activations)
        first, state = model(words[:4])
        second, state = model(words[4:], state)
        (first.square().sum() + second.sum()).backward()
        ends = [state] if cell is Cell.GRU else list(state)
        results.append([first, second, *ends, *(p.grad for p in model.parameters())])
    for fused, stepwise in zip(*results, strict=True):
        torch.testing.assert_close(stepwise, fused, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("cell", list(Cell))
def test_every_state_is_quantized_before_it_is_used(cell):
    """Against numpy, step by step: what the next step and the output read is on the grid, the cell state is not."""
    quantizer = MidRise(2, PerRow())
    model = body(cell, quantizer, layers=1).eval()
    words = torch.tensor([[1, 5], [0, 5], [9, 2]])
    found, _ = model(words)
    weights = {name: p.detach().numpy() for name, p in model.rnn.named_parameters()}
    hidden = memory = np.zeros((2, 6))
    for step, row in enumerate(words):
        given = model.embedding.weight.detach().numpy()[row] @ weights["weight_ih_l0"].T + weights["bias_ih_l0"]
        back = hidden @ weights["weight_hh_l0"].T + weights["bias_hh_l0"]
        if cell is Cell.LSTM:
            i, f, g, o = np.split(given + back, 4, axis=1)
            memory = sigmoid(f) * memory + sigmoid(i) * np.tanh(g)
            hidden = sigmoid(o) * np.tanh(memory)
        else:
            (r, z, n), (r_back, z_back, n_back) = np.split(given, 3, axis=1), np.split(back, 3, axis=1)
            update = sigmoid(z + z_back)
            hidden = (1 - update) * np.tanh(n + sigmoid(r + r_back) * n_back) + update * hidden
        largest = np.abs(hidden).max(axis=1, keepdims=True)
        levels = largest * np.array([-1, -1 / 3, 1 / 3, 1])
        hidden = np.take_along_axis(levels, np.abs(hidden[:, :, None] - levels[:, None]).argmin(2), axis=1)
        np.testing.assert_allclose(found[step].detach().numpy(), hidden, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("cell", list(Cell))
def test_it_learns_with_quantized_weights_and_states(cell):
    """A sequence with a rule: the next word is the last one plus one."""
    model = quantize(body(cell, BinaryCodes(2), layers=1), {"rnn.weight_*": BinaryCodes(2)}).float()
    output = torch.nn.Linear(6, 11)
    optimizer = torch.optim.Adam([*model.parameters(), *output.parameters()], lr=0.03)
    words = (torch.arange(12)[:, None] + torch.arange(8)) % 11
    losses = []
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(output(model(words[:-1])[0]).flatten(0, 1), words[1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 3
