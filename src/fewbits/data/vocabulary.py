"""Words and their numbers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor

from fewbits.errors import FewbitsError

UNK, EOS = "<unk>", "<eos>"  #: any word outside the vocabulary; the end of a document


@dataclass(frozen=True)
class Vocabulary:
    """Words by number: ``<unk>`` is 0, ``<eos>`` is 1, then the most frequent word of the training text first.

    Words that occur equally often stand in the order of their code points, so the order of the documents is immaterial,
    and the first n words of a vocabulary are the vocabulary of size n.
    """

    unk: ClassVar[int] = 0  #: number of ``<unk>``
    eos: ClassVar[int] = 1  #: number of ``<eos>``
    words: tuple[str, ...]

    @classmethod
    def ranked(cls, counts: Mapping[str, int]) -> Self:
        """Return the vocabulary of all words in ``counts``; counts of ``<unk>`` and ``<eos>`` are of no matter.

        >>> Vocabulary.ranked({"b": 2, "a": 2, "c": 3, "<unk>": 9}).words
        ('<unk>', '<eos>', 'c', 'a', 'b')
        """
        words = (word for word in counts if word not in (UNK, EOS))
        return cls((UNK, EOS, *sorted(words, key=lambda word: (-counts[word], word))))

    @cached_property
    def ids(self) -> dict[str, int]:
        """The number of each word."""
        return {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, tokens: Iterable[str]) -> Tensor:
        """Return the numbers of ``tokens`` as an int32 tensor (n,); words outside the vocabulary become ``<unk>``."""
        return torch.tensor([self.ids.get(token, self.unk) for token in tokens], dtype=torch.int32)

    def decode(self, ids: Tensor) -> list[str]:
        """Return the words of ``ids``, a tensor of any shape, read in its order.

        Raises:
            IndexError: If a number is outside the vocabulary.
        """
        return [self.words[number] for number in ids.flatten().tolist()]

    def limited(self, size: int) -> Self:
        """Return the vocabulary of the ``size`` first words, ``<unk>`` and ``<eos>`` among them.

        Raises:
            FewbitsError: If there are fewer words, or ``size`` leaves room for no word.
        """
        if not 3 <= size <= len(self):
            raise FewbitsError(
                f"a vocabulary of {size:,} words was asked for, but the training text has {len(self):,} types, "
                f"with {UNK} and {EOS}. Ask for 3 to {len(self):,} words, or for None to take all."
            )
        return type(self)(self.words[:size])


def coverage(tokens: Tensor, share: float = 0.2) -> float:
    """Return the part of ``tokens`` that the most frequent ``share`` of the word types cover, between 0 and 1.

    With the counts c₁ ≥ c₂ ≥ … of the T types that occur: Σ_{i ≤ k} cᵢ / Σᵢ cᵢ, where k is ``share`` · T rounded to the
    nearest integer. ``<eos>`` and ``<unk>`` are types like any other. That is how the training text of PTB has 10,000
    types, of which a fifth cover 86.9 %; it is 86.2 % without ``<unk>``, 86.3 % without ``<eos>`` and 85.6 % without
    both. To leave one out, give ``tokens[tokens != Vocabulary.eos]``. Words that do not occur are no types. Ties are
    immaterial.

    Args:
        tokens: Word numbers, an integer tensor of any shape; ``Corpus.train`` for instance.
        share: Share of the types, from 0 to 1.

    Raises:
        FewbitsError: If there is no token, one is negative or no integer, or ``share`` is outside 0 to 1.

    >>> coverage(torch.tensor([7, 7, 7, 1, 1, 2, 3, 4]), 0.4)
    0.625
    """
    if not 0 <= share <= 1:
        raise FewbitsError(f"the share of the word types is {share}; give a number from 0 to 1, such as 0.2 for 20 %.")
    if tokens.is_floating_point() or tokens.numel() == 0 or int(tokens.min()) < 0:
        raise FewbitsError(
            f"coverage needs word numbers: a tensor with at least one integer, none negative. "
            f"This one has {tokens.numel():,} elements of {tokens.dtype}."
        )
    counts = torch.bincount(tokens.flatten())
    counts = counts[counts > 0].sort(descending=True).values
    return int(counts[: round(share * len(counts))].sum()) / int(counts.sum())
