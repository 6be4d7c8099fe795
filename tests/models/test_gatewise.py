"""The gatewise LSTM against nn.LSTM, PyTorch's weight normalisation, and loops written out."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from fewbits.errors import FewbitsError
from fewbits.models import Backward, GatewiseLSTM, Normalisation
from fewbits.quantize import pack, quantize
from fewbits.quantizers import TWN, Binary, PerGate, Ternary

INPUTS, HIDDEN, LAYERS, STEPS, BATCH = 5, 6, 2, 4, 3
X = torch.randn(STEPS, BATCH, INPUTS, generator=torch.Generator().manual_seed(1))
STATE = tuple(torch.randn(2, LAYERS, BATCH, HIDDEN, generator=torch.Generator().manual_seed(2)))


def lstm(dropout: float = 0.0) -> nn.LSTM:
    torch.manual_seed(0)
    return nn.LSTM(INPUTS, HIDDEN, LAYERS, dropout=dropout)


def stacked(model: GatewiseLSTM, name: str) -> Tensor:
    """The gradients of the four matrices as nn.LSTM stacks them."""
    return torch.cat([getattr(model, f"{name}_{gate}").grad for gate in "ifgo"])


@pytest.mark.parametrize("state", [None, STATE], ids=["zero state", "state"])
@pytest.mark.parametrize("backward", Backward)
def test_outputs_states_and_gradients_are_those_of_nn_lstm(state, backward):
    plain = lstm()
    model = GatewiseLSTM(plain, backward=backward)  # of float weights, both backward passes are one
    found, expected = model(X, state), plain(X, state)
    torch.testing.assert_close(found, expected)
    for output, (hidden, cell) in (found, expected):
        (output.square().sum() + hidden.sum() + cell.prod()).backward()
    for layer in range(LAYERS):
        for side in ("ih", "hh"):
            expected = getattr(plain, f"weight_{side}_l{layer}").grad
            torch.testing.assert_close(stacked(model, f"weight_{side}_l{layer}"), expected)
            bias = f"bias_{side}_l{layer}"
            torch.testing.assert_close(getattr(model, bias).grad, getattr(plain, bias).grad)


def test_it_shares_no_number_with_the_lstm_that_it_was_made_of():
    plain = lstm()
    model = GatewiseLSTM(plain, Normalisation.WEIGHT)
    before = model(X)[0].detach().clone()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.fill_(3.0)
    assert torch.equal(model(X)[0], before)


def test_dropout_is_drawn_as_nn_lstm_draws_it():
    plain = lstm(dropout=0.5)
    model = GatewiseLSTM(plain)
    torch.manual_seed(3)
    expected = plain(X)[0]
    torch.manual_seed(3)
    assert torch.equal(model(X)[0], expected)
    assert not torch.equal(model(X)[0], expected)
    assert torch.equal(model.eval()(X)[0], plain.eval()(X)[0])


def test_dropout_of_the_steps_stands_between_the_layers_only():
    model = GatewiseLSTM(lstm(dropout=1.0), backward=Backward.FLOAT)
    assert torch.equal(model(X)[0], model(X.flip(0))[0])
    assert not torch.equal(model.eval()(X)[0], model(X.flip(0))[0])


def test_a_quantizer_for_each_gate_is_one_per_gate():
    plain = quantize(lstm(), {"weight_*": TWN(PerGate())})
    model = quantize(GatewiseLSTM(lstm()), {"weight_*": TWN()})
    torch.testing.assert_close(model(X), plain(X), rtol=0, atol=0)


def test_one_gate_alone_can_be_quantized():
    model = quantize(GatewiseLSTM(lstm()), {"weight_*_f": Binary()})
    for layer in range(LAYERS):
        for side in ("ih", "hh"):
            for gate, block in zip("ifgo", model.matrix(side, layer).chunk(4), strict=True):
                given = getattr(lstm(), f"weight_{side}_l{layer}").chunk(4)["ifgo".index(gate)]
                assert torch.equal(block, torch.where(given >= 0, 1.0, -1.0) if gate == "f" else given)


def test_each_quantizer_is_evaluated_once_a_step(monkeypatch):
    calls = []
    encode = Ternary.encode
    monkeypatch.setattr(Ternary, "encode", lambda self, w, **more: calls.append(1) or encode(self, w, **more))
    for backward in Backward:
        model = quantize(GatewiseLSTM(lstm(), backward=backward), {"weight_*": Ternary(0.1)})
        model(X)[0].sum().backward()  # the first step uses what quantize() computed
        calls.clear()
        model(X)[0].sum().backward()
        assert len(calls) == 4 * 2 * LAYERS


def test_weight_normalisation_is_that_of_pytorch():
    plain, model = lstm(), GatewiseLSTM(lstm(), Normalisation.WEIGHT)
    torch.testing.assert_close(model(X), plain(X))
    with torch.no_grad():
        for layer in range(LAYERS):
            for side in ("ih", "hh"):
                name = f"weight_{side}_l{layer}"
                weight_norm(plain, name)
                gain = torch.rand(4 * HIDDEN, generator=torch.Generator().manual_seed(layer)) + 0.5
                getattr(model, f"gain_{side}_l{layer}").copy_(gain)
                plain.parametrizations[name].original0.copy_(gain[:, None])
    torch.testing.assert_close(model(X), plain(X))
    for each in (model, plain):
        each(X)[0].square().sum().backward()
    for layer in range(LAYERS):
        for side in ("ih", "hh"):
            parts = plain.parametrizations[f"weight_{side}_l{layer}"]
            torch.testing.assert_close(getattr(model, f"gain_{side}_l{layer}").grad, parts.original0.grad[:, 0])
            torch.testing.assert_close(stacked(model, f"weight_{side}_l{layer}"), parts.original1.grad)


def test_weight_normalisation_takes_the_scale_away():
    one = quantize(GatewiseLSTM(lstm(), Normalisation.WEIGHT), {"weight_*": Binary(scale=1.0)})
    other = quantize(GatewiseLSTM(lstm(), Normalisation.WEIGHT), {"weight_*": Binary(scale=0.01)})
    torch.testing.assert_close(one(X), other(X))


def test_a_row_without_a_weight_stays_zero():
    model = quantize(GatewiseLSTM(lstm(), Normalisation.WEIGHT), {"weight_*": Ternary(5.0)})
    assert all((model.matrix(side, 0) == 0).all() for side in ("ih", "hh"))
    model(X)[0].sum().backward()
    gradient = model.parametrizations["weight_hh_l1_g"].original.grad
    assert 0 <= gradient.abs().max() < 100
    assert model.parametrizations["weight_ih_l1_g"].original.grad.abs().max() > 0


def by_hand(model: GatewiseLSTM, product) -> Tensor:
    """All steps of all layers; ``product(x, side, layer)`` is what stands for W x + b."""
    inputs = list(X)
    for layer in range(LAYERS):
        hidden = cell = torch.zeros(BATCH, HIDDEN)
        outputs = []
        for x in inputs:
            i, f, g, o = (product(x, "ih", layer) + product(hidden, "hh", layer)).chunk(4, dim=1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
            outputs.append(hidden)
        inputs = outputs
    return torch.stack(inputs)


def test_layer_normalisation_is_that_of_both_products():
    plain = lstm()
    model = GatewiseLSTM(plain, Normalisation.LAYER)

    def product(x: Tensor, side: str, layer: int) -> Tensor:
        y = x @ getattr(plain, f"weight_{side}_l{layer}").T
        y = (y - y.mean(1, keepdim=True)) / (y.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
        return 0.1 * y + getattr(plain, f"bias_{side}_l{layer}")

    torch.testing.assert_close(model(X)[0], by_hand(model, product))


def test_a_backward_pass_through_floats_takes_them_for_what_it_passes_on():
    quantizer = Binary()
    model = quantize(GatewiseLSTM(lstm(), backward=Backward.FLOAT), {"weight_*": quantizer})
    floats = {name: p.detach() for name, p in lstm().named_parameters()}
    signs = {name: quantizer(value).requires_grad_() for name, value in floats.items() if "weight" in name}

    def product(x: Tensor, side: str, layer: int) -> Tensor:
        through = F.linear(x, floats[f"weight_{side}_l{layer}"])  # has the gradient; its value cancels
        value = F.linear(x.detach(), signs[f"weight_{side}_l{layer}"])
        return value + through - through.detach() + floats[f"bias_{side}_l{layer}"]

    expected, found = by_hand(model, product), model(X)[0]
    torch.testing.assert_close(found, expected)
    for each in (expected, found):
        each.square().sum().backward()
    for name, value in signs.items():
        parts = [model.parametrizations[f"{name}_{gate}"].original.grad for gate in "ifgo"]
        torch.testing.assert_close(torch.cat(parts), value.grad)
    plain = quantize(GatewiseLSTM(lstm()), {"weight_*": quantizer})
    plain(X)[0].square().sum().backward()
    first = model.parametrizations["weight_ih_l0_f"].original.grad
    assert not torch.allclose(first, plain.parametrizations["weight_ih_l0_f"].original.grad, rtol=0.01)


def test_it_is_copied_packed_and_loaded_as_any_module():
    model = quantize(GatewiseLSTM(lstm(), Normalisation.WEIGHT), {"weight_*": TWN()})
    replica = copy.deepcopy(model)
    fresh = pack(model).load_into(GatewiseLSTM(lstm(), Normalisation.WEIGHT))
    for other in (replica, fresh):
        torch.testing.assert_close(other(X), model(X), rtol=0, atol=0)


@pytest.mark.parametrize(
    "wrong", [{"bidirectional": True}, {"proj_size": 2}, {"batch_first": True}, {"bias": False}], ids=str
)
def test_another_lstm_is_refused(wrong):
    with pytest.raises(FewbitsError, match="one direction, with biases, time first"):
        GatewiseLSTM(nn.LSTM(INPUTS, HIDDEN, **wrong))
