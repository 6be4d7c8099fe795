"""Tables that training learns beside the weights: the scales of TTQ, and codebooks whose codes are fixed."""

import copy
from dataclasses import dataclass, field

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.errors import FewbitsError
from fewbits.quantize import PackedModel, pack, quantize, size_report, train_codebooks
from fewbits.quantized_weight import QuantizedWeight
from fewbits.quantizers import TTQ, TWN, Binary, Codebook, LeastSquaresTernary, PerGate, PerRow, PerTensor, Scale


class Counting:
    """Notes every evaluation of a quantizer."""

    def encode(self, weight, **options):
        self.calls.append(weight.numel())
        return super().encode(weight, **options)


@dataclass(frozen=True)
class CountingTTQ(Counting, TTQ):
    calls: list[int] = field(default_factory=list, compare=False)


@dataclass(frozen=True)
class CountingCodebook(Counting, Codebook):
    calls: list[int] = field(default_factory=list, compare=False)


class Tied(nn.Module):
    """An embedding whose matrix is the output matrix too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.output = nn.Embedding(4, 6), nn.Linear(6, 4)
        self.output.weight = self.embedding.weight

    def forward(self, inputs: Tensor) -> Tensor:
        return self.output(inputs @ self.embedding.weight)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def answer(model: nn.Module, seed: int = 1) -> Tensor:
    output = model(draw(5, 3, 4, seed=seed).to(next(model.parameters()).dtype))
    return output[0] if isinstance(output, tuple) else output


def parametrization(model: nn.Module, name: str = "weight") -> QuantizedWeight:
    return model.parametrizations[name][0]


def ternary_linear() -> nn.Linear:
    return quantize(nn.Linear(4, 3), {"weight": TTQ(granularity=PerRow())})


def fixed_linear() -> nn.Linear:
    return train_codebooks(quantize(nn.Linear(4, 3), {"weight": Codebook(2)}))


def ternary_lstm() -> nn.LSTM:
    return quantize(nn.LSTM(4, 5, 2), {"weight_*": TTQ(granularity=PerGate())})


def fixed_lstm() -> nn.LSTM:
    return train_codebooks(quantize(nn.LSTM(4, 5, 2), {"weight_*": Codebook(3, granularity=PerGate())}))


def tied() -> nn.Module:
    return quantize(Tied(), {"output.weight": TTQ()})


MAKERS = {"ternary": ternary_linear, "codebook": fixed_linear, "ternary LSTM": ternary_lstm,
          "codebook LSTM": fixed_lstm, "tied": tied}  # fmt: skip
every_model = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


def train(model: nn.Module, steps: int = 4, rate: float = 0.02) -> None:
    optimizer = torch.optim.SGD(model.parameters(), rate)
    for seed in range(steps):
        optimizer.zero_grad()
        answer(model, seed).square().mean().backward()
        optimizer.step()


# --- the scales of TTQ -----------------------------------------------------------------------------------------------


def test_the_scales_are_parameters_and_part_of_the_state():
    model = nn.Linear(4, 3)
    first = TTQ(granularity=PerRow()).learned(model.weight)
    quantize(model, {"weight": TTQ(granularity=PerRow())})
    scales = parametrization(model).learned
    assert isinstance(scales, nn.Parameter)
    assert torch.equal(scales, first)
    assert any(each is scales for each in model.parameters())
    assert set(model.state_dict()) == {
        "bias", "parametrizations.weight.original", "parametrizations.weight.0.learned",
    }  # fmt: skip
    assert not [name for name in quantize(nn.Linear(4, 3), {"weight": TWN()}).state_dict() if "learned" in name]


def test_a_shared_weight_has_one_table_that_learns_from_both_uses():
    model = quantize(Tied().double(), {"output.weight": TTQ()})
    tables = [parametrization(each) for each in (model.embedding, model.output)]
    assert tables[0] is tables[1]
    assert sum(p.shape == (1, 2) for p in model.parameters()) == 1
    value = model.output.weight.detach().clone().requires_grad_()
    answer(model).square().sum().backward()
    inputs = draw(5, 3, 4).double()
    F.linear(inputs @ value, value, model.output.bias).square().sum().backward()
    codes = TTQ().encode(model.output.parametrizations.weight.original).integers
    expected = torch.stack([-(value.grad * (codes < 0)).sum(), (value.grad * (codes > 0)).sum()])
    torch.testing.assert_close(tables[0].learned.grad[0], expected)


# --- codebooks with fixed codes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("granularity", [PerTensor(), PerRow(), PerGate(2)], ids=repr)
def test_the_gradient_of_a_number_is_the_sum_over_the_weights_that_share_it(granularity):
    model = quantize(nn.Linear(6, 4).double(), {"weight": Codebook(2, granularity=granularity)})
    weight = model.parametrizations.weight.original
    codes = Codebook(2, granularity=granularity).encode(weight)
    train_codebooks(model)
    assert torch.equal(model.weight, codes.decode())
    inputs = draw(20, 6).double()
    leaf = codes.decode().detach().requires_grad_()
    model(inputs).tanh().sum().backward()
    F.linear(inputs, leaf, model.bias).tanh().sum().backward()
    rows, integers = leaf.grad.reshape(codes.groups, -1), codes.integers.reshape(codes.groups, -1).long()
    for found, row, places in zip(parametrization(model).learned.grad, rows, integers, strict=True):
        torch.testing.assert_close(found, torch.zeros(4).double().index_add(0, places, row))
    assert weight.grad is None
    assert not weight.requires_grad


def test_training_moves_the_numbers_and_neither_codes_nor_float_weights():
    model = fixed_linear()
    before = copy.deepcopy(model.state_dict())
    train(model)
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"bias", "parametrizations.weight.0.learned"}
    again = train_codebooks(model).state_dict()
    assert all(torch.equal(again[name], after[name]) for name in after), "a second call keeps what is learned"
    train(model)
    assert not torch.equal(
        model.state_dict()["parametrizations.weight.0.learned"], after["parametrizations.weight.0.learned"]
    )


def test_the_codes_that_an_importance_gave_are_kept():
    model = quantize(nn.Linear(40, 6), {"weight": Codebook(2)})
    parametrization(model).importance = torch.exp(3 * draw(6, 40))
    value = model.weight.detach().clone()
    assert not torch.equal(value, Codebook(2)(model.parametrizations.weight.original))
    assert torch.equal(train_codebooks(model).weight, value)


def test_only_codebooks_are_trained_and_a_model_without_one_is_refused():
    model = nn.ModuleDict({"one": nn.Linear(4, 4), "two": nn.Linear(4, 4)})
    quantize(model, {"one.weight": Codebook(2), "two.weight": TWN()})
    train_codebooks(model)
    assert model["two"].parametrizations.weight.original.requires_grad
    with pytest.raises(FewbitsError, match="no weight of this model has a codebook"):
        train_codebooks(quantize(nn.Linear(4, 4), {"weight": TTQ()}))


# --- both ------------------------------------------------------------------------------------------------------------


@every_model
def test_a_deep_copy_is_equal_and_learns_by_itself(make):
    model = make()
    answer(model).sum().backward()
    twin = copy.deepcopy(model)
    assert torch.equal(answer(twin), answer(model))
    before = answer(model).detach()
    train(twin)
    assert torch.equal(answer(model), before)
    assert not torch.equal(answer(twin), before)
    train(model)
    assert torch.equal(answer(twin), answer(model))


@every_model
@pytest.mark.parametrize("assign", [False, True])
def test_a_checkpoint_goes_around(make, assign):
    model, other = make(), make()
    train(model)
    answer(other)
    other.load_state_dict(copy.deepcopy(model.state_dict()), assign=assign)
    assert torch.equal(answer(other), answer(model))
    if not (assign and isinstance(model, Tied)):  # PyTorch unties what it assigns
        train(model)
        train(other)
        assert torch.equal(answer(other), answer(model))


@every_model
def test_a_packed_model_is_the_trained_one_bit_for_bit(make, tmp_path):
    model = make()
    train(model)
    model.eval()
    packed = pack(model)
    assert not [name for name in packed.floats if "parametrizations" in name]
    packed.save(tmp_path)
    plain = Tied() if isinstance(model, Tied) else nn.LSTM(4, 5, 2) if isinstance(model, nn.LSTM) else nn.Linear(4, 3)
    fresh = PackedModel.load(tmp_path).load_into(plain)
    before = answer(model)
    assert torch.equal(answer(fresh), before)
    values = {name: codes.decode() for name, codes in packed.codes.items()}
    train(model)
    assert not torch.equal(answer(model), before)
    assert all(torch.equal(codes.decode(), values[name]) for name, codes in packed.codes.items())


def test_three_numbers_a_group_are_counted():
    (row, _) = size_report(ternary_linear()).tensors
    assert row.bits == 12 * 2 + 3 * 3 * 32
    (row, _) = size_report(fixed_linear()).tensors
    assert row.bits == 12 * 2 + 4 * 32


@pytest.mark.parametrize("rule", [TTQ(), Codebook(2)])
def test_activations_may_be_computed_again_in_the_backward_pass(rule):
    """Checkpointing counts the tensors that each of the two forward passes saves; the second one finds a kept value."""
    torch.manual_seed(0)
    model = quantize(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4)), {"*weight": rule})
    if isinstance(rule, Codebook):
        train_codebooks(model)
    x = torch.randn(3, 4)
    found = []
    for run in (model, lambda x: torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False)):
        model.zero_grad()
        run(x).square().sum().backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys() > {"0.parametrizations.weight.0.learned"}
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name]), name


@pytest.mark.parametrize("fused", [False, True])
def test_an_lstm_evaluates_each_quantizer_once_a_step(fused):
    rule, other = CountingTTQ(granularity=PerGate()), CountingCodebook(2, granularity=PerGate())
    model = quantize(nn.LSTM(4, 5, 2), {"weight_*_l0": rule, "weight_*_l1": other})
    optimizer = torch.optim.Adam(model.parameters(), 0.01, fused=fused)
    for step in range(4):
        answer(model, step).square().mean().backward()
        optimizer.step()
        if step == 0:  # before it, the check and the first table
            rule.calls.clear()
            other.calls.clear()
    assert (len(rule.calls), len(other.calls)) == (6, 6)
    train_codebooks(model)
    other.calls.clear()
    train(model)
    assert not other.calls, "fixed codes are not computed again"


@every_model
def test_outputs_are_those_of_the_codes_after_every_change(make):
    """Never a value of a table that has changed since: by a step, in place, by another type, or to another tensor."""
    model = make()
    owner = model.output if isinstance(model, Tied) else model
    name, chain = next(iter(owner.parametrizations.items()))

    def assert_right() -> None:
        codes, table = chain[0].encode(chain.original), chain[0].learned
        assert torch.equal(getattr(owner, name), codes.decode())
        shown = codes.tables["codebook"]
        assert torch.equal(table, shown if shown.shape == table.shape else shown[:, ::2] * torch.tensor([-1, 1]))

    for optimizer in (torch.optim.SGD(model.parameters(), 0.1), torch.optim.Adam(model.parameters(), 0.1, fused=True)):
        for seed in range(2):
            optimizer.zero_grad()
            answer(model, seed).square().mean().backward()
            answer(model)
            optimizer.step()
            assert_right()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert_right()
            chain[0].learned.mul_(1.5)
            assert_right()
    model.double()
    assert_right()
    chain[0].learned = nn.Parameter(chain[0].learned.detach() * 2)
    assert_right()


def test_temporary_tables_are_never_mixed_up():
    """Each is born where the last one died: same address, same version, same number of Python's."""
    model, inputs = ternary_linear().eval(), draw(5, 4)
    weight = model.parametrizations.weight.original
    with torch.no_grad():
        for seed in range(20):
            temporary = {"parametrizations.weight.0.learned": draw(3, 2, seed=seed)}
            expected = TTQ(granularity=PerRow()).encode(weight, learned=draw(3, 2, seed=seed)).decode()
            found = torch.func.functional_call(model, temporary, (inputs,))
            assert torch.equal(found, F.linear(inputs, expected, model.bias))
            del temporary


