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
