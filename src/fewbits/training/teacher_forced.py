"""Translation as a task for models that read all words of a translation at once."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.evaluation.perplexity import evaluating
from fewbits.models.seq2seq import PADDING, padded
from fewbits.models.translator import Translator
from fewbits.training.translation import Pair


class TeacherForced:
    """Trains a translator on batches of pairs of about equal lengths, every word predicted from the right ones.

    An epoch is each pair once. A batch holds at most ``words`` words a side, padding included. Pairs are sorted by the
    lengths of translation and sentence, equal ones mixed in each epoch, and the batches come in random order: an epoch
    has always the same number of them. Random numbers come from torch's generator.
    """

    def __init__(
        self, model: Translator[Any], train: Sequence[Pair], valid: Sequence[Pair], *, words: int = 4096
    ) -> None:
        """Prepare.

        Args:
            model: what is trained.
            train: the pairs to learn.
            valid: the pairs to validate on.
            words: most words a side of a batch.

        Raises:
            FewbitsError: If there are no pairs, or one is longer than a batch.
        """
        if not train or not valid:
            raise FewbitsError(f"{len(train)} training and {len(valid)} validation pairs; give one or more of each.")
        longest = max(_length(pair) for pair in (*train, *valid))
        if longest > words:
            raise FewbitsError(f"a sentence has {longest:,} words, a batch {words:,}; leave it out or take more.")
        self.model, self.train, self.valid, self.words = model, train, valid, words
        self.batches: list[Tensor] = []
        self.steps = len(_cut(_sorted(train, torch.arange(len(train))), train, words))

    def loss(self, step: int) -> Tensor:
        """Return the loss of the batch ``step``, averaged over the words of its translations."""
        if step == 0:
            batches = _cut(_sorted(self.train, torch.randperm(len(self.train))), self.train, self.words)
            self.batches = [batches[number] for number in torch.randperm(len(batches)).tolist()]
        return self.model.loss(*self._tensors(self.train, self.batches[step]))

    def validate(self) -> float:
        """Return the mean −log p of a word of the validation pairs, in nats, without label smoothing."""
        total = words = 0.0
        with evaluating(self.model), torch.no_grad():
            for numbers in _cut(_sorted(self.valid, torch.arange(len(self.valid))), self.valid, self.words):
                source, target = self._tensors(self.valid, numbers)
                counted = target != PADDING
                hidden = self.model(source, target)[counted]
                total += self.model.classifier.nll(hidden, target[counted]).sum().item()
                words += counted.sum().item()
        return total / words

    def state(self) -> Any:
        """Return the batches of this epoch."""
        return self.batches

    def restore(self, state: Any) -> None:
        """Take the batches of this epoch."""
        self.batches = [numbers.cpu() for numbers in state]

    def _tensors(self, pairs: Sequence[Pair], numbers: Tensor) -> tuple[Tensor, Tensor]:
        device = next(self.model.parameters()).device
        source, target = zip(*(pairs[number] for number in numbers.tolist()), strict=True)
        return padded(source).to(device), padded(target).to(device)


def _length(pair: Pair) -> int:
    return max(len(side) for side in pair)


def _sorted(pairs: Sequence[Pair], order: Tensor) -> list[int]:
    return sorted(order.tolist(), key=lambda number: (len(pairs[number][1]), len(pairs[number][0])))


def _cut(order: Sequence[int], pairs: Sequence[Pair], words: int) -> list[Tensor]:
    """Return the numbers in ``order`` in batches of at most ``words`` words a side, padding included."""
    batches: list[list[int]] = [[]]
    longest = 0
    for number in order:
        longest = max(longest, _length(pairs[number]))
        if longest * (len(batches[-1]) + 1) > words:
            batches.append([])
            longest = _length(pairs[number])
        batches[-1].append(number)
    return [torch.tensor(batch) for batch in batches]
