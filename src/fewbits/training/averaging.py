"""The mean of the weights over one epoch or the last ones, beside the weights themselves."""

from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from fewbits.training.loop import Task
from fewbits.training.wrapper import TaskWrapper


class Averaging(TaskWrapper):
    """A task that also averages the weights: w̄ = (1/n) Σ_i w_i over those after each of the n steps of an epoch.

    Max-shift with its own gradient is a perceptron. Where no weights get all of the data right, its weights never
    settle, but their average does: the averaged perceptron (Collins 2002, "Discriminative Training Methods for Hidden
    Markov Models"). What is trained and which weights are kept does not change. Before the first epoch has ended the
    average is that of the steps so far, and before the first step the model as it was given.

    With ``since`` = e the average goes on from the start of epoch e, counted from 0, to the last: all steps count that
    averaging the last checkpoints takes samples of (Vaswani et al. 2017).
    """

    def __init__(self, task: Task, since: int | None = None) -> None:
        super().__init__(task)
        self.average = AveragedModel(task.model)
        self.since, self.epoch = since, 0

    @property
    def averaged(self) -> nn.Module:
        """The model with the averaged weights."""
        return self.average.module

    def loss(self, step: int) -> Tensor:
        """Return the loss of the task; take the weights that the step before left into the average."""
        if step:
            self.average.update_parameters(self.model)
        else:
            self.average.to(next(self.model.parameters()).device)
            if self.since is None or self.epoch <= self.since:
                self.average.n_averaged.zero_()
        return self.task.loss(step)

    def validate(self) -> float:
        """Return the validation loss of the task; take the weights of the last step into the average."""
        self.average.update_parameters(self.model)
        self.epoch += 1
        return self.task.validate()

    def own_state(self) -> Any:
        """Return the average and the epoch."""
        return [self.average.state_dict(), self.epoch]

    def restore_own(self, state: Any) -> None:
        """Take both."""
        average, self.epoch = state
        self.average.load_state_dict(average)
