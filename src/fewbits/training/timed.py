"""How long the steps of each epoch took."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fewbits.training.loop import Task
from fewbits.training.wrapper import TaskWrapper


class Timed(TaskWrapper):
    """A task that notes the seconds of each epoch's steps, validation left out, over interruptions too.

    What is timed is everything between the first step and the validation, the optimizer's part included.
    """

    def __init__(self, task: Task, now: Callable[[], float]) -> None:
        """Wrap ``task``; ``now`` is a clock in seconds."""
        super().__init__(task)
        self.now = now
        self.seconds: list[float] = []  #: of each epoch that has ended
        self.spent, self.since = 0.0, now()

    def loss(self, step: int) -> Tensor:
        """Return the loss of the task; the clock starts with an epoch."""
        if step == 0:
            self.spent, self.since = 0.0, self.now()
        return self.task.loss(step)

    def validate(self) -> float:
        """Return the validation loss of the task; note the time."""
        self.seconds.append(self.spent + self.now() - self.since)
        return self.task.validate()

    def own_state(self) -> Any:
        """Return the times."""
        return [self.seconds, self.spent + self.now() - self.since]

    def restore_own(self, state: Any) -> None:
        """Take the times."""
        self.seconds, self.spent = state
        self.since = self.now()
