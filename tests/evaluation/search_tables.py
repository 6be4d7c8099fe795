"""Small tables of scores, a decoder that reads them, and all that can be written with them."""

import itertools
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewbits.classifiers.classifier import Classifier
from fewbits.evaluation.search import Beam, Hypothesis, beam_search, greedy

SOS, EOS, WORDS, LENGTH = 0, 1, 4, 5
SEARCH: dict[str, Any] = {"sos": SOS, "eos": EOS}


class Table(Classifier):
    """Scores by table lookup: the hidden vector is (number of the table, number of the prefix)."""

    is_probability: ClassVar[bool] = False

    def __init__(self, tables: Tensor) -> None:
        super().__init__(2, tables.shape[-1])
        self.tables = tables

    def scores(self, hidden: Tensor) -> Tensor:
        number, prefix = hidden.long().unbind(-1)
        return self.tables[number, prefix]

    def log_prob(self, hidden: Tensor) -> Tensor:
        raise AssertionError("search asks for scores only")

    def loss(self, hidden: Tensor, target: Tensor) -> Tensor:
        raise AssertionError("search asks for scores only")


class Prefixes:
    """A decoder whose state is the number of the words read so far, in base V, and of the table."""

    def __init__(self, words: int = WORDS) -> None:
        self.words = words
        self.rows: list[int] = []  # in each step

    def start(self, source: list[int]) -> tuple[Tensor, Tensor]:
        return torch.tensor(source), torch.full((len(source),), -1)

    def step(self, words: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        table, prefix = state
        self.rows.append(len(words))
        prefix = torch.where(prefix < 0, 0, prefix * self.words + words + 1)
        return torch.stack([table, prefix], -1).double(), (table, prefix)

    def reorder(self, state: tuple[Tensor, Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
        return state[0][rows], state[1][rows]


def number_of(prefix: tuple[int, ...], words: int = WORDS) -> int:
    number = 0
    for word in prefix:
        number = number * words + word + 1
    return number


def tables(seed: int, count: int = 1, words: int = WORDS, length: int = LENGTH, spread: float = 1.5) -> Tensor:
    """Logits of the next word after every prefix, (tables, prefixes, V)."""
    source = torch.Generator().manual_seed(seed)
    return spread * torch.randn(count, number_of((words - 1,) * length, words) + 1, words, generator=source)


def max_shift(logits: Tensor, b: float = 0.0) -> Tensor:
    return logits - logits.amax(-1, keepdim=True) - b


def hypotheses(words: int, length: int) -> Iterator[tuple[int, ...]]:
    """Every sequence that ends in <eos>, or is cut off at the longest length."""
    others = [word for word in range(words) if word != EOS]
    for n in range(1, length + 1):
        for inner in itertools.product(others, repeat=n - 1):
            yield (*inner, EOS)
            if n == length:
                yield from ((*inner, last) for last in others)


def total(table: Tensor, sequence: tuple[int, ...]) -> float:
    words = table.shape[-1]
    return sum(table[number_of(sequence[:n], words), word].item() for n, word in enumerate(sequence))


def ranked(table: Tensor, penalty: float, length: int = LENGTH) -> list[tuple[float, tuple[int, ...]]]:
    """All sequences with their scores, best first; of equal ones the shorter first, then the lower words."""
    found = [(total(table, s) / len(s) ** penalty, s) for s in hypotheses(table.shape[-1], length)]
    return sorted(found, key=lambda one: (-one[0], len(one[1]), one[1]))


def sequence(hypothesis: Hypothesis) -> tuple[int, ...]:
    return (*hypothesis.words, EOS) if hypothesis.ended else hypothesis.words


def search(scores: Tensor, beam: Beam) -> list[list[Hypothesis]]:
    decoder = Prefixes(scores.shape[-1])
    return beam_search(decoder, Table(scores), list(range(len(scores))), beam=beam, **SEARCH)


def greedily(scores: Tensor, length: int = LENGTH) -> list[Hypothesis]:
    decoder = Prefixes(scores.shape[-1])
    return greedy(decoder, Table(scores), list(range(len(scores))), max_length=length, **SEARCH)
