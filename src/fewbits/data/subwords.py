"""Pieces of words: byte pair encoding by sentencepiece, one vocabulary for both languages."""

import io
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from fewbits.errors import FewbitsError

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor


class Subwords:
    """A text becomes pieces, and pieces become the text again (Sennrich et al. 2016; Kudo and Richardson 2018).

    Byte pair encoding merges the most frequent pair of neighbouring pieces until there are as many as asked for. Pieces
    begin at a blank and hold it, as ``▁``; so a translation is joined without rules of a language. Text is not
    normalised: but for runs of blanks and those at the ends, what is encoded comes back, unless a character is unknown.
    ``<sos>`` is 0, ``<eos>`` 1, ``<unk>`` 2.

    >>> subwords = Subwords.train(["low lower lowest", "new newer newest"], size=18)
    >>> subwords.pieces("newest low")
    ['▁ne', 'we', 'st', '▁lo', 'w']
    >>> subwords.decode(subwords.encode("newest low"))
    'newest low'
    """

    sos: ClassVar[int] = 0  #: number of ``<sos>``
    eos: ClassVar[int] = 1  #: number of ``<eos>``
    unk: ClassVar[int] = 2  #: number of ``<unk>``

    def __init__(self, model: bytes) -> None:
        """Take ``model``, the content of a sentencepiece model whose first numbers are those of this class."""
        self.model = model

    @classmethod
    def train(cls, texts: Iterable[str], size: int) -> "Subwords":
        """Return ``size`` pieces for ``texts``; the same texts and size give the same pieces.

        Every character of the texts is known.

        Raises:
            FewbitsError: If the texts have too many characters, or too few words, for so many pieces.
        """
        import sentencepiece

        file = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(texts),
                model_writer=file,
                vocab_size=size,
                model_type="bpe",
                character_coverage=1.0,
                normalization_rule_name="identity",
                bos_id=cls.sos,
                eos_id=cls.eos,
                unk_id=cls.unk,
                pad_id=-1,
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise FewbitsError(
                f"the texts do not give {size:,} pieces: {error}. Take fewer if they are short, more if they have many "
                "different characters."
            ) from error
        return cls(file.getvalue())

    def __len__(self) -> int:
        return self._processor.get_piece_size()

    def pieces(self, text: str) -> list[str]:
        """Return the pieces of ``text``."""
        return list(self._processor.encode(text, out_type=str))

    def encode(self, text: str) -> Tensor:
        """Return the numbers of the pieces of ``text`` and ``<eos>`` after them: int64 (n + 1,)."""
        return torch.tensor([*self._processor.encode(text), self.eos], dtype=torch.int64)

    def decode(self, numbers: Tensor | Sequence[int]) -> str:
        """Return the text of ``numbers`` (n,) up to the first ``<eos>``; an unknown character is ``⁇``.

        Raises:
            FewbitsError: If a number before the end is outside the vocabulary.
        """
        line = numbers.tolist() if isinstance(numbers, Tensor) else list(numbers)
        line = line[: line.index(self.eos)] if self.eos in line else line
        if wrong := [number for number in line if not 0 <= number < len(self)]:
            raise FewbitsError(f"there is no piece {wrong[0]}: there are the numbers 0 to {len(self) - 1:,}.")
        return str(self._processor.decode(line))

    @cached_property
    def _processor(self) -> "SentencePieceProcessor":
        import sentencepiece

        return sentencepiece.SentencePieceProcessor(model_proto=self.model)
