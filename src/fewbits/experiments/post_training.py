"""Recurrent language models quantized after training: the table of Xu et al. 2018, and families of levels (S1)."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from fewbits.data import Corpus
from fewbits.evaluation.perplexity import exponential, perplexity, unigram_perplexity
from fewbits.experiments.choice import check_counts, scaled
from fewbits.experiments.on_text import OnText
from fewbits.models import Cell, LanguageModel, recurrent_language_model
from fewbits.quantizers import (
    Balanced,
    BinaryCodes,
    Codebook,
    Fixed,
    Given,
    LeastError,
    Logarithmic,
    MidRise,
    PerRow,
    PerTensor,
    Quantizer,
    Solver,
    Uniform,
)
from fewbits.study.profiles import Profile
from fewbits.study.run import Computed, Context
from fewbits.training.language_modelling import LanguageModelling
from fewbits.training.loop import History
from fewbits.training.settings import Schedule, Training

TABLE_BITS = (2, 3, 4)  #: of the table of Xu et al.

#: The five methods of the table; alternating for longer; how the first two change with their range; and others, of
#: which linear and k-means levels have one table for a matrix.
METHODS: dict[str, dict[int, Quantizer]] = {
    "uniform": {bits: MidRise(bits) for bits in TABLE_BITS},
    "balanced": {bits: Balanced(bits) for bits in TABLE_BITS},
    **{solver.value: {bits: BinaryCodes(bits, solver) for bits in TABLE_BITS} for solver in Solver},
    "alternating-10-rounds": {bits: BinaryCodes(bits, cycles=10) for bits in TABLE_BITS},
    "uniform-clipped": {bits: MidRise(bits, range=Given(-1, 1)) for bits in TABLE_BITS},
    "uniform-rows": {bits: MidRise(bits, PerRow()) for bits in TABLE_BITS},
    "balanced-rows": {bits: Balanced(bits, PerRow()) for bits in TABLE_BITS},
    "linear-matrix": {bits: Uniform(bits, range=LeastError(32)) for bits in TABLE_BITS},
    "linear-rows": {bits: Uniform(bits, PerRow(), range=LeastError(32)) for bits in TABLE_BITS},
    "logarithmic-rows": {bits: Logarithmic(bits, granularity=PerRow()) for bits in TABLE_BITS},
    "k-means": {bits: Codebook(bits) for bits in TABLE_BITS},
}

#: Families whose signal-to-noise ratio on the trained weights is measured at every width that they have.
FAMILIES: dict[str, dict[int, Quantizer]] = {
    "linear, min-max": {bits: Uniform(bits, PerRow()) for bits in range(2, 13)},
    "linear, least error": {bits: Uniform(bits, PerRow(), range=LeastError(32)) for bits in range(2, 13)},
    "logarithmic, base 2": {bits: Logarithmic(bits, granularity=PerRow()) for bits in range(2, 9)},
    "logarithmic, base √2": {bits: Logarithmic(bits, root=True, granularity=PerRow()) for bits in range(2, 9)},
    "fixed point": {bits: Fixed(0, bits - 1) for bits in range(2, 13)},
    "binary codes": {bits: BinaryCodes(bits) for bits in range(1, 5)},
    "k-means": {bits: Codebook(bits) for bits in range(1, 9)},
}

#: Families that promise the nearest of their levels.
NEAREST = ("linear, min-max", "logarithmic, base 2", "logarithmic, base √2", "fixed point", "k-means")

#: Whose 8 levels over the whole recurrent matrix are kept, to be drawn over its histogram.
LEVELS: dict[str, Quantizer] = {
    "linear": Uniform(3, range=LeastError(32)),
    "logarithmic": Logarithmic(3),
    "binary codes": BinaryCodes(3, granularity=PerTensor()),
    "k-means": Codebook(3),
}

HISTOGRAM = torch.linspace(-1, 1, 401)  #: edges of the histogram of the recurrent weights


class PostTraining(OnText):
    """One training of a float model, and its perplexity with weights that are quantized then."""

    experiment: ClassVar[str] = "post_training"
    version: ClassVar[int] = 1
    keeps_weights: ClassVar[bool] = True

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

    def compute(self, context: Context) -> Computed:
        """Train; then quantize the recurrent matrices, or all matrices, in every way, and evaluate."""
        corpus = self.load()
        model, history = self._trained(corpus, context)
        eos = corpus.vocabulary.eos
        metrics: dict[str, Any] = {
            "test_perplexity": perplexity(model, corpus.test, first=eos),
            "valid_perplexity": exponential(min(row["valid_loss"] for row in history)),
            "unigram_test_perplexity": unigram_perplexity(corpus.train, corpus.test, len(corpus.vocabulary)),
            "epochs": len(history),
        }
        scopes = {"recurrent": matrices(model, recurrent_only=True), "all": matrices(model)}
        for method, by_bits in METHODS.items():
            for bits, quantizer in by_bits.items():
                for scope, weights in scopes.items():
                    cell = f"{scope}_{method}_{bits}"
                    with quantized(weights, quantizer) as error:
                        metrics[f"{cell}_relative_mse"] = error
                        metrics[f"{cell}_perplexity"] = perplexity(model, corpus.test, first=eos)
        recurrent = scopes["recurrent"]
        arrays = {
            family: [x for row in distortion(recurrent, q.values()) for x in row] for family, q in FAMILIES.items()
        }
        metrics |= {f"{family}_excess": excess(recurrent, family) for family in NEAREST}
        arrays["histogram"] = histogram(recurrent[-1])
        arrays |= {f"levels, {name}": q.encode(recurrent[-1]).levels().unique().tolist() for name, q in LEVELS.items()}
        return Computed(metrics, history, arrays, model.state_dict())

    def train(self, context: Context) -> Mapping[str, Tensor]:
        """Return the weights of the float model."""
        return self._trained(self.load(), context)[0].state_dict()

    def _trained(self, corpus: Corpus, context: Context) -> tuple[LanguageModel, History]:
        model = self.model(len(corpus.vocabulary))
        task = LanguageModelling(model, corpus, batch_size=self.batch_size, length=self.length)
        return model, context.trainer(task, self.training).fit()

    def model(self, vocabulary_size: int, activations: Quantizer | None = None) -> LanguageModel:
        """Return the untrained model that ``seed`` gives; its hidden states may be quantized."""
        torch.manual_seed(self.seed)
        size = self.hidden_size
        return recurrent_language_model(
            vocabulary_size, size, size, 1, self.cell, self.dropout, activations=activations
        )


def matrices(model: LanguageModel, *, recurrent_only: bool = False) -> list[nn.Parameter]:
    """Return the two matrices of the recurrent layer; with ``recurrent_only`` False embeddings and output as well."""
    return [p for name, p in model.named_parameters() if p.dim() == 2 and (not recurrent_only or "rnn" in name)]


@contextmanager
def quantized(weights: list[nn.Parameter], quantizer: Quantizer) -> Iterator[float]:
    """Give ``weights`` their quantized values for a while; yield ‖q − w‖² / ‖w‖² over all of them."""
    floats = [weight.detach().clone() for weight in weights]
    try:
        with torch.no_grad():
            for weight, value in zip(weights, floats, strict=True):
                weight.copy_(quantizer(value))
        yield _relative_mse(weights, floats)
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, floats, strict=True):
                weight.copy_(value)


def _relative_mse(values: list[nn.Parameter], floats: list[Tensor]) -> float:
    pairs = list(zip(values, floats, strict=True))
    error = sum(float((value.detach() - true).double().square().sum()) for value, true in pairs)
    return error / sum(float(true.double().square().sum()) for _, true in pairs)


def distortion(weights: list[nn.Parameter], quantizers: Iterable[Quantizer]) -> list[tuple[float, float]]:
    """Return, for each quantizer, bits a weight with all tables, and 10 log10(‖w‖² / ‖q − w‖²) in dB."""
    rows = []
    for quantizer in quantizers:
        bits = sum(quantizer.encode(weight).bits for weight in weights) / sum(weight.numel() for weight in weights)
        with quantized(weights, quantizer) as error:
            rows.append((bits, float(-10 * torch.log10(torch.tensor(error, dtype=torch.float64)))))
    return rows


def excess(weights: list[nn.Parameter], family: str) -> float:
    """Return by how much the worst weight misses the nearest of its levels, as a part of the largest weight.

    The nearest level is searched in NumPy in float64, for every weight and width of the family.
    """
    worst = 0.0
    for quantizer in FAMILIES[family].values():
        for weight in weights:
            codes = quantizer.encode(weight)
            rows = weight.detach().double().cpu().numpy().reshape(codes.groups, -1)
            found = np.abs(codes.decode().double().cpu().numpy().reshape(codes.groups, -1) - rows)
            for row, missed, levels in zip(rows, found, codes.levels().double().cpu().numpy(), strict=True):
                above = np.searchsorted(levels, row).clip(1, len(levels) - 1)
                least = np.minimum(np.abs(row - levels[above - 1]), np.abs(levels[above] - row))
                worst = max(worst, float((missed - least).max() / np.abs(rows).max()))
    return worst


def histogram(weight: Tensor) -> list[float]:
    """Return the counts of the weights, those beyond the edges in the outermost bins."""
    values = weight.detach().float().cpu().flatten().clamp(HISTOGRAM[0], HISTOGRAM[-1])
    counts: list[float] = torch.histogram(values, HISTOGRAM).hist.tolist()
    return counts


#: What differs from the scale of Xu et al., which the field defaults hold.
_SCALES: dict[Profile, dict[str, Any]] = {
    Profile.SMOKE: {
        "corpus": "news", "vocabulary_size": 1_000, "train_tokens": 20_000, "evaluation_tokens": 500,
        "hidden_size": 24, "dropout": 0.0, "batch_size": 50, "length": 10,
        "training": Training(learning_rate=15.0, epochs=3),
    },
    Profile.LAPTOP: {
        "corpus": "news", "vocabulary_size": 4_000, "train_tokens": 90_000, "evaluation_tokens": 4_000,
        "hidden_size": 100, "dropout": 0.2, "training": Training(epochs=3),
    },
    Profile.FULL: {},
}  # fmt: skip


def runs(
    profile: Profile,
    *,
    cells: list[Cell] | None = None,
    seeds: int | None = None,
    corpus: str | None = None,
    epochs: int | None = None,
) -> list[PostTraining]:
    """Return the runs of a profile; what is None is what the profile says.

    Args:
        profile: smoke, laptop or full.
        cells: lstm, gru or both; both unless stated, at smoke the LSTM.
        seeds: how many, counted from 0; one unless stated.
        corpus: name of a corpus with its own vocabulary size where the profile has none.
        epochs: number of epochs.

    Raises:
        FewbitsError: If a number is below 1.
    """
    check_counts(seeds=seeds, epochs=epochs)
    scale = scaled(PostTraining, _SCALES[profile], corpus=corpus, epochs=epochs)
    cells = cells or ([Cell.LSTM] if profile is Profile.SMOKE else list(Cell))
    return [
        PostTraining(
            cell=cell, seed=seed, **(_slower(scale) if cell is Cell.GRU and profile is Profile.FULL else scale)
        )
        for seed in range(seeds or 1)
        for cell in cells
    ]


def _slower(scale: dict[str, Any]) -> dict[str, Any]:
    """Return the fields for a GRU: at the LSTM's rate of 20 its training diverged in the ninth epoch."""
    training: Training = scale.get("training", PostTraining.model_fields["training"].default)
    return scale | {"training": training.model_copy(update={"learning_rate": 8.0})}
