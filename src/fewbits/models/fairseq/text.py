"""Text as fairseq's translators read and write it: Moses tokens in BPE."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from fewbits.errors import FewbitsError

if TYPE_CHECKING:
    from sacremoses import MosesDetokenizer, MosesPunctNormalizer, MosesTokenizer
    from subword_nmt.apply_bpe import BPE

CONTINUED = "@@ "  #: after a piece of a word that goes on


def remove_bpe(text: str) -> str:
    """Return the words of pieces: ``--remove-bpe`` of fairseq.

    >>> remove_bpe("an@@ other exam@@ ple@@")
    'another example'
    """
    return f"{text} ".replace(CONTINUED, "").rstrip()


@dataclass(frozen=True)
class MosesBpe:
    """From a sentence to pieces of words as fairseq's scripts for WMT make them, and back.

    Punctuation is normalised, control characters are dropped; the tokens are those of Moses, split at dashes (``-a``)
    and with escaped characters (``&apos;``); a token becomes pieces by the merges of the file of codes, all but the
    last ending in ``@@``.

    Raises:
        FewbitsError: If the file of codes is missing, or is none.
    """

    source: str  #: language, such as ``en``
    target: str
    codes: Path  #: ``bpecodes`` of the model: subword-nmt's merges
    _bpe: "BPE" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        from subword_nmt.apply_bpe import BPE

        try:
            with self.codes.open(encoding="utf-8") as file:
                object.__setattr__(self, "_bpe", BPE(file))
        # A line that is no merge ends the program in this library.
        except (OSError, UnicodeDecodeError, ValueError, SystemExit) as problem:
            raise FewbitsError(
                f"{self.codes} has no BPE codes: {problem}. It is the bpecodes of the model: two pieces a line."
            ) from problem

    def encode(self, sentence: str) -> str:
        """Return the pieces of ``sentence`` with blanks between them."""
        return self.pieces(self._tokenizer.tokenize(self._normalizer.normalize(sentence), True, True))

    def pieces(self, tokens: str) -> str:
        """Return the pieces of a sentence that is tokenised already, as test sets of WMT are."""
        return str(self._bpe.process_line(tokens))

    def decode(self, pieces: str) -> str:
        """Return the sentence of pieces of the target language."""
        return str(self._detokenizer.detokenize(remove_bpe(pieces).split()))

    @cached_property
    def _normalizer(self) -> "MosesPunctNormalizer":
        from sacremoses import MosesPunctNormalizer

        return MosesPunctNormalizer(self.source, post_remove_control_chars=True)

    @cached_property
    def _tokenizer(self) -> "MosesTokenizer":
        from sacremoses import MosesTokenizer

        return MosesTokenizer(self.source)

    @cached_property
    def _detokenizer(self) -> "MosesDetokenizer":
        from sacremoses import MosesDetokenizer

        return MosesDetokenizer(self.target)
