"""The numbers of words as fairseq's ``dict.xx.txt`` gives them."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor

from fewbits.errors import FewbitsError

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  #: not in the file


@dataclass(frozen=True)
class Dictionary:
    """Words by number: ``<s>`` is 0, ``<pad>`` 1, ``</s>`` 2, ``<unk>`` 3, then those of the file."""

    pad: ClassVar[int] = 1  #: number of ``<pad>``, which no sentence has
    eos: ClassVar[int] = 2  #: number of ``</s>``, which ends a sentence, and which a translation starts after
    unk: ClassVar[int] = 3  #: number of ``<unk>``
    words: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the dictionary of a file of lines ``word count``.

        Raises:
            FewbitsError: If there is no such file, or a line is no word and count, or a word comes twice.
        """
        try:
            with path.open(encoding="utf-8") as file:
                lines = [line.rstrip().rpartition(" ") for line in file]  # words may hold other line separators
        except (OSError, UnicodeDecodeError) as problem:
            raise FewbitsError(
                f"no dictionary could be read from {path}: {problem}. It is fairseq's dict.xx.txt of the model's "
                "language xx, a line `word count` for each word."
            ) from problem
        words = list(SPECIAL)
        known = set(SPECIAL)
        for number, (word, _, count) in enumerate(lines, 1):
            if not word or not count.isdecimal() or word in known:
                wrong = f"has {word!r} again" if word in known else "is no `word count`"
                raise FewbitsError(
                    f"line {number:,} of {path} {wrong}; take the dict.xx.txt that came with the model, unchanged."
                )
            words.append(word)
            known.add(word)
        return cls(tuple(words))

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each word."""
        return {word: number for number, word in enumerate(self.words)}

    def encode(self, text: str) -> Tensor:
        """Return the numbers of the words of ``text`` between blanks, and ``</s>`` after them: int64 (n + 1,).

        A word that is not in the dictionary is ``<unk>``.

        >>> Dictionary((*SPECIAL, "ein", "Haus")).encode("ein altes Haus").tolist()
        [4, 3, 5, 2]
        """
        numbers = [self.numbers.get(word, self.unk) for word in text.split()]
        return torch.tensor([*numbers, self.eos], dtype=torch.int64)

    def decode(self, numbers: Iterable[int]) -> str:
        """Return the words of ``numbers`` up to ``</s>``, without ``<s>``, with a blank between two.

        Raises:
            FewbitsError: If a number is not in the dictionary.

        >>> Dictionary((*SPECIAL, "a", "house")).decode([4, 5, 2])
        'a house'
        """
        words = []
        for number in numbers:
            if not 0 <= number < len(self):
                raise FewbitsError(f"there is no word {number}: this dictionary has 0 to {len(self) - 1:,}.")
            if number == self.eos:
                break
            words.append(self.words[number])
        return " ".join(word for word in words if word != SPECIAL[0])
