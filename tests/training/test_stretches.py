"""Stretches go through the data in its order, whatever their length."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewbits.errors import FewbitsError
from fewbits.training.loop import Trainer
from fewbits.training.settings import Schedule, Training
from fewbits.training.stretches import Stretches


class Counting:
    """Five steps of data; notes which were asked for."""

    steps = 5

    def __init__(self) -> None:
        self.model = nn.Linear(1, 1)
        self.asked: list[int] = []

    def loss(self, step: int) -> Tensor:
        self.asked.append(step)
        return self.model(torch.ones(1)).square().sum()

    def validate(self) -> float:
        return 0.5

    def state(self) -> Any:
        return "state"

    def restore(self, state: Any) -> None:
        assert state == "state"


@pytest.mark.parametrize("length", [1, 3, 5, 7])
def test_the_data_goes_on_where_the_stretch_before_left_it(length: int) -> None:
    task = Counting()
    stretches = Stretches(task, length, lambda: {"steps": float(len(task.asked))})
    training = Training(learning_rate=0.1, schedule=Schedule.CONSTANT, epochs=4)
    history = Trainer(stretches, training, device="cpu", progress=False).fit()
    assert task.asked == [number % 5 for number in range(4 * length)]
    assert [row["steps"] for row in stretches.seen] == [length, 2 * length, 3 * length, 4 * length]
    assert len(history) == 4


def test_a_restored_training_goes_on_in_the_middle() -> None:
    first = Stretches(Counting(), 3, lambda: {"seen": 1.0})
    for step in range(3):
        first.loss(step)
    first.validate()
    first.loss(0)
    task = Counting()
    second = Stretches(task, 3, lambda: {"seen": 2.0})
    second.restore(first.state())
    second.loss(1)
    second.loss(2)
    second.validate()
    assert task.asked == [4, 0]
    assert second.seen == [{"seen": 1.0}, {"seen": 2.0}]


def test_an_empty_stretch_is_refused() -> None:
    with pytest.raises(FewbitsError, match="0 steps"):
        Stretches(Counting(), 0, dict)
