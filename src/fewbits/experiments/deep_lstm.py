"""A deep LSTM whose weights are quantized after training: how errors add up, how biased gradients are (Q10, Q11)."""

import copy
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from fewbits.data import Corpus, contiguous
from fewbits.evaluation.perplexity import evaluating, perplexity
from fewbits.evaluation.quantization_error import (
    SmoothedGradient,
    depth_errors,
    estimated_gradient,
    relative_distance,
    with_matrices,
)
from fewbits.experiments.choice import check_counts, scaled
from fewbits.experiments.on_text import Count, OnText
from fewbits.models import LanguageModel, RecurrentBody, recurrent_language_model
from fewbits.quantize import quantize
from fewbits.quantizers import (
    Binary,
    ClippedStraightThrough,
    Estimator,
    LeastError,
    PerRow,
    Quantizer,
    Scale,
    SoftStaircase,
    StraightThrough,
    Uniform,
)
from fewbits.study.profiles import Profile
from fewbits.study.run import Computed, Context
from fewbits.training.language_modelling import LanguageModelling
from fewbits.training.settings import Optimizer, Schedule, Training

BITS = tuple(range(2, 9))  #: of the errors
COMPRESSED = tuple(range(1, 9))  #: bits of the gradients

#: What comes back through the staircase. The clipped one stops the gradient of weights that lie outside their range.
ESTIMATORS: dict[str, Estimator] = {
    "straight through": StraightThrough(),
    "clipped": ClippedStraightThrough(0.25),
    "soft staircase, 4": SoftStaircase(4.0),
    "soft staircase, 16": SoftStaircase(16.0),
}


def quantizer(bits: int, estimator: Estimator = ESTIMATORS["straight through"]) -> Quantizer:
    """Return the quantizer of so many bits: uniform with the range of least error and a scale a row, 1 bit the sign."""
    if bits == 1:
        return Binary(Scale.MEAN_ABSOLUTE, granularity=PerRow(), estimator=estimator)
    return Uniform(bits, PerRow(), range=LeastError(20), estimator=estimator)


def _weights(bits: int, estimator: Estimator = ESTIMATORS["straight through"]) -> dict[str, Quantizer]:
    return {"rnn.weight_*": quantizer(bits, estimator)}


class DeepLstm(OnText):
    """One training of a float LSTM of several layers; then errors and gradients with quantized recurrent matrices."""

    experiment: ClassVar[str] = "deep_lstm"
    version: ClassVar[int] = 1

    vocabulary_size: Count | None = 2_000
    train_tokens: Count | None = 300_000
    evaluation_tokens: Count | None = 20_000
    hidden_size: int = Field(128, ge=1)  #: of embeddings and of every layer
    layers: int = Field(4, ge=2)
    dropout: float = Field(0.1, ge=0, lt=1)
    initial_range: float = Field(0.2, gt=0)  #: of recurrent weights; from ±1/√hidden so deep a stack hardly learns
    batch_size: int = Field(20, ge=1)
    length: int = Field(35, ge=1)  #: words a window of truncated backpropagation
    probe_length: int = Field(
        100, ge=2
    )  #: steps of the ``batch_size`` streams of test text that errors are measured on
    draws: int = Field(32, ge=2)  #: of noise, for the gradient of the smoothed loss
    training: Training = Training(
        optimizer=Optimizer.ADAM, learning_rate=3e-3, clip=1.0, schedule=Schedule.CALENDAR, constant_epochs=4,
        decay=3.0, epochs=6,
    )  # fmt: skip
    seed: int = 0

    @property
    def name(self) -> str:
        """Corpus, layers and seed."""
        return f"{self.corpus}-{self.layers}-layers-seed{self.seed}"

    def compute(self, context: Context) -> Computed:
        """Train; measure errors by depth and by time, perplexities, and the bias of gradients."""
        corpus = self.load()
        torch.manual_seed(self.seed)
        size = self.hidden_size
        model = recurrent_language_model(
            len(corpus.vocabulary), size, size, self.layers, dropout=self.dropout, initial_range=self.initial_range
        )
        task = LanguageModelling(model, corpus, batch_size=self.batch_size, length=self.length)
        history = context.trainer(task, self.training).fit()
        with evaluating(model):
            metrics, arrays = self._errors(model, corpus)
            with torch.backends.cudnn.flags(enabled=False):  # cuDNN has no gradient of an LSTM in evaluation
                biases, courses = self._biases(model, corpus)
        return Computed(metrics | biases, history, arrays | courses, model.state_dict())

    def _errors(self, model: LanguageModel, corpus: Corpus) -> tuple[dict[str, Any], dict[str, list[float]]]:
        eos = corpus.vocabulary.eos
        metrics: dict[str, Any] = {"test_perplexity": perplexity(model, corpus.test, first=eos)}
        layers = single_layers(model)
        with torch.no_grad():
            inputs = _body(model).embedding(self._probe(model, corpus)[:-1])
        courses, arrays = depth_errors(layers, inputs, {bits: quantizer(bits) for bits in BITS})
        metrics |= courses
        for bits in BITS:
            arrays[f"time_{bits}"] = error_by_time(layers, inputs, quantizer(bits))
            coarse = copy.deepcopy(model)
            quantize(coarse, _weights(bits))
            metrics[f"test_perplexity_{bits}"] = perplexity(coarse, corpus.test, first=eos)
        return metrics, arrays

    def _biases(self, model: LanguageModel, corpus: Corpus) -> tuple[dict[str, Any], dict[str, list[float]]]:
        words = self._probe(model, corpus)[: self.length + 1]

        def loss(of: nn.Module) -> Tensor:
            assert isinstance(of, LanguageModel)
            return of.loss(words[:-1], words[1:])[0]

        metrics: dict[str, Any] = {}
        arrays: dict[str, list[float]] = {f"{kind}_{name}": [] for kind in ("bias", "cosine") for name in ESTIMATORS}
        for bits in COMPRESSED:
            smoothed = SmoothedGradient.sample(model, _weights(bits), loss, draws=self.draws, seed=self.seed)
            for name, estimator in ESTIMATORS.items():
                found = smoothed.bias(estimated_gradient(model, _weights(bits, estimator), loss))
                arrays[f"bias_{name}"].append(found.relative)
                arrays[f"cosine_{name}"].append(found.cosine)
            metrics[f"bias_{bits}"] = arrays["bias_straight through"][-1]
        return metrics, arrays

    def _probe(self, model: LanguageModel, corpus: Corpus) -> Tensor:
        """Return test text in ``batch_size`` streams, (probe_length + 1, batch_size)."""
        device = next(model.parameters()).device
        return contiguous(corpus.test, self.batch_size)[: self.probe_length + 1].to(device, torch.long)


