"""Classification of images as a task: batches in random order."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.data import Labelled
from fewbits.errors import FewbitsError
from fewbits.evaluation.classification import mean_cross_entropy


class Classification:
    """Minimises the mean cross-entropy of batches of ``batch_size`` images, each epoch in another order.

    The images of an epoch that do not fill a batch are left out of it, others each time. Random numbers come from
    torch's generator.

    Raises:
        FewbitsError: If there are fewer training images than fill a batch, or ``batch_size`` is below 2, which batch
            normalisation needs.
    """

    def __init__(self, model: nn.Module, train: Labelled, valid: Labelled, *, batch_size: int = 50) -> None:
        if not 2 <= batch_size <= len(train.labels):
            raise FewbitsError(
                f"a batch of {batch_size} images cannot be drawn from {len(train.labels)}; give 2 to that many."
            )
        self.model, self.train, self.valid, self.batch_size = model, train, valid, batch_size
        self.order = torch.arange(len(train.labels))

    @property
    def steps(self) -> int:
        """Full batches an epoch."""
        return len(self.order) // self.batch_size

    def loss(self, step: int) -> Tensor:
        """Return the mean cross-entropy of batch ``step`` in nats."""
        if step == 0:
            self.order = torch.randperm(len(self.order))
        device = next(self.model.parameters()).device
        chosen = self.order[step * self.batch_size :][: self.batch_size]
        images, labels = (part[chosen].to(device) for part in self.train)
        return F.cross_entropy(self.model(images), labels)

    def validate(self) -> float:
        """Return the mean cross-entropy of the validation images in nats."""
        return mean_cross_entropy(self.model, *self.valid)

    def state(self) -> Any:
        """Return the order of this epoch."""
        return self.order

    def restore(self, state: Any) -> None:
        """Take the order of this epoch."""
        self.order = state.cpu()
