"""A feed-forward language model trained through series of exp and ln, and the gap log Σ exp z − max z (M6, M7)."""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from pydantic import Field, field_validator
from torch import Tensor

from fewbits.classifiers import (
    Classifier,
    Logarithm,
    PowerSoftmax,
    Softmax,
    TaylorSoftmax,
    log2_of_sum,
)
from fewbits.data import Corpus
from fewbits.evaluation.normaliser import best_constant, gap_statistics
from fewbits.evaluation.perplexity import (
    accuracy,
    evaluating,
    fit_temperature,
    hidden_states,
    perplexity,
    unigram_perplexity,
)
from fewbits.experiments.choice import check_arms, check_counts
from fewbits.experiments.on_text import Count, OnText
from fewbits.models import FeedForwardBody, LanguageModel
from fewbits.study.profiles import Profile
from fewbits.study.run import Computed, Context
from fewbits.training.language_modelling import LanguageModelling
from fewbits.training.loop import Diverged
from fewbits.training.settings import Training

ORDERS = range(1, 9)  #: of the series
SLIDES_ORDERS = (2, 4, 8)  #: of both of the slides' series together


def _taylor(order: int, first: int, logarithm: Logarithm) -> Callable[[int, int], Classifier]:
    return lambda hidden, words: TaylorSoftmax(hidden, words, order=order, first=first, logarithm=logarithm)


#: The classifiers that are trained through: a function of hidden size and vocabulary size each.
ARMS: dict[str, Callable[[int, int], Classifier]] = {
    "softmax": Softmax,
    "power": lambda hidden, words: PowerSoftmax(hidden, words, base=2.0),
    **{f"taylor-{first}-{order}": _taylor(order, first, Logarithm.EXACT) for first in (0, 1) for order in ORDERS},
    **{f"slides-sum-{order}": _taylor(order, 1, Logarithm.OF_SUM) for order in SLIDES_ORDERS},
    **{f"slides-quotient-{order}": _taylor(order, 1, Logarithm.OF_QUOTIENT) for order in SLIDES_ORDERS},
}

SCALES = (0, 2, 4)  #: s: the slides' integers are round(z · 2^s)


class MaxShiftTheory(OnText):
    """One training of a feed-forward language model through one classifier; a training that diverges is a result."""

    experiment: ClassVar[str] = "max_shift_theory"
    version: ClassVar[int] = 1

    arm: str  #: a name from `ARMS`
    vocabulary_size: Count | None = 2_000
    train_tokens: Count | None = 100_000
    evaluation_tokens: Count | None = 10_000
    gap_tokens: int = Field(4_000, ge=1)  #: of these, how many contexts the gap is measured in
    order: int = Field(4, ge=2)  #: n of the n-gram model
    embedding_size: int = Field(64, ge=1)
    hidden_size: int = Field(128, ge=1)
    batch_size: int = Field(20, ge=1)
    length: int = Field(10, ge=1)  #: words of each stream in a step
    training: Training = Training(learning_rate=5.0, epochs=2)
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
        return f"{self.corpus}-feed-forward-{self.arm}-seed{self.seed}"

    def compute(self, context: Context) -> Computed:
        """Train until the last epoch or until a loss is not finite; evaluate; for softmax measure the gap."""
        corpus = self.load()
        words = len(corpus.vocabulary)
        torch.manual_seed(self.seed)
        body = FeedForwardBody(words, self.embedding_size, self.hidden_size, self.order)
        model = LanguageModel(body, ARMS[self.arm](self.hidden_size, words))
        task = LanguageModelling(model, corpus, batch_size=self.batch_size, length=self.length)
        trainer = context.trainer(task, self.training)
        unigram = unigram_perplexity(corpus.train, corpus.test, words)
        metrics: dict[str, Any] = {
            "unigram_test_perplexity": unigram,
            "vocabulary_size": words,
            "train_tokens": len(corpus.train),
            "test_tokens": len(corpus.test),
        }
        arrays: dict[str, list[float]] = {}
        try:
            trainer.fit()
        except Diverged:
            metrics |= {"diverged": 1, "converged": 0, "test_perplexity": None, "test_accuracy": None}
            metrics |= {"temperature": None}
        else:
            metrics |= _evaluated(model, corpus)
            metrics |= {"diverged": 0, "converged": int(metrics["test_perplexity"] < unigram)}
            if isinstance(model.classifier, Softmax):
                found, arrays = _gap(model, corpus, self.gap_tokens)
                metrics |= found
        history = list(trainer.at["history"])
        metrics |= {"epochs": len(history), "steps": len(history) * task.steps + trainer.at["step"]}
        return Computed(metrics, history, arrays, model.state_dict())


