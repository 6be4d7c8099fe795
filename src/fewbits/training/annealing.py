"""Annealing: from straight through to the staircase itself, in the course of a training."""

from dataclasses import replace
from typing import Any

from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.quantize import quantized_weights
from fewbits.quantizers import SoftStaircase
from fewbits.training.loop import Task
from fewbits.training.wrapper import TaskWrapper


class Annealing(TaskWrapper):
    """A task whose quantizers have the gradient of a soft staircase that gets sharper with each step.

    The sharpness goes from ``first`` to ``last`` in equal ratios over ``epochs`` epochs, then stays. What goes forward
    is always the quantized weight: only the gradient is annealed (Gong et al. 2019).

    Raises:
        FewbitsError: If no weight is quantized, one has a gradient of its own, or the two ends are not positive.
    """

    def __init__(self, task: Task, *, epochs: int, first: float = 0.1, last: float = 10.0) -> None:
        super().__init__(task)
        self.first, self.last = first, last
        self.total, self.done = epochs * task.steps, 0
        if not (first > 0 and last > 0):
            raise FewbitsError(f"a sharpness is positive; {first} and {last} are not both.")
        self.weights = list({id(each): each for _, _, each in quantized_weights(task.model)}.values())
        if not self.weights or not all("estimator" in vars(each.quantizer) for each in self.weights):
            raise FewbitsError(
                "annealing needs quantized weights, none of them with a gradient of its own such as TTQ."
            )

    @property
    def sharpness(self) -> float:
        """The sharpness of the next step."""
        return float(self.first * (self.last / self.first) ** min(1.0, self.done / max(1, self.total - 1)))

    def loss(self, step: int) -> Tensor:
        """Return the loss of the task through quantizers with this step's sharpness."""
        estimator = SoftStaircase(self.sharpness)
        for each in self.weights:
            each.quantizer = replace(each.quantizer, estimator=estimator)  # type: ignore[type-var]
            each.forget()
        self.done += 1
        return self.task.loss(step)

    def own_state(self) -> Any:
        """Return the steps done."""
        return self.done

    def restore_own(self, state: Any) -> None:
        """Take the steps done."""
        self.done = state
