"""What a classifier costs, by the size of the vocabulary (M4, M8)."""

from collections.abc import Callable
from itertools import product
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from fewbits.classifiers import (
    AdaptiveSoftmax,
    Classifier,
    ClassSoftmax,
    Gradient,
    MaxShift,
    Softmax,
    frequency_classes,
)
from fewbits.evaluation.timing import take_turns
from fewbits.kernels import max_shift_loss_of_logits
from fewbits.study.profiles import Profile
from fewbits.study.run import Computed, Configuration, Context

#: Output layer and loss of each; a function of hidden size and the counts of the words.
LAYERS: dict[str, Callable[[int, Tensor], Classifier]] = {
    "softmax": lambda hidden, counts: Softmax(hidden, len(counts)),
    "max_shift": lambda hidden, counts: MaxShift(hidden, len(counts)),
    "max_shift_forward_only": lambda hidden, counts: MaxShift(hidden, len(counts), gradient=Gradient.SOFTMAX),
    "class_softmax": lambda hidden, counts: ClassSoftmax(hidden, frequency_classes(counts)),
    "adaptive_softmax": AdaptiveSoftmax,
}

#: What is done with given logits: the whole operator, as the slides replace it, and the loss of the right words.
GIVEN_LOGITS: dict[str, dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "operator": {
        "softmax": lambda z, target: F.log_softmax(z, dim=-1),
        "max_shift": lambda z, target: z - z.amax(-1, keepdim=True),
    },
    "loss": {"softmax": F.cross_entropy, "max_shift": max_shift_loss_of_logits},
}


class ClassifierTime(Configuration):
    """Milliseconds of every classifier on one batch, all in turn; words are drawn by Zipf's law, p(rank r) ∝ 1/r.

    Its metrics are ``PART_CLASSIFIER_V``. Parts: ``operator`` and ``loss`` from given logits; ``forward``, output layer
    and loss; ``training``, with all gradients. ``slope_PART_CLASSIFIER`` is the exponent of V that fits best.
    """

    experiment: ClassVar[str] = "classifier_time"
    version: ClassVar[int] = 1

    rows: int = Field(700, ge=1)  #: words of a batch: 20 by 35
    hidden_size: int = Field(256, ge=64)
    vocabulary_sizes: tuple[int, ...] = (10_000, 20_000, 50_000, 100_000)
    rounds: int = Field(9, ge=1)
    seed: int = 0  #: of the numbers, and of the repetition

    @property
    def name(self) -> str:
        """Sizes and seed."""
        return f"rows{self.rows}-hidden{self.hidden_size}-seed{self.seed}"

    def data_hashes(self) -> dict[str, str]:
        """Return nothing: no data is read."""
        return {}

    def compute(self, context: Context) -> Computed:
        """Measure each vocabulary size in turn."""
        torch.manual_seed(self.seed)
        metrics: dict[str, Any] = {}
        for words in self.vocabulary_sizes:
            found = _logits_times(self, words, context.device) | _layer_times(self, words, context.device)
            metrics |= {f"{form}_{words}": 1e3 * seconds for form, seconds in found.items()}
        for form in found:
            metrics[f"slope_{form}"] = _slope({words: metrics[f"{form}_{words}"] for words in self.vocabulary_sizes})
        return Computed(metrics, [], {}, {})


def _logits_times(run: ClassifierTime, words: int, device: str) -> dict[str, float]:
    z = torch.randn(run.rows, words, device=device)
    target = torch.randint(words, (run.rows,), device=device)
    forms = {
        f"{part}_{name}": (lambda form=form: form(z, target))
        for part, of in GIVEN_LOGITS.items()
        for name, form in of.items()
    }
    return take_turns(forms, run.rounds)


def _layer_times(run: ClassifierTime, words: int, device: str) -> dict[str, float]:
    frequency = 1 / torch.arange(1, words + 1, dtype=torch.float64)
    target = torch.multinomial(frequency, run.rows, replacement=True).to(device)
    counts = (1e9 * frequency).long()
    hidden = torch.randn(run.rows, run.hidden_size, device=device).requires_grad_()

    def forward(classifier: Classifier) -> None:
        with torch.no_grad():
            classifier.loss(hidden, target)

    def training(classifier: Classifier) -> None:
        classifier.zero_grad(set_to_none=True)
        hidden.grad = None
        classifier.loss(hidden, target).backward()

    made = {name: make(run.hidden_size, counts).to(device) for name, make in LAYERS.items()}
    forms = {
        f"{part.__name__}_{name}": (lambda part=part, classifier=classifier: part(classifier))
        for part, (name, classifier) in product((forward, training), made.items())
    }
    return take_turns(forms, run.rounds)


def _slope(times: dict[int, float]) -> float:
    """Return the least-squares slope of log time over log V; NaN for one size."""
    if len(times) < 2:
        return float("nan")
    return float(np.polyfit(np.log(list(times)), np.log(list(times.values())), 1)[0])


#: What differs from the full scale, which the field defaults hold.
_SCALES: dict[Profile, dict[str, Any]] = {
    Profile.SMOKE: {"rows": 50, "hidden_size": 64, "vocabulary_sizes": (1_000, 4_000), "rounds": 3},
    Profile.LAPTOP: {"vocabulary_sizes": (5_000, 10_000, 20_000, 50_000), "rounds": 3},
    Profile.FULL: {},
}


def runs(profile: Profile) -> list[ClassifierTime]:
    """Return the runs of a profile; at full five, since times differ from run to run."""
    return [ClassifierTime(seed=seed, **_SCALES[profile]) for seed in range(5 if profile is Profile.FULL else 1)]
