"""How many images a classifier gets right."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.errors import FewbitsError
from fewbits.evaluation.perplexity import evaluating


def accuracy(model: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int = 500) -> float:
    """Return the share of ``images`` (N, …) that get their highest logit at their label (N,), from 0 to 1.

    Of equal logits the first counts. The model is put into ``eval()`` and back.

    Raises:
        FewbitsError: If there are no images.
    """
    right = sum(int((logits.argmax(1) == goal).sum()) for logits, goal in _batches(model, images, labels, batch_size))
    return right / len(labels)


def mean_cross_entropy(model: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int = 500) -> float:
    """Return the mean −log p of the labels in nats, p the softmax of the logits; the model is put into ``eval()``.

    Raises:
        FewbitsError: If there are no images.
    """
    batches = _batches(model, images, labels, batch_size)
    return sum(F.cross_entropy(logits.double(), goal, reduction="sum").item() for logits, goal in batches) / len(labels)


def _batches(model: nn.Module, images: Tensor, labels: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    if not len(images):
        raise FewbitsError("there are no images, so there is nothing to classify; give one or more.")
    device = next(model.parameters()).device
    with evaluating(model), torch.no_grad():
        for batch, goal in zip(images.split(size), labels.split(size), strict=True):
            yield model(batch.to(device)), goal.to(device)
