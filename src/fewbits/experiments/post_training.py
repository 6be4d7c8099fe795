"""Recurrent language models quantized after training: the table of Xu et al. 2018 (claim S1)."""

from typing import Any, ClassVar

import torch
from pydantic import Field

from fewbits.data import Corpus, data_hashes, load_corpus
from fewbits.evaluation.perplexity import exponential, perplexity
from fewbits.models import Cell, LanguageModel, recurrent_language_model
from fewbits.study.run import Computed, Configuration, Context
from fewbits.training.language_modelling import LanguageModelling
from fewbits.training.settings import Schedule, Training


class PostTraining(Configuration):
    """One training of a float model, and its perplexity with weights that are quantized then."""

    experiment: ClassVar[str] = "post_training"
    version: ClassVar[int] = 1

    corpus: str = "ptb"
    vocabulary_size: int | None = None  #: None is the corpus's own
    train_tokens: int | None = None  #: the first so many; None is all
    evaluation_tokens: int | None = None  #: of validation and of test text
    cell: Cell = Cell.LSTM
    hidden_size: int = Field(300, ge=1)  #: of embeddings and of the one layer
    dropout: float = Field(0.5, ge=0, lt=1)
    batch_size: int = Field(20, ge=1)
    length: int = Field(30, ge=1)  #: words a window of truncated backpropagation
    training: Training = Training(schedule=Schedule.CALENDAR, constant_epochs=10, decay=1.35, epochs=24)
    seed: int = 0

    @property
    def name(self) -> str:
        """Corpus, cell, units and seed."""
        return f"{self.corpus}-{self.cell}{self.hidden_size}-seed{self.seed}"

    def data_hashes(self) -> dict[str, str]:
        """Return the hashes of the corpus's files."""
        return data_hashes(self.corpus)

    def compute(self, context: Context) -> Computed:
        """Train and evaluate."""
        corpus = self.load()
        model = self.model(len(corpus.vocabulary))
        task = LanguageModelling(model, corpus, batch_size=self.batch_size, length=self.length)
        history = context.trainer(task, self.training).fit()
        metrics: dict[str, Any] = {
            "test_perplexity": perplexity(model, corpus.test, first=corpus.vocabulary.eos),
            "valid_perplexity": exponential(min(row["valid_loss"] for row in history)),
        }
        return Computed(metrics, history, {}, model.state_dict())

    def load(self) -> Corpus:
        """Return the corpus, shortened as the configuration says."""
        corpus = load_corpus(self.corpus, self.vocabulary_size)
        return corpus.shortened(self.train_tokens, self.evaluation_tokens)

    def model(self, vocabulary_size: int) -> LanguageModel:
        """Return the untrained model that ``seed`` gives."""
        torch.manual_seed(self.seed)
        size = self.hidden_size
        return recurrent_language_model(vocabulary_size, size, size, 1, self.cell, self.dropout)
