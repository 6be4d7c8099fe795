"""Loss-aware quantization: weights to which the loss is sensitive are quantized more carefully."""

from typing import Any

import torch
from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.quantize import quantized_weights
from fewbits.training.loop import Task
from fewbits.training.wrapper import TaskWrapper

EPSILON = 1e-8


class LossAware(TaskWrapper):
    """A task whose quantizers minimise Σ d (q − w)² with d = √v + 1e-8, v the running mean of squared gradients.

    d is Adam's estimate of the curvature, so that Σ d (q − w)² estimates what quantizing costs (Hou et al. 2017; Hou
    and Kwok 2018): ``Binary(Scale.MEAN_ABSOLUTE)`` becomes LAB and ``LeastSquaresTernary()`` LAT. v ← β v + (1 − β) g²
    with each step's gradient as the optimizer sees it, so after clipping, whatever the optimizer is. Until the first
    gradient is there all weights count alike. The importance is part of the model's state, as it decides the codes.

    Raises:
        FewbitsError: If no weight of the model has a quantizer that minimises an error.
    """

    def __init__(self, task: Task, beta: float = 0.999) -> None:
        super().__init__(task)
        self.beta = beta
        found = {id(each): (weight, each) for _, weight, each in quantized_weights(task.model)}
        self.weights = [(weight, each) for weight, each in found.values() if each.quantizer.minimises_error]
        if not self.weights:
            raise FewbitsError(
                "no quantizer of this model minimises an error, for example Binary(Scale.MEAN_ABSOLUTE) or "
                "LeastSquaresTernary(); quantize the model first."
            )
        self.squares = [torch.zeros_like(weight) for weight, _ in self.weights]
        self.waiting = False  # whether the gradient of the last step is not in v yet
        for weight, each in self.weights:
            each.importance = torch.ones_like(weight)

    def loss(self, step: int) -> Tensor:
        """Return the loss of the task; the gradients of the step before make the importance."""
        self._take_gradients()
        self.waiting = True
        return self.task.loss(step)

    def validate(self) -> float:
        """Return the validation loss of the task, with the importance that the last step leaves."""
        self._take_gradients()
        return self.task.validate()

    def own_state(self) -> Any:
        """Return v."""
        self._take_gradients()
        return self.squares

    def restore_own(self, state: Any) -> None:
        """Take v."""
        self.squares = state
        self._weigh()

    def _take_gradients(self) -> None:
        if self.waiting:
            self.waiting = False
            for index, (weight, _) in enumerate(self.weights):
                if weight.grad is not None:
                    squares = self.squares[index].to(weight.device)
                    self.squares[index] = squares.lerp_(weight.grad.square(), 1 - self.beta)
            self._weigh()

    def _weigh(self) -> None:
        for (_, each), squares in zip(self.weights, self.squares, strict=True):
            each.importance = squares.sqrt() + EPSILON