def _body(model: LanguageModel) -> RecurrentBody:
    assert isinstance(model.body, RecurrentBody)
    return model.body


def single_layers(model: LanguageModel) -> list[nn.Module]:
    """Return the layers of the model's LSTM as modules of one layer each, with copies of its weights."""
    rnn = _body(model).rnn
    layers: list[nn.Module] = []
    for number in range(rnn.num_layers):
        layer = nn.LSTM(rnn.input_size if number == 0 else rnn.hidden_size, rnn.hidden_size)
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        layer.load_state_dict({f"{kind}_l0": getattr(rnn, f"{kind}_l{number}") for kind in kinds})
        layers.append(layer.to(next(rnn.parameters()).device))
    return layers


def error_by_time(layers: list[nn.Module], inputs: Tensor, quantizer: Quantizer) -> list[float]:
    """Return the relative error of the last layer's state at each step, all layers quantized from the zero state on."""
    true = coarse = inputs
    with torch.no_grad():
        for layer in layers:
            true, coarse = layer(true)[0], with_matrices(layer, quantizer)(coarse)[0]
    return [relative_distance(found, expected) for found, expected in zip(coarse, true, strict=True)]


#: What differs from the full scale, which the field defaults hold.
_SCALES: dict[Profile, dict[str, Any]] = {
    Profile.SMOKE: {
        "corpus": "news", "vocabulary_size": 500, "train_tokens": 12_000, "evaluation_tokens": 1_000,
        "hidden_size": 20, "layers": 3, "dropout": 0.0, "length": 15, "probe_length": 20, "draws": 2,
        "training": Training(optimizer=Optimizer.ADAM, learning_rate=1e-2, clip=1.0, epochs=2),
    },
    Profile.LAPTOP: {
        "corpus": "news", "vocabulary_size": 2_000, "train_tokens": 60_000, "evaluation_tokens": 5_000,
        "hidden_size": 64, "draws": 8,
        "training": Training(optimizer=Optimizer.ADAM, learning_rate=5e-3, clip=1.0, epochs=3),
    },
    Profile.FULL: {},
}  # fmt: skip


def runs(profile: Profile, *, seeds: int | None = None, corpus: str | None = None) -> list[DeepLstm]:
    """Return the runs of a profile; what is None is what the profile says.

    Args:
        profile: smoke, laptop or full.
        seeds: how many, counted from 0; three at full, one below.
        corpus: name of a corpus with its own vocabulary size where the profile has none.

    Raises:
        FewbitsError: If the number of seeds is below 1.
    """
    check_counts(seeds=seeds)
    scale = scaled(DeepLstm, _SCALES[profile], corpus=corpus)
    return [DeepLstm(seed=seed, **scale) for seed in range(seeds or (3 if profile is Profile.FULL else 1))]
