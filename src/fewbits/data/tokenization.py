"""From the content of a file to documents, and from a document to tokens."""

import csv
import io
import re
import unicodedata
from collections.abc import Iterator
from enum import StrEnum

#: Raise it when the documents or tokens of the same file change: tokens cached under another version are not used.
VERSION = 1

_WORDS = re.compile(r"\w+|[^\w\s]")
_WORDS_WITH_APOSTROPHES = re.compile(r"\w+(?:'\w+)*|[^\w\s]")
_ASCII_LETTERS = re.compile(r"[.!?]?[a-zA-Z]+|[.!?]")


class Tokenization(StrEnum):
    """How a document becomes tokens."""

    WHITESPACE = "whitespace"  #: the file is tokenised already, case is kept
    WORDS = "words"  #: lower-cased runs of word characters, and single punctuation marks
    WORDS_WITH_APOSTROPHES = "words with apostrophes"  #: the same, but ``don't`` is one token
    ASCII_LETTERS = "ascii letters"  #: lower-cased runs of A to Z without their accents, and single ``.``, ``!``, ``?``

    def tokens(self, text: str) -> list[str]:
        r"""Return the tokens of ``text``, without ``<eos>``.

        ``ascii letters`` is the rule of PyTorch's translation tutorial: combining marks (category Mn) are dropped after
        canonical decomposition, a space is put before ``.``, ``!`` and ``?``, and all but these and letters become
        spaces. So ``œ`` separates words, and in ``a.b`` the second token is ``.b``.

        >>> Tokenization.WORDS_WITH_APOSTROPHES.tokens("Don't stop: it's 5%.")
        ["don't", 'stop', ':', "it's", '5', '%', '.']
        >>> Tokenization.WORDS.tokens("Nie-prawda?")
        ['nie', '-', 'prawda', '?']
        >>> Tokenization.ASCII_LETTERS.tokens("J'ai 18 ans, cœur léger !")
        ['j', 'ai', 'ans', 'c', 'ur', 'leger', '!']
        """
        if self is Tokenization.WHITESPACE:
            return text.split()
        if self is Tokenization.ASCII_LETTERS:
            return _ASCII_LETTERS.findall(_without_marks(text.lower()))
        pattern = _WORDS if self is Tokenization.WORDS else _WORDS_WITH_APOSTROPHES
        return pattern.findall(text.lower())


def _without_marks(text: str) -> str:
    if text.isascii():
        return text
    return "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")


class Documents(StrEnum):
    """What one document is; a document ends with one ``<eos>``."""

    LINE = "line"  #: a line, the empty ones too (a sentence, a speech)
    FILE = "file"  #: the whole file (a novel, a play): its lines may be cut anywhere, so they mean nothing
    ARTICLE = "article"  #: each text in the column ``text`` of a CSV file that is not blank and did not occur before

    def within(self, content: bytes) -> Iterator[str]:
        r"""Yield the documents of a file in their order; UTF-8, a byte order mark is dropped.

        Only a line feed ends a line, because Python's other line ends (form feed, U+2028) occur inside running text.

        >>> list(Documents.LINE.within(b"a b\n\nc\n"))
        ['a b', '', 'c']
        """
        text = content.decode("utf-8-sig")
        if self is Documents.LINE:
            yield from text.removesuffix("\n").split("\n")
        elif self is Documents.FILE:
            yield text
        else:
            rows = csv.DictReader(io.StringIO(text, newline=""))
            yield from dict.fromkeys(row["text"] for row in rows if row["text"].strip())
