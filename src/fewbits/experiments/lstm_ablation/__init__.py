"""Why binary and ternary LSTMs do what they do: one change at a time, short trainings (claims S2, S5, S6, S7)."""

from fnmatch import fnmatchcase
from typing import Any, ClassVar, Optional, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from fewbits.data import Corpus
from fewbits.evaluation.perplexity import perplexity
from fewbits.evaluation.recurrent_dynamics import dynamics
from fewbits.experiments.choice import check_arms, check_counts, scaled
from fewbits.experiments.lstm_ablation.arms import QUESTIONS, TRAINING, TRIALS, arms_of
from fewbits.experiments.lstm_ablation.start import Initialiser, start_as_keras, usual_gains
from fewbits.experiments.lstm_perplexity import LstmPerplexity
from fewbits.models import Backward, Cell, GatewiseLSTM, LanguageModel, Normalisation
from fewbits.models.gatewise import GATES
from fewbits.patterns import choose
from fewbits.quantize import pack, quantize, quantized_weights, sites
from fewbits.quantizers import Binary, Quantizer, Rounding
from fewbits.study.profiles import Profile
from fewbits.study.run import Computed, Context
from fewbits.training.controls import Control, control
from fewbits.training.loop import Diverged
from fewbits.training.settings import Training

__all__ = ["QUESTIONS", "TRIALS", "LstmAblation", "arms_of", "runs"]

STREAMS, STEPS = 20, 35  #: of validation text, on which the dynamics are measured


class LstmAblation(LstmPerplexity):
    """A short training of the seminar's model with one thing changed."""

    experiment: ClassVar[str] = "lstm_ablation"
    version: ClassVar[int] = 1

    gatewise: bool = False  #: whether each gate has matrices of its own, so that patterns can name them
    normalisation: Normalisation = Normalisation.NONE
    backward: Backward = Backward.QUANTIZED
    initialiser: Initialiser = Initialiser.PYTORCH
    control: Control | None = None  #: what stands in the place of the quantizers, which then say how large it is
    norms_of: Optional["LstmAblation"] = None  #: the run whose norms ‖·‖₂ binary weights start with, by a fixed scale
    matched: str = Field("*", exclude_if=lambda pattern: pattern == "*")  #: the names of the weights that do so
    training: Training = TRAINING

    @model_validator(mode="after")
    def _possible(self) -> Self:
        changed = self.normalisation is not Normalisation.NONE or self.backward is not Backward.QUANTIZED
        if changed and not self.gatewise:
            raise ValueError("a normalisation, and a backward pass of its own, are those of gatewise matrices")
        if self.cell is not Cell.LSTM:
            raise ValueError("these are changes of an LSTM")
        return self

    @property
    def name(self) -> str:
        """Corpus, arm and seed."""
        return f"{self.corpus}-ablation-{self.arm}-seed{self.seed}"

    def compute(self, context: Context) -> Computed:
        """Train, evaluate, and measure norms, gates and gradients; a training that diverges has no perplexity."""
        try:
            model, corpus, history = self.trained(context)
        except Diverged:
            return Computed({"diverged": True, "test_perplexity": None, "valid_perplexity": None}, [], {}, {})
        computed = self.measured(model, corpus, history)
        found = dynamics(model, _streams(corpus))
        metrics = computed.metrics | {"diverged": False}
        metrics |= {f"norm_{gate}": norm for gate, norm in found.spectral_norms.items()}
        metrics |= {f"saturated_{gate}": share for gate, share in found.saturated.items()}
        metrics |= {f"zero_fraction_{gate}": share for gate, share in _zeros(model).items()}
        if any(getattr(each, "rounding", None) is Rounding.STOCHASTIC for each in self.quantizers.values()):
            metrics["copies_test_perplexity"] = self._with_float_copies(model, corpus)
        return Computed(metrics, history, {"gradient_norms": found.gradient_norms}, computed.weights)

    def model(self, vocabulary_size: int, context: Context) -> LanguageModel:
        """Return the model, untrained, with what this run changes."""
        model = self.float_model(vocabulary_size)
        if self.initialiser is Initialiser.KERAS:
            start_as_keras(model.body.rnn)  # type: ignore[arg-type]
        if self.gatewise:
            model.body.rnn = GatewiseLSTM(model.body.rnn, self.normalisation, self.backward)  # type: ignore[arg-type]
            if self.normalisation is Normalisation.WEIGHT and self.initial_range is not None:
                usual_gains(model.body.rnn, self.initial_range)
        if self.control is not None:
            control(model, self.quantizers, self.control)
        elif self.norms_of is not None:
            with torch.random.fork_rng():
                floats = context.start(self.norms_of)
            quantize(model, self._matched(model, floats))
        elif self.weights:
            quantize(model, self.quantizers)
        return model

    def _matched(self, model: LanguageModel, floats: Any) -> dict[str, Quantizer]:
        """Return each weight's quantizer: binary, and if it is matched from the norm ‖·‖₂ on that it has in floats."""
        known = sites(model)
        found: dict[str, Quantizer] = {}
        for name, quantizer in choose(known, self.quantizers, "parameter").items():
            module, attribute = known[name]
            signs = quantizer.encode(getattr(module, attribute)).integers
            largest = [torch.linalg.matrix_norm(each.double(), 2) for each in (floats[name], signs)]
            scaled_to = Binary(scale=float(largest[0] / largest[1]))
            found[name] = scaled_to if fnmatchcase(name, self.matched) else quantizer
        return found

    def _with_float_copies(self, model: LanguageModel, corpus: Corpus) -> float:
        """Return the test perplexity of the float copies: what chance averages, and what BinaryConnect tests with."""
        with torch.random.fork_rng():
            plain = self.float_model(len(corpus.vocabulary))
        if self.gatewise:
            plain.body.rnn = GatewiseLSTM(plain.body.rnn, self.normalisation)  # type: ignore[arg-type]
        values = model.state_dict()
        quantized = {name: f".parametrizations.{name.rpartition('.')[2]}.original" for name in plain.state_dict()}
        copies = {name: values.get(name.rpartition(".")[0] + place) for name, place in quantized.items()}
        plain.load_state_dict({name: values[name] if copy is None else copy for name, copy in copies.items()})
        return perplexity(plain.to(corpus.test.device), corpus.test, first=corpus.vocabulary.eos)


