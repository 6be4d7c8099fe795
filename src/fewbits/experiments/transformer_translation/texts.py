"""The sentences of a corpus as pieces, ready to train on and to translate."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

from torch import Tensor

from fewbits.data import Sentences, Subwords, Translated, load_sentences


@dataclass(frozen=True, eq=False)
class Text:
    """Sentences, and the pieces of both languages, which come from the training pairs alone."""

    sentences: Sentences
    pieces: int
    pairs: int | None
    tested: int | None

    sos: ClassVar[int] = Subwords.sos
    eos: ClassVar[int] = Subwords.eos

    @classmethod
    def load(cls, corpus: str, pieces: int, pairs: int | None = None, tested: int | None = None) -> Self:
        """Return the sentences of ``corpus``: the first ``pairs`` to train on, the first ``tested`` of each test."""
        return cls(load_sentences(corpus), pieces, pairs, tested)

    @property
    def tests(self) -> tuple[str, ...]:
        """The names of the tests."""
        return self.sentences.tests

    def part(self, name: str) -> tuple[Translated, ...]:
        """Return the pairs of a part that are used."""
        limit = self.pairs if name == "train" else self.tested if name in self.tests else None
        return self.sentences.parts[name][:limit]

    @cached_property
    def subwords(self) -> Subwords:
        """The pieces of both languages."""
        return Subwords.train((side for pair in self.part("train") for side in pair), self.pieces)

    def numbers(self, part: str) -> list[tuple[Tensor, Tensor]]:
        """Return the pairs of a part as numbers of pieces."""
        return [(self.subwords.encode(source), self.subwords.encode(target)) for source, target in self.part(part)]

    def references(self, part: str) -> list[str]:
        """Return the translations of a part as they were written."""
        return [target for _, target in self.part(part)]
