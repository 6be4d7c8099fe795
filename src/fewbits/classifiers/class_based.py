"""The two-level softmax: first a class of words, then a word of the class (claim M4)."""

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fewbits.classifiers.classifier import Classifier
from fewbits.classifiers.word_order import WordOrder
from fewbits.errors import FewbitsError
from fewbits.kernels.precision import at_least_float32

#: rows and slots of one class: (first row, row after the last, first slot, slot after the last)
Block = tuple[int, int, int, int]


class ClassSoftmax(Classifier):
    """p(w | h) = p1(C(w) | h) · p2(w | C(w), h), each factor a softmax (Goodman 2001).

    ``loss`` and ``nll`` compute one class of each target: H·(C + V/C) multiplications a word instead of H·V, 2·H·√V for
    √V classes of √V words. Targets are sorted by class, and each class that occurs is one product of matrices. Its
    weights are read once a call, whatever the number of its targets. Their gradient is dense: V·H numbers to be set to
    zero, which a training step pays beside the optimizer's own pass over the weights.
    ``log_prob``, ``scores`` and ``topk`` compute all words, H·V.

    A class that has no words does not exist: the numbers of the assignment need not be consecutive, and p1 has one
    output for each that occurs. A class of one word has p2 = 1. Everything is computed in float32 at least, also under
    autocast. Hidden states that are not finite give NaN, an empty batch has the loss NaN, both as in torch.

    Which words share a class: see :func:`frequency_classes` and :func:`cluster_classes`.

    >>> classifier = ClassSoftmax(hidden_size=4, assignment=torch.tensor([0, 7, 7, 0, 0]))
    >>> classifier.classes.out_features, torch.allclose(classifier.log_prob(torch.ones(4)).exp().sum(), torch.ones(()))
    (2, True)

    Args:
        hidden_size: H.
        assignment: (V,) the class of each word, any integers.

    Raises:
        FewbitsError: If the assignment is no tensor of integers of shape (V,) with V ≥ 1, or a target is no word.
    """

    is_probability = True
    start: Tensor  #: (C + 1,) first slot of each class, then V
    class_of: Tensor  #: (V,) class of each slot

    def __init__(self, hidden_size: int, assignment: Tensor) -> None:
        if assignment.dim() != 1 or not len(assignment) or assignment.is_floating_point():
            raise FewbitsError(
                f"the assignment is {assignment.dtype} of shape {tuple(assignment.shape)}; one integer for each "
                "word is expected, the number of its class."
            )
        super().__init__(hidden_size, len(assignment))
        class_of, word = torch.sort(assignment, stable=True)
        _, class_of, size = class_of.unique_consecutive(return_inverse=True, return_counts=True)
        self.classes, self.words = nn.Linear(hidden_size, len(size)), nn.Linear(hidden_size, len(assignment))
        self.order = WordOrder(word)
        self.register_buffer("start", F.pad(size.cumsum(0), (1, 0)))
        self.register_buffer("class_of", class_of)

    def scores(self, hidden: Tensor) -> Tensor:
        """Return log-probabilities."""
        return self.log_prob(hidden)

    def log_prob(self, hidden: Tensor) -> Tensor:
        """Return log p1 + log p2 of every word, in float32."""
        with torch.autocast(hidden.device.type, enabled=False):
            hidden = at_least_float32(hidden)
            of_class = F.log_softmax(self.classes(hidden), dim=-1)
            within = self.words(hidden).split(self.start.diff().tolist(), dim=-1)
            of_slot = torch.cat([F.log_softmax(z, dim=-1) for z in within], dim=-1)
            return self.order.by_word(of_slot + of_class[..., self.class_of]).float()

    def loss(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Return the mean cross-entropy in nats, from one class of each target."""
        return self.nll(hidden, target).mean()

    def nll(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Return −log p(target) of each target, (…), in nats, from one class of each target."""
        with torch.autocast(hidden.device.type, enabled=False):
            rows = at_least_float32(hidden.reshape(-1, self.hidden_size))
            slot = self.order.slots(target.reshape(-1))
            class_of = self.class_of[slot]
            of_class = F.cross_entropy(self.classes(rows), class_of, reduction="none")
            by_class = torch.argsort(class_of)
            within = _LogSoftmaxOfBlocks.apply(
                rows[by_class],
                self.words.weight,
                self.words.bias,
                (slot - self.start[class_of])[by_class],
                self._blocks(class_of[by_class]),
            )
            return (of_class.index_add(0, by_class, within, alpha=-1)).view_as(target)

    def _blocks(self, class_of: Tensor) -> list[Block]:
        """Return the block of each class that occurs in ``class_of`` (N,), which is sorted."""
        start = self.start.tolist()
        present, rows = class_of.unique_consecutive(return_counts=True)
        ends = F.pad(rows.cumsum(0), (1, 0)).tolist()
        return [(*of, start[c], start[c + 1]) for of, c in zip(pairwise(ends), present.tolist(), strict=True)]


class _LogSoftmaxOfBlocks(torch.autograd.Function):
    """log softmax(h W_cᵀ + b_c) at one place of each row, with the weights W_c of the row's block only.

    A function of its own, because autograd would add up a gradient of the whole matrix for every block.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, place: Tensor, blocks: list[Block]) -> Tensor:
        widest = max((end - begin for _, _, begin, end in blocks), default=1)
        logits = hidden.new_full((len(hidden), widest), -math.inf)
        for top, bottom, begin, end in blocks:
            out = logits[top:bottom, : end - begin]
            torch.addmm(bias[begin:end], hidden[top:bottom], weight[begin:end].t(), out=out)
        log_prob = F.log_softmax(logits, dim=1)
        ctx.save_for_backward(hidden, weight, place, log_prob)
        ctx.blocks = blocks
        return log_prob.gather(1, place[:, None]).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, place, log_prob = ctx.saved_tensors
        of_logits = log_prob.exp().neg_()
        of_logits.scatter_add_(1, place[:, None], torch.ones_like(of_logits[:, :1])).mul_(grad[:, None])
        of_hidden, of_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        of_bias = weight.new_zeros(len(weight))
        for top, bottom, begin, end in ctx.blocks:
            block = of_logits[top:bottom, : end - begin]
            torch.mm(block, weight[begin:end], out=of_hidden[top:bottom])
            torch.mm(block.t(), hidden[top:bottom], out=of_weight[begin:end])
            torch.sum(block, 0, out=of_bias[begin:end])
        return of_hidden, of_weight, of_bias, None, None
