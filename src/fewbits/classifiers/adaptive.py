"""The adaptive softmax: short codes and full width for frequent words, narrow projections for rare ones (claim M5)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewbits.classifiers.classifier import Classifier
from fewbits.classifiers.word_order import WordOrder, most_frequent_first
from fewbits.errors import FewbitsError
from fewbits.kernels.precision import at_least_float32

#: the share of a document's words that 20 % of the vocabulary covers (Grave et al. 2017; the slides)
COVERAGE = 0.87


class AdaptiveSoftmax(Classifier):
    """p(w | h) = p_head(w | h) for frequent words, p_head(tail i | h) · p_i(w | h) for the others (Grave et al. 2017).

    The head is a softmax over the words up to the first cut-off and one entry for each tail. Tail i has the words up to
    the next cut-off, in d_i = ⌊H / divisor^i⌋ dimensions, i = 1, 2, …. ``loss`` computes the head and, for the targets
    in tail i, that tail: H·(k_h + J) + Σ_i P(tail i)·d_i·(H + k_i) multiplications a word. ``log_prob``, ``scores`` and
    ``topk`` compute all words.

    It is ``torch.nn.AdaptiveLogSoftmaxWithLoss``, which expects words in the order of frequency; here they may be
    numbered anyhow, and are put into that order by ``counts``. torch's module fails under bfloat16 autocast, so
    everything is computed in float32 at least, with autocast off. It has no biases. Hidden states that are not finite
    give NaN, an empty batch has the loss NaN, both as in torch.

    >>> classifier = AdaptiveSoftmax(hidden_size=8, counts=torch.tensor([1, 50, 3, 40, 6]), cutoffs=[2])
    >>> classifier.order.word.tolist()
    [1, 3, 4, 2, 0]
    >>> torch.allclose(classifier.log_prob(torch.ones(8)).exp().sum(), torch.ones(()))
    True

    Args:
        hidden_size: H.
        counts: (V,) how often each word occurs; a word that never does comes last.
        cutoffs: the first cut-off k_h, then the ends of all tails but the last; None for :func:`default_cutoffs`.
        divisor: by how much each tail is narrower than the one before.

    Raises:
        FewbitsError: If V < 2, counts or cut-offs are not as said, a tail has no dimension, or a target is no word.
    """

    is_probability = True

    def __init__(
        self, hidden_size: int, counts: Tensor, cutoffs: Sequence[int] | None = None, *, divisor: float = 4.0
    ) -> None:
        word = most_frequent_first(counts)
        ends = default_cutoffs(counts) if cutoffs is None else list(cutoffs)
        if not ends or not all(0 < low < high for low, high in pairwise([*ends, len(counts)])):
            raise FewbitsError(
                f"the cut-offs are {ends}; they must rise, from 1 at least to {len(counts) - 1} at most."
            )
        if divisor < 1 or hidden_size // divisor ** len(ends) < 1:
            raise FewbitsError(
                f"{hidden_size} hidden units divided by {divisor:g}^{len(ends)} leave no dimension for the last "
                "tail, or the divisor is below 1; use fewer cut-offs or another divisor."
            )
        super().__init__(hidden_size, len(counts))
        self.order = WordOrder(word)
        self.layer = nn.AdaptiveLogSoftmaxWithLoss(hidden_size, len(counts), ends, div_value=divisor)

    def scores(self, hidden: Tensor) -> Tensor:
        """Return log-probabilities."""
        return self.log_prob(hidden)

    def log_prob(self, hidden: Tensor) -> Tensor:
        """Return the log-probability of every word, in float32."""
        with torch.autocast(hidden.device.type, enabled=False):
            of_slot = self.layer.log_prob(self._rows(hidden)).view(*hidden.shape[:-1], self.vocabulary_size)
            return self.order.by_word(of_slot).float()

    def loss(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Return the mean cross-entropy in nats, from the head and the tails of the targets."""
        return self.nll(hidden, target).mean()

    def nll(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Return −log p(target) of each target, (…), in nats, from the head and the tails of the targets."""
        with torch.autocast(hidden.device.type, enabled=False):
            output: Tensor = self.layer(self._rows(hidden), self.order.slots(target.reshape(-1))).output
            return -output.view_as(target)

    def embedded(self, words: Tensor) -> Tensor:
        """Return the row of the output matrices for each word, (…, H): input vectors that are tied to the output.

        Raises:
            FewbitsError: If a tail is narrower than H: the divisor has to be 1.
        """
        layer = self.layer
        tails = (tail.get_parameter("1.weight") for tail in layer.tail)
        tables = [layer.head.weight[: layer.shortlist_size], *tails]
        if any(table.shape[1] != self.hidden_size for table in tables):
            raise FewbitsError(
                "words of a narrower tail have no vector of H numbers; build with divisor=1 to tie them."
            )
        slots = self.order.slots(words)
        embedded = words.new_zeros(*words.shape, self.hidden_size, dtype=tables[0].dtype)
        for first, table in zip((0, *layer.cutoffs), tables, strict=False):
            within = (slots >= first) & (slots < first + len(table))
            embedded = embedded + F.embedding((slots - first).clamp(0, len(table) - 1), table) * within[..., None]
        return embedded

    def _rows(self, hidden: Tensor) -> Tensor:
        return at_least_float32(hidden.reshape(-1, self.hidden_size))


def default_cutoffs(counts: Tensor) -> list[int]:
    """Return two cut-offs: the most frequent words that cover 87 % of the text, then those that cover 87 % of the rest.

    So the head and the first tail end where the coverage reaches 0.87 and 1 − 0.13² = 0.983. The first is the
    observation behind the adaptive softmax, that 20 % of the vocabulary covers 87 % of a document: about 2,000 of the
    10,000 words of PTB, the cut-off its authors use there. Every part keeps a word at least: where the cut-offs meet or
    reach V, there is one.

    Raises:
        FewbitsError: If there are fewer than two words, counts are negative or not numbers, or all are zero.

    >>> default_cutoffs(torch.tensor([50, 30, 10, 5, 4, 1]))     # 90 of 100, 99 of 100
    [3, 5]
    """
    falling = counts[most_frequent_first(counts)].double()
    if len(counts) < 2 or not 0 < falling.sum() < float("inf"):
        raise FewbitsError(
            f"{len(counts)} words occur {falling.sum().item():g} times together; an adaptive softmax needs two "
            "words and some text to count them in."
        )
    share = falling.cumsum(0) / falling.sum()
    reached = torch.searchsorted(share, share.new_tensor([COVERAGE, 1 - (1 - COVERAGE) ** 2])) + 1
    cutoffs: list[int] = reached.clamp(max=len(counts) - 1).unique().tolist()
    return cutoffs
