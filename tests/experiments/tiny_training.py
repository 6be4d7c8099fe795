"""A training so small that it can be killed and started again many times.

As a program, ``tiny_training.py CONFIGURATION EVERY LOG RESULT`` runs a configuration (JSON) at profile laptop with a
checkpoint every so many steps, adds a line to LOG for each step that it starts, and writes the result to RESULT.
"""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fewbits.data import Corpus, Source, Vocabulary
from fewbits.experiments import on_text
from fewbits.experiments.lstm_perplexity import LstmPerplexity
from fewbits.study.profiles import Profile
from fewbits.study.run import run
from fewbits.training.language_modelling import LanguageModelling
from fewbits.training.settings import Training

TYPES = 60
MADE_UP = "made-up"
STOCHASTIC = "Binary(rounding=Rounding.STOCHASTIC)"


def corpus(name: str = MADE_UP, vocabulary_size: int | None = None) -> Corpus:
    """A text in which each word follows from the one before it, but for noise."""
    source = torch.Generator().manual_seed(7)
    words = [2]
    for noise in torch.randint(4, (12_000,), generator=source).tolist():
        words.append(2 + (5 * words[-1] + noise) % (TYPES - 2))
    ids = torch.tensor(words, dtype=torch.int32)
    vocabulary = Vocabulary(("<unk>", "<eos>", *(f"w{number}" for number in range(2, TYPES))))
    made = Corpus(name, vocabulary, ids[:10_000], ids[10_000:11_000], ids[11_000:], {"it": "ab"}, Source.CACHE)
    return made if vocabulary_size is None else made.limited(vocabulary_size)


def use_made_up(patch: pytest.MonkeyPatch) -> None:
    """Put the made-up text in the place of all data sets."""
    patch.setattr(on_text, "load_corpus", corpus)
    patch.setattr(on_text, "data_hashes", lambda name: {"it": "ab"})


def configuration(**changes: Any) -> LstmPerplexity:
    """A small model: 3 epochs of 66 steps unless stated."""
    small: dict[str, Any] = {
        "arm": "float", "corpus": MADE_UP, "embedding_size": 8, "hidden_size": 8, "dropout": 0.0, "layers": 1,
        "batch_size": 5, "length": 10, "train_tokens": 3_300, "evaluation_tokens": 300,
        "training": Training(epochs=3, learning_rate=2.0),
    }  # fmt: skip
    return LstmPerplexity.model_validate(small | changes)


def main(settings: str, every: str, log: str, result: str) -> None:
    torch.set_num_threads(1)
    chosen = LstmPerplexity.model_validate_json(settings)
    loss = LanguageModelling.loss

    def noted(self: LanguageModelling, step: int) -> torch.Tensor:
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{os.getpid()} {step}\n".encode())  # one call, so a kill leaves whole lines
        os.close(descriptor)
        return loss(self, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LanguageModelling, "loss", noted)
        if chosen.corpus == MADE_UP:
            use_made_up(patch)
        record = run(chosen, Profile.LAPTOP, device="cpu", checkpoint_every=int(every), progress=False)
    Path(result).write_text(record.result.model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
