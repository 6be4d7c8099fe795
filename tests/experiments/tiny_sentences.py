"""A made-up language as sentences, and a translator of it so small that it can be trained many times."""

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from fewbits.data import Sentences
from fewbits.experiments import beam_normaliser, transformer_translation
from fewbits.experiments.transformer_translation import TransformerTranslation, texts

MADE_UP = "made-up"


def sentences(name: str = MADE_UP) -> Sentences:
    """Sentences of 1 to 5 words; the translation has other words, backwards, and a full stop."""
    chance = random.Random(3)
    drawn = [[chance.choice("abcdef") for _ in range(chance.randint(1, 5))] for _ in range(140)]
    pairs = tuple((" ".join(f"s{w}" for w in words), " ".join(f"t{w}" for w in words[::-1]) + ".") for words in drawn)
    parts = {"train": pairs[:120], "valid": pairs[120:130], "test_a": pairs[130:134], "test_b": pairs[134:]}
    return Sentences(name, parts, {"it": "ab"})


@contextlib.contextmanager
def made_up_language() -> Iterator[None]:
    """Put it in the place of all others, with one thread, so that results can be compared bit for bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "load_sentences", sentences)
        for module in (transformer_translation, beam_normaliser):
            patch.setattr(module, "data_hashes", lambda name: {"it": "ab"})
        yield
    torch.set_num_threads(threads)


def configuration(**changes: Any) -> TransformerTranslation:
    """A small model, trained long enough to translate some of it."""
    small: dict[str, Any] = {
        "corpus": MADE_UP, "pieces": 34, "hidden_size": 16, "layers": 1, "heads": 2, "feed_forward": 32,
        "dropout": 0.0, "longest": 20, "words": 200, "averaged_epochs": 2,
        "training": transformer_translation.TRAINING.model_copy(
            update={"epochs": 14, "warmup_steps": 20, "learning_rate": 0.01}
        ),
    }  # fmt: skip
    return TransformerTranslation.model_validate(small | changes)
