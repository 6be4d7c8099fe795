"""Which sentence pairs of a parallel text are used."""

from enum import StrEnum

from fewbits.data.tokenization import Tokenization

Sentence = tuple[str, ...]  #: the tokens of a sentence
Pair = tuple[Sentence, Sentence]  #: a sentence and its translation

#: Only some end in a space, as in the tutorial: ``he is`` lets ``he isn t`` through, ``i am`` needs a word after it.
_PREFIXES = (
    *("i am ", "i m ", "he is", "he s ", "she is", "she s "),
    *("you are", "you re ", "we are", "we re ", "they are", "they re "),
)
_PSALMS = "19"


class Selection(StrEnum):
    """Where the two sentences of a line stand, and which of the pairs are kept.

    French is translated into English in both.
    """

    #: ``english TAB french``. At most 9 tokens on both sides ("fewer than 10"), English begins with one of 12 phrases.
    TUTORIAL = "PyTorch tutorial"
    #: ``book TAB chapter TAB verse TAB english TAB french``. At most 15 tokens on both sides. The first verses of the
    #: Psalms are left out, because a title stands in front of many in French only; ``œ`` is spelled ``oe``.
    SHORT_VERSES = "short verses"

    def pair(self, line: str, tokenization: Tokenization) -> Pair | None:
        r"""Return the sentences of ``line``, French first, or ``None`` if they are not kept.

        Raises:
            ValueError: If the line has another number of fields.

        >>> Selection.TUTORIAL.pair("I'm OK.\tJe vais bien.", Tokenization.ASCII_LETTERS)
        (('je', 'vais', 'bien', '.'), ('i', 'm', 'ok', '.'))
        >>> Selection.TUTORIAL.pair("Go.\tVa !", Tokenization.ASCII_LETTERS) is None
        True
        """
        if self is Selection.TUTORIAL:
            return _short(*self.sentences(line), 9, tokenization, _PREFIXES)
        if line.split("\t")[::2][:2] == [_PSALMS, "1"]:
            return None
        return _short(*self.sentences(line), 15, tokenization)

    def sentences(self, line: str) -> tuple[str, str]:
        r"""Return the French and the English sentence of ``line`` as they are written, kept or not.

        Raises:
            ValueError: If the line has another number of fields.

        >>> Selection.TUTORIAL.sentences("Go.\tVa !")
        ('Va !', 'Go.')
        """
        if self is Selection.TUTORIAL:
            english, french = line.split("\t")
            return french, english
        _, _, _, english, french = line.split("\t")
        return french.replace("œ", "oe").replace("Œ", "Oe"), english


def _short(
    source: str, target: str, limit: int, tokenization: Tokenization, prefixes: tuple[str, ...] = ("",)
) -> Pair | None:
    second = tuple(tokenization.tokens(target))
    if len(second) > limit or not " ".join(second).startswith(prefixes):
        return None
    first = tuple(tokenization.tokens(source))
    return (first, second) if len(first) <= limit else None
