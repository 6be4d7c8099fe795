"""Which weights and outputs of a model are quantized: patterns, shared weights, granularities, module outputs."""

import copy
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.errors import FewbitsError
from fewbits.quantize import pack, quantize
from fewbits.quantizers import TWN, Binary, PerGate, PerGroup, PerRow, Rounding, SoftStaircase, Uniform

TOO_FINE = Uniform(9, estimator=SoftStaircase(1.0))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def inputs() -> Tensor:
    return torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(1))


# --- which weights ---------------------------------------------------------------------------------------------------


def network() -> nn.Module:
    body = nn.ModuleDict({"rnn": nn.LSTM(4, 4), "embedding": nn.Embedding(5, 4)})
    return nn.ModuleDict({"body": body, "output": nn.Linear(4, 5)})


MATRICES = {"body.rnn.weight_ih_l0", "body.rnn.weight_hh_l0", "body.embedding.weight", "output.weight"}


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("body.rnn.weight_hh_l0", {"body.rnn.weight_hh_l0"}),
        ("rnn.weight_*", {"body.rnn.weight_ih_l0", "body.rnn.weight_hh_l0"}),
        ("weight_?h_l0", {"body.rnn.weight_ih_l0", "body.rnn.weight_hh_l0"}),
        ("weight_[i]h_l0", {"body.rnn.weight_ih_l0"}),
        ("weight", {"body.embedding.weight", "output.weight"}),
        ("*weight*", MATRICES),
    ],
)
def test_patterns_are_shell_wildcards_and_may_leave_out_leading_modules(pattern, names):
    assert set(pack(quantize(network(), {pattern: Binary()})).codes) == names


def test_a_gru_takes_three_gates():
    model = quantize(nn.GRU(4, 4), {"weight_*": TWN(PerGate(3))})
    assert model.weight_hh_l0.reshape(3, -1).abs().amax(dim=1).unique().numel() == 3


@pytest.mark.parametrize(
    ("weights", "activations", "words"),
    [
        ({"rnn.bias": Binary()}, {}, ["'rnn.bias'", "body.rnn.weight_ih_l0", "output.bias"]),
        ({"eight": Binary()}, {}, ["'eight'"]),
        ({"rnn.weight_*": Binary(), "weight_hh_l0": TWN()}, {}, ["two patterns", "body.rnn.weight_hh_l0"]),
        ({"output.weight": Binary(), "rnn.weight_*": TWN(PerGroup(3))}, {}, ["body.rnn.weight_ih_l0", "PerGroup(3)"]),
        ({"output.weight": Binary(), "body.embedding.weight": TWN(PerGate())}, {}, ["embedding", "PerGate(4)"]),
        ({"output.weight": Binary()}, {"decoder": Uniform(8)}, ["'decoder'", "module", "body.rnn"]),
        ({"output.weight": Binary(), "rnn.weight_*": TOO_FINE}, {}, ["body.rnn.weight_ih_l0", "at most 256 levels"]),
    ],
)
def test_a_wrong_pattern_is_explained_and_the_model_left_as_it_was(weights, activations, words):
    model = network()
    before, kinds = list(model.state_dict()), [type(m) for m in model.modules()]
    with pytest.raises(FewbitsError) as caught:
        quantize(model, weights, activations)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert (list(model.state_dict()), [type(m) for m in model.modules()]) == (before, kinds)


RECURRENT = {nn.LSTM: 4, nn.LSTMCell: 4, nn.GRU: 3, nn.GRUCell: 3, nn.RNN: 1, nn.RNNCell: 1}


@pytest.mark.parametrize("rows", [4, 12])
@pytest.mark.parametrize("kind", RECURRENT)
@pytest.mark.parametrize("gates", [2, 3, 4])
def test_only_the_gates_that_there_are_fit_even_where_others_divide(kind, gates, rows):
    model, own = kind(4, rows), RECURRENT[kind]
    if gates == own:
        assert len(pack(quantize(model, {"weight_*": TWN(PerGate(gates))})).codes) == 2
        return
    words = rf"weight_ih\S* stacks {own} gates: use PerGate\({own}\)" if own > 1 else r"no gates: use PerTensor\(\)"
    with pytest.raises(FewbitsError, match=words):
        quantize(model, {"weight_*": TWN(PerGate(gates))})
    assert type(model) is kind


