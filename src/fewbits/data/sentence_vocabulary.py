"""Words and their numbers for a translator, whose sentences begin with ``<sos>`` and end with ``<eos>``."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor

from fewbits.data.vocabulary import EOS, UNK
from fewbits.errors import FewbitsError

SOS = "<sos>"  #: what a decoder is given before the first word


@dataclass(frozen=True)
class SentenceVocabulary:
    """Words by number: ``<sos>`` is 0, ``<eos>`` is 1, then ``<unk>`` if there is one, then the most frequent first.

    Words that occur equally often stand in the order of their code points. PyTorch's tutorial has the same two first
    numbers and takes the words as they come; that is another numbering of the same words. There is no number for
    padding: pad with any, and mask by length.
    """

    sos: ClassVar[int] = 0  #: number of ``<sos>``
    eos: ClassVar[int] = 1  #: number of ``<eos>``
    words: tuple[str, ...]

    @classmethod
    def of(cls, sentences: Iterable[Iterable[str]], minimum_count: int | None = None) -> Self:
        """Return the vocabulary of ``sentences``: all words, or ``<unk>`` and those that occur ``minimum_count`` times.

        Tokens that are written like ``<sos>``, ``<eos>`` or ``<unk>`` are no words.

        >>> SentenceVocabulary.of([["b", "a"], ["b"]]).words
        ('<sos>', '<eos>', 'b', 'a')
        >>> SentenceVocabulary.of([["b", "a"], ["b"]], minimum_count=2).words
        ('<sos>', '<eos>', '<unk>', 'b')
        """
        counts = Counter(word for sentence in sentences for word in sentence)
        kept = (word for word, count in counts.items() if count >= (minimum_count or 1))
        ranked = sorted(set(kept) - {SOS, EOS, UNK}, key=lambda word: (-counts[word], word))
        return cls((SOS, EOS, *([] if minimum_count is None else [UNK]), *ranked))

    @property
    def unk(self) -> int | None:
        """The number of ``<unk>``, or ``None`` if every word must be known."""
        return 2 if self.words[2:3] == (UNK,) else None

    @cached_property
    def ids(self) -> dict[str, int]:
        """The number of each word; ``<sos>`` and ``<eos>`` are no words."""
        return {word: number for number, word in enumerate(self.words) if number > self.eos}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, tokens: Iterable[str]) -> Tensor:
        """Return the numbers of ``tokens`` and ``<eos>`` after them: int64 (n + 1,); unknown words become ``<unk>``.

        The empty sentence is ``<eos>`` alone.

        Raises:
            FewbitsError: If a word is unknown and the vocabulary has no ``<unk>``, or ``tokens`` is one string.

        >>> SentenceVocabulary.of([["b", "a"], ["b"]]).encode(["a", "b"]).tolist()
        [3, 2, 1]
        """
        if isinstance(tokens, str):
            raise FewbitsError(
                f"{tokens!r} is a text, not a list of tokens. Split it first, as the corpus was: "
                f"`corpus.tokenization.tokens(text)`."
            )
        sentence = list(tokens)
        numbers = [self.ids.get(token, self.unk) for token in sentence]
        if None in numbers:
            unknown = [token for token, number in zip(sentence, numbers, strict=True) if number is None]
            raise FewbitsError(
                f"not in the vocabulary of {len(self):,} words, which has no {UNK}: {', '.join(map(repr, unknown))}. "
                f"Use words of the corpus, spelled as its tokenisation spells them."
            )
        return torch.tensor([*numbers, self.eos], dtype=torch.int64)

    def decode(self, ids: Tensor | Iterable[int]) -> list[str]:
        """Return the words of ``ids`` (n,) up to the first ``<eos>``, or all if there is none, without any ``<sos>``.

        Raises:
            FewbitsError: If a number before the end is outside the vocabulary.

        >>> SentenceVocabulary.of([["b", "a"], ["b"]]).decode([0, 3, 2, 1, 2])
        ['a', 'b']
        """
        words = []
        for number in ids.tolist() if isinstance(ids, Tensor) else ids:
            if number == self.eos:
                break
            if not 0 <= number < len(self):
                raise FewbitsError(
                    f"there is no word {number}: this vocabulary has the numbers 0 to {len(self) - 1:,}."
                )
            if number != self.sos:
                words.append(self.words[number])
        return words
