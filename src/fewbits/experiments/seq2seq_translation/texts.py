"""The pairs that a translator learns, and those that it is tested on."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from fewbits.data import Pair, ParallelCorpus, load_pairs, split_pairs
from fewbits.errors import FewbitsError
from fewbits.models.seq2seq import padded

TESTS = ("inside", "outside", "outside_unique")  #: fields of `Texts` and of `fewbits.data.PairSplit`
VALIDATION = 20  #: one training pair in so many, of those that are not ``inside``, is kept for validation


@dataclass(frozen=True, eq=False)
class Texts:
    """Pairs of sentences for each purpose; only ``inside`` is part of ``training``."""

    corpus: ParallelCorpus
    training: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    inside: tuple[Pair, ...]
    outside: tuple[Pair, ...]
    outside_unique: tuple[Pair, ...]

    @cached_property
    def longest(self) -> int:
        """Words of the longest sentence of the corpus on either side, <eos> included."""
        return 1 + max(len(sentence) for pair in self.corpus.pairs for sentence in pair)

    def numbers(self, pairs: Sequence[Pair]) -> list[tuple[Tensor, Tensor]]:
        """Return ``pairs`` as word numbers."""
        return [(self.corpus.source.encode(source), self.corpus.target.encode(target)) for source, target in pairs]

    def sources(self, pairs: Sequence[Pair]) -> Tensor:
        """Return the source sentences of ``pairs`` as one padded batch."""
        return padded([source for source, _ in self.numbers(pairs)])


def split_texts(corpus: str, pairs: int | None, test_size: int, seed: int) -> Texts:
    """Return the first ``pairs`` pairs of ``corpus``, split by ``seed`` as `fewbits.data.split_pairs` does.

    Raises:
        FewbitsError: If the pairs are too few: too few to split, none of those held out is new on both sides, or none
            is left for validation.
    """
    loaded = load_pairs(corpus)
    split = split_pairs(loaded.pairs[:pairs], seed, test_size)
    inside = set(split.inside)
    validation = [number for number, pair in enumerate(split.training) if pair not in inside][::VALIDATION]
    if not validation or not split.outside_unique:
        raise FewbitsError(
            f"of {len(loaded.pairs[:pairs]):,} pairs {len(split.outside_unique)} of those held out are new on both "
            f"sides, and {len(validation)} are left for validation; both need one or more. Take more pairs."
        )
    left = set(range(len(split.training))).difference(validation)
    return Texts(
        loaded,
        tuple(split.training[number] for number in sorted(left)),
        tuple(split.training[number] for number in validation),
        split.inside,
        split.outside,
        split.outside_unique,
    )
