"""Quantizing whole models: one evaluation a step, never a stale one, gradients, randomness, copies.

The oracle is a float twin: a plain module that holds the quantized values as its weights. Its outputs are the right
outputs, and its gradients are what a straight-through estimator must give to the float weights.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.quantize import pack, quantize
from fewbits.quantizers import TWN, Binary, ClippedStraightThrough, PerGate, Rounding, Uniform

BINARY = Binary()
STOCHASTIC = Binary(rounding=Rounding.STOCHASTIC)


@dataclass(frozen=True)
class Counting(Binary):
    """A binary quantizer that notes every evaluation."""

    calls: list[int] = field(default_factory=list, compare=False)

    def encode(self, weight, **options):
        self.calls.append(weight.numel())
        return super().encode(weight, **options)


class Repeated(nn.Module):
    """One cell, called once a time step."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(4, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        state = None
        for step in inputs:
            state = self.cell(step, state)
        return state[0]


class Tied(nn.Module):
    """An embedding whose matrix is the output matrix too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.output = nn.Embedding(4, 6), nn.Linear(6, 4)
        self.output.weight = self.embedding.weight

    def forward(self, inputs: Tensor) -> Tensor:
        return self.output(inputs @ self.embedding.weight)


#: How to make a module that reads (5, 3, 4), and how many different weight matrices it has.
MAKERS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "LSTM": (lambda: nn.LSTM(4, 4), 2),
    "LSTM, 2 layers": (lambda: nn.LSTM(4, 5, 2), 4),
    "LSTM, both ways": (lambda: nn.LSTM(4, 5, 2, bidirectional=True), 8),
    "GRU": (lambda: nn.GRU(4, 5, 2), 4),
    "linear": (lambda: nn.Linear(4, 3), 1),
    "called every time step": (Repeated, 2),
    "tied": (Tied, 1),
}
every_module = pytest.mark.parametrize(("make", "matrices"), MAKERS.values(), ids=MAKERS.keys())


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def inputs(seed: int = 1) -> Tensor:
    return torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(seed))


def answer(module: nn.Module, x: Tensor | None = None) -> Tensor:
    output = module(inputs() if x is None else x)
    return output[0] if isinstance(output, tuple) else output


def signs(weight: Tensor) -> Tensor:
    return torch.where(weight.detach() >= 0, 1.0, -1.0).to(weight.dtype)


def plain_name(name: str) -> str:
    return name.replace("parametrizations.", "").replace(".original", "")


def float_twin(model: nn.Module, make: Callable[[], nn.Module]) -> nn.Module:
    """A plain module with the binary weights of ``model`` in it."""
    state = {plain_name(n): signs(t) if "original" in n else t.detach() for n, t in model.state_dict().items()}
    twin = make().to(next(model.parameters()).dtype)
    twin.load_state_dict(state)
    return twin


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {plain_name(name): p.grad for name, p in model.named_parameters()}


def assert_right(model: nn.Module, make: Callable[[], nn.Module], x: Tensor | None = None) -> None:
    torch.testing.assert_close(answer(model, x), answer(float_twin(model, make), x))


def linear(rule: Binary = BINARY) -> nn.Linear:
    return quantize(nn.Linear(4, 3), {"weight": rule})


# --- one evaluation a step -------------------------------------------------------------------------------------------


@every_module
def test_each_quantizer_is_evaluated_once_a_training_step(make, matrices):
    rule = Counting()
    model = quantize(make(), {"*weight*": rule})
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for step in range(4):
        answer(model).square().mean().backward()
        optimizer.step()
        if step == 0:  # what registration has computed serves the first step
            rule.calls.clear()
    assert len(rule.calls) == 3 * matrices


@every_module
def test_each_quantizer_is_evaluated_once_in_a_whole_evaluation(make, matrices):
    rule = Counting()
    model = quantize(make(), {"*weight*": rule}).eval()
    rule.calls.clear()
    with torch.no_grad():
        for seed in range(5):
            answer(model, inputs(seed))
    assert len(rule.calls) == matrices


@every_module
def test_outputs_and_gradients_are_those_of_the_quantized_weights(make, matrices):
    model = quantize(make().double(), {"*weight*": Binary()})
    optimizer = torch.optim.SGD(model.parameters(), 0.3)
    for seed in range(3):
        twin, x = float_twin(model, make), inputs(seed).double()
        optimizer.zero_grad()
        for module in (model, twin):
            answer(module, x).square().sum().backward()
        torch.testing.assert_close(gradients(model), gradients(twin))
        assert_right(model, make, x)
        optimizer.step()


# --- never a stale value ---------------------------------------------------------------------------------------------

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, 1.0, foreach=False),
    "sgd foreach": lambda p: torch.optim.SGD(p, 1.0, foreach=True),
    "sgd fused": lambda p: torch.optim.SGD(p, 1.0, fused=True),
    "adam": lambda p: torch.optim.Adam(p, 1.0),
    "adam fused": lambda p: torch.optim.Adam(p, 1.0, fused=True),
}


@pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
@pytest.mark.parametrize("peek", [False, True], ids=["", "weights read before the step"])
def test_after_a_step_of_an_optimizer_made_before_quantizing(make_optimizer, peek):
    model = nn.LSTM(4, 4)
    own = dict(model.named_parameters())
    optimizer = make_optimizer(model.parameters())
    quantize(model, {"weight_*": Binary()})
    assert {plain_name(n): id(p) for n, p in model.named_parameters()} == {n: id(p) for n, p in own.items()}
    before = signs(own["weight_hh_l0"])
    for seed in range(3):
        optimizer.zero_grad()
        answer(model, inputs(seed)).square().sum().backward()
        if peek:
            answer(model)
        optimizer.step()
        assert_right(model, lambda: nn.LSTM(4, 4))
    assert not torch.equal(model.weight_hh_l0, before), "the optimizer trains the quantized model"


def test_after_weights_are_copied_loaded_or_moved():
    make = lambda: nn.LSTM(4, 4)  # noqa: E731
    model = quantize(make(), {"weight_*": Binary()})
    other = quantize(make(), {"weight_*": Binary()})
    answer(model)
    model.load_state_dict(other.state_dict())
    assert_right(model, make)
    torch.testing.assert_close(answer(model), answer(other))
    with torch.no_grad():
        model.parametrizations.weight_hh_l0.original.copy_(torch.randn(16, 4))
    assert_right(model, make)
    model.weight_ih_l0 = torch.randn(16, 4)  # assigning sets the float copy
    assert_right(model, make)
    model.double()
    assert_right(model, make, inputs().double())
    model.load_state_dict({n: t + 0.1 for n, t in model.state_dict().items()}, assign=True)
    assert_right(model, make, inputs().double())


def test_after_a_move_that_ends_in_the_same_memory():
    """There and back again changes the weight, but not its identity, nor its version, nor, often, its address."""
    for size in range(8, 72, 2):
        model = quantize(nn.Linear(size, size), {"weight": Uniform(8)}).eval()
        with torch.no_grad():
            answer(model, torch.randn(2, size))
            model.to(torch.bfloat16).to(torch.float32)
            weight = model.parametrizations.weight.original
            assert torch.equal(model.weight, Uniform(8).encode(weight).decode())


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_a_functional_call_with_temporary_weights(mode):
    """Each temporary is born where the last one died: same address, same version."""
    model, memory, draw = linear(), np.empty((3, 4), np.float32), np.random.default_rng(0)
    with mode():
        for _ in range(20):
            memory[:] = draw.standard_normal((3, 4))
            temporary = {"parametrizations.weight.original": torch.from_numpy(memory)}
            result = torch.func.functional_call(model, temporary, (inputs(),))
            assert torch.equal(result, F.linear(inputs(), signs(torch.from_numpy(memory)), model.bias))


def test_a_backward_without_a_step_and_accumulated_gradients():
    model = quantize(nn.LSTM(4, 4), {"weight_*": Binary()})
    twin = float_twin(model, lambda: nn.LSTM(4, 4))
    for module in (model, twin):
        for seed in range(3):
            answer(module, inputs(seed)).square().sum().backward()
    torch.testing.assert_close(gradients(model), gradients(twin))


@pytest.mark.parametrize("rule", [Binary(), Binary(estimator=ClippedStraightThrough())])
def test_two_forward_passes_then_two_backward_passes(rule):
    model = linear(rule)
    twin = float_twin(model, lambda: nn.Linear(4, 3))
    for module in (model, twin):
        first, second = answer(module).sum(), answer(module, inputs(2)).square().sum()
        first.backward()
        second.backward()
    torch.testing.assert_close(gradients(model), gradients(twin))


@pytest.mark.parametrize("alternating", [True, False])
def test_switching_between_gradients_and_none_and_between_training_and_evaluation(alternating):
    model = linear()
    twin = float_twin(model, lambda: nn.Linear(4, 3))
    on, off, inference = torch.enable_grad, torch.no_grad, torch.inference_mode
    for mode in (off, on, off, on, inference, on, inference, off):
        model.train(model.training != alternating)
        with mode():
            output = answer(model)
            torch.testing.assert_close(output, answer(twin))
        if mode is on:
            model.zero_grad()
            output.sum().backward()
            assert model.parametrizations.weight.original.grad is not None


def test_a_value_of_inference_mode_stays_there():
    model, x = linear(), inputs().requires_grad_()
    answer(model).sum().backward()  # nothing is kept any more
    with torch.inference_mode(), torch.enable_grad():
        answer(model)
    answer(model, x).sum().backward()
    torch.testing.assert_close(x.grad, model.weight.detach().sum(0).expand_as(x))


def test_writing_to_the_quantized_weight_changes_neither_the_model_nor_what_is_packed():
    """As with every parametrization of PyTorch: the weight is computed, only the float copy can be written."""
    model = linear()
    expected = signs(model.parametrizations.weight.original)
    for write in (nn.init.zeros_, nn.init.normal_, lambda weight: weight.detach().mul_(3)):
        with torch.no_grad():
            write(model.weight)
            assert torch.equal(model.weight, expected)
            assert torch.equal(pack(model).codes["weight"].decode(), expected)
    torch.testing.assert_close(answer(model), F.linear(inputs(), expected, model.bias), rtol=0, atol=0)


def test_another_quantizer_is_used_at_once():
    model = linear()
    answer(model)
    model.parametrizations.weight[0].quantizer = TWN()
    torch.testing.assert_close(model.weight, pack(model).codes["weight"].decode(), rtol=0, atol=0)
    assert model.weight.unique().numel() == 3


def test_freezing_and_thawing():
    model = linear()
    weight = model.parametrizations.weight.original
    answer(model)
    weight.requires_grad_(False)
    answer(model).sum().backward()
    assert weight.grad is None
    answer(model)
    weight.requires_grad_(True)
    answer(model).sum().backward()
    assert weight.grad is not None


# --- stochastic quantizers -------------------------------------------------------------------------------------------


def draws(model: nn.Linear, steps: int = 3) -> list[Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    seen = []
    for _ in range(steps):
        answer(model).sum().backward()
        optimizer.step()
        seen.append(model.weight.detach().clone())
        assert torch.equal(model.weight, seen[-1]), "one draw a step"
        torch.testing.assert_close(answer(model), F.linear(inputs(), seen[-1], model.bias))
    return seen


def test_a_stochastic_quantizer_draws_once_a_step_and_not_in_evaluation():
    model = quantize(nn.Linear(4, 30), {"weight": STOCHASTIC})
    first, second, third = draws(model)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    model.eval()
    weight = model.parametrizations.weight.original
    state = torch.get_rng_state()
    assert torch.equal(model.weight, signs(weight))
    assert torch.equal(pack(model).codes["weight"].decode(), signs(weight))
    assert torch.equal(torch.get_rng_state(), state), "evaluating and packing draw nothing"


def test_a_seed_reproduces_the_draws():
    runs = []
    for seed in (7, 7, 8):
        model = nn.Linear(4, 30)
        nn.init.zeros_(model.weight)
        state = torch.get_rng_state()
        quantize(model, {"weight": STOCHASTIC})
        assert torch.equal(torch.get_rng_state(), state), "quantizing draws nothing"
        torch.manual_seed(seed)
        runs.append(torch.stack(draws(model)))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


# --- copies and state ------------------------------------------------------------------------------------------------

PREPARATIONS: dict[str, Callable[[nn.Module], object]] = {
    "fresh": lambda model: None,
    "after forward": lambda model: answer(model),
    "after backward": lambda model: answer(model).sum().backward(),
    "after to()": lambda model: model.double().float(),
    "in eval": lambda model: model.eval(),
}


@every_module
@pytest.mark.parametrize("prepare", PREPARATIONS.values(), ids=PREPARATIONS.keys())
def test_a_deep_copy_is_equal_and_independent(make, matrices, prepare):
    model = quantize(make(), {"*weight*": Binary()})
    prepare(model)
    twin = copy.deepcopy(model)
    assert torch.equal(answer(twin), answer(model))
    before, start = answer(model).detach(), {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.SGD(twin.parameters(), 5.0)
    for seed in range(3):
        optimizer.zero_grad()
        answer(twin, inputs(seed)).square().mean().backward()
        assert_right(model, make)
        optimizer.step()
        assert_right(twin, make)
    assert torch.equal(answer(model), before), "training the copy leaves the model alone"
    assert all(torch.equal(p, start[n]) for n, p in model.named_parameters())
    twin.double()
    assert_right(twin, make, inputs().double())


def test_model_and_copy_are_not_mixed_up_in_one_graph():
    make = lambda: nn.LSTM(4, 4)  # noqa: E731
    model = quantize(make(), {"weight_*": Binary()})
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.parametrizations.weight_hh_l0.original.neg_()
    twins = [float_twin(m, make) for m in (model, other)]
    for one, two in ((model, other), tuple(twins)):
        (answer(one) * answer(two) + answer(one).square()).sum().backward()
    for module, twin in zip((model, other), twins, strict=True):
        torch.testing.assert_close(gradients(module), gradients(twin))


def test_a_state_dict_goes_around():
    make = lambda: quantize(nn.LSTM(4, 5, 2), {"weight_*": TWN(PerGate())})  # noqa: E731
    model, other = make(), make()
    assert not torch.equal(answer(model), answer(other))
    other.load_state_dict(model.state_dict())
    assert torch.equal(answer(model), answer(other))
