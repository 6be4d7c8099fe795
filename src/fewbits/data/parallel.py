"""Parallel text: sentences with their translations, ready for a translator."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fewbits.data import registry, sources
from fewbits.data.selection import Pair
from fewbits.data.sentence_vocabulary import SentenceVocabulary
from fewbits.data.tokenization import Documents, Tokenization
from fewbits.errors import FewbitsError

#: characters that no sentence has, and what they tell
_LOST = {
    "\0": "the file is probably UTF-16",
    "\ufffd": "an earlier conversion did not know the character that stood here",
}


@dataclass(frozen=True, eq=False)
class ParallelCorpus:
    """Sentence pairs as tokens, in the order of the text, and the vocabularies of all of them."""

    name: str
    pairs: tuple[Pair, ...]  #: ``(source sentence, target sentence)``, without ``<sos>`` and ``<eos>``
    source: SentenceVocabulary  #: of the language that is translated from
    target: SentenceVocabulary  #: of the language that is translated into
    dropped: int  #: pairs of the text that are not used: not selected, or with a side that has no token
    tokenization: Tokenization  #: how a text became tokens
    hashes: dict[str, str]  #: SHA-256 of each file that was read, by its registered path, or its path


@dataclass(frozen=True)
class PairSplit:
    """Pairs to train on, and three sets of pairs to test on."""

    training: tuple[Pair, ...]
    inside: tuple[Pair, ...]  #: drawn from the training pairs
    outside: tuple[Pair, ...]  #: held out
    outside_unique: tuple[Pair, ...]  #: those held out whose source and target sentence both occur nowhere in training


def load_pairs(name: str) -> ParallelCorpus:
    """Return the parallel text ``name``, found on this machine and checked by hash; nothing is downloaded.

    ``eng-fra`` are the pairs of PyTorch's translation tutorial, ``bible-en-fr`` short verses; both are French to
    English, and their rules are those of ``Selection``. The vocabularies are of all pairs, so a split changes neither
    them nor the size of the model, as in the tutorial. Sentences may repeat. Reading takes about a second.

    Raises:
        FewbitsError: If the data set is unknown, running text, missing or damaged.
    """
    entry = registry.parallel_text(name)
    located = sources.find(name)
    lines = [line for file in located for content in file.read() for line in file.file.documents.within(content)]
    pairs = [pair for line in lines if (pair := entry.selection.pair(line, entry.tokenization))]
    hashes = {file.file.path: file.sha256() for file in located}
    return _corpus(name, pairs, len(lines), entry.tokenization, hashes, entry.minimum_count)


def read_pairs(
    source: str | Path,
    target: str | Path,
    tokenization: Tokenization = Tokenization.WORDS,
    minimum_count: int = 1,
) -> ParallelCorpus:
    """Return the parallel text of two files of your own, UTF-8, with one sentence a line and line n translating line n.

    A pair with a side that has no token is dropped and counted. Words that occur fewer than ``minimum_count`` times in
    all pairs become ``<unk>``. Only a line feed ends a line; a carriage return before it is dropped as white space.

    Args:
        source: Path of the sentences that are translated from.
        target: Path of the sentences that are translated into.
        tokenization: How a line becomes tokens; ``Tokenization.WHITESPACE`` for a text that has them already.
        minimum_count: Count from which a word has its own number.

    Raises:
        FewbitsError: If a file cannot be read, is not UTF-8 text, has characters that an earlier conversion lost, the
            files have different numbers of lines, or no pair is left.
    """
    contents = [_content(Path(path)) for path in (source, target)]
    sides = [_lines(Path(path), content) for path, content in zip((source, target), contents, strict=True)]
    if len(sides[0]) != len(sides[1]):
        raise FewbitsError(
            f"{source} has {len(sides[0]):,} lines and {target} has {len(sides[1]):,}. Line n of one must be the "
            f"translation of line n of the other: look for a sentence that was cut, joined or left out."
        )
    tokens = [[tuple(tokenization.tokens(line)) for line in lines] for lines in sides]
    pairs = [pair for pair in zip(*tokens, strict=True) if all(pair)]
    if not pairs:
        raise FewbitsError(
            f"{source} and {target} have no line with a token on both sides under the tokenisation "
            f"{tokenization.value!r}. Give files with one sentence a line, or another tokenisation."
        )
    hashes = {
        str(path): hashlib.sha256(content).hexdigest() for path, content in zip((source, target), contents, strict=True)
    }
    return _corpus(f"{source} and {target}", pairs, len(sides[0]), tokenization, hashes, minimum_count)


def split_pairs(pairs: Sequence[Pair], seed: int, size: int = 1000) -> PairSplit:
    """Return ``pairs`` split for training and for three tests of ``size`` pairs, drawn without replacement by ``seed``.

    ``outside``: ``size`` pairs drawn from all; the others are ``training``. ``inside``: ``size`` pairs drawn from
    ``training``. ``outside_unique``: those of ``outside`` whose source sentence is no source sentence of ``training``
    and whose target sentence is no target sentence of it, so fewer. All keep the order of ``pairs``. The same pairs,
    seed and size give the same split.

    Raises:
        FewbitsError: If ``size`` is below 1, or fewer than ``size`` pairs would be left to train on.
    """
    if not 1 <= size <= len(pairs) // 2:
        raise FewbitsError(
            f"{size:,} of {len(pairs):,} pairs cannot be held out with as many left to train on. "
            f"Choose a size from 1 to {len(pairs) // 2:,}."
        )
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed)).tolist()
    outside, inside, training = (
        tuple(pairs[position] for position in sorted(drawn))
        for drawn in (order[:size], order[size : 2 * size], order[size:])
    )
    sources_seen, targets_seen = (set(side) for side in zip(*training, strict=True))
    unique = tuple(pair for pair in outside if pair[0] not in sources_seen and pair[1] not in targets_seen)
    return PairSplit(training, inside, outside, unique)


def _corpus(
    name: str,
    pairs: Sequence[Pair],
    lines: int,
    tokenization: Tokenization,
    hashes: dict[str, str],
    minimum_count: int | None,
) -> ParallelCorpus:
    source, target = (SentenceVocabulary.of((pair[side] for pair in pairs), minimum_count) for side in (0, 1))
    return ParallelCorpus(name, tuple(pairs), source, target, lines - len(pairs), tokenization, hashes)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FewbitsError(
            f"{path} cannot be read: {error.strerror}. Give a text file with one sentence a line."
        ) from error


def _lines(path: Path, content: bytes) -> list[str]:
    try:
        lines = list(Documents.LINE.within(content))
    except UnicodeDecodeError as error:
        number = error.object.count(b"\n", 0, error.start) + 1  # the object is the content without a byte order mark
        raise FewbitsError(
            f"{path}, line {number:,}: the byte {error.object[error.start]:#04x} is not UTF-8. "
            f"Convert the file first, for example with `iconv -f latin1 -t utf-8`."
        ) from error
    for number, line in enumerate(lines, 1):
        for character, cause in _LOST.items():
            if character in line:
                raise FewbitsError(
                    f"{path}, line {number:,} has the character U+{ord(character):04X}: {cause}. "
                    f"Take the original file and convert it to UTF-8."
                )
    return lines