def _streams(corpus: Corpus) -> Tensor:
    """Return the first words of the validation text as (time, streams), fewer streams if it is short."""
    streams = max(1, min(STREAMS, len(corpus.valid) // (STEPS + 1)))
    length = min(STEPS + 1, len(corpus.valid))
    return corpus.valid[: streams * length].view(streams, length).t()


def _zeros(model: LanguageModel) -> dict[str, float]:
    """Return the share of zeros among the codes of each gate that is quantized."""
    if not any(True for _ in quantized_weights(model)):
        return {}
    codes: dict[str, list[Tensor]] = {gate: [] for gate in GATES}
    for name, found in pack(model).codes.items():
        own = name[-1]
        parts = {own: found.integers} if own in GATES else dict(zip(GATES, found.integers.chunk(4), strict=True))
        for gate, part in parts.items():
            codes[gate].append(part.flatten())
    return {gate: float((torch.cat(each) == 0).double().mean()) for gate, each in codes.items() if each}


#: What differs from the seminar's scale, and the arms that are run unless others are asked for; at full all of them.
_SCALES: dict[Profile, dict[str, Any]] = {
    Profile.SMOKE: {
        "corpus": "news", "vocabulary_size": 500, "train_tokens": 5_000, "evaluation_tokens": 1_000,
        "embedding_size": 32, "hidden_size": 32, "layers": 1, "dropout": 0.0, "batch_size": 10, "length": 20,
        "training": Training(learning_rate=10.0, epochs=1),
    },
    Profile.LAPTOP: {
        "corpus": "news", "vocabulary_size": 2_000, "train_tokens": 80_000, "evaluation_tokens": 10_000,
        "embedding_size": 100, "hidden_size": 100, "training": Training(epochs=1),
    },
    Profile.FULL: {},
}  # fmt: skip
_CHOSEN = {
    Profile.SMOKE: ["float", "binary", "binary-f", "binary-matched", "binary-weight-norm"],
    Profile.LAPTOP: [
        "float", "binary", "twn", "binary-f", "binary-input", "binary-recurrent", "binary-matched",
        "binary-weight-norm", "float-noise", "float-mask",
    ],
    Profile.FULL: list(arms_of()),
}  # fmt: skip


#: At full with three seeds: claims are judged by them.
REPEATED = ("float", "binary", "binary-f", "binary-i", "binary-g", "binary-o", "binary-clipped", "binary-stochastic")


def runs(
    profile: Profile, *, arms: list[str] | None = None, seeds: int | None = None, epochs: int | None = None
) -> list[LstmAblation]:
    """Return the runs of a profile; what is None is what the profile says.

    Args:
        profile: smoke, laptop or full.
        arms: names of :func:`arms_of`.
        seeds: how many, counted from 0; one unless stated, at full two more of :data:`REPEATED`.
        epochs: largest number of epochs.

    Raises:
        FewbitsError: If an arm is unknown, ``arms`` is empty, or a number is below 1.
    """
    check_counts(seeds=seeds, epochs=epochs)
    scale = scaled(LstmAblation, _SCALES[profile], epochs=epochs)
    known = arms_of(training=scale.get("training"))
    check_arms(arms, known)
    chosen = arms or _CHOSEN[profile]
    wanted = [(arm, seed) for seed in range(seeds or 1) for arm in chosen]
    if seeds is None and profile is Profile.FULL:
        wanted += [(arm, seed) for seed in (1, 2) for arm in REPEATED if arm in chosen]
    made = []
    for arm, seed in wanted:
        start = {"norms_of": LstmAblation(arm="float", seed=seed, **scale)} if "norms_of" in known[arm] else {}
        made.append(LstmAblation(arm=arm, seed=seed, **(scale | known[arm] | start)))
    return made
