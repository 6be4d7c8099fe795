"""Perplexity of an LSTM language model with binary, ternary and float recurrent weights (claims S2, S6, S7)."""

import tempfile
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn

from fewbits.data import Corpus
from fewbits.evaluation.perplexity import exponential, perplexity, unigram_perplexity
from fewbits.experiments.choice import Quantizers, check_arms, check_counts, scaled
from fewbits.experiments.on_text import OnText
from fewbits.models import Cell, LanguageModel, recurrent_language_model
from fewbits.quantize import pack, quantize, quantized_weights, size_report
from fewbits.quantizers import Quantizer, parse
from fewbits.study.profiles import Profile
from fewbits.study.run import Computed, Context
from fewbits.training.language_modelling import LanguageModelling
from fewbits.training.loop import History
from fewbits.training.settings import Schedule, Training

#: The arms of the comparison: what is quantized, and what has to differ for it to train at all.
ARMS: dict[str, dict[str, Any]] = {
    "float": {},
    "twn": {"weights": {"rnn.weight_*": "TWN(PerGate())"}},
    # In ±1/√200 every weight would start below T and stay there; just above T, one in 26 starts at −1 or +1.
    "ternary": {"weights": {"rnn.weight_*": "Ternary(0.5)"}, "initial_range": 0.52},
    "binary": {"weights": {"rnn.weight_*": "Binary()"}},
}

HISTOGRAM = torch.linspace(-1.5, 1.5, 121)  #: edges of the weight histograms


class LstmPerplexity(OnText):
    """One training of the seminar's model: embedding, LSTM layers, softmax; some matrices quantized."""

    experiment: ClassVar[str] = "lstm_perplexity"
    version: ClassVar[int] = 1
    keeps_weights: ClassVar[bool] = True  #: other experiments convert the float model, or take its norms

    arm: str  #: which weights are quantized, in a word
    weights: Quantizers = Field({})  #: quantizer of each pattern of parameter names
    cell: Cell = Cell.LSTM
    embedding_size: int = Field(200, ge=1)
    hidden_size: int = Field(200, ge=1)
    layers: int = Field(2, ge=1)
    dropout: float = Field(0.2, ge=0, lt=1)
    initial_range: float | None = None  #: of recurrent weights, not of biases; None is 1/√hidden
    batch_size: int = Field(20, ge=1)
    length: int = Field(35, ge=1)  #: words a window of truncated backpropagation
    #: a calendar, so that every arm ends at a small rate: on a plateau schedule the rate of no arm fell in 12 epochs
    training: Training = Training(schedule=Schedule.CALENDAR, constant_epochs=6, decay=2.0)
    seed: int = 0

    @property
    def name(self) -> str:
        """Corpus, cell, arm and seed."""
        return f"{self.corpus}-{self.cell}-{self.arm}-seed{self.seed}"

    @property
    def large_products(self) -> bool:
        """Yes: those with the output layer."""
        return True

    def compute(self, context: Context) -> Computed:
        """Train, evaluate on validation and test text, pack and measure the size."""
        return self.measured(*self.trained(context))

    def trained(self, context: Context) -> tuple[LanguageModel, Corpus, History]:
        """Return the trained model, the text that it read, and one row an epoch."""
        corpus = self.load()
        torch.manual_seed(self.seed)
        model = self.model(len(corpus.vocabulary), context)
        task = LanguageModelling(model, corpus, batch_size=self.batch_size, length=self.length)
        return model, corpus, context.trainer(task, self.training).fit()

    def model(self, vocabulary_size: int, context: Context) -> LanguageModel:
        """Return the model, untrained and quantized."""
        model = self.float_model(vocabulary_size)
        if self.weights:
            quantize(model, self.quantizers)
        return model

    @property
    def quantizers(self) -> dict[str, Quantizer]:
        """The quantizer of each pattern of parameter names."""
        return {pattern: parse(text) for pattern, text in self.weights.items()}

    def float_model(self, vocabulary_size: int) -> LanguageModel:
        """Return the model, untrained, before anything is quantized."""
        sizes = self.embedding_size, self.hidden_size, self.layers
        model = recurrent_language_model(vocabulary_size, *sizes, self.cell, self.dropout)
        if self.initial_range is not None:
            for name, parameter in model.body.rnn.named_parameters():  # type: ignore[union-attr]
                if name.startswith("weight"):
                    nn.init.uniform_(parameter, -self.initial_range, self.initial_range)
        return model

    def measured(self, model: LanguageModel, corpus: Corpus, history: History) -> Computed:
        """Return perplexities, sizes and histograms of a trained model."""
        eos = corpus.vocabulary.eos
        metrics: dict[str, Any] = {
            "test_perplexity": perplexity(model, corpus.test, first=eos),
            "valid_perplexity": exponential(min(row["valid_loss"] for row in history)),
            "unigram_test_perplexity": unigram_perplexity(corpus.train, corpus.test, len(corpus.vocabulary)),
            "epochs": len(history),
            "vocabulary_size": len(corpus.vocabulary),
            "train_tokens": len(corpus.train),
            "test_tokens": len(corpus.test),
            "parameters": sum(p.numel() for p in model.parameters()),
        }
        return Computed(metrics | _sizes(model), history, _histograms(model), model.state_dict())