def test_another_importance_gives_another_value():
    quantizer = LeastSquaresTernary(PerRow())
    model = quantize(nn.Linear(4, 3), {"weight": quantizer}).eval()
    weight = model.parametrizations.weight.original
    for seed in range(20):
        parametrization(model).importance = draw(3, 4, seed=seed).exp()
        expected = quantizer(weight, importance=draw(3, 4, seed=seed).exp())
        assert torch.equal(model.weight, expected)
        assert torch.equal(pack(model).codes["weight"].decode(), expected)


def test_freezing_and_thawing_the_table():
    for model in (ternary_linear(), fixed_linear()):
        table = parametrization(model).learned
        table.requires_grad_(False)
        answer(model)
        table.requires_grad_(True)
        answer(model).sum().backward()
        assert table.grad.abs().sum() > 0
        table.grad = None
        table.requires_grad_(False)
        answer(model).sum().backward()
        assert table.grad is None


def test_an_importance_of_inference_mode_is_used():
    model = quantize(nn.Linear(4, 3), {"weight": Binary(Scale.MEAN_ABSOLUTE)}).eval()
    for seed in range(3):
        with torch.inference_mode():
            importance = draw(3, 4, seed=seed).square()
        parametrization(model).importance = importance
        expected = Binary(Scale.MEAN_ABSOLUTE)(model.parametrizations.weight.original, importance=importance.clone())
        assert torch.equal(model.weight, expected)
        assert torch.equal(pack(model).codes["weight"].decode(), expected)
    assert [name for name in model.state_dict() if "importance" in name]
    assert not [name for name in pack(model).floats if "importance" in name]
