"""A made-up language, and a translator so small that it can be trained and stopped many times."""

import contextlib
import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch

from fewbits.data import Pair, ParallelCorpus, SentenceVocabulary, Tokenization
from fewbits.evaluation.translation import bleu, paired_bootstrap
from fewbits.experiments import seq2seq_translation
from fewbits.experiments.seq2seq_translation import Seq2SeqTranslation, texts, translations
from fewbits.training.translation import TUTORIAL

MADE_UP = "made-up"
RESAMPLES = 20


def corpus(name: str = MADE_UP, pairs: tuple[Pair, ...] | None = None) -> ParallelCorpus:
    """Sentences of 2 to 5 words; the translation has the words backwards and a full stop. Short ones repeat."""
    if pairs is None:
        chance = random.Random(3)
        drawn = [[chance.randrange(6) for _ in range(chance.randint(2, 5))] for _ in range(300)]
        pairs = tuple(
            (tuple(f"s{word}" for word in words), (*(f"t{word}" for word in reversed(words)), "."))
            for words in drawn
        )  # fmt: skip
    source, target = (SentenceVocabulary.of(pair[side] for pair in pairs) for side in (0, 1))
    return ParallelCorpus(name, pairs, source, target, 0, Tokenization.WHITESPACE, {"it": "ab"})


@contextlib.contextmanager
def made_up_language() -> Iterator[None]:
    """Put it in the place of all others; few resamples, and one thread, so that results can be compared bit for bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "load_pairs", corpus)
        patch.setattr(seq2seq_translation, "data_hashes", lambda name: {"it": "ab"})
        patch.setattr(translations, "bleu", partial(bleu, resamples=RESAMPLES))
        patch.setattr(translations, "paired_bootstrap", partial(paired_bootstrap, resamples=RESAMPLES))
        yield
    torch.set_num_threads(threads)


def configuration(**changes: Any) -> Seq2SeqTranslation:
    """A few sentences; two epochs of two batches for each arm unless stated."""
    small: dict[str, Any] = {
        "corpus": MADE_UP, "pairs": 60, "test_size": 6, "hidden_size": 8, "batch_size": 4, "steps": 2,
        "training": TUTORIAL.model_copy(update={"epochs": 2}),
    }  # fmt: skip
    return Seq2SeqTranslation.model_validate(small | changes)