def test_the_projection_of_an_lstm_has_no_gates():
    model = nn.LSTM(4, 8, proj_size=4)
    with pytest.raises(FewbitsError, match="weight_hr_l0 stacks no gates"):
        quantize(model, {"weight_*": TWN(PerGate())})
    quantize(model, {"weight_?h_*": TWN(PerGate()), "weight_hr_*": TWN()})
    assert model(inputs())[0].shape == (5, 3, 4)


@pytest.mark.parametrize("wrong", [TWN, "TWN()", None, 4, PerGate()])
def test_what_is_no_quantizer_is_refused(wrong):
    for settings in ({"weights": {"output.weight": wrong}}, {"weights": {}, "activations": {"output": wrong}}):
        with pytest.raises(FewbitsError, match=r"output\S* .* is no quantizer; give one, such as TWN"):
            quantize(network(), **settings)


def test_a_weight_that_is_computed_by_something_else_is_refused():
    model = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 5))
    with pytest.raises(FewbitsError, match=r"weight is computed by SpectralNorm; remove that"):
        quantize(model, {"weight": TWN()})


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_rows_that_change_when_they_are_read_are_refused(kind):
    with pytest.raises(FewbitsError, match="max_norm=None"):
        quantize(kind(5, 4, max_norm=1.0), {"weight": TWN()})


def test_a_weight_that_diverges_later_is_named():
    model = quantize(network(), {"*weight*": TWN()})
    with torch.no_grad():
        model["output"].parametrizations.weight.original[0, 0] = torch.nan
    for use in (lambda: model["output"](torch.zeros(1, 4)), lambda: pack(model)):
        with pytest.raises(FewbitsError, match=r"^output\.weight: .*NaN"):
            use()


def test_weights_that_diverged_are_refused():
    model = network()
    with torch.no_grad():
        model["output"].weight[0, 0] = torch.nan
    with pytest.raises(FewbitsError, match=r"output\.weight: .*NaN"):
        quantize(model, {"*weight*": Binary()})
    assert set(dict(model.named_parameters())) >= MATRICES


@pytest.mark.parametrize("pattern", ["weight", "output.weight", "*"])
def test_a_weight_is_quantized_once_only(pattern):
    model = quantize(network(), {"output.weight": Binary()})
    with pytest.raises(FewbitsError, match=r"output\.weight is quantized already"):
        quantize(model, {pattern: TWN()})
    quantize(model, {"rnn.weight_*": TWN()})
    assert len(pack(model).codes) == 3