def _evaluated(model: LanguageModel, corpus: Corpus) -> dict[str, float | None]:
    """Return perplexity and accuracy on the test text; scores without a scale get a temperature on validation text."""
    eos, temperature = corpus.vocabulary.eos, None
    if isinstance(model.classifier, TaylorSoftmax) and not model.classifier.is_positive:
        temperature = fit_temperature(model, corpus.valid, first=eos)
    return {
        "test_perplexity": perplexity(model, corpus.test, first=eos),
        "test_accuracy": accuracy(model, corpus.test, first=eos),
        "temperature": temperature,
    }


def _logits(model: LanguageModel, tokens: Tensor, eos: int) -> Iterator[Tensor]:
    with evaluating(model), torch.no_grad():
        for hidden, _ in hidden_states(model, tokens, first=eos):
            yield model.classifier.output(hidden).float()  # type: ignore[operator]


def _gap(model: LanguageModel, corpus: Corpus, number: int) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Return how log Σ exp z − max z is distributed on the test text, how near `TopBit` comes, what bounds hold."""
    eos, test = corpus.vocabulary.eos, corpus.test[:number]
    constant = best_constant(_logits(model, corpus.valid[:number], eos))
    metrics, arrays = gap_statistics(_logits(model, test, eos), constant)
    holds = torch.zeros(2, len(SCALES), dtype=torch.float64)
    for z in _logits(model, test, eos):
        for place, scale in enumerate(SCALES):
            holds[:, place] += torch.stack(bounds_hold((z * 2.0**scale).round().long())).sum(-1).cpu()
    holds /= len(test)
    arrays |= {"base_2_by_scale": holds[0].tolist(), "base_e_by_scale": holds[1].tolist()}
    return metrics | {"bound_base_2": holds[0, 0].item(), "bound_base_e": holds[1, 0].item()}, arrays


def bounds_hold(q: Tensor) -> tuple[Tensor, Tensor]:
    """Return for rows of integer scores (…, V) whether n ≤ log Σ ≤ n + 1 in base 2 and in base e, (…,) each.

    n is the top bit of Σ 2^q in both, as the slides read it: log is log2 Σ 2^q in the first, ln Σ e^q in the second.
    Σ 2^(q − max q) in float64 is exact as long as no score is more than 52 below the highest; words lower than that
    cannot change the top bit of a float64 sum but by rounding up to a power of two, which the bound allows.

    >>> bounds_hold(torch.tensor([[0, 0], [0, 1]]))              # ln 2 < 1; and ln(1 + e) lies between 1 and 2
    (tensor([True, True]), tensor([False, True]))
    """
    gaps = q.amax(-1, keepdim=True) - q
    n = log2_of_sum(gaps).squeeze(-1).double()
    binary = torch.exp2(-gaps.double()).sum(-1)
    natural = gaps.neg().double().logsumexp(-1)
    base_2 = (torch.exp2(n) <= binary) & (binary <= torch.exp2(n + 1))
    return base_2, (n <= natural) & (natural <= n + 1)


#: What differs from the full scale, which the field defaults hold.
_SCALES: dict[Profile, dict[str, Any]] = {
    Profile.SMOKE: {
        "corpus": "news", "vocabulary_size": 300, "train_tokens": 20_000, "evaluation_tokens": 2_000,
        "gap_tokens": 2_000,
    },
    Profile.LAPTOP: {
        "corpus": "news", "train_tokens": 50_000, "evaluation_tokens": 5_000, "gap_tokens": 2_000,
    },
    Profile.FULL: {},
}  # fmt: skip

_ARMS: dict[Profile, tuple[str, ...]] = {
    Profile.SMOKE: ("softmax", "taylor-0-2", "taylor-1-3"),
    Profile.LAPTOP: (
        "softmax", "power", "taylor-0-1", "taylor-0-2", "taylor-0-4", "taylor-1-1", "taylor-1-2", "slides-sum-2",
        "slides-quotient-2",
    ),
    Profile.FULL: tuple(ARMS),
}  # fmt: skip


def runs(profile: Profile, *, arms: list[str] | None = None, seeds: int | None = None) -> list[MaxShiftTheory]:
    """Return the runs of a profile; what is None is what the profile says.

    Args:
        profile: smoke, laptop or full.
        arms: names from :data:`ARMS`.
        seeds: how many, counted from 0; three at full, one else unless stated.

    Raises:
        FewbitsError: If an arm is unknown, ``arms`` is empty, or ``seeds`` is below 1.
    """
    check_arms(arms, ARMS)
    check_counts(seeds=seeds)
    number = seeds or (3 if profile is Profile.FULL else 1)
    return [
        MaxShiftTheory(arm=arm, seed=seed, **_SCALES[profile])
        for seed in range(number)
        for arm in arms or _ARMS[profile]
    ]
