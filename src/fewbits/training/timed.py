"""How long the steps of each epoch took."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from fewbits.training.loop import Task


class Timed:
    """A task that notes the seconds of each epoch's steps, validation left out, over interruptions too.

    What is timed is everything between the first step and the validation, the optimizer's part included.
    """

    def __init__(self, task: Task, now: Callable[[], float]) -> None:
        """Wrap ``task``; ``now`` is a clock in seconds."""
        self.task, self.now = task, now
        self.seconds: list[float] = []  #: of each epoch that has ended
        self.spent, self.since = 0.0, now()

    @property
    def model(self) -> nn.Module:
        """The model that is trained."""
        return self.task.model

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        return self.task.steps

    def loss(self, step: int) -> Tensor:
        """Return the loss of the task; the clock starts with an epoch."""
        if step == 0:
            self.spent, self.since = 0.0, self.now()
        return self.task.loss(step)

    def validate(self) -> float:
        """Return the validation loss of the task; note the time."""
        self.seconds.append(self.spent + self.now() - self.since)
        return self.task.validate()

    def state(self) -> Any:
        """Return the state of the task, and the times."""
        return [self.task.state(), self.seconds, self.spent + self.now() - self.since]

    def restore(self, state: Any) -> None:
        """Take all of it."""
        of_task, self.seconds, self.spent = state
        self.task.restore(of_task)
        self.since = self.now()