class Tied(nn.Module):
    """An embedding whose matrix is the output matrix too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.output = nn.Embedding(4, 6), nn.Linear(6, 4)
        self.output.weight = self.embedding.weight


def test_a_shared_weight_takes_one_quantizer():
    with pytest.raises(FewbitsError, match="shared with a weight that is to have another quantizer"):
        quantize(Tied(), {"embedding.weight": Binary(), "output.weight": TWN()})
    model = quantize(Tied(), {"embedding.weight": TWN(), "output.weight": TWN()})
    assert model.embedding.weight is model.output.weight
    other = quantize(Tied(), {"output.weight": TWN()})
    assert torch.equal(other.embedding.weight, other.output.weight)
    assert other.embedding.weight.unique().numel() == 3


def test_a_convolution_has_one_scale_a_filter():
    model = quantize(nn.Conv2d(3, 8, 3), {"weight": Uniform(8, PerRow())})
    weight, images = model.parametrizations.weight.original.detach(), torch.randn(2, 3, 6, 6)
    scale = weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 127
    expected = F.conv2d(images, (weight / scale).round() * scale, model.bias)
    torch.testing.assert_close(model(images), expected)


# --- outputs ---------------------------------------------------------------------------------------------------------


def snapped(tensor: Tensor) -> Tensor:
    """3-bit symmetric uniform values: seven of them."""
    scale = tensor.detach().abs().max() / 3
    return (tensor.detach() / scale).round() * scale


@pytest.mark.parametrize("training", [True, False])
def test_the_output_of_a_module_is_quantized_and_its_gradient_passes(training):
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    twin = copy.deepcopy(model)
    quantize(model, {}, {"1": Uniform(3)}).train(training)
    x, z = (inputs().requires_grad_() for _ in range(2))
    hidden = twin[1](twin[0](z))
    expected = twin[2](hidden + (snapped(hidden) - hidden).detach())
    torch.testing.assert_close(model(x), expected)
    model(x).square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(x.grad, z.grad)
    for own, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad)


def test_the_first_tensor_of_a_tuple_is_quantized():
    model = nn.ModuleDict({"rnn": nn.LSTM(4, 4)})
    expected, (hidden, cell) = model["rnn"](inputs())
    quantize(model, {}, {"rnn": Uniform(3)})
    output, state = model["rnn"](inputs())
    torch.testing.assert_close(output, snapped(expected))
    assert torch.equal(state[0], hidden)
    assert torch.equal(state[1], cell)


class Halves(NamedTuple):
    first: Tensor
    second: Tensor


class Splitting(nn.Module):
    def forward(self, x: Tensor) -> Halves:
        return Halves(*x.chunk(2))


def test_a_tuple_with_names_keeps_them():
    model = quantize(Splitting(), {}, {"*": Uniform(2)})
    found, expected = model(inputs()[:4]), Splitting()(inputs()[:4])
    assert isinstance(found, Halves)
    torch.testing.assert_close(found.first, Uniform(2)(expected.first), rtol=0, atol=0)
    torch.testing.assert_close(found.second, expected.second, rtol=0, atol=0)


def test_a_packed_sequence_stays_one():
    torch.manual_seed(2)
    plain = nn.LSTM(4, 6)
    model = quantize(copy.deepcopy(plain), {}, {"": Uniform(3)})
    sequence = nn.utils.rnn.pack_padded_sequence(inputs(), torch.tensor([5, 4, 2]))
    (found, _), (expected, _) = model(sequence), plain(sequence)
    assert isinstance(found, nn.utils.rnn.PackedSequence)
    torch.testing.assert_close(found.data, Uniform(3)(expected.data), rtol=0, atol=0)
    padded, lengths = nn.utils.rnn.pad_packed_sequence(found)
    assert (padded.shape, lengths.tolist()) == ((5, 3, 6), [5, 4, 2])


class Naming(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"x": x}


def test_an_output_without_a_first_tensor_is_explained():
    model = quantize(Naming(), {}, {"*": Uniform(2)})
    with pytest.raises(FewbitsError, match=r"output of Naming is, or begins with, a dict.* inside it"):
        model(inputs())


def test_modules_without_an_output_of_their_own_are_not_matched():
    model = nn.ModuleDict({"list": nn.ModuleList([nn.Linear(4, 4)]), "attention": nn.MultiheadAttention(4, 2)})
    quantize(model, {"list.0.weight": Binary()})
    quantize(model, {}, {"*": Uniform(8)})
    assert set(pack(model).activations) == {"list.0", "attention"}
    for name in ("list", "attention.out_proj", "list.0.parametrizations.weight"):
        with pytest.raises(FewbitsError, match="matches no module"):
            quantize(network(), {}, {name: Uniform(8)})
    fresh = nn.ModuleDict({"list": nn.ModuleList([nn.Linear(4, 4)]), "attention": nn.MultiheadAttention(4, 2)})
    pack(model).load_into(fresh)
    assert torch.equal(fresh["list"][0](inputs()), model.eval()["list"][0](inputs()))


def test_a_stochastic_output_is_deterministic_in_evaluation():
    rule = Binary(rounding=Rounding.STOCHASTIC)
    model = quantize(nn.Sequential(nn.Linear(4, 40), nn.Tanh()), {}, {"1": rule})
    assert not torch.equal(model(inputs()), model(inputs()))
    model.eval()
    assert torch.equal(model(inputs()), torch.where(model[0](inputs()) >= 0, 1.0, -1.0))


def test_an_output_is_quantized_once_only():
    model = quantize(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), {}, {"1": Uniform(3)})
    with pytest.raises(FewbitsError, match="output of 1 is quantized already"):
        quantize(model, {"0.weight": Binary()}, {"1": Uniform(8)})
    assert type(model[0]) is nn.Linear
    copied = copy.deepcopy(model)
    assert torch.equal(copied(inputs()), model(inputs()))
