"""What stands around a task and does something beside its steps."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from fewbits.training.loop import Task


class TaskWrapper(ABC):
    """A task that passes everything on to another one; what it adds of its own goes into the checkpoint as well."""

    def __init__(self, task: Task) -> None:
        self.task = task

    @property
    def model(self) -> nn.Module:
        """The model that is trained."""
        return self.task.model

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        return self.task.steps

    def loss(self, step: int) -> Tensor:
        """Return the loss of the task."""
        return self.task.loss(step)

    def validate(self) -> float:
        """Return the validation loss of the task."""
        return self.task.validate()

    def state(self) -> Any:
        """Return the state of the task, and the wrapper's own."""
        return [self.task.state(), self.own_state()]

    def restore(self, state: Any) -> None:
        """Take both."""
        of_task, own = state
        self.task.restore(of_task)
        self.restore_own(own)

    @abstractmethod
    def own_state(self) -> Any:
        """Return what a later step needs of the wrapper's own, as tensors or numbers."""

    @abstractmethod
    def restore_own(self, state: Any) -> None:
        """Go on from ``state``."""
