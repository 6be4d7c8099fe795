"""Why binary and ternary LSTMs do what they do: one change at a time, short trainings (claims S2, S5, S6, S7)."""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, ClassVar, Optional, Self

import numpy as np
import torch
from pydantic import model_validator
from torch import Tensor, nn

from fewbits.data import Corpus
from fewbits.evaluation.recurrent_dynamics import dynamics
from fewbits.experiments.choice import check_arms, check_counts, scaled
from fewbits.experiments.lstm_perplexity import ARMS as RULES
from fewbits.experiments.lstm_perplexity import LstmPerplexity
from fewbits.models import Backward, Cell, GatewiseLSTM, LanguageModel, Normalisation
from fewbits.models.gatewise import GATES
from fewbits.packed import choose
from fewbits.quantize import pack, quantize, quantized_weights, sites
from fewbits.quantizers import Binary, Quantizer
from fewbits.study.profiles import Profile
from fewbits.study.run import Computed, Context
from fewbits.training.controls import Control, control
from fewbits.training.loop import Diverged
from fewbits.training.settings import Optimizer, Schedule, Training

STREAMS, STEPS = 20, 35  #: of validation text, on which the dynamics are measured


class Initialiser(StrEnum):
    """How the LSTM starts."""

    PYTORCH = "pytorch"  #: uniform in ±1/√hidden, or ±``initial_range``
    #: W uniform with variance 2 / (inputs + 4 hidden), U orthogonal, biases 0 but 1 for the forget gate
    KERAS = "keras"


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
    training: Training = Training(epochs=4, schedule=Schedule.CALENDAR, constant_epochs=2)

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
        return Computed(metrics, history, {"gradient_norms": found.gradient_norms}, computed.weights)

    def model(self, vocabulary_size: int, context: Context) -> LanguageModel:
        """Return the model, untrained, with what this run changes."""
        model = self.float_model(vocabulary_size)
        if self.initialiser is Initialiser.KERAS:
            _start_as_keras(model.body.rnn)  # type: ignore[arg-type]
        if self.gatewise:
            model.body.rnn = GatewiseLSTM(model.body.rnn, self.normalisation, self.backward)  # type: ignore[arg-type]
        if self.control is not None:
            control(model, self.quantizers, self.control)
        elif self.norms_of is not None:
            with torch.random.fork_rng():
                floats = context.start(self.norms_of)
            quantize(model, _matched(model, self.quantizers, floats))
        elif self.weights:
            quantize(model, self.quantizers)
        return model


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


def _start_as_keras(lstm: nn.LSTM) -> None:
    with torch.no_grad():
        for name, parameter in lstm.named_parameters():
            if "weight_ih" in name:
                nn.init.xavier_uniform_(parameter)
            elif "weight_hh" in name:
                nn.init.orthogonal_(parameter)
            else:
                nn.init.zeros_(parameter)
                if "bias_ih" in name:
                    parameter[lstm.hidden_size : 2 * lstm.hidden_size] = 1


def _matched(model: LanguageModel, weights: dict[str, Quantizer], floats: Any) -> dict[str, Quantizer]:
    """Return for each weight the binary quantizer with which it starts at the norm ‖·‖₂ that it has in ``floats``."""
    known = sites(model)
    scales: dict[str, Quantizer] = {}
    for name, quantizer in choose(known, weights, "parameter").items():
        module, attribute = known[name]
        signs = quantizer.encode(getattr(module, attribute)).integers
        largest = [torch.linalg.matrix_norm(each.double(), 2) for each in (floats[name], signs)]
        scales[name] = Binary(scale=float(largest[0] / largest[1]))
    return scales


Arms = dict[str, dict[str, Any]]  #: what differs in each arm from the float model
ALL = "rnn.weight_*"
DRAWN = "rounding=Rounding.STOCHASTIC"
#: A scale for all four gates of a matrix, and one for each.
MEANS = {"mean": "scale=Scale.MEAN_ABSOLUTE", "mean-per-gate": "scale=Scale.MEAN_ABSOLUTE, granularity=PerGate()"}
TRIALS = 8  #: of each rule in the search


def _rules(training: Training) -> Arms:
    return RULES


def _cures(training: Training) -> Arms:
    """Normalised gates, for every rule; TWN for each matrix, since each gate has its own."""
    weight = {"gatewise": True, "normalisation": Normalisation.WEIGHT}
    layer = {"gatewise": True, "normalisation": Normalisation.LAYER}
    rules = RULES | {"twn": {"weights": {ALL: "TWN()"}}}
    normalised = {f"{rule}-weight-norm": changes | weight for rule, changes in rules.items()}
    return normalised | {"binary-layer-norm": RULES["binary"] | layer}


def _parts(training: Training) -> Arms:
    """Rules that hold for one gate, one matrix, or one side of the LSTM."""
    parts = {gate: f"*_{gate}" for gate in GATES} | {"input": "ih_*", "recurrent": "hh_*"}
    parts |= {f"{side}-l{layer}": f"{side}_l{layer}_*" for side in ("ih", "hh") for layer in (0, 1)}
    return {
        f"{rule}-{part}": {"gatewise": True, "weights": {f"rnn.weight_{pattern}": quantizer}}
        for rule, quantizer in {"binary": "Binary()", "twn": "TWN()"}.items()
        for part, pattern in parts.items()
    }