def _sizes(model: LanguageModel) -> dict[str, float | int]:
    recurrent = [p.numel() for name, p in model.named_parameters() if "rnn" in name and "weight" in name]
    float_bits = 32 * sum(p.numel() for p in model.parameters())
    if not any(True for _ in quantized_weights(model)):
        return {"size_bits": float_bits, "float_bits": float_bits, "recurrent_bits": 32 * sum(recurrent)}
    packed = pack(model)
    report = size_report(packed)
    zeros = sum(int((codes.integers == 0).sum()) for codes in packed.codes.values())
    with tempfile.TemporaryDirectory() as folder:
        file_bytes = packed.save(folder)
    return {
        "size_bits": report.bits,
        "float_bits": report.float_bits,
        "file_bytes": file_bytes,
        "recurrent_bits": sum(row.bits for row in report.tensors if row.quantizer != "float"),
        "zero_fraction": zeros / sum(recurrent),
    }


def _histograms(model: LanguageModel) -> dict[str, list[float]]:
    """Counts of the float weights of each recurrent matrix, those beyond the edges in the outermost bins."""
    counts = {}
    for name, parameter in model.named_parameters():
        if "rnn" in name and "weight" in name:
            values = parameter.detach().float().cpu().clamp(HISTOGRAM[0], HISTOGRAM[-1])
            short = name.removeprefix("body.").replace("parametrizations.", "").removesuffix(".original")
            counts[short] = torch.histogram(values, HISTOGRAM).hist.tolist()
    return counts


#: What differs from the document's scale, which the field defaults hold.
_SCALES: dict[Profile, dict[str, Any]] = {
    Profile.SMOKE: {
        "corpus": "news", "vocabulary_size": 500, "train_tokens": 30_000, "evaluation_tokens": 3_000,
        "embedding_size": 48, "hidden_size": 48, "layers": 1, "dropout": 0.0, "batch_size": 10, "length": 20,
        "training": Training(learning_rate=10.0, epochs=1),
    },
    Profile.LAPTOP: {
        "corpus": "news", "vocabulary_size": 5_000, "train_tokens": 300_000, "evaluation_tokens": 50_000,
        "training": Training(epochs=3),
    },
    Profile.FULL: {},
}  # fmt: skip

REPEATED = 3  #: seeds of each arm at full: the claims are judged by them


def runs(
    profile: Profile,
    *,
    arms: list[str] | None = None,
    seeds: int | None = None,
    corpus: str | None = None,
    epochs: int | None = None,
) -> list[LstmPerplexity]:
    """Return the runs of a profile; what is None is what the profile says.

    Args:
        profile: smoke, laptop or full.
        arms: names from :data:`ARMS`.
        seeds: how many, counted from 0; three at full, else one, unless stated.
        corpus: name of a corpus with its own vocabulary size where the profile has none.
        epochs: largest number of epochs.

    Raises:
        FewbitsError: If an arm is unknown, ``arms`` is empty, or a number is below 1.
    """
    check_arms(arms, ARMS)
    check_counts(seeds=seeds, epochs=epochs)
    scale = scaled(LstmPerplexity, _SCALES[profile], corpus=corpus, epochs=epochs)
    seeds = seeds or (REPEATED if profile is Profile.FULL else 1)
    return [LstmPerplexity(arm=arm, seed=seed, **(scale | ARMS[arm])) for seed in range(seeds) for arm in arms or ARMS]
