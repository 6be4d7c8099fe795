"""What each arm changes of the float model, by the question that it answers."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fewbits.experiments.lstm_ablation.start import Initialiser
from fewbits.experiments.lstm_perplexity import ARMS as RULES
from fewbits.models import Backward, Normalisation
from fewbits.models.gatewise import GATES
from fewbits.training.controls import Control
from fewbits.training.settings import Optimizer, Schedule, Training

Arms = dict[str, dict[str, Any]]  #: what differs in each arm from the float model
ALL = "rnn.weight_*"
DRAWN = "rounding=Rounding.STOCHASTIC"
#: A scale for all four gates of a matrix, and one for each.
MEANS = {"mean": "scale=Scale.MEAN_ABSOLUTE", "mean-per-gate": "scale=Scale.MEAN_ABSOLUTE, granularity=PerGate()"}
#: Of an arm at full, unless it says otherwise.
TRAINING = Training(epochs=4, schedule=Schedule.CALENDAR, constant_epochs=2)
TRIALS = 8  #: of each rule in the search
HOU = 28.0  #: 2 √hidden: what the rate of quantized weights is multiplied with in the LSTMs of Hou et al. 2019


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
        "binary-clipped": RULES["binary"] | {"training": limited},
        "binary-matched": RULES["binary"] | {"norms_of": "float"},
        "binary-matched-input": RULES["binary"] | {"norms_of": "float", "matched": "*weight_ih*"},
        "binary-matched-recurrent": RULES["binary"] | {"norms_of": "float", "matched": "*weight_hh*"},
        "binary-rates": RULES["binary"] | {"training": training.model_copy(update={"quantized_rate": HOU})},
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
    """Other thresholds, each with a start just beyond it; T = 0.5 from starts far below it; TWN without gates.

    Codes have no scale and gradients pass straight through. So threshold T, start and rate η are T = 1 with the start
    1/T times as wide and the rate η / T for these weights: other thresholds are other rates.
    """
    half = {"weights": RULES["ternary"]["weights"]}
    clipped = training.model_copy(update={"clip": 2.5})
    own_rates = training.model_copy(update={"quantized_rate": HOU})
    adam = Training(
        learning_rate=1e-3, clip=1e3, epochs=training.epochs, optimizer=Optimizer.ADAM, schedule=Schedule.CONSTANT
    )
    return {
        **{
            f"ternary-{t:g}": {"weights": {ALL: f"Ternary({t})"}, "initial_range": round(1.04 * t, 4)}
            for t in (0.1, 0.25, 1.0, 0.05)
        },
        "ternary-narrow": half,
        "ternary-narrow-clip": half | {"training": clipped},
        "ternary-narrow-rates": half | {"training": own_rates},
        # with one layer: behind a second of zeros the first would have no gradient, ever
        "ternary-keras": half | {"training": adam, "initialiser": Initialiser.KERAS, "layers": 1},
        "float-keras": {"training": adam, "initialiser": Initialiser.KERAS, "layers": 1},
        "twn-per-tensor": {"weights": {ALL: "TWN()"}},
    }


def _controls(training: Training) -> Arms:
    """Float models with what else a ternary one has: noise, zeros, less capacity; all of them trained for longer."""
    twice = {"epochs": 2 * training.epochs, "constant_epochs": 2 * training.constant_epochs}
    longer = {"training": training.model_copy(update=twice)}
    return {
        "float-noise": RULES["twn"] | {"control": Control.NOISE} | longer,
        "float-mask": RULES["twn"] | {"control": Control.MASK} | longer,
        "float-dropout": {"dropout": 0.4} | longer,
        **{f"{rule}-longer": RULES[rule] | longer for rule in ("float", "twn", "ternary")},
    }


def _search(training: Training) -> Arms:
    """Random choices of rates, clip and dropout; a trial is the same choice for every rule."""
    return {f"{rule}-trial{trial}": RULES[rule] | _drawn(trial, training) for trial in range(TRIALS) for rule in RULES}


def _drawn(trial: int, training: Training) -> dict[str, Any]:
    random = np.random.default_rng(trial)
    rate, clip = (float(f"{np.exp(random.uniform(*np.log(ends))):.3g}") for ends in ((5, 40), (0.1, 1)))
    dropout, quantized_rate = (
        round(random.uniform(0, 0.6), 2),
        float(f"{np.exp(random.uniform(*np.log((0.3, 30)))):.3g}"),
    )
    changed = {"learning_rate": rate, "clip": clip, "quantized_rate": quantized_rate}
    return {"dropout": dropout, "training": training.model_copy(update=changed)}


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
    training = training or TRAINING
    chosen = QUESTIONS if question is None else [question]
    return {arm: changes for each in chosen for arm, changes in QUESTIONS[each](training).items()}