def _binary(training: Training) -> Arms:
    """Binary weights with other scales, chance, gradients and sizes."""
    limited = training.model_copy(update={"quantized_limit": 1.0})
    drawn = {"weights": {ALL: f"Binary({DRAWN})"}, "training": limited}
    through_floats = {"gatewise": True, "backward": Backward.FLOAT}
    return {
        "binary-matched": RULES["binary"] | {"norms_of": "float"},
        "binary-float-backward": RULES["binary"] | through_floats,
        "binary-stochastic": drawn,
        "binary-stochastic-float-backward": drawn | through_floats,
        **{f"binary-{name}": {"weights": {ALL: f"Binary({how})"}} for name, how in MEANS.items()},
        **{
            f"binary-stochastic-{name}": {"weights": {ALL: f"Binary({how}, {DRAWN})"}, "training": limited}
            for name, how in MEANS.items()
        },
        **{f"binary-{n}-layers": RULES["binary"] | {"layers": n} for n in (1, 3)},
        **{f"binary-{n}-units": RULES["binary"] | {"hidden_size": n, "embedding_size": n} for n in (100, 400)},
    }


def _threshold(training: Training) -> Arms:
    """Other thresholds, each with a start just beyond it; T = 0.5 from starts far below it; TWN without gates."""
    half = {"weights": RULES["ternary"]["weights"]}
    clipped = training.model_copy(update={"clip": 2.5})
    own_rates = training.model_copy(update={"quantized_limit": 1.0, "glorot_rates": True})
    adam = Training(learning_rate=1e-3, epochs=training.epochs, optimizer=Optimizer.ADAM, schedule=Schedule.CONSTANT)
    return {
        **{
            f"ternary-{t:g}": {"weights": {ALL: f"Ternary({t})"}, "initial_range": round(1.04 * t, 4)}
            for t in (0.1, 0.25, 1.0, 0.05)
        },
        "ternary-narrow": half,
        "ternary-narrow-clip": half | {"training": clipped},
        "ternary-narrow-rates": half | {"training": own_rates},
        "ternary-keras": half | {"training": adam, "initialiser": Initialiser.KERAS},
        "twn-per-tensor": {"weights": {ALL: "TWN()"}},
    }


def _controls(training: Training) -> Arms:
    """Float models with what else a ternary one has: noise, zeros, less capacity; and longer trainings."""
    twice = {"epochs": 2 * training.epochs, "constant_epochs": 2 * training.constant_epochs}
    longer = {"training": training.model_copy(update=twice)}
    return {
        "float-noise": RULES["twn"] | {"control": Control.NOISE},
        "float-mask": RULES["twn"] | {"control": Control.MASK},
        "float-dropout": {"dropout": 0.4},
        **{f"{rule}-longer": RULES[rule] | longer for rule in ("float", "twn", "ternary")},
    }


def _search(training: Training) -> Arms:
    """Random choices of rate, clip and dropout; a trial is the same choice for every rule."""
    return {
        f"{rule}-trial{trial}": RULES[rule] | _drawn(trial, training)
        for trial in range(TRIALS)
        for rule in ("float", "twn", "ternary")
    }


def _drawn(trial: int, training: Training) -> dict[str, Any]:
    random = np.random.default_rng(trial)
    rate, clip = (float(f"{np.exp(random.uniform(*np.log(ends))):.3g}") for ends in ((5, 40), (0.1, 1)))
    chosen = training.model_copy(update={"learning_rate": rate, "clip": clip})
    return {"dropout": round(random.uniform(0, 0.6), 2), "training": chosen}


#: The questions, and the arms that answer each.
QUESTIONS: dict[str, Callable[[Training], Arms]] = {
    "rules": _rules, "cures": _cures, "parts": _parts, "binary": _binary, "controls": _controls,
    "threshold": _threshold, "search": _search,
}  # fmt: skip


def arms_of(question: str | None = None, training: Training | None = None) -> Arms:
    """Return the arms of one question or of all, and what differs in each from the float model.

    Args:
        question: a key of :data:`QUESTIONS`; all unless stated.
        training: of the float model; that of a full run unless stated.
    """
    training = training or LstmAblation.model_fields["training"].default
    chosen = QUESTIONS if question is None else [question]
    return {arm: changes for each in chosen for arm, changes in QUESTIONS[each](training).items()}


#: What differs from the seminar's scale, and the arms that are run unless others are asked for; at full all of them.
_SCALES: dict[Profile, dict[str, Any]] = {
    Profile.SMOKE: {
        "corpus": "news", "vocabulary_size": 500, "train_tokens": 5_000, "evaluation_tokens": 1_000,
        "embedding_size": 32, "hidden_size": 32, "layers": 1, "dropout": 0.0, "batch_size": 10, "length": 20,
        "training": Training(learning_rate=10.0, epochs=1),
    },
    Profile.LAPTOP: {
        "corpus": "news", "vocabulary_size": 2_000, "train_tokens": 100_000, "evaluation_tokens": 10_000,
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


REPEATED = ("float", "binary", "binary-f", "binary-stochastic")  #: at full with three seeds: a claim is judged by them


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
