"""The average of the weights against numpy's mean over snapshots after every step of the optimizer."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from fewbits.training.averaging import Averaging
from fewbits.training.loop import History, OutOfTime, Task, Trainer
from fewbits.training.settings import Optimizer, Schedule, Training

STEPS = 5
Weights = dict[str, np.ndarray]


class Regression:
    """A small network with dropout on made-up data; a step needs the answers of the step before."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 1))
        self.steps = STEPS
        self.carried = torch.zeros(3)
        source = torch.Generator().manual_seed(1)
        self.inputs = torch.randn(STEPS, 3, 5, generator=source)
        self.target = torch.randn(STEPS, 3, generator=source)

    def loss(self, step: int) -> Tensor:
        answer = self.model(self.inputs[step]).squeeze(1) + 0.1 * self.carried
        self.carried = answer.detach()
        return (answer - self.target[step]).square().mean()

    def validate(self) -> float:
        self.model.eval()
        return (self.model(self.inputs).squeeze(2) - self.target).square().mean().item()

    def state(self) -> Tensor:
        return self.carried

    def restore(self, state: Tensor) -> None:
        self.carried = state


TRAININGS = {
    "plateau": Training(learning_rate=0.5, clip=1e9, epochs=3),
    "adam": Training(
        learning_rate=0.1, clip=1e9, epochs=3, optimizer=Optimizer.ADAM, schedule=Schedule.CONSTANT
    ),
    "one epoch": Training(learning_rate=0.5, clip=1e9, epochs=1),
}  # fmt: skip


def fit(task: Task, training: Training, **settings: Any) -> History:
    return Trainer(task, training, device="cpu", progress=False, **settings).fit()


def weights(model: nn.Module) -> Weights:
    return {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}


def equal(left: Weights, right: Weights) -> bool:
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


@contextmanager
def snapshots(model: nn.Module) -> Iterator[list[Weights]]:
    """The weights of ``model`` after every step of any optimizer."""
    taken: list[Weights] = []
    hook = register_optimizer_step_post_hook(lambda *_: taken.append(weights(model)))
    try:
        yield taken
    finally:
        hook.remove()


def assert_mean(averaged: nn.Module, taken: list[Weights]) -> None:
    found = weights(averaged)
    assert found.keys() == taken[0].keys()
    for name, value in found.items():
        stacked = np.stack([each[name] for each in taken]).astype(float)
        # each update of the running mean rounds a difference, a quotient and a sum of numbers within ±2·max|w|
        bound = 6 * len(taken) * 2.0**-24 * np.abs(stacked).max()
        np.testing.assert_allclose(value, stacked.mean(0), rtol=0, atol=bound)
    assert not np.allclose(found["0.weight"], taken[-1]["0.weight"], rtol=0, atol=1e-3), "the weights hardly moved"


@pytest.mark.parametrize("kind", TRAININGS)
def test_the_average_is_that_after_every_step_of_the_last_epoch(kind: str) -> None:
    task = Averaging(Regression())
    with snapshots(task.model) as taken:
        fit(task, TRAININGS[kind])
    assert len(taken) == STEPS * TRAININGS[kind].epochs
    assert_mean(task.averaged, taken[-STEPS:])


@pytest.mark.parametrize("since", [0, 1, 2, 7])
def test_the_average_can_go_on_over_the_last_epochs(since: int) -> None:
    task = Averaging(Regression(), since=since)
    with snapshots(task.model) as taken:
        fit(task, TRAININGS["adam"])
    assert_mean(task.averaged, taken[min(since, 2) * STEPS :])


@pytest.mark.parametrize("kind", TRAININGS)
def test_the_training_itself_is_bit_for_bit_what_it_is_without(kind: str) -> None:
    plain = Regression()
    history = fit(plain, TRAININGS[kind])
    beside = Averaging(Regression())  # seeds anew
    assert fit(beside, TRAININGS[kind]) == history
    assert equal(weights(beside.model), weights(plain.model))


def test_steps_model_and_validation_are_those_of_the_task() -> None:
    plain = Regression()
    task = Averaging(plain)
    assert (task.model, task.steps) == (plain.model, STEPS)
    assert task.validate() == plain.validate()


def test_before_the_first_step_the_average_is_the_model_as_it_was_given() -> None:
    task = Averaging(Regression())
    given = weights(task.model)
    task.loss(0)
    assert equal(weights(task.averaged), given)
    with torch.no_grad():
        task.model[0].weight.add_(1)  # type: ignore[index,union-attr,operator]
    assert equal(weights(task.averaged), given), "the average has weights of its own"


@pytest.mark.parametrize("steps", [2, 3])
def test_in_the_first_epoch_the_average_is_that_of_the_steps_so_far(steps: int) -> None:
    task = Averaging(Regression())
    optimizer = torch.optim.SGD(task.model.parameters(), lr=0.5)
    with snapshots(task.model) as taken:
        for step in range(steps):
            task.loss(step).backward()
            optimizer.step()
        task.loss(steps)
    assert_mean(task.averaged, taken)


def test_weights_are_averaged_over_the_last_epoch_also_where_an_earlier_one_is_kept() -> None:
    task = Averaging(Regression())
    losses = iter([1.0, 2.0, 3.0])
    task.task.validate = lambda: next(losses)  # type: ignore[method-assign]
    with snapshots(task.model) as taken:
        fit(task, TRAININGS["plateau"])
    assert equal(weights(task.model), taken[STEPS - 1]), "the first epoch was the best"
    assert_mean(task.averaged, taken[-STEPS:])


def test_stopped_after_every_single_step_it_ends_with_the_same_average(tmp_path: Path) -> None:
    whole = Averaging(Regression())
    history = fit(whole, TRAININGS["adam"])
    stops, steps = 0, STEPS * TRAININGS["adam"].epochs
    while True:
        task = Averaging(Regression(seed=stops))  # after the first stop another one: the checkpoint brings everything
        deadline = time.monotonic() - 1 if stops < steps else math.inf
        try:
            pieces = fit(task, TRAININGS["adam"], checkpoint=tmp_path / "it.pt", deadline=deadline)
            break
        except OutOfTime:
            stops += 1
    assert stops == steps
    assert pieces == history
    assert equal(weights(task.model), weights(whole.model))
    assert equal(weights(task.averaged), weights(whole.averaged))


def test_a_finished_training_that_is_loaded_has_its_average(tmp_path: Path) -> None:
    first = Averaging(Regression())
    fit(first, TRAININGS["plateau"], checkpoint=tmp_path / "it.pt")
    again = Averaging(Regression(seed=9))
    fit(again, TRAININGS["plateau"], checkpoint=tmp_path / "it.pt")
    assert equal(weights(again.averaged), weights(first.averaged))
