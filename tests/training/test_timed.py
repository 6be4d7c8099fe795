"""The time of an epoch is that of its steps."""

from typing import Any

import torch
from torch import Tensor, nn

from fewbits.training.timed import Timed


class Slow:
    """Two steps of 3 s an epoch, and a validation of 100 s; 7 s pass between one step and the next."""

    steps = 2
    model = nn.Linear(1, 1)

    def __init__(self) -> None:
        self.clock = 50.0

    def now(self) -> float:
        return self.clock

    def loss(self, step: int) -> Tensor:
        self.clock += 3
        return torch.tensor(float(step))

    def validate(self) -> float:
        self.clock += 100
        return 0.5

    def state(self) -> Any:
        return "state"

    def restore(self, state: Any) -> None:
        self.restored = state


def epoch(timed: Timed, task: Slow, first: int = 0) -> None:
    for step in range(first, 2):
        assert timed.loss(step).item() == step
        task.clock += 7
    assert timed.validate() == 0.5


def test_steps_and_what_is_between_them_count_validation_does_not() -> None:
    task = Slow()
    timed = Timed(task, task.now)
    assert (timed.steps, timed.model) == (2, task.model)
    epoch(timed, task)
    task.clock += 1_000
    epoch(timed, task)
    assert timed.seconds == [20.0, 20.0]


def test_an_interrupted_epoch_counts_both_parts_and_not_the_time_between() -> None:
    task = Slow()
    timed = Timed(task, task.now)
    epoch(timed, task)
    timed.loss(0)
    task.clock += 7
    state = timed.state()
    later = Slow()
    again = Timed(later, later.now)
    later.clock += 5_000
    again.restore(state)
    assert later.restored == "state"
    epoch(again, later, first=1)
    assert again.seconds == [20.0, 20.0]
    epoch(again, later)
    assert again.seconds == [20.0, 20.0, 20.0], "what was spent before the stop counts once"
