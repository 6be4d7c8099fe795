"""The calendar of the learning rate, and the rules of BinaryConnect, against descent by hand."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from fewbits.errors import FewbitsError
from fewbits.quantize import quantize
from fewbits.quantizers import Binary, Uniform
from fewbits.training.loop import Trainer
from fewbits.training.settings import Optimizer, Schedule, Training


class Pull:
    """A linear loss: the gradient of every weight is 1, and validation says what the test wants."""

    def __init__(self, model: nn.Module, valid: list[float] | None = None, steps: int = 1) -> None:
        self.model, self.steps, self.valid = model, steps, iter(valid or [0.0] * 99)

    def loss(self, step: int) -> Tensor:
        return sum((module.weight.sum() for module in self.model), start=torch.zeros(()))

    def validate(self) -> float:
        return next(self.valid)

    def state(self) -> None:
        return None

    def restore(self, state: None) -> None:
        pass


def trained(task: Pull, training: Training) -> list[dict[str, float | int]]:
    return Trainer(task, training, device="cpu", progress=False).fit()


@pytest.mark.parametrize("constant", [0, 1, 2, 5])
def test_a_calendar_keeps_the_rate_for_some_epochs_and_then_divides_it_after_each(constant):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 1, bias=False))
    start = model[0].weight.detach().clone()
    schedule = {"schedule": Schedule.CALENDAR, "constant_epochs": constant, "decay": 2.0, "patience": 1}
    training = Training(learning_rate=8.0, clip=1e9, epochs=5, **schedule)
    history = trained(Pull(model, [3.0, 4.0, 2.0, 5.0, 6.0]), training)  # no validation loss stops it
    rates = [8.0 / 2 ** max(0, epoch - max(constant, 1) + 1) for epoch in range(5)]
    assert [row["learning_rate"] for row in history] == rates
    kept = start - sum(rates[:3])  # the weights of the best validation loss, that of the third epoch
    torch.testing.assert_close(model[0].weight.detach(), kept, rtol=0, atol=1e-5)


def test_the_rate_rises_in_a_line_and_falls_as_the_inverse_root_of_the_step():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 1, bias=False))
    start = model[0].weight.detach().clone()
    training = Training(learning_rate=2.0, clip=1e9, epochs=4, schedule=Schedule.INVERSE_ROOT, warmup_steps=5)
    history = trained(Pull(model, [3.0, 4.0, 5.0, 6.0], steps=3), training)
    rates = [2.0 * (n / 5 if n <= 5 else (5 / n) ** 0.5) for n in range(1, 13)]
    assert [row["learning_rate"] for row in history] == pytest.approx(rates[2::3])
    torch.testing.assert_close(model[0].weight.detach(), start - sum(rates), rtol=0, atol=1e-5)  # the last weights


def test_quantized_weights_keep_their_own_rate_through_a_warm_up():
    """A weight of 5 rises to a rate three times that of the others, and falls with it."""
    starts = [nn.Linear(3, 1, bias=False) for _ in range(2)]
    for layer in starts:
        nn.init.constant_(layer.weight, 5.0)
    model = quantize(nn.Sequential(*starts), {"1.weight": Binary()})
    options = {"schedule": Schedule.INVERSE_ROOT, "warmup_steps": 2, "quantized_rate": 3.0, "epochs": 2}
    trained(Pull(model, [3.0, 4.0], steps=3), Training(learning_rate=0.1, clip=1e9, **options))
    fallen = sum(0.1 * (n / 2 if n <= 2 else (2 / n) ** 0.5) for n in range(1, 7))
    torch.testing.assert_close(model[0].weight.detach(), torch.full((1, 3), 5.0 - fallen))
    copies = model[1].parametrizations["weight"].original.detach()
    torch.testing.assert_close(copies, torch.full((1, 3), 5.0 - 3 * fallen))


@pytest.mark.parametrize(("schedule", "steps"), [(Schedule.INVERSE_ROOT, 0), (Schedule.CONSTANT, 3)])
def test_a_warm_up_and_its_schedule_go_together(schedule, steps):
    with pytest.raises(ValidationError, match="warmup_steps"):
        Training(schedule=schedule, warmup_steps=steps)


def test_a_limit_clips_the_float_copies_of_quantized_weights_after_each_step_and_no_others():
    model = nn.Sequential(nn.Linear(4, 1, bias=False), nn.Linear(4, 1, bias=False))
    quantize(model, {"0.weight": Binary()})
    copy = model[0].parametrizations["weight"].original
    with torch.no_grad():
        for weight in (copy, model[1].weight):
            weight.copy_(torch.tensor([[-0.9, 0.3, 3.0, 0.9]]))
    trained(Pull(model), Training(learning_rate=0.5, clip=1e9, epochs=1, quantized_limit=1.0))
    torch.testing.assert_close(copy.detach(), torch.tensor([[-1.0, -0.2, 1.0, 0.4]]))
    torch.testing.assert_close(model[1].weight.detach(), torch.tensor([[-1.4, -0.2, 2.5, 0.4]]))


@pytest.mark.parametrize("factor", [1.0, 3.0])
@pytest.mark.parametrize(
    ("optimizer", "glorot", "power"),
    [(Optimizer.SGD, True, 2), (Optimizer.ADAM, True, 1), (Optimizer.SGD, False, 0), (Optimizer.ADAM, False, 0)],
)
def test_quantized_weights_have_rates_of_their_own(optimizer, glorot, power, factor):
    """Over two epochs, the second at half the rate; Adam's steps are the rate itself under a constant gradient."""
    model = nn.Sequential(nn.Linear(4, 2, bias=False), nn.Conv2d(2, 3, 5, bias=False), nn.Linear(4, 2, bias=False))
    quantize(model, {"0.weight": Uniform(8), "1.weight": Uniform(8)})
    weights = [
        model[0].parametrizations["weight"].original,
        model[1].parametrizations["weight"].original,
        model[2].weight,
    ]
    before = [weight.detach().clone() for weight in weights]
    settings = {"schedule": Schedule.CALENDAR, "decay": 2.0, "optimizer": optimizer}
    own = {"glorot_rates": glorot, "quantized_rate": factor}
    trained(Pull(model, [2.0, 1.0]), Training(learning_rate=1e-3, clip=1e9, epochs=2, **own, **settings))
    coefficients = [np.sqrt(1.5 / (4 + 2)), np.sqrt(1.5 / (25 * (2 + 3))), 1.0]
    for weight, start, coefficient in zip(weights, before, coefficients, strict=True):
        moved = 1.5e-3 / coefficient**power * (1 if weight is weights[2] else factor)
        torch.testing.assert_close(start - weight.detach(), torch.full_like(start, moved), rtol=1e-3, atol=0)


def test_a_quantized_vector_has_no_glorot_coefficient():
    model = nn.Sequential(nn.LayerNorm(4))
    quantize(model, {"0.weight": Uniform(8)})
    with pytest.raises(FewbitsError, match="inputs and outputs"):
        trained(Pull(model), Training(learning_rate=1.0, epochs=1, glorot_rates=True))


def test_the_plateau_still_lowers_all_rates_together():
    model = nn.Sequential(nn.Linear(2, 1, bias=False))
    history = trained(Pull(model, [1.0, math.pi, 4.0]), Training(learning_rate=8.0, clip=1e9, epochs=3))
    assert [row["learning_rate"] for row in history] == [8.0, 8.0, 2.0]
