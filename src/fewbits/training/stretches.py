"""A training counted in steps instead of passes through the data, with a look at the model now and then."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.training.loop import Task
from fewbits.training.wrapper import TaskWrapper


class Stretches(TaskWrapper):
    """A task whose epochs are stretches of ``length`` steps; the data goes on where the stretch before left it.

    So models on texts of any length see the same number of words, in the same order, and can be compared at the same
    points. At the end of the data it starts anew. What ``observe`` returns after each stretch is kept in ``seen``.

    Raises:
        FewbitsError: If the length is below 1.
    """

    def __init__(self, task: Task, length: int, observe: Callable[[], dict[str, float]]) -> None:
        super().__init__(task)
        if length < 1:
            raise FewbitsError(f"a stretch of {length} steps trains nothing; give 1 or more.")
        self.length, self.observe, self.done = length, observe, 0
        self.seen: list[dict[str, float]] = []

    @property
    def steps(self) -> int:
        """Steps of a stretch."""
        return self.length

    def loss(self, step: int) -> Tensor:
        """Return the loss of the next step of the task."""
        loss = self.task.loss(self.done % self.task.steps)
        self.done += 1
        return loss

    def validate(self) -> float:
        """Return the validation loss of the task; note what is observed."""
        self.seen.append(self.observe())
        return self.task.validate()

    def own_state(self) -> Any:
        """Return the steps done, and what was seen."""
        return [self.done, self.seen]

    def restore_own(self, state: Any) -> None:
        """Take both."""
        self.done, self.seen = state
