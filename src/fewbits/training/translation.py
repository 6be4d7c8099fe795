"""Translation as a task: pairs of sentences, one at a time as in the tutorial, or in batches."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fewbits.errors import FewbitsError
from fewbits.evaluation.perplexity import evaluating
from fewbits.models.seq2seq import Seq2Seq, padded
from fewbits.training.settings import Optimizer, Schedule, Training

Pair = tuple[Tensor, Tensor]  # word numbers of a sentence and of its translation, each ending in <eos>

#: The tutorial's: 75,000 random pairs one at a time, as ten epochs of ``Translation(…, steps=7_500)``, no clipping.
TUTORIAL = Training(learning_rate=0.01, clip=1e9, epochs=10, schedule=Schedule.CONSTANT)

#: For ``Translation(…, batch_size=64)``. Ten passes over the tutorial's pairs end below the loss of its 75,000 steps.
BATCHED = Training(optimizer=Optimizer.ADAM, learning_rate=4e-3, clip=1e9, epochs=10, schedule=Schedule.CONSTANT)


class Translation:
    """Trains a translator on batches of pairs whose target sentences are equally long.

    The loss of a step is what the tutorial reports, the mean over the words of the target; its gradient is that of what
    the tutorial descends, the sum over these words. Both are averaged over the sentences of the batch. A draw for each
    batch decides whether it is read with teacher forcing. Random numbers come from torch's generator.
    """

    def __init__(
        self,
        model: Seq2Seq,
        train: Sequence[Pair],
        valid: Sequence[Pair],
        *,
        batch_size: int = 1,
        teacher_forcing: float = 0.5,
        steps: int | None = None,
    ) -> None:
        """Prepare an epoch of ``steps`` batches drawn with replacement, or of each pair once.

        With ``steps`` a batch is a random pair and ``batch_size`` − 1 random pairs of its target length. Without, each
        length is cut into batches of at most ``batch_size``, sorted by source length, and these come in random order.

        Args:
            model: the translator.
            train: the pairs to learn.
            valid: the pairs that decide which weights are kept.
            batch_size: pairs a batch.
            teacher_forcing: share of the batches that are read with the right words before each word.
            steps: batches an epoch; ``None`` is all pairs once.

        Raises:
            FewbitsError: If there are no pairs, or a number is out of range.
        """
        if not train or not valid:
            raise FewbitsError(f"{len(train)} training and {len(valid)} validation pairs; give one or more of each.")
        if batch_size < 1 or (steps is not None and steps < 1) or not 0 <= teacher_forcing <= 1:
            raise FewbitsError(
                f"a batch size of {batch_size}, {steps} steps and a teacher forcing of {teacher_forcing} do not train; "
                "the first two are 1 or more, the last is a share from 0 to 1."
            )
        self.model, self.train, self.valid = model, train, valid
        self.batch_size, self.teacher_forcing = batch_size, teacher_forcing
        self.lengths = torch.tensor([len(target) for _, target in train])
        self.drawn = steps
        self.order: list[Tensor] = []

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        if self.drawn is not None:
            return self.drawn
        return sum(-(-int(number) // self.batch_size) for number in self.lengths.bincount())

    def loss(self, step: int) -> Tensor:
        """Return the loss a word of a batch, with the gradient of the loss a sentence."""
        chosen = [self.train[number] for number in self._batch(step).tolist()]
        forced = bool(torch.rand(()) < self.teacher_forcing)
        source, target = self._tensors(chosen)
        loss = self.model.loss(source, target, teacher_forcing=forced)
        return loss.detach() / target.shape[1] + (loss - loss.detach())

    def validate(self) -> float:
        """Return the mean loss a word of the validation pairs with teacher forcing, averaged over the pairs."""
        total = 0.0
        with evaluating(self.model), torch.no_grad():
            for numbers in _batches(torch.tensor([len(target) for _, target in self.valid]), 128):
                source, target = self._tensors([self.valid[number] for number in numbers.tolist()])
                total += self.model.loss(source, target).item() * len(target) / target.shape[1]
        return total / len(self.valid)

    def state(self) -> Any:
        """Return the batches of this epoch."""
        return self.order

    def restore(self, state: Any) -> None:
        """Take the batches of this epoch."""
        self.order = [numbers.cpu() for numbers in state]

    def _batch(self, step: int) -> Tensor:
        if self.drawn is None:
            if step == 0:
                self.order = self._shuffled()
            return self.order[step]
        first = torch.randint(len(self.train), (1,))
        alike = (self.lengths == self.lengths[first]).nonzero().flatten()
        others = alike[torch.randint(len(alike), (self.batch_size - 1,))]
        return torch.cat([first, others])

    def _shuffled(self) -> list[Tensor]:
        """Return all pairs as batches of one target length; pairs of equal lengths meet others in each epoch."""
        mixed = torch.randperm(len(self.train))
        source = torch.tensor([len(source) for source, _ in self.train])
        mixed = mixed[source[mixed].argsort(stable=True)]
        batches = [mixed[numbers] for numbers in _batches(self.lengths[mixed], self.batch_size)]
        return [batches[number] for number in torch.randperm(len(batches)).tolist()]

    def _tensors(self, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
        device = next(self.model.parameters()).device
        source, target = zip(*pairs, strict=True)
        return padded(source).to(device), padded(target).to(device)


def _batches(lengths: Tensor, size: int) -> list[Tensor]:
    """Return the numbers of the sentences in batches of one length and at most ``size``; the order is kept."""
    alike = ((lengths == length).nonzero().flatten() for length in lengths.unique())
    return [batch for numbers in alike for batch in numbers.split(size)]
