"""A feed-forward language model that learns through softmax, max-shift, class softmax or adaptive softmax (M8)."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, cast

import torch
from pydantic import Field, field_validator
from torch import Tensor

from fewbits.classifiers import (
    AdaptiveSoftmax,
    Classifier,
    ClassSoftmax,
    Constant,
    Gradient,
    MaxShift,
    Softmax,
    TopBit,
    frequency_classes,
)
from fewbits.data import Corpus
from fewbits.evaluation.perplexity import accuracy, fit_temperature, perplexity, unigram_perplexity
from fewbits.evaluation.timing import seconds_on
from fewbits.experiments.choice import check_arms, check_counts
from fewbits.experiments.on_text import OnText
from fewbits.models import FeedForwardBody, LanguageModel
from fewbits.study.profiles import Profile
from fewbits.study.run import Computed, Context
from fewbits.training.averaging import Averaging
from fewbits.training.language_modelling import LanguageModelling
from fewbits.training.settings import Optimizer, Schedule, Training
from fewbits.training.timed import Timed


def _max_shift(gradient: Gradient, shift: Constant | TopBit) -> Callable[[int, Tensor], Classifier]:
    return lambda hidden, counts: MaxShift(hidden, len(counts), shift, gradient)


#: The classifiers that are trained through: a function of hidden size and the counts of the words each.
ARMS: dict[str, Callable[[int, Tensor], Classifier]] = {
    "softmax": lambda hidden, counts: Softmax(hidden, len(counts)),
    "max-shift": _max_shift(Gradient.OWN, Constant(0.0)),
    "max-shift-forward-only": _max_shift(Gradient.SOFTMAX, Constant(0.0)),
    "max-shift-unnormalised": _max_shift(Gradient.UNNORMALISED, Constant(0.0)),
    "max-shift-unnormalised-top-bit": _max_shift(Gradient.UNNORMALISED, TopBit(4)),
    "class-softmax": lambda hidden, counts: ClassSoftmax(hidden, frequency_classes(counts)),
    "adaptive-softmax": AdaptiveSoftmax,
}


class FnnlmTraining(OnText):
    """One training of a feed-forward language model through one classifier, with one optimizer for all."""

    experiment: ClassVar[str] = "fnnlm_training"
    version: ClassVar[int] = 1

    arm: str  #: a name from `ARMS`
    order: int = Field(4, ge=2)  #: n of the n-gram model
    embedding_size: int = Field(64, ge=1)
    hidden_size: int = Field(128, ge=1)
    batch_size: int = Field(20, ge=1)
    length: int = Field(35, ge=1)  #: words of each stream in a step
    training: Training = Training(
        optimizer=Optimizer.ADAM, learning_rate=2e-3, clip=1e9, epochs=3, schedule=Schedule.CONSTANT
    )
    seed: int = 0

    @field_validator("arm")
    @classmethod
    def _known(cls, arm: str) -> str:
        if arm not in ARMS:
            raise ValueError(f"unknown arm {arm}; there are {', '.join(ARMS)}")
        return arm

    @property
    def name(self) -> str:
        """Corpus, arm and seed."""
        return f"{self.corpus}-{self.arm}-seed{self.seed}"

    def compute(self, context: Context) -> Computed:
        """Train, look at both the last and the averaged weights after every epoch, test the averaged ones."""
        corpus = self.load()
        words = len(corpus.vocabulary)
        counts = torch.bincount(corpus.train.long(), minlength=words)
        torch.manual_seed(self.seed)
        body = FeedForwardBody(words, self.embedding_size, self.hidden_size, self.order)
        model = LanguageModel(body, ARMS[self.arm](self.hidden_size, counts))
        task = Watched(model, corpus, batch_size=self.batch_size, length=self.length)
        timed = Timed(task, partial(seconds_on, context.device))
        history = context.trainer(timed, self.training).fit()
        history = [row | of for row, of in zip(history, task.accuracies, strict=True)]
        average, eos = cast(LanguageModel, task.averaged), corpus.vocabulary.eos
        scaleless = isinstance(average.classifier, MaxShift)
        metrics: dict[str, Any] = {
            "temperature": fit_temperature(average, corpus.valid, first=eos) if scaleless else None,
            "test_perplexity": perplexity(average, corpus.test, first=eos),
            "test_accuracy": accuracy(average, corpus.test, first=eos),
            "test_accuracy_of_last": accuracy(model, corpus.test, first=eos),
            "unigram_test_perplexity": unigram_perplexity(corpus.train, corpus.test, words),
            "majority_accuracy": (corpus.test == counts.argmax()).double().mean().item(),
            "vocabulary_size": words,
            "train_tokens": len(corpus.train),
            "test_tokens": len(corpus.test),
        }
        return Computed(metrics, history, {}, average.state_dict(), provenance={"epoch_seconds": timed.seconds})


class Watched(Averaging):
    """Language modelling with averaged weights, and the accuracy of both after each epoch."""

    def __init__(self, model: LanguageModel, corpus: Corpus, *, batch_size: int, length: int) -> None:
        super().__init__(LanguageModelling(model, corpus, batch_size=batch_size, length=length))
        self.corpus = corpus
        self.accuracies: list[dict[str, float]] = []  #: of validation text, one row an epoch

    def validate(self) -> float:
        """Return the mean −log p with the last weights; note the accuracy of these and of the average."""
        loss = super().validate()
        valid, eos = self.corpus.valid, self.corpus.vocabulary.eos
        both = {"valid_accuracy": self.model, "valid_accuracy_of_average": self.averaged}
        self.accuracies.append({name: accuracy(cast(LanguageModel, m), valid, first=eos) for name, m in both.items()})
        return loss

    def state(self) -> Any:
        """Return the state of task and average, and what was noted."""
        return [super().state(), self.accuracies]

    def restore(self, state: Any) -> None:
        """Take all of it."""
        averaging, self.accuracies = state
        super().restore(averaging)


#: What differs from the full scale, which the field defaults hold.
_SCALES: dict[Profile, dict[str, Any]] = {
    Profile.SMOKE: {
        "corpus": "news", "vocabulary_size": 1_000, "train_tokens": 20_000, "evaluation_tokens": 2_000, "length": 10,
    },
    Profile.LAPTOP: {
        "corpus": "news", "vocabulary_size": 2_000, "train_tokens": 60_000, "evaluation_tokens": 5_000, "length": 10,
    },
    Profile.FULL: {},
}  # fmt: skip

_ARMS: dict[Profile, tuple[str, ...]] = {
    Profile.SMOKE: ("softmax", "max-shift", "max-shift-forward-only"),
    Profile.LAPTOP: tuple(ARMS),
    Profile.FULL: ("softmax", "max-shift", "class-softmax", "adaptive-softmax", "max-shift-unnormalised"),
}

_REPEATED = ("softmax", "max-shift")  #: what full trains with three seeds; the others with one


def runs(profile: Profile, *, arms: list[str] | None = None, seeds: int | None = None) -> list[FnnlmTraining]:
    """Return the runs of a profile; what is None is what the profile says.

    Args:
        profile: smoke, laptop or full.
        arms: names from :data:`ARMS`.
        seeds: how many, counted from 0; None is one, and at full three for softmax and max-shift.

    Raises:
        FewbitsError: If an arm is unknown, ``arms`` is empty, or ``seeds`` is below 1.
    """
    check_arms(arms, ARMS)
    check_counts(seeds=seeds)
    repeated = _REPEATED if profile is Profile.FULL else ()
    return [
        FnnlmTraining(arm=arm, seed=seed, **_SCALES[profile])
        for seed in range(seeds or 3)
        for arm in arms or _ARMS[profile]
        if seeds or seed == 0 or arm in repeated
    ]
