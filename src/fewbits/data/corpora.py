"""Corpora: the text of a data set as numbers, ready for a language model."""

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fewbits.data import registry, sources, token_cache
from fewbits.data.registry import Split
from fewbits.data.sources import Located, Source
from fewbits.data.tokenization import Tokenization
from fewbits.data.vocabulary import EOS, Vocabulary


@dataclass(frozen=True, eq=False)
class Corpus:
    """A data set as token numbers: int32 tensors (tokens,), one ``<eos>`` after each document."""

    name: str
    vocabulary: Vocabulary
    train: Tensor
    valid: Tensor
    test: Tensor
    hashes: dict[str, str]  #: SHA-256 of the unpacked content of each file that was read, by registered path
    source: Source  #: where the files were found

    def limited(self, vocabulary_size: int) -> "Corpus":
        """Return the same text with the ``vocabulary_size`` most frequent words; the others become ``<unk>``.

        Raises:
            FewbitsError: If there are fewer types than that.
        """
        vocabulary = self.vocabulary.limited(vocabulary_size)
        unknown = torch.tensor(Vocabulary.unk, dtype=torch.int32)
        splits = {split: getattr(self, split) for split in Split}
        return replace(
            self,
            vocabulary=vocabulary,
            **{split: ids.where(ids < vocabulary_size, unknown) for split, ids in splits.items()},
        )

    def shortened(self, train_tokens: int | None, evaluation_tokens: int | None) -> "Corpus":
        """Return the first ``train_tokens`` of the training text, ``evaluation_tokens`` of each other; None is all."""
        few = slice(evaluation_tokens)
        return replace(self, train=self.train[:train_tokens], valid=self.valid[few], test=self.test[few])

    def sampled(self, valid_tokens: int | None, test_tokens: int | None, stretch: int = 1_000) -> "Corpus":
        """Return stretches of the validation and the test text at equal distances; None is all.

        Where documents are long, the first tokens are of one of them, and stretches are of many. A number of tokens is
        rounded down to whole stretches; one below ``stretch`` is one short stretch, from the beginning.
        """
        valid, test = _stretches(self.valid, valid_tokens, stretch), _stretches(self.test, test_tokens, stretch)
        return replace(self, valid=valid, test=test)


def _stretches(tokens: Tensor, count: int | None, stretch: int) -> Tensor:
    if count is None or count >= len(tokens):
        return tokens
    length = min(stretch, count)
    starts = np.linspace(0, len(tokens) - length, count // length).astype(int)
    return torch.cat([tokens[start : start + length] for start in starts])


def load_corpus(name: str, vocabulary_size: int | None = None) -> Corpus:
    """Return the data set ``name``, found on this machine and checked by hash; nothing is downloaded.

    The vocabulary is made of the training text only: its ``vocabulary_size`` most frequent types, ``<unk>`` and
    ``<eos>`` among them, or all of them for ``None``. Tokens are kept in the cache, so a second call is quick; a cached
    file that is not exactly what was written is made again. Splits and tokenisation are those of
    ``data/registry.yaml``.

    Raises:
        FewbitsError: If the data set is unknown, parallel text, missing or damaged, or has fewer types than asked for.
    """
    tokenization = registry.running_text(name).tokenization
    located = sources.find(name)
    hashes = {file.file.path: file.sha256() for file in located}
    path = token_cache.path(name, tokenization, hashes)
    tokens = token_cache.load(path)
    if tokens is None:
        tokens = number(split_documents(located), tokenization)
        token_cache.save(tokens, path)
    vocabulary, ids = tokens
    train, valid, test = (ids[split] for split in (Split.TRAIN, Split.VALID, Split.TEST))
    corpus = Corpus(name, vocabulary, train, valid, test, hashes, located[0].source)
    return corpus if vocabulary_size is None else corpus.limited(vocabulary_size)


def split_documents(located: Iterable[Located]) -> Iterator[tuple[Split, str]]:
    """Yield the documents of all files in order, each with its split.

    A file that has a split gives it to all its documents. The others are counted from 0 through all files: every 20th,
    from the first on, is test text, the one after it validation text, the rest training text; where a file has such a
    split, those documents are training text too.
    """
    located = tuple(located)
    whole = {file.file.split for file in located}
    by_rule = {place: split for place, split in enumerate((Split.TEST, Split.VALID)) if split not in whole}
    position = 0
    for file in located:
        for content in file.read():
            for document in file.file.documents.within(content):
                yield file.file.split or by_rule.get(position % 20, Split.TRAIN), document
                position += 1


def number(
    documents: Iterable[tuple[Split, str]], tokenization: Tokenization
) -> tuple[Vocabulary, dict[Split, Tensor]]:
    """Return the vocabulary of the training documents, and every split as int32 numbers in that vocabulary.

    Words are numbered as they come first and renumbered by frequency in the end: millions of tokens are never held as
    strings.
    """
    index: defaultdict[str, int] = defaultdict(int)
    index.default_factory = index.__len__
    provisional = {split: array("i") for split in Split}
    for split, document in documents:
        provisional[split].extend(map(index.__getitem__, tokenization.tokens(document)))
        provisional[split].append(index[EOS])
    counts = np.bincount(provisional[Split.TRAIN], minlength=len(index)).tolist()
    vocabulary = Vocabulary.ranked({word: count for word, count in zip(index, counts, strict=True) if count})
    final = vocabulary.encode(index).numpy()
    return vocabulary, {split: torch.from_numpy(final[np.array(ids, np.int64)]) for split, ids in provisional.items()}
