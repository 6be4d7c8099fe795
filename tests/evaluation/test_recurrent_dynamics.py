"""Norms, saturation and gradients in time against numpy, SciPy and runs that start from a later state."""

import numpy as np
import pytest
import torch
from scipy.special import expit

from fewbits.errors import FewbitsError
from fewbits.evaluation.recurrent_dynamics import dynamics
from fewbits.models import Cell, GatewiseLSTM, recurrent_language_model
from fewbits.quantize import quantize
from fewbits.quantizers import Binary

WORDS = torch.randint(11, (8, 3), generator=torch.Generator().manual_seed(0))


def model(cell=Cell.LSTM, layers=2, dropout=0.0, reach=0.9):
    torch.manual_seed(4)
    return recurrent_language_model(11, 5, 6, layers, cell, dropout, reach)


def test_norms_are_the_largest_singular_values():
    given = model()
    found = dynamics(given, WORDS).spectral_norms
    assert list(found) == list("ifgo")
    for number, gate in enumerate("ifgo"):
        blocks = [getattr(given.body.rnn, f"weight_hh_l{k}").detach().numpy()[6 * number :][:6] for k in range(2)]
        expected = max(np.linalg.svd(block.astype(np.float64), compute_uv=False)[0] for block in blocks)
        assert found[gate] == pytest.approx(expected, rel=1e-6)


def test_saturated_gates_are_counted():
    given = model(reach=3.0)
    weights = {name: p.detach().double().numpy() for name, p in given.body.rnn.named_parameters()}
    inputs = given.body.embedding(WORDS[:-1]).detach().double().numpy()
    counts = np.zeros(4)
    for layer in range(2):
        hidden = cell = np.zeros((3, 6))
        outputs = []
        for x in inputs:
            y = x @ weights[f"weight_ih_l{layer}"].T + hidden @ weights[f"weight_hh_l{layer}"].T
            i, f, g, o = np.split(y + weights[f"bias_ih_l{layer}"] + weights[f"bias_hh_l{layer}"], 4, axis=1)
            values = [expit(i), expit(f), np.tanh(g), expit(o)]
            counts += [
                ((v < 0.05) | (v > 0.95)).sum() if k != 2 else (abs(v) > 0.95).sum() for k, v in enumerate(values)
            ]
            cell = values[1] * cell + values[0] * values[2]
            hidden = values[3] * np.tanh(cell)
            outputs.append(hidden)
        inputs = np.array(outputs)
    found = dynamics(given, WORDS).saturated
    assert counts.min() > 0
    assert list(found.values()) == pytest.approx(counts / (2 * 7 * 3 * 6))


def test_gradients_are_those_of_a_run_that_starts_from_the_state():
    given = model(layers=1)
    found = dynamics(given, WORDS).gradient_norms
    inputs = given.body.embedding(WORDS[:-1]).detach()
    assert len(found) == 7
    for back in range(7):
        with torch.no_grad():
            _, state = given.body.rnn(inputs[: 7 - back])
        hidden, cell = (part.clone().requires_grad_() for part in state)
        last = given.body.rnn(inputs[7 - back :], (hidden, cell))[0][-1] if back else hidden[0]
        given.classifier.nll(last, WORDS[-1]).sum().backward()
        parts = [hidden.grad[0]] + ([cell.grad[0]] if back else [])  # at the last step the cell acts through h alone
        expected = torch.cat(parts, dim=1).norm(dim=1).median().item()
        assert found[back] == pytest.approx(expected, rel=1e-5)


def test_quantized_and_gatewise_models_are_measured_as_they_evaluate():
    plain, gatewise = model(dropout=0.5), model(dropout=0.5)
    gatewise.body.rnn = GatewiseLSTM(gatewise.body.rnn)
    for each in (plain, gatewise):
        quantize(each, {"rnn.weight_*": Binary(scale=0.3)})
    found, other = dynamics(plain, WORDS), dynamics(gatewise, WORDS)
    assert found.spectral_norms == pytest.approx(other.spectral_norms)
    assert found.gradient_norms == pytest.approx(other.gradient_norms, rel=1e-5)
    assert plain.training
    assert gatewise.body.rnn.training
    assert found.spectral_norms["f"] <= 0.3 * 6


def test_only_an_lstm_and_two_words_can_be_measured():
    with pytest.raises(FewbitsError, match="has a GRU"):
        dynamics(model(Cell.GRU), WORDS)
    with pytest.raises(FewbitsError, match="give at least two"):
        dynamics(model(), WORDS[:1])
