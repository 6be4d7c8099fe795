"""The tutorial's translator, trained through softmax and max-shift, tested on pairs it knows and on others (M9)."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, cast

import torch
from pydantic import Field, field_validator
from torch import Tensor

from fewbits.classifiers import Classifier, MaxShift, Softmax
from fewbits.data import data_hashes
from fewbits.evaluation.timing import seconds_on
from fewbits.experiments.choice import check_counts
from fewbits.experiments.seq2seq_translation import translations
from fewbits.experiments.seq2seq_translation.texts import Texts, split_texts
from fewbits.models.seq2seq import Seq2Seq
from fewbits.study.profiles import Profile
from fewbits.study.run import Computed, Configuration, Context
from fewbits.training.averaging import Averaging
from fewbits.training.loop import History
from fewbits.training.settings import Schedule, Training
from fewbits.training.timed import Timed
from fewbits.training.translation import BATCHED, TUTORIAL, Translation

#: The classifiers that are trained through. Max-shift has its own gradient: the slides say that backward is affected.
ARMS: dict[str, Callable[[int, int], Classifier]] = {"softmax": Softmax, "max-shift": MaxShift}


class Seq2SeqTranslation(Configuration):
    """One seed: each arm trained on the same pairs and tested on the same sentences, so that tests can be paired."""

    experiment: ClassVar[str] = "seq2seq_translation"
    version: ClassVar[int] = 1
    processor_only: ClassVar[bool] = True

    arms: tuple[str, ...] = tuple(ARMS)
    corpus: str = "eng-fra"
    pairs: int | None = None  #: the first so many; None is all
    test_size: int = Field(1_000, ge=1)  #: pairs in each test, see `split_pairs`
    hidden_size: int = Field(256, ge=1)
    batch_size: int = Field(64, ge=1)
    steps: int | None = None  #: batches an epoch, drawn with replacement as in the tutorial; None is all pairs once
    training: Training = BATCHED
    seed: int = 0  #: of the split, the weights and the order

    @field_validator("arms")
    @classmethod
    def _known(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        if not arms or set(arms) - ARMS.keys() or len(set(arms)) < len(arms):
            raise ValueError(f"arms are {', '.join(arms) or 'none'}; each is one of {', '.join(ARMS)}, once")
        return arms

    @field_validator("training")
    @classmethod
    def _as_long_for_all(cls, training: Training) -> Training:
        if training.schedule is not Schedule.CONSTANT:
            raise ValueError("arms are compared epoch by epoch, so their schedule is CONSTANT")
        return training

    @property
    def name(self) -> str:
        """Corpus, schedule, arms and seed."""
        schedule = "batched" if self.steps is None else "tutorial"
        return "-".join([self.corpus, schedule, *self.arms, f"seed{self.seed}"])

    def data_hashes(self) -> dict[str, str]:
        """Return the hashes of the parallel text."""
        return data_hashes(self.corpus)

    def compute(self, context: Context) -> Computed:
        """Train the arms, translate the tests in each way, score, and test the arms against each other."""
        text = split_texts(self.corpus, self.pairs, self.test_size, self.seed)
        corpus = text.corpus
        metrics: dict[str, Any] = {"source_words": len(corpus.source), "target_words": len(corpus.target)}
        metrics |= {"training_pairs": len(text.training)}
        arrays: dict[str, list[float]] = {}
        examples = [text.outside[place] for place in translations.longest(text)]
        said = {
            side: [" ".join(pair[place]) for pair in examples] for place, side in enumerate(("source", "reference"))
        }
        history: History = []
        weights: dict[str, Tensor] = {}
        seconds: dict[str, float] = {}
        written: dict[str, translations.Written] = {}
        for arm in self.arms:
            models, rows, seconds[arm] = self._trained(arm, text, context.part(arm))
            history = _joined(history, arm, rows)
            if arm == "softmax":
                numbers, arrays = translations.gap(models[arm], text)
                metrics |= numbers
            for name, model in models.items():
                if isinstance(model.classifier, MaxShift):
                    metrics[f"{name}_temperature"] = translations.fit_temperature(model.classifier, model, text)
                written[name], same = translations.translate(model, text)
                metrics |= {f"{name}_{which}": share for which, share in same.items()}
                outside = written[name]["outside", "greedy"]
                said[name] = [outside[place] for place in translations.longest(text)]
                maps = translations.attention(model, text, outside)
                arrays |= {f"{name}_attention_{place}": shown for place, shown in enumerate(maps)}
                weights |= {f"{name}.{part}": tensor for part, tensor in model.state_dict().items()}
        numbers, intervals = translations.score(written, text)
        made = {"training_seconds": seconds}
        return Computed(metrics | numbers, history, arrays | intervals, weights, texts=said, provenance=made)

    def _trained(self, arm: str, text: Texts, context: Context) -> tuple[dict[str, Seq2Seq], History, float]:
        """Return the trained model, for max-shift also that with averaged weights, by name; history and seconds."""
        torch.manual_seed(self.seed)
        source, target = text.corpus.source, text.corpus.target
        classifier = ARMS[arm](self.hidden_size, len(target))
        model = Seq2Seq(len(source), classifier, sos=target.sos, eos=target.eos, max_length=text.longest)
        pairs = (text.numbers(text.training), text.numbers(text.validation))
        task = Averaging(Translation(model, *pairs, batch_size=self.batch_size, steps=self.steps))
        timed = Timed(task, partial(seconds_on, context.device))
        history = context.trainer(timed, self.training).fit()
        averaged = {f"{arm}-averaged": cast(Seq2Seq, task.averaged)} if isinstance(classifier, MaxShift) else {}
        return {arm: model} | averaged, history, round(sum(timed.seconds), 1)


def _joined(history: History, arm: str, rows: History) -> History:
    """Put the losses of an arm beside those of the arms before it, epoch by epoch."""
    named = [
        {"epoch": row["epoch"]} | {f"{arm}_{loss}": row[loss] for loss in ("train_loss", "valid_loss")} for row in rows
    ]
    return [before | row for before, row in zip(history or named, named, strict=True)]


#: What differs from the full scale, which the field defaults hold.
_SCALES: dict[Profile, dict[str, Any]] = {
    Profile.SMOKE: {
        "corpus": "bible-en-fr", "pairs": 400, "test_size": 40, "hidden_size": 32,
        "training": BATCHED.model_copy(update={"epochs": 2}),
    },
    Profile.LAPTOP: {
        "corpus": "bible-en-fr", "test_size": 200, "hidden_size": 128,
        "training": BATCHED.model_copy(update={"epochs": 6}),
    },
    Profile.FULL: {},
}  # fmt: skip


def runs(profile: Profile, *, seeds: int | None = None) -> list[Seq2SeqTranslation]:
    """Return the runs of a profile; at full also one with the tutorial's own schedule, 75,000 pairs one at a time.

    Args:
        profile: smoke, laptop or full.
        seeds: how many, counted from 0; None is three at full, one else.

    Raises:
        FewbitsError: If ``seeds`` is below 1.
    """
    check_counts(seeds=seeds)
    number = seeds or (3 if profile is Profile.FULL else 1)
    batched = [Seq2SeqTranslation(seed=seed, **_SCALES[profile]) for seed in range(number)]
    if profile is not Profile.FULL:
        return batched
    return [*batched, *(Seq2SeqTranslation(arms=(arm,), batch_size=1, steps=7_500, training=TUTORIAL) for arm in ARMS)]
